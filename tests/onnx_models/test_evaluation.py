import numpy as np
import pytest
from sklearn import metrics

from onnx_models.evaluation import (
    Judged,
    Outcomes,
    Yardstick,
    evaluate,
    fit_yardstick,
    measure_spread,
    reliability,
    round_figures,
)

HOUR_NS = 3_600_000_000_000
PRIOR = np.array([0.2, 0.6, 0.2])
YARDSTICK = Yardstick(
    prior=(0.2, 0.6, 0.2),
    cost_bps=10.0,
    horizon_bars=4,
    moves_per_deviation=1.2,
    returns_per_score=0.02,
    strong_score=0.3,
)


def outcomes(count=4000, seed=11):
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, size=count, p=PRIOR)
    return Outcomes(
        labels=labels,
        returns=(labels - 1) * 0.01 + generator.normal(scale=0.002, size=count),
        volatility=np.full(count, 0.005),
        times_ns=np.arange(count, dtype=np.int64) * HOUR_NS,
    )


def probabilities(count=4000, seed=5):
    return np.random.default_rng(seed).dirichlet([2.0, 4.0, 2.0], size=count)


def judge(answers, came, yardstick=YARDSTICK, **more):
    part = Judged(probabilities=answers, outcomes=came, yardstick=yardstick, **more)
    return evaluate([part])


def values(found):
    return {name: one["value"] for name, one in found["measures"].items()}


@pytest.mark.acceptance(
    "S-094", criterion="Metrics accuracy/precision/recall/F1/RMSE/direction equal scikit-learn"
)
def test_measures_equal_those_of_scikit_learn(measured):
    answers, came = probabilities(), outcomes()
    found, labels = values(judge(answers, came)), came.labels
    winners = answers.argmax(axis=1)
    kinds = ("sell", "hold", "buy")
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(labels, winners)
    expected = {
        "log_loss": metrics.log_loss(labels, answers),
        "accuracy": metrics.accuracy_score(labels, winners),
        "balanced_accuracy": metrics.balanced_accuracy_score(labels, winners),
        "brier": metrics.brier_score_loss(labels, answers),
        **{f"precision_{kind}": precision[i] for i, kind in enumerate(kinds)},
        **{f"recall_{kind}": recall[i] for i, kind in enumerate(kinds)},
        **{f"f1_{kind}": f1[i] for i, kind in enumerate(kinds)},
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    moved = labels != 1
    rise = answers[moved, 2] / (answers[moved, 0] + answers[moved, 2])
    assert found["log_loss_of_direction"] == pytest.approx(
        metrics.log_loss(labels[moved] == 2, rise)
    )
    assert found["direction_right"] == pytest.approx(((rise > 0.5) == (labels[moved] == 2)).mean())
    score = answers[:, 2] - answers[:, 0]
    error = metrics.root_mean_squared_error(came.returns, 0.02 * score)
    assert found["rmse_return_bps"] == pytest.approx(1e4 * error)
    measured(f"{len(expected) + 3} measures alike")


def test_net_return_is_that_of_a_loop_over_decisions():
    answers, came = probabilities(), outcomes()
    found, nets, strong = values(judge(answers, came)), [], []
    for answer, move, deviation in zip(answers, came.returns, came.volatility, strict=True):
        score = answer[2] - answer[0]
        net = (move if score > 0 else -move) - 0.001
        if abs(score) * 1.2 * deviation * 2.0 > 0.001:
            nets.append(net)
        if abs(score) > 0.3:
            strong.append(net)
    assert found["decisions"] == len(nets) > 100
    assert found["net_bps_per_decision"] == pytest.approx(1e4 * np.mean(nets))
    assert found["strong_opinions"] == len(strong) > 100
    assert found["net_bps_per_strong_opinion"] == pytest.approx(1e4 * np.mean(strong))


def test_the_prior_itself_gains_nothing():
    came = outcomes()
    found = judge(np.tile(PRIOR, (4000, 1)), came)
    for name in ("gain", "gain_of_direction"):
        assert found["measures"][name]["interval_95"] == pytest.approx([0.0, 0.0])
    assert not found["beats_prior"]
    assert found["winner_shares"] == [0.0, 1.0, 0.0]
    assert found["measures"]["net_bps_per_decision"] == {"value": None, "interval_95": None}


def test_knowing_the_outcome_gains_in_all_and_in_direction():
    came = outcomes()
    sure = np.full((4000, 3), 0.05)
    sure[np.arange(4000), came.labels] = 0.9
    found = judge(sure, came)
    assert found["measures"]["gain"]["interval_95"][0] > 0.5
    assert found["beats_prior"]
    assert found["beats_prior_of_direction"]
    assert values(found)["net_bps_per_strong_opinion"] > 50.0


def test_knowing_only_that_nothing_moves_gains_nothing_in_direction():
    came = outcomes()
    quiet = np.where(came.labels == 1, 0.9, 0.1)
    side = (1 - quiet) / 2
    found = judge(np.column_stack([side, quiet, side]), came)
    assert found["beats_prior"]
    assert values(found)["gain_of_direction"] == pytest.approx(0.0)


def test_confidence_that_comes_true_has_no_calibration_error():
    came = outcomes(40_000)
    answers = np.tile(PRIOR, (40_000, 1))
    assert values(judge(answers, came))["calibration_error"] < 0.01
    boast = np.tile([0.05, 0.9, 0.05], (40_000, 1))
    assert values(judge(boast, came))["calibration_error"] == pytest.approx(0.3, abs=0.01)


def test_blocks_widen_the_interval_of_rows_that_hang_together():
    count = 4800
    generator = np.random.default_rng(3)
    shared = np.repeat(generator.choice(3, size=count // 48, p=PRIOR), 48)
    widths = []
    for labels in (shared, generator.permutation(shared)):
        came = Outcomes(
            labels=labels,
            returns=np.zeros(count),
            volatility=np.full(count, 0.01),
            times_ns=np.arange(count, dtype=np.int64) * HOUR_NS,
        )
        low, high = judge(np.tile([0.3, 0.4, 0.3], (count, 1)), came)["measures"]["gain"][
            "interval_95"
        ]
        widths.append(high - low)
    assert widths[0] > 4 * widths[1]


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    hits = 0
    for seed in range(40):
        came = outcomes(2400, seed)
        interval = judge(np.tile(PRIOR, (2400, 1)), came)["measures"]["accuracy"]["interval_95"]
        hits += interval[0] <= 0.6 <= interval[1]
    assert hits >= 32


def test_periods_count_by_their_rows():
    answers, came = probabilities(), outcomes()

    def part(rows):
        kept = Outcomes(
            labels=came.labels[rows],
            returns=came.returns[rows],
            volatility=came.volatility[rows],
            times_ns=came.times_ns[rows],
        )
        return Judged(probabilities=answers[rows], outcomes=kept, yardstick=YARDSTICK)

    both = evaluate([part(slice(0, 960)), part(slice(960, 4000))])
    assert values(both)["log_loss"] == pytest.approx(values(judge(answers, came))["log_loss"])
    assert both["rows"] == 4000
    assert both["class_prior"] == pytest.approx(list(PRIOR))


def test_a_return_head_is_judged_instead_of_the_score():
    answers, came = probabilities(), outcomes()
    found = judge(answers, came, expected_returns=came.returns)
    assert values(found)["rmse_return_bps"] == 0.0


def test_the_yardstick_is_fixed_by_the_calibration_rows():
    answers, came = probabilities(), outcomes()
    found = fit_yardstick(answers, came, PRIOR, 22.0, 4)
    score = answers[:, 2] - answers[:, 0]
    assert (np.abs(score) > found.strong_score).mean() == pytest.approx(0.1, abs=0.001)
    assert found.returns_per_score == pytest.approx(
        np.linalg.lstsq(score[:, None], came.returns, rcond=None)[0][0]
    )
    moved = came.labels != 1
    assert found.moves_per_deviation == pytest.approx(np.abs(came.returns[moved]).mean() / 0.01)


def test_a_constant_answer_has_no_spread():
    found = measure_spread(np.tile([0.2, 0.5, 0.3], (100, 1)))
    assert found["confidence_p90"] - found["confidence_p10"] == 0.0
    assert (found["commonest_action"], found["commonest_share"]) == ("hold", 1.0)
    assert found["commonest_std"] == pytest.approx(0.0, abs=1e-12)


def test_figures_are_rounded_at_any_depth():
    assert round_figures({"a": [0.123456789, None, "x", 3]}) == {"a": [0.1234568, None, "x", 3]}


def test_reliability_tells_said_from_come_in_tenths():
    true = probabilities(20_000)
    thresholds = true.cumsum(axis=1)
    drawn = (np.random.default_rng(9).random((20_000, 1)) > thresholds).sum(axis=1).clip(0, 2)
    found = reliability(true, drawn)
    for name in ("sell", "hold", "buy"):
        assert sum(found[name]["rows"]) == len(true)
        assert np.abs(np.subtract(found[name]["said"], found[name]["came"])).max() < 0.05
        assert found[name]["said"] == sorted(found[name]["said"])
