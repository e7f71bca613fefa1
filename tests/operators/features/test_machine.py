"""What the machine promises about cuts, series, restarts, missing values and bad bars."""

import itertools
import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.features import COLUMNS, FeatureMachine, Indicator, batch_features, vector_matrix
from schemas.features import FEATURE_SCHEMAS, FEATURES
from tests.operators.features.series import (
    BAR_NS,
    make_bars,
    recorded_bars,
    recorded_series,
    same_bits,
)

FS64 = FEATURE_SCHEMAS["fs64"]
EXTRAS = (Indicator("prior_high_20"), Indicator("sma_100"), Indicator("prior_volume_mean_60"))
BARS = recorded_bars()[:900]
CUTS = st.lists(st.integers(0, BARS.height), max_size=12).map(
    lambda cuts: [0, *sorted(cuts), BARS.height]
)


def run(bars: pl.DataFrame, cuts: list[int], *, restart: bool = False) -> pl.DataFrame:
    machine, parts = FeatureMachine(FS64, EXTRAS), []
    for first, last in itertools.pairwise(cuts):
        parts.append(machine.update(bars[first:last]))
        if restart:
            machine = pickle.loads(pickle.dumps(machine))
    return pl.concat(parts)


@settings(max_examples=40)
@given(cuts=CUTS)
def test_no_cut_of_the_stream_changes_a_bit(cuts):
    assert same_bits(run(BARS, cuts), run(BARS, [0, BARS.height]))


@settings(max_examples=25)
@given(cuts=CUTS)
def test_restart_from_a_snapshot_changes_no_bit(cuts):
    assert same_bits(run(BARS, cuts, restart=True), run(BARS, [0, BARS.height]))


def test_one_bar_at_a_time_changes_no_bit():
    assert same_bits(run(BARS, list(range(BARS.height + 1))), run(BARS, [0, BARS.height]))


def test_values_do_not_depend_on_later_bars():
    whole = run(BARS, [0, BARS.height])
    spoilt = BARS.with_columns(
        pl.when(pl.int_range(pl.len()) < 500).then(pl.col(name)).otherwise(pl.lit(1.0)).alias(name)
        for name in ("open", "high", "low", "close", "volume", "buy_volume")
    )

    assert same_bits(run(spoilt, [0, BARS.height])[:500], whole[:500])
    assert not same_bits(run(spoilt, [0, BARS.height])[500:], whole[500:])


@settings(max_examples=25)
@given(data=st.data())
def test_other_series_in_between_change_no_bit(data):
    names = ["A", "B", "C"]
    counts = [data.draw(st.integers(1, 90)) for _ in names]
    series = {
        name: recorded_series("ETHUSDT")[k * 300 : k * 300 + count].with_columns(
            symbol=pl.lit(name)
        )
        for k, (name, count) in enumerate(zip(names, counts, strict=True))
    }
    order = data.draw(
        st.permutations([n for n, c in zip(names, counts, strict=True) for _ in range(c)])
    )
    taken = dict.fromkeys(names, 0)
    rows = []
    for name in order:
        rows.append(series[name][taken[name]])
        taken[name] += 1
    mixed = pl.concat(rows)

    together = FeatureMachine(FS64, EXTRAS).update(mixed)

    for name, bars in series.items():
        alone = FeatureMachine(FS64, EXTRAS).update(bars)
        assert same_bits(together.filter(mixed["symbol"] == name), alone)


def test_timeframes_and_venues_are_series_of_their_own():
    bars = recorded_series(count=120)
    alone = FeatureMachine(FS64).update(bars)
    others = [
        bars.with_columns(timeframe=pl.lit("1h")),
        bars.with_columns(venue=pl.lit("elsewhere")),
    ]

    machine = FeatureMachine(FS64)
    machine.update(bars)

    assert all(same_bits(machine.update(other), alone) for other in others)
    assert len(machine.series) == 3


def test_every_feature_starts_exactly_after_its_warm_up():
    features = FeatureMachine(FS64).update(recorded_series(count=1000))

    for name in set(COLUMNS) - {"spread_bps"}:
        missing = np.isnan(features[name].to_numpy())
        expected = np.arange(1000) < FEATURES[name].warm_up_bars - 1
        assert np.array_equal(missing, expected), name


@pytest.mark.parametrize("schema", FEATURE_SCHEMAS.values(), ids=list(FEATURE_SCHEMAS))
def test_mask_has_the_bit_of_every_missing_feature_and_no_other(schema):
    machine = FeatureMachine(schema, EXTRAS)
    features = machine.update(BARS)
    vectors = machine.vector_matrix(features)

    expected = [
        sum(1 << i for i, value in enumerate(vector) if np.isnan(value)) for vector in vectors
    ]

    assert features["missing_mask"].to_list() == expected
    assert features["missing_mask"].dtype == pl.UInt64


def test_flat_bars_without_volume_are_missing_where_a_divisor_is_zero():
    closes = np.full(260, 0.1)  # Twenty times 0.1 is not exactly 2, so sums would leave a residue.
    features = FeatureMachine(FS64).update(make_bars(closes, volumes=np.zeros(260)))
    last = features.row(-1, named=True)

    missing = {name for name in COLUMNS if np.isnan(last[name])}

    assert missing == {
        *("rsi_14", "stoch_k", "stoch_d", "adx_14", "plus_di", "minus_di"),
        *("bb_position", "volume_ratio", "is_doji", "signed_flow"),
    }
    assert (last["bb_width"], last["volatility_24"], last["atr_14"]) == (0.0, 0.0, 0.0)


def test_values_return_when_a_flat_spell_ends():
    moving = 100 + np.sin(np.arange(300))
    closes = np.concatenate([moving, np.full(100, 100.0), moving])
    features = FeatureMachine(FS64).update(make_bars(closes, wicks=0.001))

    tail = features[-200:].select(COLUMNS).to_numpy()

    assert np.isfinite(tail).all()


@settings(max_examples=60)
@given(
    closes=st.lists(
        st.sampled_from([1e-12, 1e-8, 0.1, 0.3, 1.0, 1.0, 1.0, 7.0, 6e4, 1e15]),
        min_size=1,
        max_size=240,
    ),
    volume=st.sampled_from([0.0, 5e-324, 1e-9, 1.0, 1e24]),
)
def test_no_feature_is_ever_infinite(closes, volume):
    volumes = np.where(np.arange(len(closes)) % 3 == 0, 0.0, volume)
    bars = make_bars(closes, volumes=volumes)

    features = FeatureMachine(FS64, EXTRAS).update(bars)

    assert not np.isinf(features.drop("missing_mask").to_numpy()).any()


def spoil(row: int, **changes: object) -> pl.DataFrame:
    bars = make_bars(np.linspace(100, 101, 5), wicks=0.01)
    spoilt = pl.int_range(pl.len()) == row
    return bars.with_columns(
        pl.when(spoilt).then(pl.lit(value, bars.schema[name])).otherwise(name).alias(name)
        for name, value in changes.items()
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"close": float("nan")},
        {"open": float("inf"), "high": float("inf")},
        {"low": 0.0},
        {"low": -1.0},
        {"close": None},
        {"high": 1e16},
        {"high": 90.0},
        {"low": 110.0},
        {"volume": -1.0, "buy_volume": None},
        {"volume": float("nan"), "buy_volume": None},
        {"volume": None},
        {"buy_volume": 1.5},
        {"buy_volume": -0.1},
        {"spread_bps_mean": -1.0},
        {"spread_bps_mean": float("inf")},
        {"close_time_ns": None},
        {"close_time_ns": 3 * BAR_NS},
    ],
    ids=str,
)
def test_bad_bar_is_refused_and_moves_nothing(changes):
    machine = FeatureMachine(FS64)
    machine.update(make_bars([50.0, 51.0], symbol="B"))
    before = pickle.dumps(machine)

    with pytest.raises(ValueError, match=r"must (have|be)"):
        machine.update(spoil(3, **changes))

    assert pickle.dumps(machine) == before


def test_bar_that_was_taken_is_refused_in_a_later_update():
    machine = FeatureMachine(FS64)
    machine.update(recorded_series(count=10))

    with pytest.raises(ValueError, match="must be later than the one before it"):
        machine.update(recorded_series(count=10)[-1:])


def test_refused_bars_can_be_given_again_without_the_bad_one():
    bars, machine = recorded_series(count=40), FeatureMachine(FS64)
    first = machine.update(bars[:30])

    with pytest.raises(ValueError, match="must be later than the one before it"):
        machine.update(pl.concat([bars[30:], bars[35:36]]))
    second = machine.update(bars[30:])

    assert same_bits(pl.concat([first, second]), FeatureMachine(FS64).update(bars))


def test_unknown_side_and_spread_are_missing_only_there():
    bars = make_bars(np.linspace(100, 101, 300), wicks=0.01)
    known = FeatureMachine(FS64).update(bars)
    unknown = FeatureMachine(FS64).update(bars.drop("buy_volume", "spread_bps_mean"))

    assert unknown["signed_flow"].is_nan().all()
    assert unknown["spread_bps"].is_nan().all()
    rest = [name for name in COLUMNS if name not in {"signed_flow", "spread_bps"}]
    assert same_bits(unknown.select(rest), known.select(rest))


def test_missing_column_is_named():
    with pytest.raises(ValueError, match="volume"):
        FeatureMachine(FS64).update(recorded_series(count=3).drop("volume"))


def test_empty_update_returns_the_columns_and_moves_nothing():
    machine = FeatureMachine(FS64, EXTRAS)

    features = machine.update(BARS.clear())

    assert features.columns == [*machine.columns, "missing_mask"]
    assert (features.height, machine.series) == (0, ())


def test_snapshot_of_another_layout_is_refused():
    machine = FeatureMachine(FS64)
    snapshot = machine.__getstate__() | {"layout": ("other",)}

    with pytest.raises(ValueError, match="layout of this version"):
        FeatureMachine.__new__(FeatureMachine).__setstate__(snapshot)


def test_snapshot_costs_less_than_3000_bytes_a_series():
    def snapshot_bytes(count: int) -> int:
        machine = FeatureMachine(FS64)
        for k in range(count):
            machine.update(recorded_series(count=60).with_columns(symbol=pl.lit(f"S{k}")))
        return len(pickle.dumps(machine))

    assert snapshot_bytes(65) - snapshot_bytes(5) < 60 * 3000


def test_vector_matrix_takes_a_joined_external_column_and_refuses_a_missing_computed_one():
    features = FeatureMachine(FS64).update(BARS)
    joined = features.with_columns(sentiment=pl.lit(0.25))

    assert (vector_matrix(joined, FS64)[:, FS64.names.index("sentiment")] == 0.25).all()
    with pytest.raises(ValueError, match="rsi_14"):
        vector_matrix(features.drop("rsi_14"), FS64)


def test_batch_features_of_no_bars_have_the_columns():
    schema = FEATURE_SCHEMAS["fs34"]

    batch = batch_features(BARS.clear(), schema)

    assert (batch.height, batch.columns[6:]) == (0, [*schema.names, "missing_mask"])


def test_batch_features_are_the_machines_in_vector_order(monkeypatch):
    monkeypatch.setattr("operators.features.machine.SLICE_BARS", 100)
    schema = FEATURE_SCHEMAS["fs34"]
    batch = batch_features(BARS, schema, EXTRAS)
    machine = FeatureMachine(schema, EXTRAS)
    stream = pl.concat([machine.update(BARS[:401]), machine.update(BARS[401:])])

    names = [*schema.names, *(one.name for one in EXTRAS), "missing_mask"]

    assert batch.columns[6:] == names
    assert same_bits(batch.select(names), stream.select(names))
    assert batch["close_time_ns"].equals(BARS["close_time_ns"])
