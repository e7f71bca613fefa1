"""The kernel against TA-Lib and against one-shot polars and numpy, on recorded bars."""

import itertools

import numpy as np
import polars as pl
import pytest

from operators.features import COLUMNS, FeatureMachine, vector_matrix
from schemas.features import FEATURE_SCHEMAS, FEATURES, FeatureKind
from tests.operators.features.reference import (
    all_features,
    polars_features,
    scaled_difference,
    talib_features,
)
from tests.operators.features.series import recorded_bars, recorded_series

TOLERANCE = 1e-9
TALIB_WARM_UP = {"macd": 34}
"""TA-Lib withholds the line until its signal exists; ours starts with the slow average."""


@pytest.fixture(scope="module")
def computed() -> pl.DataFrame:
    return FeatureMachine(FEATURE_SCHEMAS["fs64"]).update(recorded_series())


def test_references_cover_every_computed_feature():
    bars = recorded_series(count=300)

    assert set(all_features(bars)) == set(COLUMNS)
    assert {n for n, f in FEATURES.items() if f.kind is not FeatureKind.EXTERNAL} == set(COLUMNS)


@pytest.mark.parametrize("name", sorted(talib_features(recorded_series(count=300))))
def test_feature_equals_talib_on_10000_recorded_bars(computed, name):
    expected = talib_features(recorded_series())[name]
    found = computed[name].to_numpy()

    assert scaled_difference(found, expected) <= TOLERANCE
    first = TALIB_WARM_UP.get(name, FEATURES[name].warm_up_bars)
    assert int(np.argmax(~np.isnan(expected))) + 1 == first


@pytest.mark.parametrize("name", sorted(polars_features(recorded_series(count=300))))
def test_feature_equals_one_shot_polars_on_10000_recorded_bars(computed, name):
    expected = polars_features(recorded_series())[name]
    found = computed[name].to_numpy()

    assert scaled_difference(found, expected) <= TOLERANCE
    assert np.array_equal(np.isnan(found), np.isnan(expected))


@pytest.mark.acceptance(
    "S-096", criterion="fs34 and 50+ schemas computed stream = batch within 1e-9"
)
@pytest.mark.parametrize("name", ["fs34", "fs64"])
def test_stream_equals_independent_batch(name, measured):
    schema, bars = FEATURE_SCHEMAS[name], recorded_bars()
    machine = FeatureMachine(schema)
    cuts = [0, *range(1, 200), *range(200, 20_000, 611), 20_000]
    parts = [machine.update(bars[a:b]) for a, b in itertools.pairwise(cuts)]
    stream = pl.concat(parts)

    worst = 0.0
    for symbol in ("BTCUSDT", "ETHUSDT"):
        chosen = bars["symbol"] == symbol
        expected = pl.DataFrame(all_features(bars.filter(chosen)))
        found = stream.filter(chosen)
        for i, feature in enumerate(schema.features):
            values = vector_matrix(found, schema)[:, i]
            if feature.kind is FeatureKind.EXTERNAL:
                assert np.isnan(values).all()
            else:
                worst = max(worst, scaled_difference(values, expected[feature.name].to_numpy()))
                assert not np.isnan(values[-1])
    measured(f"{len(schema)} inputs, largest difference {worst:.1e} over 2 x 10,000 bars")
    assert worst <= TOLERANCE
