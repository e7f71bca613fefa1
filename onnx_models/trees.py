"""Gradient-boosted trees and random forests: fit, and export whose splits agree on float32 inputs."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx

from onnx_models.families import FitRecord, FitRequest, Float32Array, FloatArray
from onnx_models.labels import BUY
from operators.features import Mirror
from schemas.features import FEATURE_SCHEMAS, FeatureSchema

OPSET = 15
PATIENCE_TREES = 50
TOLERANCE_NATS = 2e-4
"""Loss, on the rows that stop a fit, that is given for fewer trees: the last sixth gains no more."""
BOUNDARY_ROWS_MAX = 20_000
IMAGES = "each row, and its image in the mirror"
ZERO_MAX = 1e-35
"""LightGBM reads anything up to it as zero; no feature is that small without being zero."""
_OURS = ("n_estimators", "patience_trees", "tolerance_nats", "learnt")
"""Parameters of boosted trees that are not handed to the library as they are."""


class FittedTrees:
    """Trees of any of the three libraries: how they answer, and their splits."""

    def __init__(
        self,
        record: FitRecord,
        predict: Callable[[Float32Array], FloatArray],
        convert: Callable[[], onnx.ModelProto],
        splits: list[tuple[int, float]],
    ) -> None:
        self.record = record
        self._predict, self._convert, self._splits = predict, convert, splits

    def probabilities(self, inputs: Float32Array) -> FloatArray:
        """Return (rows, 3) probabilities by the library that trained the trees."""
        return np.asarray(self._predict(inputs), dtype=np.float64)

    def expected_returns(self, inputs: Float32Array) -> FloatArray | None:
        """Return None: the trees classify only."""
        del inputs
        return None  # what the protocol asks for

    def export(self) -> bytes:
        """Return ONNX bytes with `probabilities` as the only output."""
        model = self._convert()
        # The converters declare a label beside, one however many rows there are, of which
        # onnxruntime would warn on every call; only the probabilities are served.
        kept = [one for one in model.graph.output if one.name == "probabilities"]
        del model.graph.output[:]
        model.graph.output.extend(kept)
        # The converters name and order by chance: the same trees must be the same bytes.
        model.graph.name = "trees"
        imports = sorted(model.opset_import, key=lambda one: one.domain)
        del model.opset_import[:]
        model.opset_import.extend(imports)
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def boundary_inputs(self, inputs: Float32Array) -> Float32Array | None:
        """Return copies of rows, each with one feature moved to both sides of a threshold."""
        if not self._splits:
            return None
        stride = max(1, 2 * len(self._splits) // BOUNDARY_ROWS_MAX + 1)
        found = []
        for i, (feature, threshold) in enumerate(self._splits[::stride]):
            floor = floor_float32(threshold)
            below, above = np.nextafter(floor, np.array([-np.inf, np.inf], dtype=np.float32))
            for value in (below, floor, above):
                moved = inputs[i % len(inputs)].copy()
                moved[feature] = value if abs(value) > ZERO_MAX else 0.0
                found.append(moved)
        return np.stack(found)


class XGBoostFamily:
    """XGBoost, three classes, the parameters of the predecessor."""

    name = "xgboost"
    libraries = ("xgboost-cpu", "onnxmltools", "onnx", "numpy", "polars", "numba")

    def __init__(self, parameters: dict[str, Any] | None = None) -> None:
        self.schema: FeatureSchema = FEATURE_SCHEMAS["fs34"]
        self.parameters: dict[str, Any] = {
            "n_estimators": 500,
            "max_depth": 7,
            "learning_rate": 0.01,
            "subsample": 0.8,
            "colsample_bytree": 0.8,
            "reg_alpha": 0.1,
            "reg_lambda": 1.0,
            "min_child_weight": 100.0,
            "patience_trees": PATIENCE_TREES,
            "tolerance_nats": TOLERANCE_NATS,
            "learnt": IMAGES,
        } | (parameters or {})

    def fit(self, request: FitRequest) -> FittedTrees:
        """Return the trees fitted on the training rows, stopped by the calibration rows."""
        import xgboost  # noqa: PLC0415  # each library is loaded by the family that needs it

        started, chosen = time.monotonic(), dict(self.parameters)
        rounds, patience, tolerance, _ = (chosen.pop(name) for name in _OURS)
        parts = [
            xgboost.DMatrix(inputs, label=labels, nthread=1)
            for inputs, labels in _parts(request, self.schema)
        ]
        losses: dict[str, dict[str, list[float]]] = {}
        fixed = {"objective": "multi:softprob", "num_class": 3, "eval_metric": "mlogloss"}
        fixed |= {"tree_method": "hist", "nthread": 1, "seed": request.seed, "base_score": 0.5}

        class Watch(xgboost.callback.TrainingCallback):
            def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
                del model, evals_log
                request.report((epoch + 1) / rounds, f"tree {epoch + 1} of {rounds}")
                return _is_late(request, started)

        booster = xgboost.train(
            chosen | fixed,
            parts[0],
            rounds,
            evals=[(parts[0], "train"), (parts[1], "calibration")],
            early_stopping_rounds=patience,
            evals_result=losses,
            callbacks=[Watch()],
            verbose_eval=False,
        )
        curves = (losses["train"]["mlogloss"], losses["calibration"]["mlogloss"])
        kept = _find_kept(curves[1], tolerance)
        booster = booster[: kept + 1]
        return FittedTrees(
            _record(self.parameters | fixed, started, curves, kept, request),
            lambda inputs: booster.predict(xgboost.DMatrix(inputs, nthread=1)),
            lambda: _convert_xgboost(booster, len(self.schema)),
            [(feature, below_float32(at)) for feature, at in _read_xgboost(booster)],
        )


class LightGBMFamily:
    """LightGBM, three classes, the parameters of the predecessor."""

    name = "lightgbm"
    libraries = ("lightgbm", "onnxmltools", "onnx", "numpy", "polars", "numba")

    def __init__(self, parameters: dict[str, Any] | None = None) -> None:
        self.schema: FeatureSchema = FEATURE_SCHEMAS["fs34"]
        self.parameters: dict[str, Any] = {
            "n_estimators": 500,
            "max_depth": 7,
            "num_leaves": 31,
            "learning_rate": 0.01,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "feature_fraction": 0.8,
            "lambda_l1": 0.1,
            "lambda_l2": 1.0,
            "min_data_in_leaf": 400,
            "patience_trees": PATIENCE_TREES,
            "tolerance_nats": TOLERANCE_NATS,
            "learnt": IMAGES,
        } | (parameters or {})

    def fit(self, request: FitRequest) -> FittedTrees:
        """Return the trees fitted on the training rows, stopped by the calibration rows."""
        import lightgbm  # noqa: PLC0415  # each library is loaded by the family that needs it

        started, chosen = time.monotonic(), dict(self.parameters)
        rounds, patience, tolerance, _ = (chosen.pop(name) for name in _OURS)
        fixed = {"objective": "multiclass", "num_class": 3, "seed": request.seed, "verbosity": -1}
        fixed |= {"deterministic": True, "force_row_wise": True, "num_threads": 1}
        (inputs, labels), (later, later_labels) = _parts(request, self.schema)
        known = lightgbm.Dataset(inputs, labels, params={"verbosity": -1})
        held = known.create_valid(later, later_labels)
        losses: dict[str, dict[str, list[float]]] = {}

        booster = lightgbm.train(
            chosen | fixed,
            known,
            rounds,
            valid_sets=[known, held],
            valid_names=["train", "calibration"],
            callbacks=[
                lightgbm.record_evaluation(losses),
                _watch_lightgbm(request, started, rounds, patience),
            ],
        )
        curves = (losses["train"]["multi_logloss"], losses["calibration"]["multi_logloss"])
        kept = _find_kept(curves[1], tolerance)
        splits = list(read_lightgbm_splits(booster, kept + 1))
        return FittedTrees(
            _record(self.parameters | fixed, started, curves, kept, request),
            lambda rows: booster.predict(rows, num_iteration=kept + 1),
            lambda: convert_lightgbm_trees(booster, kept + 1, len(self.schema)),
            splits,
        )


class RandomForestFamily:
    """A random forest of scikit-learn; optional, for comparison."""

    name = "random_forest"
    libraries = ("scikit-learn", "skl2onnx", "onnx", "numpy", "polars", "numba")

    def __init__(self, parameters: dict[str, Any] | None = None) -> None:
        self.schema: FeatureSchema = FEATURE_SCHEMAS["fs34"]
        self.parameters: dict[str, Any] = {
            "n_estimators": 100,
            "max_depth": 7,
            "min_samples_leaf": 100,
            "max_features": "sqrt",
            "max_samples": 0.5,
            "learnt": IMAGES,
        } | (parameters or {})

    def fit(self, request: FitRequest) -> FittedTrees:
        """Return the forest fitted on the training rows; nothing stops it early."""
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415
        from sklearn.metrics import log_loss  # noqa: PLC0415

        started = time.monotonic()
        chosen = {name: value for name, value in self.parameters.items() if name != "learnt"}
        forest = RandomForestClassifier(**chosen, random_state=request.seed, n_jobs=1)
        parts = _parts(request, self.schema)
        forest.fit(*parts[0])
        losses = [
            [float(log_loss(labels, forest.predict_proba(inputs), labels=[0, 1, 2]))]
            for inputs, labels in parts
        ]
        splits = list(read_forest_splits(forest))
        return FittedTrees(
            _record(self.parameters, started, (losses[0], losses[1]), 0, request),
            forest.predict_proba,
            lambda: convert_forest(forest, len(self.schema)),
            splits,
        )


def floor_float32(value: float) -> np.float32:
    """Return the largest float32 that is not above `value`."""
    nearest = np.float32(value)
    return nearest if float(nearest) <= value else np.nextafter(nearest, np.float32(-np.inf))


def below_float32(value: float) -> float:
    """Return the largest float32 below `value`: for float32 x, `x < value` is `x <= below(value)`."""
    floor = floor_float32(value)
    return float(np.nextafter(floor, np.float32(-np.inf)) if float(floor) == value else floor)


def _parts(request: FitRequest, schema: FeatureSchema) -> list[tuple[Float32Array, Any]]:
    """Return inputs and labels to learn from and to stop by: each row, then the image of each."""
    reader, labels = request.data.reader(schema), request.data.targets[request.horizon_bars].labels
    mirror, found = Mirror.of(schema), []
    for rows in (request.train, request.calibration):
        inputs, known = reader.take(rows), labels[rows]
        both = np.concatenate([inputs, mirror.reflect(inputs)])
        found.append((both, np.concatenate([known, BUY - known])))
    return found


def _find_kept(losses: list[float], tolerance_nats: float) -> int:
    """Return the first round whose loss is within the tolerance of the least.

    The end of the curve is flat: it takes a sixth of the trees, so of the time of every answer,
    and gains a hundredth of what the model gains.
    """
    return int(np.argmax(np.array(losses) <= min(losses) + tolerance_nats))


def _is_late(request: FitRequest, started: float) -> bool:
    limit = request.budget_seconds
    return limit is not None and time.monotonic() - started > limit


def _watch_lightgbm(
    request: FitRequest, started: float, rounds: int, patience: int
) -> Callable[[Any], None]:
    """Report each tree; stop when the budget is used up or the calibration rows gain no more.

    The library's own callback would let the loss of the training rows stop the fit as well.
    """
    from lightgbm.callback import EarlyStopException  # noqa: PLC0415

    losses: list[float] = []

    def watch(state: Any) -> None:
        losses.append(
            next(loss for name, _, loss, *_ in state.evaluation_result_list if name != "train")
        )
        best = int(np.argmin(losses))
        request.report(len(losses) / rounds, f"tree {len(losses)} of {rounds}")
        if len(losses) - 1 - best >= patience or _is_late(request, started):
            raise EarlyStopException(best, [])

    watch.order = 40  # type: ignore[attr-defined]  # after the evaluation was recorded
    return watch


def _record(
    parameters: dict[str, Any],
    started: float,
    losses: tuple[list[float], list[float]],
    best: int,
    request: FitRequest,
) -> FitRecord:
    late = _is_late(request, started)
    return FitRecord(
        parameters=parameters,
        wall_seconds=time.monotonic() - started,
        loss_train=[float(one) for one in losses[0]],
        loss_calibration=[float(one) for one in losses[1]],
        best_round=best,
        left_out=["trees after the time budget"] if late else [],
        details={"train_rows": len(request.train), "calibration_rows": len(request.calibration)},
    )


def _convert_xgboost(booster: Any, width: int) -> onnx.ModelProto:
    from onnxmltools import convert_xgboost  # noqa: PLC0415
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

    types = [("input", FloatTensorType([None, width]))]
    model = convert_xgboost(booster, initial_types=types, target_opset=OPSET)
    return onnx.load_model_from_string(model.SerializeToString())


def convert_lightgbm_trees(booster: Any, trees: int, width: int) -> onnx.ModelProto:
    """Return the first `trees` rounds of a LightGBM classifier of `width` inputs."""
    import lightgbm  # noqa: PLC0415
    from onnxmltools import convert_lightgbm  # noqa: PLC0415
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

    text = round_thresholds_down(booster.model_to_string(num_iteration=trees))
    types = [("input", FloatTensorType([None, width]))]
    rounded = lightgbm.Booster(model_str=text)
    return convert_lightgbm(rounded, initial_types=types, target_opset=OPSET, zipmap=False)


def convert_forest(forest: Any, width: int) -> onnx.ModelProto:
    """Return a forest of scikit-learn of `width` inputs."""
    from skl2onnx import to_onnx  # noqa: PLC0415
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415

    types = [("input", FloatTensorType([None, width]))]
    return to_onnx(
        forest,
        initial_types=types,
        options={id(forest): {"zipmap": False}},
        target_opset={"": OPSET, "ai.onnx.ml": 3},
    )


def read_lightgbm_splits(booster: Any, trees: int) -> Iterable[tuple[int, float]]:
    """Yield feature and threshold of every split of the first `trees` rounds."""
    waiting = [one["tree_structure"] for one in booster.dump_model(trees)["tree_info"]]
    while waiting:
        node = waiting.pop()
        if "threshold" in node:
            yield int(node["split_feature"]), float(node["threshold"])
            waiting += [node["left_child"], node["right_child"]]


def read_forest_splits(forest: Any) -> Iterable[tuple[int, float]]:
    """Yield feature and threshold of every split of a forest of scikit-learn."""
    for tree in forest.estimators_:
        for feature, threshold in zip(tree.tree_.feature, tree.tree_.threshold, strict=True):
            if feature >= 0:
                yield int(feature), float(threshold)


def _read_xgboost(booster: Any) -> Iterable[tuple[int, float]]:
    waiting = [json.loads(tree) for tree in booster.get_dump(dump_format="json")]
    while waiting:
        node = waiting.pop()
        if "split" in node:
            # The dump is decimal text of a float32, which rounds back to exactly that.
            yield (
                int(str(node["split"]).removeprefix("f")),
                float(np.float32(node["split_condition"])),
            )
            waiting += node["children"]


def round_thresholds_down(text: str) -> str:
    """Return a LightGBM model with each threshold the largest float32 that is not above it.

    LightGBM splits at float64 values between two inputs. Rounded to the nearest float32 a threshold
    may become the upper input, which then falls on the wrong side; for float32 inputs `x <= t` and
    `x <= floor32(t)` are the same. The converter of scikit-learn does so itself, and XGBoost's
    `x < t` has a float32 from the start.
    """
    # The sizes of the trees in bytes are no longer true; without them LightGBM counts for itself.
    lines = [line for line in text.split("\n") if not line.startswith("tree_sizes=")]
    return "\n".join(
        "threshold=" + " ".join(repr(float(floor_float32(float(one)))) for one in found.split())
        if (found := line.removeprefix("threshold=")) != line
        else line
        for line in lines
    )
