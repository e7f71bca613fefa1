from functools import cache
from hashlib import sha256

import numpy as np
import polars as pl
import pytest

from infra.onnx_session import OnnxSession, load_card
from onnx_models import train_lightgbm
from onnx_models.dataset import load_training_set
from onnx_models.labels import Labelling
from onnx_models.train_lightgbm import (
    ParityError,
    boundary_rows,
    build_artefact,
    export,
    floor_float32,
    measure_parity,
    train,
)
from schemas.features import FEATURE_SCHEMAS
from tests.infra.test_onnx_session import ARTEFACT, write_model
from tests.operators.recorded_bars import RECORDINGS

TRAIN = RECORDINGS / "bars_5m_binance_spot_train.parquet"
DEMO = RECORDINGS / "bars_5m_binance_spot_demo.parquet"
SCHEMA = FEATURE_SCHEMAS["fs34"]


@cache
def training_set():
    return load_training_set(TRAIN, SCHEMA, Labelling())


@pytest.fixture(scope="module")
def two_symbols(tmp_path_factory):
    """The first three months of two symbols, and the fourth as holdout."""
    folder = tmp_path_factory.mktemp("recordings")
    bars = pl.read_parquet(TRAIN).filter(pl.col("symbol").is_in(["BTCUSDT", "ETHUSDT"]))
    boundary = bars["ts_ns"].min() + 90 * 86_400_000_000_000
    bars.filter(pl.col("ts_ns") < boundary).write_parquet(folder / "train.parquet")
    later = (pl.col("ts_ns") >= boundary) & (pl.col("ts_ns") < boundary + 30 * 86_400_000_000_000)
    bars.filter(later).write_parquet(folder / "later.parquet")
    return folder


def test_training_twice_gives_the_same_bytes_and_an_artefact_that_loads(two_symbols, tmp_path):
    cards = [
        build_artefact(
            two_symbols / "train.parquet", tmp_path / name, two_symbols / "later.parquet"
        )
        for name in ("one", "two")
    ]
    assert cards[0] == cards[1]
    models = [(tmp_path / name / "model.onnx").read_bytes() for name in ("one", "two")]
    assert models[0] == models[1]
    card = OnnxSession(tmp_path / "one").card
    assert card.evaluation["parity_max"] <= 1e-4
    assert card.beats_prior is all(
        card.evaluation[part]["gain_interval_95"][0] > 0 for part in ("test", "holdout")
    )


def test_a_holdout_that_overlaps_the_training_data_is_refused(two_symbols, tmp_path):
    with pytest.raises(ValueError, match="holdout must begin after the training data"):
        build_artefact(two_symbols / "train.parquet", tmp_path, two_symbols / "train.parquet")


def test_an_export_that_answers_differently_is_not_kept(two_symbols, tmp_path, monkeypatch):
    monkeypatch.setattr(train_lightgbm, "round_thresholds_down", lambda model, booster: None)
    with pytest.raises(ParityError, match="must agree with LightGBM"):
        build_artefact(two_symbols / "train.parquet", tmp_path)


def test_parity_holds_on_every_threshold_of_every_tree_for_another_seed(tmp_path, monkeypatch):
    monkeypatch.setitem(train_lightgbm.PARAMETERS, "seed", 8)
    monkeypatch.setattr(train_lightgbm, "TREES_MAX", 10)
    rows = training_set()
    booster = train(rows)
    folder = tmp_path / "artefact"
    folder.mkdir()
    for name in ("card.json", "model.onnx"):
        (folder / name).write_bytes((ARTEFACT / name).read_bytes())
    write_model(folder, export(booster, len(SCHEMA)))
    sample = rows.inputs[:3]
    from tests.infra.test_onnx_session import change_card

    change_card(
        folder,
        self_test_inputs=sample.astype(float).tolist(),
        self_test_probabilities=booster.predict(sample).tolist(),
    )
    worst, count = measure_parity(booster, OnnxSession(folder), boundary_rows(booster, rows.inputs))
    assert worst <= 1e-6
    assert count > 1000


@pytest.mark.parametrize("value", [0.1, -0.1, 1 / 3, 1e-30, 123456.789, 0.5, 0.0])
def test_floor_is_the_largest_float32_that_is_not_above(value):
    floor = floor_float32(value)
    assert float(floor) <= value < float(np.nextafter(floor, np.float32(np.inf)))


def test_shipped_card_names_the_shipped_recording():
    data = load_card(ARTEFACT).training["data"]
    assert data["file"] == TRAIN.name
    assert data["sha256"] == sha256(TRAIN.read_bytes()).hexdigest()
    assert data["provenance"] == "recorded"


def test_training_data_of_the_shipped_model_ends_before_the_demo_begins():
    demo_start = pl.read_parquet(DEMO)["ts_ns"].min()
    assert load_card(ARTEFACT).training["data"]["last_close_ns"] <= demo_start


def test_shipped_verdict_is_that_of_its_own_figures():
    card, rows = load_card(ARTEFACT), training_set()
    test = rows.split.test
    scored = OnnxSession(ARTEFACT).score(rows.inputs[test])
    losses = -np.log(scored[np.arange(len(test)), rows.labels[test]])
    assert card.evaluation["test"]["log_loss"] == pytest.approx(losses.mean(), abs=1e-6)
    parts = [card.evaluation[name] for name in ("test", "holdout")]
    assert card.beats_prior is all(part["gain_interval_95"][0] > 0 for part in parts)
    assert card.beats_prior_of_direction is all(
        part["direction"]["gain_interval_95"][0] > 0 for part in parts
    )


def test_shipped_artefact_is_small():
    assert sum(one.stat().st_size for one in ARTEFACT.iterdir()) < 1_000_000
