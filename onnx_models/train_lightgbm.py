"""Train the three-class LightGBM model on recorded bars and export it as a verified artefact.

`python -m onnx_models.train_lightgbm --data BARS.parquet --out FOLDER [--holdout LATER.parquet]`
"""

import argparse
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import onnx
from msgspec.structs import replace
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType

from infra.onnx_session import CLASSES, MODEL_NAME, ModelCard, OnnxSession
from onnx_models.dataset import TrainingSet, load_training_set
from onnx_models.labels import Labelling
from onnx_models.model_card import evaluate, write_card
from schemas.features import FEATURE_SCHEMAS, FeatureSchema

Float32Array = npt.NDArray[np.float32]

OPSET = 15
PARITY_MAX = 1e-4
"""Largest difference of a probability between LightGBM and ONNX that is exported."""
TREES_MAX = 600
PATIENCE_TREES = 50
SELF_TEST_ROWS = 3

PARAMETERS: dict[str, Any] = {
    "objective": "multiclass",
    "num_class": len(CLASSES),
    "learning_rate": 0.02,
    "num_leaves": 15,
    "min_data_in_leaf": 400,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "seed": 7,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "verbosity": -1,
}
PARAMETERS_ORIGIN = (
    "best calibration log-loss of four settings tried; the test figures of all four were seen "
    "before this one was fixed, those of the holdout were not"
)


class ParityError(RuntimeError):
    """The exported model does not answer like the trained one; nothing is kept."""


def train(rows: TrainingSet) -> lightgbm.Booster:
    """Return the booster fitted on the training part, stopped by the calibration part."""
    part = rows.split
    fitted = lightgbm.Dataset(rows.inputs[part.train], rows.labels[part.train])
    held = fitted.create_valid(rows.inputs[part.calibration], rows.labels[part.calibration])
    stop = lightgbm.early_stopping(PATIENCE_TREES, verbose=False)
    return lightgbm.train(PARAMETERS, fitted, TREES_MAX, valid_sets=[held], callbacks=[stop])


def export(booster: lightgbm.Booster, width: int) -> bytes:
    """Return the ONNX bytes of `booster`: float32 (rows, width) in, `probabilities` (rows, 3) out."""
    model = convert_lightgbm(
        booster,
        name="lightgbm",
        initial_types=[("input", FloatTensorType([None, width]))],
        target_opset=OPSET,
        zipmap=False,
    )
    # The converter declares one label however many rows there are, and onnxruntime would warn of it
    # on every call; only the probabilities are served.
    kept = [one for one in model.graph.output if one.name == "probabilities"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    round_thresholds_down(model, booster)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def round_thresholds_down(model: onnx.ModelProto, booster: lightgbm.Booster) -> None:
    """Replace each split's threshold by the largest float32 that is not above it.

    LightGBM splits at float64 values between two inputs. Rounded to the nearest float32 a threshold
    may become the upper input, which then falls on the wrong side; for float32 inputs `x <= t` and
    `x <= floor32(t)` are the same.
    """
    floors: dict[np.float32, np.float32] = {}
    for threshold in read_thresholds(booster):
        nearest, floor = np.float32(threshold), floor_float32(threshold)
        if floors.setdefault(nearest, floor) != floor:
            msg = (
                f"thresholds near {nearest!r} must round to one float32; found two; train with "
                f"another seed"
            )
            raise ParityError(msg)
    trees = next(node for node in model.graph.node if node.op_type == "TreeEnsembleClassifier")
    modes = next(one for one in trees.attribute if one.name == "nodes_modes").strings
    values = next(one for one in trees.attribute if one.name == "nodes_values").floats
    for i, mode in enumerate(modes):
        if mode != b"LEAF":
            values[i] = floors[np.float32(values[i])]


def floor_float32(value: float) -> np.float32:
    """Return the largest float32 that is not above `value`."""
    nearest = np.float32(value)
    return nearest if float(nearest) <= value else np.nextafter(nearest, np.float32(-np.inf))


def read_thresholds(booster: lightgbm.Booster) -> list[float]:
    """Return the threshold of every split of `booster`."""
    found: list[float] = []
    waiting = [tree["tree_structure"] for tree in booster.dump_model()["tree_info"]]
    while waiting:
        node = waiting.pop()
        if "threshold" in node:
            found.append(float(node["threshold"]))
            waiting += [node["left_child"], node["right_child"]]
    return found


def boundary_rows(booster: lightgbm.Booster, rows: Float32Array) -> Float32Array:
    """Return copies of rows, each moved onto a threshold or to its float32 neighbour above."""
    found = []
    for i, threshold in enumerate(read_thresholds(booster)):
        floor = floor_float32(threshold)
        for value in (floor, np.nextafter(floor, np.float32(np.inf))):
            moved = np.repeat(rows[i % len(rows)][None, :], rows.shape[1], axis=0)
            np.fill_diagonal(moved, value)
            found.append(moved)
    return np.concatenate(found)


def measure_parity(
    booster: lightgbm.Booster, session: OnnxSession, rows: Float32Array
) -> tuple[float, int]:
    """Return the largest difference of a probability over `rows` and the number of rows.

    Raises `ParityError` if it is above `PARITY_MAX` or not a number.
    """
    worst = float(np.abs(booster.predict(rows) - session.score(rows)).max())
    if not worst <= PARITY_MAX:
        msg = (
            f"ONNX must agree with LightGBM within {PARITY_MAX}; found a difference of {worst!r} "
            f"over {len(rows)} rows; check the converter's version"
        )
        raise ParityError(msg)
    return worst, len(rows)


def build_artefact(
    data: Path, out: Path, holdout: Path | None = None, labelling: Labelling | None = None
) -> ModelCard:
    """Train on `data`, write model and card to `out` and return the card.

    `holdout` is a later recording that only evaluates. Raises `ParityError` if the export differs
    from the trained model; the folder is then no artefact, because its card is missing or refused.
    """
    schema = FEATURE_SCHEMAS["fs34"]
    labelling = labelling or Labelling()
    rows = load_training_set(data, schema, labelling)
    booster = train(rows)
    model = export(booster, len(schema))
    out.mkdir(parents=True, exist_ok=True)
    (out / MODEL_NAME).write_bytes(model)
    sample = rows.inputs[rows.split.calibration[:SELF_TEST_ROWS]]
    card = _draft_card(rows, schema, labelling, booster, model, sample)
    write_card(card, out)
    session = OnnxSession(out)
    checked = np.concatenate([rows.inputs, boundary_rows(booster, rows.inputs)])
    worst, count = measure_parity(booster, session, checked)
    periods = {"test": _evaluate_test(rows, session)}
    if holdout is not None:
        later = load_training_set(holdout, schema, labelling)
        periods["holdout"] = _evaluate_holdout(rows, later, session)
    evaluation = periods | {"parity_max": worst, "parity_rows": count}
    parts = list(periods.values())
    card = replace(
        card,
        evaluation=evaluation,
        beats_prior=all(part["gain_interval_95"][0] > 0.0 for part in parts),
        beats_prior_of_direction=all(
            part["direction"]["gain_interval_95"][0] > 0.0 for part in parts
        ),
    )
    write_card(card, out)
    return OnnxSession(out).card


def _draft_card(
    rows: TrainingSet,
    schema: FeatureSchema,
    labelling: Labelling,
    booster: lightgbm.Booster,
    model: bytes,
    sample: Float32Array,
) -> ModelCard:
    model_hash = sha256(model).hexdigest()
    libraries = ("lightgbm", "onnxmltools", "onnx", "numpy", "polars", "numba")
    return ModelCard(
        name="lightgbm_1h",
        version=f"1.{model_hash[:8]}",
        timeframe="1h",
        feature_schema=schema.name,
        feature_schema_hash=schema.schema_hash,
        input_view="scale-free view of operators.features.to_model_inputs, float32",
        classes=CLASSES,
        opset=OPSET,
        files={MODEL_NAME: model_hash},
        self_test_inputs=sample.astype(np.float64).tolist(),
        self_test_probabilities=booster.predict(sample).tolist(),
        training={
            "data": rows.origin,
            "label": labelling.definition,
            "horizon_bars": labelling.horizon_bars,
            "split_rows": {
                "train": len(rows.split.train),
                "calibration": len(rows.split.calibration),
                "test": len(rows.split.test),
            },
            "embargo_bars": labelling.horizon_bars,
            "parameters": PARAMETERS,
            "parameters_origin": PARAMETERS_ORIGIN,
            "trees": booster.best_iteration * len(CLASSES),
            "libraries": {name: version(name) for name in libraries},
        },
        evaluation={},
        beats_prior=False,
        beats_prior_of_direction=False,
    )


def _class_prior(rows: TrainingSet) -> npt.NDArray[np.float64]:
    """Return the class shares of everything that was known before the test part."""
    before = np.concatenate([rows.split.train, rows.split.calibration])
    counts = np.bincount(rows.labels[before], minlength=len(CLASSES))
    return np.asarray(counts / len(before), dtype=np.float64)


def _evaluate_test(rows: TrainingSet, session: OnnxSession) -> dict[str, Any]:
    test, prior = rows.split.test, _class_prior(rows)
    scored = session.score(rows.inputs[test])
    return evaluate(scored, rows.labels[test], prior, rows.close_times_ns[test])


def _evaluate_holdout(
    rows: TrainingSet, later: TrainingSet, session: OnnxSession
) -> dict[str, Any]:
    if int(later.close_times_ns.min()) <= int(rows.close_times_ns.max()):
        msg = (
            f"holdout must begin after the training data; found {later.origin['file']!r} that "
            f"begins earlier; choose a later recording"
        )
        raise ValueError(msg)
    scored = session.score(later.inputs)
    found = evaluate(scored, later.labels, _class_prior(rows), later.close_times_ns)
    return {"data": later.origin} | found


def main() -> None:
    """Read the command line, train, and print the verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m onnx_models.train_lightgbm"
    )
    parser.add_argument("--data", type=Path, required=True, help="5m bars to train on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the artefact")
    parser.add_argument("--holdout", type=Path, help="later 5m bars that only evaluate")
    chosen = parser.parse_args()
    card = build_artefact(chosen.data, chosen.out, chosen.holdout)
    print(
        f"{card.name} {card.version}: beats the class prior: {card.beats_prior}; in direction alone: "
        f"{card.beats_prior_of_direction}"
    )
    for name in ("test", "holdout"):
        if name in card.evaluation:
            found = card.evaluation[name]
            print(
                f"  {name}: log-loss {found['log_loss']:.4f}, prior {found['log_loss_prior']:.4f}, "
                f"gain 95 % {found['gain_interval_95']}, of direction alone "
                f"{found['direction']['gain_interval_95']}"
            )
    print(
        f"  parity {card.evaluation['parity_max']:.2e} over {card.evaluation['parity_rows']} rows"
    )


if __name__ == "__main__":
    main()
