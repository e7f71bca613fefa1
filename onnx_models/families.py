"""What a kind of model must be able to do so that it can be trained, judged, exported and served."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from onnx_models.dataset import DataSet
from schemas.features import FeatureSchema, SequenceSchema

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def be_silent(share: float, note: str) -> None:
    """Take progress and show nothing."""


class FitRequest(Struct, frozen=True, kw_only=True):
    """One fit: which rows of which data, and how long it may take."""

    data: DataSet
    horizon_bars: int
    """Key of `data.targets`: the labels to learn and the forward returns beside them."""
    train: IntArray
    """Rows of `data` to learn from; inputs complete and labels known."""
    calibration: IntArray
    """Later rows that decide when to stop; inputs complete and labels known."""
    seed: int = 7
    budget_seconds: float | None = None
    """Wall time after which the fit ends with the best state so far; None: no limit."""
    device: str = "cpu"
    report: Callable[[float, str], None] = be_silent
    """Called with the finished share (0 to 1) and a short note."""


class FitRecord(Struct, frozen=True, kw_only=True):
    """What a fit did, as it stands on the card."""

    parameters: dict[str, Any]
    wall_seconds: float
    loss_train: list[float]
    """Loss of the training rows per round, tree or epoch."""
    loss_calibration: list[float]
    best_round: int
    """Index into the losses of the state that was kept."""
    left_out: list[str] = []
    """What was not done (capped windows, budget reached), in words; empty: nothing."""
    details: dict[str, Any] = {}
    """Anything else worth keeping: number of trees, of weights, of windows."""


class Fitted(Protocol):
    """A trained model in its own framework."""

    @property
    def record(self) -> FitRecord:
        """What the fit did."""
        ...

    def probabilities(self, inputs: Float32Array) -> FloatArray:
        """Return uncalibrated (rows, 3) probabilities of sell, hold, buy for (rows, *shape) inputs."""
        ...

    def expected_returns(self, inputs: Float32Array) -> FloatArray | None:
        """Return the (rows,) forward return at the horizon, None if there is no such head."""
        ...

    def export(self) -> bytes:
        """Return ONNX bytes with one float32 input (rows, *shape) and `probabilities` (rows, 3).

        The probabilities are those of `probabilities`, uncalibrated; the file has no other output
        and no external tensors.
        """
        ...

    def boundary_inputs(self, inputs: Float32Array) -> Float32Array | None:
        """Return inputs at which rounding could change the answer, None if there are none."""
        ...


class Family(Protocol):
    """A kind of model, such as gradient-boosted trees of one library."""

    @property
    def name(self) -> str:
        """Name on the card and on the command line."""
        ...

    @property
    def schema(self) -> FeatureSchema | SequenceSchema:
        """What a row of the input is; `DataSet.reader(schema)` gives such rows."""
        ...

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that decides the fit beside data and seed; plain JSON values."""
        ...

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose versions decide the fit."""
        ...

    def fit(self, request: FitRequest) -> Fitted:
        """Return the model fitted on `request.train`; the same request gives the same model."""
        ...
