import subprocess
import sys

import numpy as np
import pytest

from infra.onnx_session import CARD_NAME
from onnx_models.dataset import load_data_set
from onnx_models.evaluation import Judged
from onnx_models.scoring import ENSEMBLE, overlaps, pool, score_models
from onnx_models.train import Training, TrainOptions
from onnx_models.trees import LightGBMFamily, XGBoostFamily
from tests.onnx_models.recorded import DAY_NS, LATER, SYMBOLS, quick, three_symbols
from tests.onnx_models.test_evaluation import YARDSTICK, outcomes, probabilities


@pytest.fixture(scope="module")
def later():
    return load_data_set([LATER], symbols=SYMBOLS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, later):
    out = tmp_path_factory.mktemp("registry")
    families = [quick(XGBoostFamily), quick(LightGBMFamily)]
    options = TrainOptions(folds=0)
    return out, [Training(one, three_symbols(), options, out, later).run() for one in families]


def test_models_the_ensemble_and_the_baselines_are_scored_on_the_same_rows(trained, later):
    out, _ = trained
    found = score_models(out, later, 4)
    names = [one.name for one in found.scored]
    assert names == [
        "lightgbm_1h", "xgboost_1h", ENSEMBLE, "class_prior", "last_sign", "logistic_regression",
    ]  # fmt: skip
    assert {one.evaluation["rows"] for one in found.scored} == {found.rows}
    assert not found.in_sample


def test_a_score_equals_what_the_card_says_of_the_holdout(trained, later):
    out, models = trained
    found = {one.name: one for one in score_models(out, later, 4).scored}
    for model in models:
        stated = model.card.evaluation["holdout"]["measures"]
        scored = found[model.card.name].evaluation["measures"]
        for name, one in stated.items():
            value = scored[name]["value"]
            assert value == one["value"] or value == pytest.approx(one["value"], rel=1e-5)
    stated = models[0].card.evaluation["baselines"]["holdout"]["logistic_regression"]["measures"]
    scored = found["logistic_regression"].evaluation["measures"]
    assert scored["log_loss"]["value"] == pytest.approx(stated["log_loss"]["value"], rel=1e-5)


def test_what_serves_is_pooled_and_what_is_on_trial_stands_beside_it(trained, later):
    out, models = trained
    names = {model.card.name: (model.card.name, model.card.version) for model in models}

    def pooled(**statuses):
        found = score_models(out, later, 4, {names[name]: one for name, one in statuses.items()})
        told = {one.name: one.status for one in found.scored if one.status}
        assert told == statuses
        return [one.evaluation for one in found.scored if one.name == ENSEMBLE]

    assert pooled(lightgbm_1h="active", xgboost_1h="shadow") == []
    assert pooled(lightgbm_1h="active", xgboost_1h="active") == pooled() != []


def test_data_that_a_model_has_seen_is_called_in_sample(trained):
    out, models = trained
    found = score_models(out, three_symbols(), 4)
    assert found.in_sample
    assert all(one.title.endswith("IN-SAMPLE") for one in found.scored)
    seen = three_symbols().manifest
    assert overlaps(models[0].card, seen.first_open_ns, seen.last_close_ns)
    assert not overlaps(models[0].card, seen.last_close_ns, seen.last_close_ns + DAY_NS)


def test_a_flipped_byte_is_left_out_with_its_reason(trained, later, tmp_path):
    _, models = trained
    for model in models:
        folder = tmp_path / model.folder.name
        folder.mkdir()
        for one in model.folder.iterdir():
            (folder / one.name).write_bytes(one.read_bytes())
    changed = bytearray((tmp_path / "xgboost_1h" / "model.onnx").read_bytes())
    changed[100] ^= 1
    (tmp_path / "xgboost_1h" / "model.onnx").write_bytes(bytes(changed))
    found = score_models(tmp_path, later, 4)
    assert [one.name for one in found.scored][:2] == ["lightgbm_1h", "class_prior"]
    assert "must hash to" in found.left_out[0]


def test_models_of_another_horizon_are_left_out_and_none_is_refused(trained, later):
    out, _ = trained
    with pytest.raises(ValueError, match=r"must hold a model of 1 bars; found .*horizon is 4 bars"):
        score_models(out, later, 1)
    with pytest.raises(ValueError, match="found none; train one"):
        score_models(out / "xgboost_1h" / CARD_NAME, later, 4)


def test_the_pool_of_equals_is_itself_and_of_opposites_is_between():
    came, answers = outcomes(), probabilities()

    def part(one):
        return Judged(probabilities=one, outcomes=came, yardstick=YARDSTICK)

    assert np.abs(pool([part(answers), part(answers)]).probabilities - answers).max() < 1e-12
    mirrored = answers[:, ::-1]
    found = pool([part(answers), part(mirrored)]).probabilities
    assert np.abs(found[:, 0] - found[:, 2]).max() < 1e-12


def test_scoring_needs_no_training_package():
    program = (
        "import sys\n"
        "import onnx_models.scoring, onnx_models.report\n"
        "print(sorted({'onnx', 'sklearn', 'lightgbm', 'xgboost', 'torch'} & set(sys.modules)))\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
