"""Out-of-sample figures of a model against the class prior, stated as they are."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from infra.onnx_session import CARD_NAME, ModelCard
from onnx_models.labels import BUY, HOLD, SELL

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_BLOCK_HOURS = 48
_RESAMPLES = 2000
_HOUR_NS = 3_600_000_000_000


def evaluate(
    probabilities: FloatArray, labels: IntArray, prior: FloatArray, times_ns: IntArray
) -> dict[str, Any]:
    """Return log-loss (nats) of model and prior on one period, and 95 % intervals of the gains.

    `probabilities` (rows, classes), `prior` (classes,). The gain of a row is the prior's loss less
    the model's. `direction` asks the same of buy against sell alone, on the rows that were either:
    a model can beat the prior by knowing when the market is quiet, and still not know which way.
    """
    buy_less_sell = probabilities[:, 2] - probabilities[:, 0]
    moved = labels != HOLD
    winners = probabilities.argmax(axis=1)
    return {
        "first_close_ns": int(times_ns.min()),
        "last_close_ns": int(times_ns.max()),
        **measure_gain(probabilities, labels, prior, times_ns),
        "direction": measure_gain(
            _without_hold(probabilities[moved]),
            (labels[moved] == BUY).astype(np.int64),
            _without_hold(prior[None, :])[0],
            times_ns[moved],
        ),
        "class_shares": [float((labels == one).mean()) for one in range(len(prior))],
        "class_prior": [float(one) for one in prior],
        "winner_shares": [float((winners == one).mean()) for one in range(len(prior))],
        "buy_less_sell_p10_p90": [float(q) for q in np.quantile(buy_less_sell, [0.1, 0.9])],
        "expected_calibration_error": _calibration_error(probabilities, labels),
    }


def measure_gain(
    probabilities: FloatArray, labels: IntArray, prior: FloatArray, times_ns: IntArray
) -> dict[str, Any]:
    """Return mean log-loss (nats) of model and prior, the mean gain and its 95 % interval."""
    rows = np.arange(len(labels))
    model_loss = -np.log(np.clip(probabilities[rows, labels], 1e-15, 1.0))
    prior_loss = -np.log(prior[labels])
    low, high = bootstrap_interval(prior_loss - model_loss, times_ns)
    return {
        "rows": len(labels),
        "log_loss": float(model_loss.mean()),
        "log_loss_prior": float(prior_loss.mean()),
        "gain_mean": float((prior_loss - model_loss).mean()),
        "gain_interval_95": [low, high],
        "interval_method": f"bootstrap of {_BLOCK_HOURS} h blocks, {_RESAMPLES} resamples, seed 7",
    }


def _without_hold(probabilities: FloatArray) -> FloatArray:
    directional = probabilities[:, [SELL, BUY]]
    return np.asarray(directional / directional.sum(axis=1, keepdims=True))


def bootstrap_interval(gains: FloatArray, times_ns: IntArray) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % quantile of the mean of `gains` over resampled blocks of time.

    Rows of one block of 48 hours are drawn together, over all symbols: neighbouring rows share most
    of their label, and symbols move together.
    """
    blocks = (times_ns - times_ns.min()) // (_BLOCK_HOURS * _HOUR_NS)
    sums = np.bincount(blocks, weights=gains)
    counts = np.bincount(blocks)
    sums, counts = sums[counts > 0], counts[counts > 0]
    generator = np.random.default_rng(7)
    drawn = generator.integers(0, len(sums), size=(_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _calibration_error(probabilities: FloatArray, labels: IntArray) -> float:
    """Return the mean distance of confidence and accuracy of the winner over ten equal bins."""
    confidence, hit = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * 10).astype(np.int64), 9)
    parts = [
        (bins == one).mean() * abs(confidence[bins == one].mean() - hit[bins == one].mean())
        for one in np.unique(bins)
    ]
    return float(sum(parts))


def write_card(card: ModelCard, folder: Path) -> None:
    """Write `card` as readable JSON."""
    text = msgspec.json.format(msgspec.json.encode(card), indent=2)
    (folder / CARD_NAME).write_bytes(text + b"\n")
