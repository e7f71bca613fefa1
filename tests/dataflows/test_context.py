"""The regime around every symbol as the flow writes it: against the bars, on any cut and restart."""

import pickle
from itertools import pairwise

import msgspec
import polars as pl
import pytest

from dataflows.cli.explain import print_explanation
from dataflows.lanes import STATE_VERSION
from dataflows.parts import build_lane
from dataflows.recorded_session import RecordedSession
from dataflows.signal_steps import SignalsStep
from infra.clickhouse.why import Explanation
from infra.folder_sink import topic_file
from operators.bar_columns import BarColumns
from operators.features import FeatureMachine
from operators.regime import INDICATORS, RegimeMachine, RegimeRule
from schemas.features import FEATURE_SCHEMAS
from schemas.instruments import InstrumentBook
from schemas.models import ContextObserved
from schemas.regime import Regime
from tests.contracts.samples import samples
from tests.dataflows.test_backtest import END_NS, NO_MODELS, WEEK_END_NS, run, settings

HOUR_NS = 3_600_000_000_000
TOPIC = ContextObserved.topic


def records_of(folder):
    frame = pl.read_parquet(topic_file(folder, TOPIC)).sort("event_time_ns", "venue", "symbol")
    return [msgspec.convert(row, ContextObserved) for row in frame.to_dicts()]


@pytest.fixture(scope="module")
def weeks(tmp_path_factory):
    """Three weeks of recorded bars through the flow, without models: the rule needs none."""
    folder = tmp_path_factory.mktemp("context")
    run(folder, END_NS, **NO_MODELS)
    return folder


def hourly(folder):
    bars = pl.read_parquet(topic_file(folder, "market.bars"))
    return bars.filter(pl.col("timeframe") == "1h").sort("close_time_ns", "venue", "symbol")


@pytest.fixture(scope="module")
def expected(weeks):
    """What the rule says about the same bars, computed in one go."""
    bars = FeatureMachine(FEATURE_SCHEMAS["fs34"], INDICATORS).extend(BarColumns.of(hourly(weeks)))
    return RegimeMachine(RegimeRule()).on_features(bars)


def test_the_flow_writes_what_the_rule_says_about_its_bars(weeks, expected):
    assert records_of(weeks) == expected


@pytest.mark.acceptance(
    "S-149", criterion="A running flow: no flip within 3 bars, all regimes seen"
)
def test_no_regime_of_the_flow_lasts_less_than_three_bars(weeks, measured):
    spans = []
    records = records_of(weeks)
    for symbol in {one.symbol for one in records}:
        since = sorted({one.regime_since_ns for one in records if one.symbol == symbol})
        spans += [(later - earlier) // HOUR_NS for earlier, later in pairwise(since)]
    assert min(spans) >= 3
    seen = {one.regime for one in records}
    assert seen == set(Regime)
    measured(f"{len(spans)} changes, the shortest regime lasted {min(spans)} bars")


def test_every_symbol_is_heard_of_on_every_day(weeks):
    days = {(one.symbol, one.event_time_ns // (24 * HOUR_NS)) for one in records_of(weeks)}
    bars = hourly(weeks).select("symbol", pl.col("close_time_ns") // (24 * HOUR_NS)).unique()
    assert days == set(bars.iter_rows())


def test_another_cut_into_chunks_changes_no_regime(tmp_path, monkeypatch, weeks):
    monkeypatch.setattr(RecordedSession.chunks, "__defaults__", (997,))
    run(tmp_path, WEEK_END_NS, **NO_MODELS)
    found = records_of(tmp_path)
    assert found == [one for one in records_of(weeks) if one.event_time_ns <= WEEK_END_NS]


def test_a_lane_that_restarts_between_any_two_closes_goes_on_as_before(weeks, expected):
    lane = build_lane(settings(**NO_MODELS), InstrumentBook(), lambda _kind, _count: None)
    step, found = SignalsStep(lane, None), []
    for (time_ns,), bars in hourly(weeks).group_by("close_time_ns", maintain_order=True):
        _, _, records = step.on_bars(0, BarColumns.of(bars))
        found += [one for each in records if each.topic == TOPIC for one in each.messages]
        if time_ns // HOUR_NS % 7 == 0:
            step = SignalsStep(lane, pickle.loads(pickle.dumps(step.snapshot())))
    assert found == expected


def test_bars_of_other_lengths_say_nothing(weeks):
    lane = build_lane(settings(**NO_MODELS), InstrumentBook(), lambda _kind, _count: None)
    bars = pl.read_parquet(topic_file(weeks, "market.bars")).filter(pl.col("timeframe") != "1h")
    first = bars.sort("close_time_ns", "venue", "symbol", "timeframe").head(500)
    _, _, records = SignalsStep(lane, None).on_bars(0, BarColumns.of(first))
    assert TOPIC not in {each.topic for each in records}


def test_a_snapshot_of_another_version_is_refused_by_name():
    lane = build_lane(settings(**NO_MODELS), InstrumentBook(), lambda _kind, _count: None)
    state = (STATE_VERSION - 1, None, lane.build_features(), None)
    with pytest.raises(ValueError, match=f"'signals' must have version {STATE_VERSION}; found"):
        SignalsStep(lane, state)


def test_why_says_the_regime_and_since_when(capsys):
    (one,) = (each for each in samples() if isinstance(each, ContextObserved))
    empty = {"ticks": None, "bar": None, "signal": None, "decision": None, "outcome": None}
    empty |= {"features": [], "orders": [], "fills": [], "missing": [], "feature_schema": ""}
    place = {"venue": one.venue, "symbol": one.symbol, "event_time_ns": one.event_time_ns}
    found = {"subject": "moment", "record_id": "r", "summary": "s", "config_hash": "c", "epoch": 1}
    print_explanation(Explanation(**found, **place, **empty, regime=one))
    text = " ".join(capsys.readouterr().out.split())
    assert "regime bull_trending since 2024-08-07T23:00:00Z by rule 1, probability 0.75:" in text
