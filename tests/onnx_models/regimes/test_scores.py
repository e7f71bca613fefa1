"""Scores of callers against figures computed another way."""

import numpy as np
import pytest
from sklearn import metrics

from onnx_models.regimes.scores import RULE, Caller, RegimePeriod, is_better, score_callers
from schemas.regime import REGIMES

HOUR_NS = 3_600_000_000_000
ROWS = 3000


def period(right, seed=1, rows=ROWS):
    """Return a period in which each caller names the true regime with its share `right`."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, rows)
    callers = {}
    for name, share in right.items():
        told = np.where(generator.random(rows) < share, labels, generator.integers(0, 5, rows))
        callers[name] = Caller(codes=told, probabilities=generator.dirichlet(np.ones(5), rows))
    times = np.arange(rows, dtype=np.int64) * HOUR_NS
    return RegimePeriod(labels=labels, times_ns=times, prior=np.full(5, 0.2), callers=callers)


def test_measures_are_those_of_the_library():
    part = period({RULE: 0.3, "forest": 0.6})
    found = score_callers([part])["forest"]
    caller, measures = part.callers["forest"], found["measures"]
    values = {name: one["value"] for name, one in measures.items()}
    assert values["accuracy"] == pytest.approx(metrics.accuracy_score(part.labels, caller.codes))
    assert values["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(part.labels, caller.codes)
    )
    assert values["log_loss"] == pytest.approx(metrics.log_loss(part.labels, caller.probabilities))
    assert values["gain"] == pytest.approx(np.log(5) - values["log_loss"])
    table = metrics.precision_recall_fscore_support(part.labels, caller.codes)
    for code, name in enumerate(REGIMES):
        told = (values[f"{kind}_{name}"] for kind in ("precision", "recall", "f1"))
        assert tuple(told) == pytest.approx(tuple(column[code] for column in table[:3]))
    assert np.array_equal(found["confusion"], metrics.confusion_matrix(part.labels, caller.codes).T)


def test_the_interval_of_the_difference_holds_the_difference_and_the_rule_less_itself_is_zero():
    scored = score_callers([period({RULE: 0.3, "forest": 0.6})])
    for name in ("accuracy", "balanced_accuracy", "gain"):
        difference = scored["forest"]["less_rule"][name]
        values = [scored[one]["measures"][name]["value"] for one in ("forest", RULE)]
        assert difference["value"] == pytest.approx(values[0] - values[1])
        low, high = difference["interval_95"]
        assert low < difference["value"] < high
        assert scored[RULE]["less_rule"][name]["interval_95"] == [0.0, 0.0]


@pytest.mark.parametrize(("right", "better"), [(0.6, True), (0.3, False), (0.1, False)])
def test_better_is_what_is_surely_better(right, better):
    assert is_better(score_callers([period({RULE: 0.3, "forest": right})])["forest"]) is better


def test_naming_the_commonest_regime_always_is_not_better():
    part = period({RULE: 0.3})
    labels = np.where(np.random.default_rng(2).random(ROWS) < 0.8, 3, part.labels)
    lazy = Caller(codes=np.full(ROWS, 3), probabilities=part.callers[RULE].probabilities)
    both = RegimePeriod(
        labels=labels,
        times_ns=part.times_ns,
        prior=part.prior,
        callers={
            RULE: Caller(codes=np.where(labels == 3, 0, labels), probabilities=lazy.probabilities),
            "lazy": lazy,
        },
    )
    scored = score_callers([both])["lazy"]
    assert scored["less_rule"]["accuracy"]["interval_95"][0] > 0
    assert not is_better(scored)


def test_a_regime_that_never_came_has_no_recall_and_no_part_in_the_mean():
    part = period({RULE: 0.5})
    labels = np.where(part.labels == 4, 3, part.labels)
    told = np.where(part.callers[RULE].codes == 4, 3, part.callers[RULE].codes)
    caller = Caller(codes=told, probabilities=part.callers[RULE].probabilities)
    rare = RegimePeriod(
        labels=labels, times_ns=part.times_ns, prior=part.prior, callers={RULE: caller}
    )
    measures = score_callers([rare])[RULE]["measures"]
    assert measures["recall_crisis"] == {"value": None, "interval_95": None}
    assert measures["balanced_accuracy"]["value"] == pytest.approx(
        metrics.balanced_accuracy_score(labels, told)
    )
