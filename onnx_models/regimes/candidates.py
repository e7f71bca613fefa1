"""Models that could take the rule's place: a random forest and boosted trees of five classes."""

import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from onnx_models.families import FitRecord, Float32Array, IntArray
from onnx_models.trees import (
    FittedTrees,
    convert_forest,
    convert_lightgbm_trees,
    read_forest_splits,
    read_lightgbm_splits,
)
from onnx_models.walk_forward import RecordingTooShortError
from schemas.regime import REGIMES, RG11


class RegimeFit(Protocol):
    """A kind of regime model."""

    @property
    def name(self) -> str:
        """Name on the card."""

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything that decides the fit beside data and seed."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions whose versions decide the fit."""

    def fit(
        self,
        train: tuple[Float32Array, IntArray],
        calibration: tuple[Float32Array, IntArray],
        seed: int,
    ) -> FittedTrees:
        """Return the model fitted on inputs and labels; the same ones give the same model."""


class ForestCandidate:
    """The predecessor's random forest: 100 trees of depth 10."""

    name = "random_forest"
    libraries = ("scikit-learn", "skl2onnx", "onnx", "numpy", "polars", "numba")

    def __init__(self, parameters: dict[str, Any] | None = None) -> None:
        self.parameters: dict[str, Any] = {
            "n_estimators": 100,
            "max_depth": 10,
            "min_samples_leaf": 50,
            "max_features": "sqrt",
            "tree_rows_max": 20_000,
        } | (parameters or {})

    def fit(
        self,
        train: tuple[Float32Array, IntArray],
        calibration: tuple[Float32Array, IntArray],
        seed: int,
    ) -> FittedTrees:
        """Return the forest of the training rows; each tree draws at most `tree_rows_max` of them."""
        from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

        started, chosen = time.monotonic(), dict(self.parameters)
        _refuse_missing_classes(train[1])
        drawn = min(chosen.pop("tree_rows_max"), max(1, len(train[1]) // 2))
        forest = RandomForestClassifier(**chosen, max_samples=drawn, random_state=seed, n_jobs=1)
        forest.fit(*train)
        losses = [[_loss(forest.predict_proba, *part)] for part in (train, calibration)]
        return FittedTrees(
            _record(self.parameters, started, losses, train[1], calibration[1]),
            forest.predict_proba,
            lambda: convert_forest(forest, len(RG11)),
            list(read_forest_splits(forest)),
        )


class BoostedCandidate:
    """LightGBM, stopped by the calibration rows."""

    name = "lightgbm"
    libraries = ("lightgbm", "onnxmltools", "onnx", "numpy", "polars", "numba")

    def __init__(self, parameters: dict[str, Any] | None = None) -> None:
        self.parameters: dict[str, Any] = {
            "n_estimators": 300,
            "max_depth": 6,
            "num_leaves": 31,
            "learning_rate": 0.03,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "feature_fraction": 0.8,
            "lambda_l2": 1.0,
            "min_data_in_leaf": 200,
            "patience_trees": 30,
        } | (parameters or {})

    def fit(
        self,
        train: tuple[Float32Array, IntArray],
        calibration: tuple[Float32Array, IntArray],
        seed: int,
    ) -> FittedTrees:
        """Return the trees of the training rows."""
        import lightgbm  # noqa: PLC0415

        started, chosen = time.monotonic(), dict(self.parameters)
        _refuse_missing_classes(train[1])
        rounds, patience = chosen.pop("n_estimators"), chosen.pop("patience_trees")
        fixed = {"objective": "multiclass", "num_class": len(REGIMES), "seed": seed}
        fixed |= {"deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1}
        known = lightgbm.Dataset(*train, params={"verbosity": -1})
        losses: dict[str, dict[str, list[float]]] = {}
        booster = lightgbm.train(
            chosen | fixed,
            known,
            rounds,
            valid_sets=[known.create_valid(*calibration)],
            valid_names=["calibration"],
            callbacks=[
                lightgbm.record_evaluation(losses),
                lightgbm.early_stopping(patience, verbose=False),
            ],
        )
        best = max(1, booster.best_iteration)
        splits = list(read_lightgbm_splits(booster, best))

        def predict(inputs: Float32Array) -> Any:
            return booster.predict(inputs, num_iteration=best)

        curves = [[_loss(predict, *train)], losses["calibration"]["multi_logloss"]]
        return FittedTrees(
            _record(self.parameters, started, curves, train[1], calibration[1]),
            predict,
            lambda: convert_lightgbm_trees(booster, best, len(RG11)),
            splits,
        )


CANDIDATES: tuple[RegimeFit, ...] = (ForestCandidate(), BoostedCandidate())


def _refuse_missing_classes(labels: IntArray) -> None:
    missing = [name.value for code, name in enumerate(REGIMES) if not (labels == code).any()]
    if missing:
        msg = (
            f"rows to learn from must hold every regime; found none of {missing!r}; give a longer "
            f"recording"
        )
        raise RecordingTooShortError(msg)


def _loss(predict: Callable[[Float32Array], Any], inputs: Float32Array, labels: IntArray) -> float:
    found = np.asarray(predict(inputs))[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(found, 1e-7)).mean())


def _record(
    parameters: dict[str, Any],
    started: float,
    losses: list[list[float]],
    train_labels: IntArray,
    calibration_labels: IntArray,
) -> FitRecord:
    return FitRecord(
        parameters=parameters,
        wall_seconds=time.monotonic() - started,
        loss_train=losses[0],
        loss_calibration=losses[1],
        best_round=int(np.argmin(losses[1])),
        details={
            "train_rows": len(train_labels),
            "calibration_rows": len(calibration_labels),
        },
    )
