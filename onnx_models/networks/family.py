"""The networks as families: fitted on a data set, exported to ONNX."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import onnx
import torch

from onnx_models.dataset import DataSet
from onnx_models.families import (
    FitRecord,
    FitRequest,
    Float32Array,
    FloatArray,
    IntArray,
)
from onnx_models.networks.classifier import (
    Probabilities,
    SequenceClassifier,
    build_lstm,
    build_nhits,
    build_patchtst,
)
from onnx_models.networks.lstm import LstmShape
from onnx_models.networks.nhits import NhitsShape
from onnx_models.networks.patchtst import PatchShape
from onnx_models.networks.training import (
    LearningRows,
    TrainingPlan,
    forecast_returns,
    limited_threads,
    reproducible,
    score,
    train_network,
)
from operators.features import Mirror
from schemas.features import SEQUENCE_SCHEMAS, SequenceSchema

OPSET = 17
IMAGES = "windows, every second one in the mirror"

Shape = NhitsShape | PatchShape | LstmShape


class NetworkFamily:
    """A kind of network: its sizes, how it is trained, and what it reads."""

    libraries = ("torch", "onnx", "numpy")

    def __init__(
        self,
        name: str,
        shape: Shape,
        plan: TrainingPlan,
        build: Callable[[Any], SequenceClassifier],
    ) -> None:
        self.name = name
        self.shape, self.plan = shape, plan
        self.schema: SequenceSchema = SEQUENCE_SCHEMAS["sq120"]
        self._build = build

    @property
    def parameters(self) -> dict[str, Any]:
        """Sizes and plan as plain values."""
        plain: dict[str, Any] = msgspec.to_builtins({"network": self.shape, "training": self.plan})
        return plain | {"learnt": IMAGES}

    def fit(self, request: FitRequest) -> "FittedNetwork":
        """Return the network trained on `request.train`; the same request gives the same bytes.

        That holds on one machine, with the same libraries and without a budget. The forecast learns
        from no bar after the last one that settles a label of the training rows. Raises
        `ValueError` for a device that is not there or a range without rows.
        """
        rows = _learning_rows(request, self.schema, self.shape.horizon)
        with reproducible(request.seed, request.device, self.plan.threads):
            network = self._build(self.shape)
            curve = train_network(
                network,
                rows,
                self.plan,
                seed=request.seed,
                device=request.device,
                budget_seconds=request.budget_seconds,
                report=request.report,
            )
        record = FitRecord(
            parameters=self.parameters,
            wall_seconds=curve.wall_seconds,
            loss_train=curve.loss_train,
            loss_calibration=curve.loss_calibration,
            best_round=curve.best_epoch,
            left_out=curve.left_out,
            details={
                "weights": sum(one.numel() for one in network.parameters()),
                "windows_train": len(request.train),
                "windows_calibration": len(request.calibration),
                "loss_forecast": curve.loss_forecast,
                "device": request.device,
                "threads": self.plan.threads,
            },
        )
        return FittedNetwork(network, record, self.schema, request.horizon_bars)


class FittedNetwork:
    """A trained network on the CPU."""

    def __init__(
        self,
        network: SequenceClassifier,
        record: FitRecord,
        schema: SequenceSchema,
        horizon_bars: int,
    ) -> None:
        self.network, self.record = network, record
        self._schema, self._horizon_bars = schema, horizon_bars

    def probabilities(self, inputs: Float32Array) -> FloatArray:
        """Return uncalibrated (rows, 3) probabilities of complete (rows, steps, channels) windows."""
        with limited_threads(1):
            return score(self.network, inputs).astype(np.float64)

    def expected_returns(self, inputs: Float32Array) -> FloatArray:
        """Return the (rows,) forecast of the return at the label's horizon."""
        with limited_threads(1):
            return forecast_returns(self.network, inputs, self._horizon_bars).astype(np.float64)

    def boundary_inputs(self, inputs: Float32Array) -> Float32Array:
        """Return windows at the edges of the view: no move, no range, no volume, moves of a crash."""
        edges = inputs[:4].copy()
        edges[0::2, :, 0] = 0.0
        edges[1::2, :, 0] *= 50.0
        edges[:, :, 1:] = 0.0
        return edges

    def export(self) -> bytes:
        """Return ONNX bytes: `input` float32 (rows, steps, channels) to `probabilities` (rows, 3)."""
        example = torch.zeros(1, *self._schema.input_shape)
        written = io.BytesIO()
        with warnings.catch_warnings():
            # The exporter by tracing is slower to be retired than it is said to be, and its graphs
            # are the faster ones to serve; its notices concern neither shapes nor results.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Probabilities(self.network).eval(),
                (example,),
                written,
                dynamo=False,
                opset_version=OPSET,
                input_names=["input"],
                output_names=["probabilities"],
                dynamic_axes={"input": {0: "rows"}, "probabilities": {0: "rows"}},
            )
        model = onnx.load_model_from_string(written.getvalue())
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


def nhits() -> NetworkFamily:
    """Return N-HiTS with the parameters of the requirements."""
    return NetworkFamily("nhits", NhitsShape(), TrainingPlan(), build_nhits)


def patchtst() -> NetworkFamily:
    """Return PatchTST with the parameters of the requirements, feed-forward width 128.

    Its patience is shorter than that of N-HiTS: an epoch costs several times as much.
    """
    plan = TrainingPlan(learning_rate=1e-4, patience_epochs=5)
    return NetworkFamily("patchtst", PatchShape(), plan, build_patchtst)


def lstm() -> NetworkFamily:
    """Return the LSTM, an optional type."""
    return NetworkFamily("lstm", LstmShape(), TrainingPlan(), build_lstm)


NETWORKS: dict[str, Callable[[], NetworkFamily]] = {
    "nhits": nhits,
    "patchtst": patchtst,
    "lstm": lstm,
}
"""Families by name."""


def future_paths(data: DataSet, rows: IntArray, horizon: int, until_ns: int) -> Float32Array:
    """Return (rows, horizon) log returns from each row's close to the closes of the next bars.

    NaN from the end of the series on, and for bars that close after `until_ns`.
    """
    places = data.place[rows][:, None] + np.arange(1, horizon + 1)
    ahead = data.by_series[np.minimum(places, len(data.by_series) - 1)]
    known = (
        (places < len(data.by_series))
        & (data.symbol_codes[ahead] == data.symbol_codes[rows][:, None])
        & (data.close_times_ns[ahead] <= until_ns)
    )
    moves = np.log(data.closes[ahead] / data.closes[rows][:, None])
    return np.where(known, moves, np.nan).astype(np.float32)


def _learning_rows(request: FitRequest, schema: SequenceSchema, horizon: int) -> LearningRows:
    data, target = request.data, request.data.targets[request.horizon_bars]
    if not len(request.train) or not len(request.calibration):
        msg = (
            f"a network must have windows to learn from and to stop by; found "
            f"{len(request.train)} and {len(request.calibration)}; give a longer recording: a "
            f"window alone takes {schema.steps} bars and their warm-up"
        )
        raise ValueError(msg)
    until_ns = int(target.ends_ns[request.train].max())
    return LearningRows(
        windows=data.reader(schema).take,
        futures=lambda rows: future_paths(data, rows, horizon, until_ns),
        labels=target.labels,
        train=request.train,
        calibration=request.calibration,
        mirror=Mirror.of(schema),
    )
