"""A regime model from recorded bars to a verdict on whether it may take the rule's place."""

from functools import cache

import numpy as np
import pytest
from msgspec.structs import replace

from infra.onnx_session import REGIME_CLASSES, ModelRefusedError, OnnxSession
from onnx_models.artefact import Parity
from onnx_models.regimes.candidates import BoostedCandidate, ForestCandidate
from onnx_models.regimes.rows import load_regime_rows
from onnx_models.regimes.scores import RULE
from onnx_models.regimes.train import RegimeTraining, judge_regime
from onnx_models.train import TrainOptions
from operators.regime import NO_CALL, RegimeRule, call_by_lift
from schemas.features import FEATURE_SCHEMAS, SEQUENCE_SCHEMAS
from schemas.regime import RG11
from tests.onnx_models.recorded import HOURS, LATER, SYMBOLS

FOREST = ForestCandidate({"n_estimators": 10, "max_depth": 6})
BOOSTED = BoostedCandidate({"n_estimators": 15, "learning_rate": 0.1, "min_data_in_leaf": 50})
PERIODS = ("walk_forward", "test", "holdout")


@cache
def rows():
    return load_regime_rows([HOURS], symbols=SYMBOLS)


@cache
def later():
    return load_regime_rows([LATER], symbols=SYMBOLS)


def train(out, data=None, candidates=(FOREST, BOOSTED), **changes):
    holdout = changes.pop("holdout", later())
    options = TrainOptions(**({"folds": 2} | changes))
    return RegimeTraining(data or rows(), out, holdout, options, candidates)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("regime")
    return out, train(out).run()


@pytest.mark.acceptance("S-147", criterion="out-of-sample accuracy reported against the rule")
def test_every_period_reports_the_candidates_beside_the_rule(trained, measured):
    _, found = trained
    for period in PERIODS:
        callers = found.card.evaluation[period]
        assert set(callers) == {RULE, "random_forest", "lightgbm"}
        assert len({one["rows"] for one in callers.values()}) == 1
        for one in callers.values():
            assert {"accuracy", "balanced_accuracy", "log_loss"} <= one["measures"].keys()
    test = found.card.evaluation["test"]
    told = ", ".join(
        f"{name} {one['measures']['accuracy']['value']:.3f}" for name, one in test.items()
    )
    measured(f"accuracy {told}; {found.card.gate['reason']}")


def test_the_gate_is_whether_it_surely_beats_the_rule(trained):
    card = trained[1].card
    lows = [
        card.evaluation[period][card.family]["less_rule"][name]["interval_95"][0]
        for period in PERIODS
        for name in ("accuracy", "balanced_accuracy")
    ]
    assert card.gate["passed"] is (min(lows) > 0)
    assert ("the rule serves" in card.gate["reason"]) is not card.gate["passed"]


def scored(**lows):
    """Return the scores of one model whose differences have these lower ends."""
    return {
        period: {
            "model": {
                "less_rule": {
                    name: {"value": low + 0.1, "interval_95": [low, low + 0.2]}
                    for name in ("accuracy", "balanced_accuracy")
                }
            }
        }
        for period, low in lows.items()
    }


@pytest.mark.acceptance("S-147", criterion="deployed only if better than the rule")
@pytest.mark.parametrize(
    ("lows", "passed"),
    [
        ({"walk_forward": 0.01, "test": 0.01, "holdout": 0.01}, True),
        ({"walk_forward": 0.01, "test": 0.01, "holdout": 0.0}, False),
        ({"walk_forward": -0.01, "test": 0.01}, False),
        ({"test": 0.01}, True),
    ],
)
def test_one_period_that_is_not_surely_better_keeps_the_rule(lows, passed, measured):
    parity = Parity(difference_max=0.0, rows=10_000, boundary_rows=0, batch_difference_max=0.0)
    gate = judge_regime(parity, "model", scored(**lows))
    assert gate["passed"] is passed
    worse = [name for name, low in lows.items() if low <= 0]
    assert all(name in gate["reason"] for name in worse)
    measured(gate["reason"])


def test_a_label_that_the_inputs_tell_is_learnt_and_beats_the_rule(tmp_path):
    """The way from rows to a passed gate, with labels made of the inputs: nothing real is so easy."""
    distance = rows().inputs[:, RG11.names.index("close_to_sma_50")]
    planted = np.digitize(distance, np.nanquantile(distance, [0.2, 0.4, 0.6, 0.8]))
    known = rows().labels != -1
    easy = replace(rows(), labels=np.where(known, planted, -1))
    quick = BoostedCandidate({"n_estimators": 40, "learning_rate": 0.1})
    found = train(tmp_path, easy, candidates=(quick,), holdout=None, folds=1).run()
    assert found.card.gate["passed"]
    assert found.card.gate["reason"].startswith("lightgbm serves")
    assert found.card.beats_prior


def test_shuffled_labels_tell_nothing(tmp_path):
    labels = rows().labels.copy()
    known = np.flatnonzero(labels != -1)
    labels[known] = np.random.default_rng(3).permutation(labels[known])
    card = train(tmp_path, replace(rows(), labels=labels), holdout=None).run().card
    assert not card.gate["passed"]
    assert card.evaluation["test"][card.family]["measures"]["gain"]["value"] < 0.005


def test_the_artefact_serves_regimes_and_never_votes(trained):
    session = OnnxSession(trained[0] / "regime_1h")
    assert session.classes == REGIME_CLASSES
    assert session.card.evaluation == trained[1].card.evaluation
    inputs = rows().inputs
    complete = inputs[np.isfinite(inputs).all(axis=1)]
    found = session.score(complete.astype(np.float32))
    calls = call_by_lift(found, session.card.training["class_shares"])
    assert (calls.codes != NO_CALL).all()
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-5
    read_by_voters = {*FEATURE_SCHEMAS.values(), *SEQUENCE_SCHEMAS.values()}
    assert session.feature_schema_hash not in {one.schema_hash for one in read_by_voters}


def test_parity_is_measured_on_rows_and_boundaries(trained):
    checks = trained[1].card.gate["checks"]
    assert checks["parity_max"]["value"] <= 1e-4
    assert checks["parity_rows"]["value"] > 10_000


@pytest.mark.parametrize("candidate", [FOREST, BOOSTED], ids=lambda one: one.name)
def test_each_candidate_exports_what_it_learnt(candidate, tmp_path):
    card = train(tmp_path, candidates=(candidate,), holdout=None, folds=0).run().card
    assert card.family == candidate.name
    assert card.gate["checks"]["parity_max"]["value"] <= 1e-5


def test_a_card_with_the_classes_of_voters_is_refused(trained, tmp_path):
    import msgspec

    folder = trained[0] / "regime_1h"
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}
    card = msgspec.json.decode(contents["card.json"]) | {"classes": ["sell", "hold", "buy"]}
    with pytest.raises(ModelRefusedError, match="classes must be"):
        OnnxSession(contents | {"card.json": msgspec.json.encode(card)})


def test_the_same_seed_gives_the_same_bytes(trained, tmp_path):
    again = train(tmp_path).run()
    assert again.card.files == trained[1].card.files
    assert not again.kept


def test_finished_work_is_kept_until_something_decisive_changes(trained):
    out, found = trained
    assert train(out).run().kept
    assert train(out, seed=8).key != found.card.training["key"]
    assert train(out, candidates=(FOREST,)).key != found.card.training["key"]


def test_periods_are_purged_of_labels_that_reach_into_them():
    plan = train(HOURS.parent)._plan
    for fold in (*plan.folds, plan.final):
        assert rows().ends_ns[fold.train].max() < rows().close_times_ns[fold.calibration].min()
        assert rows().ends_ns[fold.calibration].max() < rows().close_times_ns[fold.test].min()


def test_the_rule_is_judged_by_its_live_calls(trained):
    fold = train(trained[0])._plan.final
    codes = RegimeRule().call(rows().inputs[fold.test]).codes
    accuracy = (codes == rows().labels[fold.test]).mean()
    stated = trained[1].card.evaluation["test"][RULE]["measures"]["accuracy"]["value"]
    assert stated == pytest.approx(accuracy, rel=1e-6)


def test_rows_without_a_regime_to_learn_are_refused(tmp_path):
    labels = np.where(rows().labels == 4, 3, rows().labels)
    with pytest.raises(ValueError, match="found none of \\['crisis'\\]"):
        train(tmp_path, replace(rows(), labels=labels), holdout=None).run()


def test_a_holdout_before_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holdout must begin after"):
        train(tmp_path, later(), holdout=rows())


def test_a_budget_leaves_folds_out_and_says_so(tmp_path):
    card = train(tmp_path, holdout=None, budget_seconds=0.05).run().card
    assert card.training["left_out"] == ["fold_2: time budget"]
    assert "walk_forward" in card.evaluation
