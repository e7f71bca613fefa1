"""One loop that trains every network: seeded, deterministic, stopped by the calibration range.

Of the windows that are drawn every second one is learnt from, and scored, in the mirror
(`operators.features.mirror`): a market of a few months has a direction that the next one has not.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from msgspec import Struct
from torch import Tensor
from torch.nn import functional

from onnx_models.labels import BUY
from onnx_models.networks.classifier import CLASSES, SequenceClassifier
from operators.features import Mirror

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

FUTURE_MAX = 6.0
"""Units of the path at which a future is cut: one crash must not decide a step."""
SCORED_ROWS = 1024
"""Windows that are scored at a time."""


class TrainingPlan(Struct, frozen=True, kw_only=True):
    """How a network is trained."""

    batch_rows: int = 32
    learning_rate: float = 1e-3
    context_learning_rate: float = 1e-3
    """Of the part that reads the context; it is small, and standardised, and bears larger steps."""
    weight_decay: float = 1e-2
    gradient_norm_max: float = 1.0
    return_weight: float = 0.1
    """Weight of the Huber loss of the forecast beside the cross entropy of the classes."""
    patience_epochs: int = 10
    epochs_max: int = 30
    windows_per_epoch: int = 8192
    """Windows drawn for an epoch; neighbours share all but one bar, so fewer than all say as much."""
    calibration_windows: int = 4096
    """Windows, evenly spread over the calibration range, that decide when to stop."""
    threads: int = 1
    """Threads on the CPU; part of the plan, because the order of sums depends on it.

    Batches are too small to share: two networks at once use two cores better than one.
    """


class LearningRows(Struct, frozen=True, kw_only=True):
    """What a network learns from; rows are numbers of the data set."""

    windows: Callable[[IntArray], Float32Array]
    """Gives (rows, steps, 3) windows, all complete."""
    futures: Callable[[IntArray], Float32Array]
    """Gives (rows, horizon) log returns since the row's close, NaN where not to be learned."""
    labels: IntArray
    """Class of every bar of the data set."""
    train: IntArray
    calibration: IntArray
    mirror: Mirror

    def take(self, rows: IntArray) -> tuple[Float32Array, Float32Array, IntArray]:
        """Return windows, futures and labels of `rows`, every second one in the mirror."""
        windows, futures, labels = self.windows(rows), self.futures(rows), self.labels[rows]
        images = (np.arange(len(rows)) % 2).astype(np.bool_)
        return (
            np.where(images[:, None, None], self.mirror.reflect(windows), windows),
            np.where(images[:, None], -futures, futures),
            np.where(images, BUY - labels, labels),
        )


class TrainingCurve(Struct, frozen=True, kw_only=True):
    """What the training did."""

    loss_train: list[float]
    """Cross entropy per epoch over the windows that were learned from, dropout included."""
    loss_calibration: list[float]
    loss_forecast: list[float]
    """Huber loss of the forecast per epoch."""
    best_epoch: int
    wall_seconds: float
    left_out: list[str]


def train_network(
    network: SequenceClassifier,
    rows: LearningRows,
    plan: TrainingPlan,
    *,
    seed: int,
    device: str,
    budget_seconds: float | None,
    report: Callable[[float, str], None],
) -> TrainingCurve:
    """Train `network` in place and leave it in its best state, on the CPU, ready to score.

    The order of windows follows from `seed`. Ends after `patience_epochs` epochs without a lower
    loss on the calibration range, after `epochs_max`, or when the budget is used up.
    """
    started = perf_counter()
    calibration = _spread(rows.calibration, plan.calibration_windows, seed)
    held, _, answers = rows.take(calibration)
    epochs = _draw_epochs(rows.train, plan.windows_per_epoch, seed)
    _start(network, rows, next(epochs))
    network.to(device)
    trainer = _Trainer(network, plan, device)
    losses: dict[str, list[float]] = {"train": [], "calibration": [], "forecast": []}
    best, best_state = 0, deepcopy(network.state_dict())
    left_out = _name_left_out(rows, plan, len(calibration))
    deadline = np.inf if budget_seconds is None else started + budget_seconds
    for epoch in range(plan.epochs_max):
        classes, forecast = trainer.learn(rows, next(epochs), deadline)
        losses["train"].append(classes)
        losses["forecast"].append(forecast)
        scored = score(network, held, device)
        losses["calibration"].append(_log_loss(scored, answers))
        if losses["calibration"][-1] <= min(losses["calibration"]):
            best, best_state = epoch, deepcopy(network.state_dict())
        report(
            (epoch + 1) / plan.epochs_max,
            f"epoch {epoch + 1}, loss {min(losses['calibration']):.4f}",
        )
        if perf_counter() >= deadline:
            left_out.append(
                f"epochs after {epoch + 1}: the budget of {budget_seconds:g} s was used"
            )
            break
        if epoch - best >= plan.patience_epochs:
            break
    network.load_state_dict(best_state)
    network.to("cpu").eval()
    return TrainingCurve(
        loss_train=losses["train"],
        loss_calibration=losses["calibration"],
        loss_forecast=losses["forecast"],
        best_epoch=best,
        wall_seconds=perf_counter() - started,
        left_out=left_out,
    )


class _Trainer:
    """Network and optimiser on one device."""

    def __init__(self, network: SequenceClassifier, plan: TrainingPlan, device: str) -> None:
        self._network, self._plan, self._device = network, plan, device
        body, context = network.split_parameters()
        self._optimiser = torch.optim.AdamW(
            [
                {"params": body, "lr": plan.learning_rate},
                {"params": context, "lr": plan.context_learning_rate},
            ],
            weight_decay=plan.weight_decay,
            fused=True,
        )

    def learn(self, rows: LearningRows, drawn: IntArray, deadline: float) -> tuple[float, float]:
        """Take one epoch's steps; return mean cross entropy and mean Huber loss of the forecast."""
        self._network.train()
        windows, futures, labels = (
            torch.from_numpy(one).to(self._device) for one in rows.take(drawn)
        )
        sums = torch.zeros(2, dtype=torch.float64)
        learned = 0
        for first in range(0, len(drawn), self._plan.batch_rows):
            part = slice(first, first + self._plan.batch_rows)
            sums += self._step(windows[part], labels[part], futures[part]) * len(labels[part])
            learned += len(labels[part])
            if perf_counter() >= deadline:
                break
        classes, forecast = (sums / learned).tolist()
        return classes, forecast

    def _step(self, windows: Tensor, labels: Tensor, futures: Tensor) -> Tensor:
        logits, forecast, unit = self._network(windows)
        classes = functional.cross_entropy(logits, labels)
        returns = _forecast_loss(forecast, futures / unit)
        self._optimiser.zero_grad(set_to_none=True)
        (classes + self._plan.return_weight * returns).backward()
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._plan.gradient_norm_max)
        self._optimiser.step()
        return torch.stack([classes, returns]).detach().double().cpu()


def score(network: SequenceClassifier, windows: Float32Array, device: str = "cpu") -> Float32Array:
    """Return the (rows, 3) probabilities of complete (rows, steps, 3) windows."""
    network.eval()
    with torch.no_grad():
        found = [
            torch.softmax(network(torch.from_numpy(part).to(device))[0], dim=1).cpu().numpy()
            for part in _parts(windows)
        ]
    return np.concatenate(found) if found else np.empty((0, CLASSES), dtype=np.float32)


def forecast_returns(network: SequenceClassifier, windows: Float32Array, bars: int) -> Float32Array:
    """Return the (rows,) return that is forecast `bars` bars ahead, as a fraction of the close."""
    network.eval()
    found = []
    with torch.no_grad():
        for part in _parts(windows):
            _, forecast, unit = network(torch.from_numpy(part))
            found.append(torch.expm1(forecast[:, bars - 1] * unit[:, 0]).numpy())
    return np.concatenate(found) if found else np.empty(0, dtype=np.float32)


@contextmanager
def reproducible(seed: int, device: str, threads: int) -> Iterator[None]:
    """Give the block torch's generator from `seed`, deterministic algorithms and `threads`.

    What the process had before is put back. Raises `ValueError` for a device that is not there.
    """
    chosen = _check_device(device)
    # cuBLAS is deterministic only with a fixed workspace, which is read when it first starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    devices = [chosen.index or 0] if chosen.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(mode=True)
        # Every element is written before it is read here; filling memory first costs a twentieth.
        torch.utils.deterministic.fill_uninitialized_memory = False
        try:
            with limited_threads(threads):
                yield
        finally:
            torch.use_deterministic_algorithms(mode=before[0])
            torch.utils.deterministic.fill_uninitialized_memory = before[1]


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Give the block `count` threads of the CPU: the order of sums, so the bits, depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _check_device(name: str) -> torch.device:
    try:
        chosen = torch.device(name)
        there = chosen.type == "cpu" or (chosen.type == "cuda" and torch.cuda.is_available())
    except RuntimeError:
        there = False
    if not there:
        msg = (
            f"device must be cpu, or cuda where PyTorch finds a card; found {name!r}; leave it out "
            f"to train on the CPU"
        )
        raise ValueError(msg)
    return chosen


def _start(network: SequenceClassifier, rows: LearningRows, drawn: IntArray) -> None:
    counts = np.bincount(rows.labels[rows.train], minlength=CLASSES)
    both = counts + counts[::-1]
    shares = torch.from_numpy(both / both.sum()).float()
    network.start_from(torch.from_numpy(rows.take(drawn)[0]), shares)


def _draw_epochs(train: IntArray, count: int, seed: int) -> Iterator[IntArray]:
    """Yield row numbers epoch by epoch; none comes again before all have come."""
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(train)
        for first in range(0, max(len(order) // count, 1) * count, count):
            yield order[first : first + count]


def _spread(rows: IntArray, count: int, seed: int) -> IntArray:
    """Return at most `count` of `rows`, evenly spread, in an order that follows from `seed`.

    In their own order every second one may be of the same symbols, of which images alone were seen.
    """
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)
    return np.random.default_rng(seed).permutation(rows[places])


def _name_left_out(rows: LearningRows, plan: TrainingPlan, scored: int) -> list[str]:
    found = []
    if len(rows.train) > plan.windows_per_epoch:
        found.append(f"an epoch draws {plan.windows_per_epoch} of {len(rows.train)} windows")
    if len(rows.calibration) > scored:
        found.append(f"stopping looks at {scored} of {len(rows.calibration)} calibration windows")
    return found


def _forecast_loss(forecast: Tensor, futures: Tensor) -> Tensor:
    known = ~torch.isnan(futures)
    targets = torch.nan_to_num(futures).clamp(-FUTURE_MAX, FUTURE_MAX)
    losses = functional.huber_loss(forecast, targets, reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def _log_loss(probabilities: Float32Array, labels: IntArray) -> float:
    hit: Any = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(hit, 1e-12)).mean())


def _parts(windows: Float32Array) -> Iterator[Float32Array]:
    for first in range(0, len(windows), SCORED_ROWS):
        yield windows[first : first + SCORED_ROWS]
