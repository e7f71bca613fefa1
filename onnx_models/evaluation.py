"""How good forecasts were on rows they never saw, with intervals, beside what costs nothing to say.

Every measure is a function of sums over rows. Sums are taken per block of time over all symbols, and
blocks are drawn with replacement: neighbouring rows share most of their label and symbols move
together, so rows alone would promise too much (H. Kuensch, *The Jackknife and the Bootstrap for
General Stationary Observations*, 1989). Before and after is one formula for point and interval.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from onnx_models.families import FloatArray, IntArray
from onnx_models.labels import BUY, HOLD, SELL

CLASSES = ("sell", "hold", "buy")
BLOCK_HOURS = 48
RESAMPLES = 2000
SEED = 7
INTERVAL = (0.025, 0.975)
BINS = 10
INTERVAL_METHOD = f"95 %, bootstrap of {BLOCK_HOURS} h blocks over all symbols, {RESAMPLES} resamples, seed {SEED}"
STRONG_SHARE = 0.1

_HOUR_NS = 3_600_000_000_000
_PROBABILITY_MIN = 1e-15


class Yardstick(Struct, frozen=True, kw_only=True):
    """What is fixed before a test period begins, from the rows that were known then."""

    prior: tuple[float, float, float]
    """Class shares."""
    cost_bps: float
    """Of a round trip."""
    horizon_bars: int
    moves_per_deviation: float
    """Mean |forward return| of rows of direction, in deviations of the horizon."""
    returns_per_score: float
    """Least squares slope of the forward return on P(buy) - P(sell); the return head of a model
    without one."""
    strong_score: float
    """|P(buy) - P(sell)| that a tenth of the calibration rows exceeded."""


class Outcomes(Struct, frozen=True, kw_only=True):
    """What came true of the judged rows."""

    labels: IntArray
    returns: FloatArray
    """Forward return at the horizon, as a fraction."""
    volatility: FloatArray
    """Standard deviation of the return of one bar, known at the row's time."""
    times_ns: IntArray


def fit_yardstick(
    probabilities: FloatArray, outcomes: Outcomes, prior: FloatArray, cost_bps: float, horizon: int
) -> Yardstick:
    """Return the yardstick from calibrated `probabilities` of the calibration rows."""
    score = _score(probabilities)
    moved = outcomes.labels != HOLD
    deviation = outcomes.volatility * horizon**0.5
    ratios = np.abs(outcomes.returns[moved]) / np.maximum(deviation[moved], 1e-12)
    power = float((score**2).sum())
    return Yardstick(
        prior=(float(prior[0]), float(prior[1]), float(prior[2])),
        cost_bps=cost_bps,
        horizon_bars=horizon,
        moves_per_deviation=float(ratios.mean()) if moved.any() else 0.0,
        returns_per_score=float((score * outcomes.returns).sum()) / power if power > 0 else 0.0,
        strong_score=float(np.quantile(np.abs(score), 1.0 - STRONG_SHARE)),
    )


class Judged(Struct, frozen=True, kw_only=True):
    """Forecasts of one period beside what came true."""

    probabilities: FloatArray
    """(rows, 3), calibrated."""
    outcomes: Outcomes
    yardstick: Yardstick
    expected_returns: FloatArray | None = None
    """(rows,) of the model's own return head."""


def evaluate(parts: Sequence[Judged]) -> dict[str, Any]:
    """Return every measure of forecasts of one or more periods, with intervals.

    Plain values, ready for JSON: `measures` maps a name to `value` and `interval_95`; a measure that
    has nothing to divide by (no decisions, no row of a class) is None. Log-losses in nats, returns in
    bps. `gain_*` compare with the class prior: above zero is better than saying the same each time.
    """
    summed = [_sum_blocks(part) for part in parts]
    names = list(summed[0])
    sums = np.concatenate([np.stack(list(one.values()), axis=1) for one in summed])
    whole = _measure(dict(zip(names, sums.sum(axis=0), strict=True)))
    generator = np.random.default_rng(SEED)
    drawn = generator.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=RESAMPLES)
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = _measure(dict(zip(names, (drawn @ sums).T, strict=True)))
    measures = {name: _with_interval(whole[name], resampled[name]) for name in whole}
    probabilities = np.concatenate([part.probabilities for part in parts])
    labels = np.concatenate([part.outcomes.labels for part in parts])
    weights = [len(part.outcomes.labels) / len(labels) for part in parts]
    priors = np.array([part.yardstick.prior for part in parts])
    return {
        "first_close_ns": min(int(part.outcomes.times_ns.min()) for part in parts),
        "last_close_ns": max(int(part.outcomes.times_ns.max()) for part in parts),
        "rows": len(labels),
        "blocks": len(sums),
        "interval_method": INTERVAL_METHOD,
        "measures": measures,
        "class_shares": _shares(labels),
        "class_prior": [float(one) for one in weights @ priors],
        "winner_shares": _shares(probabilities.argmax(axis=1)),
        "spread": measure_spread(probabilities),
        "beats_prior": is_above_zero(measures["gain"]),
        "beats_prior_of_direction": is_above_zero(measures["gain_of_direction"]),
    }


def reliability(probabilities: FloatArray, labels: IntArray, bins: int = 10) -> dict[str, Any]:
    """Return per class the mean probability, the share that came true and the rows of each tenth."""
    found: dict[str, Any] = {}
    for one, name in enumerate(CLASSES):
        order = np.argsort(probabilities[:, one], kind="stable")
        parts = [part for part in np.array_split(order, bins) if len(part)]
        found[name] = {
            "said": [float(probabilities[part, one].mean()) for part in parts],
            "came": [float((labels[part] == one).mean()) for part in parts],
            "rows": [len(part) for part in parts],
        }
    return found


def shorten(evaluated: dict[str, Any]) -> dict[str, Any]:
    """Return what a table needs of a baseline's evaluation."""
    return {name: evaluated[name] for name in ("rows", "measures")}


def round_figures(value: Any) -> Any:
    """Return plain values with floats of seven significant digits: a card is read by people."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {name: round_figures(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [round_figures(one) for one in value]
    return value


def is_above_zero(measure: dict[str, Any]) -> bool:
    """Return whether the whole interval of a measure lies above zero."""
    return measure["interval_95"] is not None and measure["interval_95"][0] > 0.0


def measure_spread(probabilities: FloatArray) -> dict[str, Any]:
    """Return how much the answers differ from row to row: a constant answer knows nothing."""
    confidence, winners = probabilities.max(axis=1), probabilities.argmax(axis=1)
    shares = np.bincount(winners, minlength=len(CLASSES)) / len(winners)
    commonest = int(shares.argmax())
    score = _score(probabilities)
    return {
        "confidence_p10": float(np.quantile(confidence, 0.1)),
        "confidence_p90": float(np.quantile(confidence, 0.9)),
        "confidence_std": float(confidence.std()),
        "buy_less_sell_p10": float(np.quantile(score, 0.1)),
        "buy_less_sell_p90": float(np.quantile(score, 0.9)),
        "buy_less_sell_std": float(score.std()),
        "class_std": [float(one) for one in probabilities.std(axis=0)],
        "commonest_action": CLASSES[commonest],
        "commonest_share": float(shares[commonest]),
        "commonest_std": float(confidence[winners == commonest].std()),
    }


def _sum_blocks(part: Judged) -> dict[str, FloatArray]:
    """Return the sums of each block of time by name."""
    columns = {
        **_score_sums(part.probabilities, part.outcomes.labels, np.array(part.yardstick.prior)),
        **_hit_sums(part.probabilities, part.outcomes.labels),
        **_return_sums(part),
    }
    times = part.outcomes.times_ns
    _, blocks = np.unique((times - times.min()) // (BLOCK_HOURS * _HOUR_NS), return_inverse=True)
    return {
        name: np.asarray(np.bincount(blocks, weights=one), dtype=np.float64)
        for name, one in columns.items()
    }


def _score_sums(
    probabilities: FloatArray, labels: IntArray, prior: FloatArray
) -> dict[str, FloatArray]:
    hits = np.eye(len(CLASSES))[labels]
    moved = (labels != HOLD).astype(np.float64)
    rising = (labels == BUY).astype(np.float64)
    side, side_prior = _rise(probabilities), prior[BUY] / (prior[BUY] + prior[SELL])
    return {
        "rows": np.ones(len(labels)),
        "log_loss": -np.log(_floor((probabilities * hits).sum(axis=1))),
        "log_loss_prior": -np.log(_floor(prior[labels])),
        "brier": ((probabilities - hits) ** 2).sum(axis=1),
        "brier_prior": ((prior - hits) ** 2).sum(axis=1),
        "moved": moved,
        "side_loss": -moved * np.log(_floor(np.where(rising > 0, side, 1.0 - side))),
        "side_loss_prior": -moved
        * np.log(_floor(np.where(rising > 0, side_prior, 1.0 - side_prior))),
        "side_right": moved * ((side > 0.5) == (rising > 0)),
        "side_right_prior": moved * ((side_prior > 0.5) == (rising > 0)),
    }


def _hit_sums(probabilities: FloatArray, labels: IntArray) -> dict[str, FloatArray]:
    """Cells of the confusion matrix, and of the calibration of the winner's probability."""
    winners, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    hit = (winners == labels).astype(np.float64)
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    found: dict[str, FloatArray] = {}
    for said in range(len(CLASSES)):
        for came in range(len(CLASSES)):
            found[f"cell_{said}{came}"] = ((winners == said) & (labels == came)).astype(np.float64)
    for one in range(BINS):
        inside = (bins == one).astype(np.float64)
        found[f"confidence_{one}"] = inside * confidence
        found[f"hits_{one}"] = inside * hit
    return found


def _return_sums(part: Judged) -> dict[str, FloatArray]:
    """What acting on the answers would have brought, at the close of the horizon, after costs."""
    outcomes, yardstick = part.outcomes, part.yardstick
    score, returns = _score(part.probabilities), outcomes.returns
    expected = part.expected_returns
    if expected is None:
        expected = score * yardstick.returns_per_score
    cost = yardstick.cost_bps / 1e4
    deviation = outcomes.volatility * yardstick.horizon_bars**0.5
    edge = np.abs(score) * yardstick.moves_per_deviation * deviation - cost
    net = np.sign(score) * returns - cost
    decided = (edge > 0.0).astype(np.float64)
    strong = (np.abs(score) > yardstick.strong_score).astype(np.float64)
    return {
        "square_error": (returns - expected) ** 2,
        "square_error_zero": returns**2,
        "decided": decided,
        "decided_net": decided * net,
        "strong": strong,
        "strong_net": strong * net,
    }


def _measure(sums: dict[str, Any]) -> dict[str, Any]:
    """Return every measure of the sums; each sum a number or an array of resamples."""
    rows, moved = sums["rows"], sums["moved"]
    return {
        "log_loss": sums["log_loss"] / rows,
        "log_loss_prior": sums["log_loss_prior"] / rows,
        "gain": (sums["log_loss_prior"] - sums["log_loss"]) / rows,
        "brier": sums["brier"] / rows,
        "brier_prior": sums["brier_prior"] / rows,
        "calibration_error": _calibration_error(sums),
        **_measure_classes(sums),
        "log_loss_of_direction": _ratio(sums["side_loss"], moved),
        "gain_of_direction": _ratio(sums["side_loss_prior"] - sums["side_loss"], moved),
        "direction_right": _ratio(sums["side_right"], moved),
        "direction_right_prior": _ratio(sums["side_right_prior"], moved),
        "rmse_return_bps": 1e4 * np.sqrt(sums["square_error"] / rows),
        "rmse_zero_return_bps": 1e4 * np.sqrt(sums["square_error_zero"] / rows),
        "decisions": sums["decided"],
        "net_bps_per_decision": 1e4 * _ratio(sums["decided_net"], sums["decided"]),
        "strong_opinions": sums["strong"],
        "net_bps_per_strong_opinion": 1e4 * _ratio(sums["strong_net"], sums["strong"]),
    }


def _measure_classes(sums: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    right = sum(sums[f"cell_{one}{one}"] for one in range(len(CLASSES)))
    recalls = []
    for one, name in enumerate(CLASSES):
        hit = sums[f"cell_{one}{one}"]
        said = sum(sums[f"cell_{one}{other}"] for other in range(len(CLASSES)))
        came = sum(sums[f"cell_{other}{one}"] for other in range(len(CLASSES)))
        found[f"precision_{name}"] = _ratio(hit, said)
        found[f"recall_{name}"] = _ratio(hit, came)
        found[f"f1_{name}"] = _ratio(2.0 * hit, said + came)
        recalls.append(found[f"recall_{name}"])
    return {
        "accuracy": right / sums["rows"],
        "balanced_accuracy": sum(recalls) / len(recalls),
        **found,
    }


def _calibration_error(sums: dict[str, Any]) -> Any:
    """Mean distance of the winner's probability from its hit rate, over ten equal bins."""
    parts = [np.abs(sums[f"confidence_{one}"] - sums[f"hits_{one}"]) for one in range(BINS)]
    return sum(parts) / sums["rows"]


def _with_interval(value: Any, resampled: Any) -> dict[str, Any]:
    if not np.isfinite(value):
        return {"value": None, "interval_95": None}
    # A resample without a single decision has no mean; the others do.
    low, high = np.quantile(resampled[np.isfinite(resampled)], INTERVAL)
    return {"value": float(value), "interval_95": [float(low), float(high)]}


def _score(probabilities: FloatArray) -> FloatArray:
    return np.asarray(probabilities[:, BUY] - probabilities[:, SELL])


def _rise(probabilities: FloatArray) -> FloatArray:
    directional = probabilities[:, BUY] + probabilities[:, SELL]
    return np.asarray(probabilities[:, BUY] / np.maximum(directional, _PROBABILITY_MIN))


def _floor(probabilities: FloatArray) -> FloatArray:
    return np.clip(probabilities, _PROBABILITY_MIN, 1.0)


def _ratio(part: Any, whole: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(part, whole)


def _shares(classes: IntArray) -> list[float]:
    return [float((classes == one).mean()) for one in range(len(CLASSES))]
