import numpy as np
import pytest
from msgspec.structs import replace

from infra.onnx_session import OnnxSession
from onnx_models.baselines import class_shares
from onnx_models.dataset import load_data_set
from onnx_models.families import FitRequest
from onnx_models.train import Training, TrainOptions
from onnx_models.trees import LightGBMFamily, RandomForestFamily, XGBoostFamily
from onnx_models.walk_forward import plan_walk_forward
from schemas.features import FEATURE_SCHEMAS
from tests.onnx_models.recorded import LATER, SYMBOLS, quick, three_symbols

SCHEMA = FEATURE_SCHEMAS["fs34"]
HOUR_NS = 3_600_000_000_000
PERIODS = ("walk_forward", "test", "holdout")


@pytest.fixture(scope="module")
def later():
    return load_data_set([LATER], symbols=SYMBOLS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, later):
    out = tmp_path_factory.mktemp("trained")
    options = TrainOptions(folds=2)
    family = quick(XGBoostFamily)
    return out, Training(family, three_symbols(), options, out, later).run()


@pytest.mark.acceptance("S-081", criterion="data to decision in one run, on recorded data")
@pytest.mark.parametrize("family", [XGBoostFamily, LightGBMFamily])
def test_training_ends_with_an_artefact_that_serves_and_a_verdict(family, tmp_path, measured):
    options = TrainOptions(folds=1)
    found = Training(quick(family), three_symbols(), options, tmp_path).run()
    card = OnnxSession(found.folder).card
    assert card == found.card
    assert card.name == f"{family.name}_1h"
    assert card.evaluation["parity_max"] <= 1e-4
    assert card.evaluation["parity_rows"] >= 10_000
    assert card.beats_prior is card.evaluation["test"]["beats_prior"]
    assert isinstance(card.gate["passed"], bool)
    assert card.training["wall_seconds"] > 0
    assert len(card.training["loss_train"]) > 1
    measured(f"{card.name}: beats prior {card.beats_prior}, gate {card.gate['passed']}")


@pytest.mark.acceptance("S-094", criterion="Metrics per version with CI and class prior baseline")
def test_the_card_tells_every_period_beside_the_baselines(trained, measured):
    _, found = trained
    evaluation = found.card.evaluation
    for period in PERIODS:
        measures = evaluation[period]["measures"]
        assert {"accuracy", "f1_buy", "rmse_return_bps", "direction_right"} <= measures.keys()
        low, high = measures["log_loss"]["interval_95"]
        assert low < measures["log_loss"]["value"] < high
        baselines = evaluation["baselines"][period]
        assert set(baselines) == {"class_prior", "last_sign", "logistic_regression"}
        assert {one["rows"] for one in baselines.values()} == {evaluation[period]["rows"]}
        assert baselines["class_prior"]["measures"]["gain"]["value"] == 0.0
    assert found.card.beats_prior is all(
        evaluation[period]["measures"]["gain"]["interval_95"][0] > 0 for period in PERIODS[1:]
    )
    measured(f"{len(measures)} measures in {len(PERIODS)} periods")


@pytest.mark.acceptance("S-095", criterion="Permutation importance on OOS stored per version")
def test_the_ten_most_important_inputs_are_on_the_card(trained, measured):
    ranked = trained[1].card.evaluation["importance"]
    assert len(ranked) == 10
    assert {one["input"] for one in ranked} <= set(SCHEMA.names)
    lost = [one["log_loss_lost"] for one in ranked]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0.001
    measured(", ".join(one["input"] for one in ranked[:3]))


def test_figures_of_the_card_are_those_of_the_served_bytes(trained):
    _, found = trained
    data = three_symbols()
    rows = data.usable_rows(4, SCHEMA)
    plan = plan_walk_forward(
        rows, data.close_times_ns[rows], data.targets[4].ends_ns[rows], 2, 4 * HOUR_NS
    )
    test = plan.final.test
    answers = OnnxSession(found.folder).score(data.inputs[test])
    losses = -np.log(answers[np.arange(len(test)), data.targets[4].labels[test]])
    stated = found.card.evaluation["test"]["measures"]["log_loss"]["value"]
    assert stated == pytest.approx(losses.mean(), rel=1e-6)


def test_finished_work_is_kept(trained, later):
    out, found = trained
    again = Training(quick(XGBoostFamily), three_symbols(), TrainOptions(folds=2), out, later).run()
    assert again.kept
    assert again.card == found.card


@pytest.mark.parametrize("change", [{"seed": 8}, {"horizon_bars": 1}])
def test_another_question_is_other_work(trained, later, change):
    out, found = trained
    options = replace(TrainOptions(folds=2), **change)
    other = Training(quick(XGBoostFamily), three_symbols(), options, out / "other", later)
    assert other.key != found.card.training["key"]


class Counting:
    """A family that counts its fits."""

    def __init__(self, family):
        self._family, self.fits = family, 0
        self.name, self.schema = family.name, family.schema
        self.parameters, self.libraries = family.parameters, family.libraries

    def fit(self, request):
        self.fits += 1
        return self._family.fit(request)


def test_an_interrupted_training_goes_on_where_it_stopped(trained, tmp_path):
    class Interrupted(Counting):
        def fit(self, request):
            if self.fits == 2:
                raise KeyboardInterrupt
            return super().fit(request)

    options = TrainOptions(folds=2)
    first, second = (kind(quick(LightGBMFamily)) for kind in (Interrupted, Counting))
    with pytest.raises(KeyboardInterrupt):
        Training(first, three_symbols(), options, tmp_path).run()
    assert not list(tmp_path.rglob("card.json"))
    Training(second, three_symbols(), options, tmp_path).run()
    assert (first.fits, second.fits) == (2, 2)  # the served model and the fold that was missing


def test_a_budget_that_is_used_up_leaves_folds_out_and_says_so(tmp_path):
    options = TrainOptions(folds=3, budget_seconds=0.001)
    card = Training(quick(LightGBMFamily), three_symbols(), options, tmp_path).run().card
    assert card.training["left_out"][-3:] == [f"fold_{i}: time budget" for i in (1, 2, 3)]
    assert "walk_forward" not in card.evaluation
    assert "test" in card.evaluation


def test_what_the_fit_of_a_fold_left_out_is_on_the_card(tmp_path):
    class Capped(Counting):
        """Ends every fit but that of the served model before its time."""

        def fit(self, request):
            budget = None if self.fits == 0 else 0.0
            return super().fit(replace(request, budget_seconds=budget))

    family = Capped(quick(LightGBMFamily))
    card = Training(family, three_symbols(), TrainOptions(folds=2), tmp_path).run().card
    told = [one.partition(": ") for one in card.training["left_out"]]
    assert [name for name, _, _ in told] == ["fold_1", "fold_2"]
    assert all("budget" in text for _, _, text in told)


def test_a_holdout_that_overlaps_the_data_is_refused(tmp_path):
    data = three_symbols()
    with pytest.raises(ValueError, match="holdout must begin after the training data"):
        Training(quick(LightGBMFamily), data, TrainOptions(), tmp_path, data)


def test_a_horizon_that_is_not_labelled_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must be labelled; found 3 bars; choose from \[1, 4\]"):
        Training(quick(LightGBMFamily), three_symbols(), TrainOptions(horizon_bars=3), tmp_path)


@pytest.mark.acceptance("S-083", criterion="Leak test: shuffled labels score about the prior")
def test_shuffled_labels_score_the_prior(measured):
    data = three_symbols()
    rows = data.usable_rows(4, SCHEMA)
    target = data.targets[4]
    labels = target.labels.copy()
    labels[rows] = np.random.default_rng(5).permutation(labels[rows])
    shuffled = replace(data, targets={4: replace(target, labels=labels)})
    request = FitRequest(
        data=shuffled, horizon_bars=4, train=rows[:5000], calibration=rows[5100:7000]
    )
    fitted = quick(LightGBMFamily, n_estimators=200, patience_trees=20).fit(request)
    test = rows[7100:]
    answers = fitted.probabilities(data.inputs[test])
    loss = -np.log(answers[np.arange(len(test)), labels[test]]).mean()
    prior = -np.log(class_shares(labels[rows[:7000]])[labels[test]]).mean()
    assert abs(loss - prior) < 0.005
    measured(f"log-loss {loss:.4f}, prior {prior:.4f}")


def test_a_label_that_leaks_is_seen_by_the_same_measure():
    data = three_symbols()
    rows = data.usable_rows(4, SCHEMA)
    inputs = data.inputs.copy()
    inputs[:, 0] = data.targets[4].labels
    request = FitRequest(
        data=replace(data, inputs=inputs), horizon_bars=4, train=rows[:5000],
        calibration=rows[5100:7000],
    )  # fmt: skip
    answers = quick(LightGBMFamily).fit(request).probabilities(inputs[rows[7100:]])
    labels = data.targets[4].labels[rows[7100:]]
    assert -np.log(answers[np.arange(len(labels)), labels]).mean() < 0.3


@pytest.mark.acceptance("S-205", criterion="Random forest can be trained as a registry type")
def test_a_random_forest_can_be_trained(tmp_path, measured):
    found = Training(quick(RandomForestFamily), three_symbols(), TrainOptions(folds=0), tmp_path)
    card = found.run().card
    assert card.family == "random_forest"
    assert OnnxSession(found.folder).score(three_symbols().inputs[-5:]).shape == (5, 3)
    measured(f"log-loss {card.evaluation['test']['measures']['log_loss']['value']:.4f}")
