"""What is shipped is what its card says, made from the recordings beside it."""

from hashlib import sha256

import numpy as np
import polars as pl
import pytest

from infra.onnx_session import OnnxSession, load_card
from onnx_models.dataset import load_data_set
from onnx_models.scoring import score_models
from onnx_models.walk_forward import plan_walk_forward
from schemas.features import FEATURE_SCHEMAS, SEQUENCE_SCHEMAS
from tests.onnx_models.recorded import ARTEFACTS, HOURS, LATER, hours
from tests.operators.recorded_bars import RECORDINGS

DEMO = RECORDINGS / "bars_5m_binance_spot_demo.parquet"
HOUR_NS = 3_600_000_000_000


def trained_artefacts():
    folders = [path.parent for path in sorted(ARTEFACTS.rglob("card.json"))]
    return [one for one in folders if "yardstick" in load_card(one).evaluation]


each = pytest.mark.parametrize("folder", trained_artefacts(), ids=lambda one: one.name)


@each
def test_it_was_made_from_the_shipped_recording_before_the_demo_begins(folder):
    data = load_card(folder).training["data"]
    assert data["files"] == [{"name": HOURS.name, "sha256": sha256(HOURS.read_bytes()).hexdigest()}]
    assert data["content_hash"] == hours().manifest.content_hash
    assert data["provenance"] == "recorded"
    assert data["last_close_ns"] <= pl.read_parquet(DEMO)["ts_ns"].min()


@each
def test_its_verdict_is_that_of_its_own_figures(folder):
    card = load_card(folder)
    judged = [card.evaluation[name] for name in ("test", "holdout")]
    assert card.beats_prior is all(one["measures"]["gain"]["interval_95"][0] > 0 for one in judged)
    assert card.beats_prior_of_direction is all(
        one["measures"]["gain_of_direction"]["interval_95"][0] > 0 for one in judged
    )
    assert card.evaluation["parity_max"] <= 1e-4
    assert card.evaluation["parity_rows"] >= 10_000


@each
def test_its_final_figure_can_be_computed_again(folder):
    session, data = OnnxSession(folder), hours()
    card = session.card
    schema = (FEATURE_SCHEMAS | SEQUENCE_SCHEMAS)[card.feature_schema]
    rows = data.usable_rows(card.horizon_bars, schema)
    target = data.targets[card.horizon_bars]
    plan = plan_walk_forward(
        rows, data.close_times_ns[rows], target.ends_ns[rows], len(card.training["folds"]),
        card.horizon_bars * HOUR_NS,
    )  # fmt: skip
    test = plan.final.test
    answers = session.score(data.reader(schema).take(test))
    loss = -np.log(answers[np.arange(len(test)), target.labels[test]]).mean()
    stated = card.evaluation["test"]["measures"]["log_loss"]["value"]
    assert loss == pytest.approx(stated, abs=1e-5)


@each
def test_its_answers_are_the_same_bits_in_any_batch(folder):
    session, data = OnnxSession(folder), hours()
    schema = (FEATURE_SCHEMAS | SEQUENCE_SCHEMAS)[session.card.feature_schema]
    rows = data.usable_rows(session.card.horizon_bars, schema)[-509:]
    inputs = data.reader(schema).take(rows)
    expected = session.score(inputs)
    order = np.random.default_rng(0).permutation(len(rows))
    for size in (1, 2, 3, 7, 25, 300):
        for first in range(0, len(rows), size):
            chosen = order[first : first + size]
            assert (session.score(inputs[chosen]) == expected[chosen]).all()


@pytest.mark.skipif(not trained_artefacts(), reason="no artefact with a yardstick is shipped")
@pytest.mark.acceptance("S-108", criterion="ECE of each shipped model at most 0.05 out of sample")
def test_shipped_models_are_calibrated_on_the_later_recording(measured):
    found = score_models(ARTEFACTS, load_data_set([LATER]), 4)
    models = [one for one in found.scored if one.version]
    errors = {one.title: one.evaluation["measures"]["calibration_error"]["value"] for one in models}
    assert not found.in_sample
    assert max(errors.values()) <= 0.05
    assert min(one.evaluation["spread"]["confidence_std"] for one in models) >= 0.02
    measured(", ".join(f"{name} {error:.3f}" for name, error in errors.items()))
