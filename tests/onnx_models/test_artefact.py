import resource
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from infra.onnx_session import ModelRefusedError, OnnxSession
from onnx_models.artefact import (
    PARITY_ROWS_MIN,
    Parity,
    ParityError,
    build_model,
    draft_card,
    judge_gate,
    measure_parity,
    open_session,
    write_artefact,
)
from onnx_models.calibration import Calibration
from onnx_models.evaluation import measure_spread
from onnx_models.trees import XGBoostFamily
from tests.onnx_models.recorded import quick, three_symbols
from tests.onnx_models.test_trees import fit

SOFTER = Calibration(method="temperature_and_hold_bias", scale=0.7, bias=(0.0, 0.2, 0.0))
GOOD = Parity(difference_max=1e-7, rows=12_000, boundary_rows=2_000, batch_difference_max=0.0)


@pytest.fixture(scope="module")
def made():
    fitted = fit(XGBoostFamily)
    model = build_model(fitted, SOFTER)
    sample = three_symbols().inputs[-3:]
    answers = SOFTER.apply(fitted.probabilities(sample))
    return fitted, model, draft_card(quick(XGBoostFamily), model, 4, sample, answers)


def names(folder):
    return sorted(one.name for one in folder.iterdir())


@pytest.mark.acceptance("S-093", criterion="Calibrated inside the served graph, parity as a gate")
def test_what_is_served_is_the_calibrated_model(made, measured):
    fitted, model, card = made
    inputs = three_symbols().inputs[-3000:]
    found = measure_parity(fitted, SOFTER, open_session(card, model), inputs, 7)
    assert found.rows >= PARITY_ROWS_MIN + found.boundary_rows
    assert found.boundary_rows > 100
    assert found.difference_max <= 1e-5
    measured(f"{found.difference_max:.1e} over {found.rows} rows")


def test_a_model_that_answers_differently_is_not_exported(made):
    fitted, model, card = made
    other = Calibration(method="x", scale=0.701, bias=SOFTER.bias)
    with pytest.raises(ParityError, match="must agree with the trained model"):
        measure_parity(fitted, other, open_session(card, model), three_symbols().inputs[-3000:], 7)


def test_an_answer_that_is_no_number_fails_parity(made):
    fitted, model, card = made

    class Broken:
        boundary_inputs = fitted.boundary_inputs

        def probabilities(self, inputs):
            found = fitted.probabilities(inputs)
            found[0] = np.nan
            return found

    with pytest.raises(ParityError, match="found a difference of nan"):
        measure_parity(
            Broken(), SOFTER, open_session(card, model), three_symbols().inputs[-3000:], 7
        )


def test_an_artefact_is_written_and_serves(made, tmp_path):
    _, model, card = made
    write_artefact(tmp_path / "xgboost_1h", card, model)
    assert names(tmp_path) == ["xgboost_1h"]
    assert OnnxSession(tmp_path / "xgboost_1h").card == card


def test_a_new_artefact_takes_the_place_of_the_old(made, tmp_path):
    _, model, card = made
    folder = tmp_path / "xgboost_1h"
    write_artefact(folder, card, model)
    write_artefact(folder, msgspec.structs.replace(card, timeframe="4h"), model)
    assert names(tmp_path) == ["xgboost_1h"]
    assert OnnxSession(folder).card.timeframe == "4h"


def test_an_artefact_that_would_be_refused_leaves_the_old_one(made, tmp_path):
    _, model, card = made
    folder = tmp_path / "xgboost_1h"
    write_artefact(folder, card, model)
    with pytest.raises(ModelRefusedError, match="must hash to"):
        write_artefact(folder, card, model + b" ")
    assert names(tmp_path) == ["xgboost_1h"]
    assert OnnxSession(folder).card == card


def test_a_disk_that_fills_leaves_nothing_half_written(made, tmp_path):
    _, model, card = made
    (tmp_path / "card").write_bytes(msgspec.json.encode(card))
    (tmp_path / "model").write_bytes(model)
    program = (
        "import msgspec, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from infra.onnx_session import ModelCard\n"
        "from onnx_models.artefact import write_artefact\n"
        "here = Path(sys.argv[1])\n"
        "card = msgspec.json.decode((here / 'card').read_bytes(), type=ModelCard)\n"
        "model = (here / 'model').read_bytes()\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (len(model) // 2,) * 2)\n"
        "write_artefact(here / 'out' / 'xgboost_1h', card, model)\n"
    )
    (tmp_path / "out").mkdir()
    found = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True
    )
    assert found.returncode == 1
    assert "File too large" in found.stderr
    assert names(tmp_path / "out") == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def spread(answers):
    return measure_spread(np.array(answers))


def test_a_model_that_tells_rows_apart_passes_the_gate():
    answers = np.random.default_rng(1).dirichlet([2, 3, 2], size=2000)
    found = judge_gate(GOOD, spread(answers))
    assert found["passed"]
    assert {name for name, one in found["checks"].items() if one["passed"]} == set(found["checks"])


@pytest.mark.acceptance("S-108", criterion="A constant-confidence model does not pass the gate")
def test_a_model_that_always_says_the_same_fails_the_gate(measured):
    found = judge_gate(GOOD, spread(np.tile([0.2, 0.6, 0.2], (2000, 1))))
    failed = {name for name, one in found["checks"].items() if not one["passed"]}
    assert not found["passed"]
    assert failed == {"confidence_p90_less_p10", "commonest_share", "commonest_confidence_std"}
    measured(found["checks"]["commonest_confidence_std"]["value"])


def test_too_few_rows_of_parity_fail_the_gate():
    answers = np.random.default_rng(1).dirichlet([2, 3, 2], size=2000)
    few = Parity(difference_max=0.0, rows=9_999, boundary_rows=0, batch_difference_max=0.0)
    assert not judge_gate(few, spread(answers))["passed"]


def test_answers_that_depend_on_the_batch_fail_the_gate():
    answers = np.random.default_rng(1).dirichlet([2, 3, 2], size=2000)
    moved = msgspec.structs.replace(GOOD, batch_difference_max=1e-9)
    found = judge_gate(moved, spread(answers))
    failed = {name for name, one in found["checks"].items() if not one["passed"]}
    assert failed == {"batch_difference_max"}
