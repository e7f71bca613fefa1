"""From a fitted model to a folder that can be served: ONNX, parity, gate, card, all or nothing."""

from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from msgspec import Struct

from infra.onnx_session import CARD_NAME, CLASSES, MODEL_NAME, ModelCard, OnnxSession
from infra.whole_files import place_folder
from onnx_models.calibration import Calibration, fold_into_graph
from onnx_models.families import Family, Fitted, Float32Array, FloatArray
from schemas.features import SequenceSchema

PARITY_MAX = 1e-4
"""Largest difference of a probability between the library and ONNX that is exported."""
PARITY_ROWS_MIN = 10_000
CONFIDENCE_SPREAD_MIN = 0.12
"""Least distance of the 10th and 90th percentile of the winner's probability."""
COMMONEST_SHARE_MAX = 0.95
COMMONEST_STD_MIN = 0.02
"""A model that nearly always gives one answer must at least not be equally sure of it each time."""
SELF_TEST_ROWS = 3

_BATCH_ROWS = 4096


class ParityError(RuntimeError):
    """The exported model does not answer like the trained one; nothing is kept."""


class Parity(Struct, frozen=True, kw_only=True):
    """How far the served model is from the trained one."""

    difference_max: float
    rows: int
    boundary_rows: int
    """How many of them stand on both sides of a split."""
    batch_difference_max: float
    """How much an answer changed when the same row was asked for beside other rows."""


def build_model(fitted: Fitted, calibration: Calibration) -> bytes:
    """Return the ONNX bytes that are served: the model with its calibration behind it."""
    return fold_into_graph(fitted.export(), calibration)


def open_session(card: ModelCard, model: bytes) -> OnnxSession:
    """Return a session over an artefact that is not written yet."""
    return OnnxSession({CARD_NAME: encode_card(card), MODEL_NAME: model})


def encode_card(card: ModelCard) -> bytes:
    """Return `card` as readable JSON."""
    return msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n"


def draft_card(
    family: Family, model: bytes, horizon_bars: int, sample: Float32Array, answers: FloatArray
) -> ModelCard:
    """Return a card that a session accepts, without what is measured later.

    `answers` are the library's calibrated probabilities for the `sample` of inputs.
    """
    model_hash = sha256(model).hexdigest()
    schema = family.schema
    view = "scale-free view of operators.features.to_model_inputs, float32"
    if isinstance(schema, SequenceSchema):
        view = f"the last {schema.steps} bars of the {view}"
    opsets = {one.domain: one.version for one in onnx.load_model_from_string(model).opset_import}
    return ModelCard(
        name=f"{family.name}_1h",
        version=f"1.{model_hash[:8]}",
        timeframe="1h",
        feature_schema=schema.name,
        feature_schema_hash=schema.schema_hash,
        input_view=view,
        classes=CLASSES,
        opset=max(opsets.get("", 0), 15),
        files={MODEL_NAME: model_hash},
        self_test_inputs=sample.astype(np.float64).tolist(),
        self_test_probabilities=answers.tolist(),
        training={"libraries": {name: version(name) for name in family.libraries}},
        evaluation={},
        beats_prior=False,
        beats_prior_of_direction=False,
        family=family.name,
        horizon_bars=horizon_bars,
        input_shape=schema.input_shape,
    )


def measure_parity(
    fitted: Fitted, calibration: Calibration, session: OnnxSession, inputs: Float32Array, seed: int
) -> Parity:
    """Return how far `session` is from the library, over `PARITY_ROWS_MIN` rows and the boundaries.

    Where there are fewer rows, more are made of them by small random changes. Raises `ParityError`
    if a difference is above `PARITY_MAX` or not a number.
    """
    rows = _enough_rows(inputs, seed)
    boundary = fitted.boundary_inputs(inputs)
    checked = rows if boundary is None else np.concatenate([rows, boundary])
    worst = 0.0
    for first in range(0, len(checked), _BATCH_ROWS):
        batch = checked[first : first + _BATCH_ROWS]
        expected = calibration.apply(fitted.probabilities(batch))
        # A plain maximum would forget a NaN.
        worst = float(np.maximum(worst, np.abs(expected - session.score(batch)).max()))
    if not worst <= PARITY_MAX:
        msg = (
            f"ONNX must agree with the trained model within {PARITY_MAX}; found a difference of "
            f"{worst!r} over {len(checked)} rows; check the converter's version"
        )
        raise ParityError(msg)
    return Parity(
        difference_max=worst,
        rows=len(checked),
        boundary_rows=0 if boundary is None else len(boundary),
        batch_difference_max=_compare_batches(session, rows[:_BATCH_ROWS], seed),
    )


def _compare_batches(session: OnnxSession, rows: Float32Array, seed: int) -> float:
    """Return the largest difference between all `rows` at once and shuffled batches of odd sizes.

    A replay gets its bars in other batches than the run it repeats, and must see the same votes.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(rows))
    cuts = np.cumsum(generator.integers(1, 40, size=len(rows)))
    batches = np.split(order, cuts[cuts < len(rows)])
    answers = session.score(rows)
    return max(
        float(np.abs(session.score(rows[batch]) - answers[batch]).max()) for batch in batches
    )


def check_parity(parity: Parity) -> dict[str, Any]:
    """Return what every gate asks of an export: enough rows compared, and no answer of the batch's."""
    return {
        "parity_max": check(parity.difference_max, f"<= {PARITY_MAX}", passed=True),
        "parity_rows": check(
            parity.rows, f">= {PARITY_ROWS_MIN}", passed=parity.rows >= PARITY_ROWS_MIN
        ),
        "batch_difference_max": check(
            parity.batch_difference_max, "== 0", passed=parity.batch_difference_max == 0.0
        ),
    }


def check(value: float, rule: str, *, passed: bool) -> dict[str, Any]:
    """Return one line of a gate: what was found, what was asked, and the verdict."""
    return {"value": value, "rule": rule, "passed": passed}


def judge_gate(parity: Parity, spread: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is required of a version before it may be active, what was found, and `passed`.

    The gate asks whether the model says anything at all, not whether it is right: the score against
    the prior stands beside it on the card and decides its weight, not its admission.
    """
    distance = spread["confidence_p90"] - spread["confidence_p10"]
    constant = (
        spread["commonest_share"] > COMMONEST_SHARE_MAX
        and spread["commonest_std"] < COMMONEST_STD_MIN
    )
    checks = {
        **check_parity(parity),
        "confidence_p90_less_p10": check(
            distance, f">= {CONFIDENCE_SPREAD_MIN}", passed=distance >= CONFIDENCE_SPREAD_MIN
        ),
        "commonest_share": check(
            spread["commonest_share"],
            f"<= {COMMONEST_SHARE_MAX}, or its confidence deviates by {COMMONEST_STD_MIN}",
            passed=not constant,
        ),
        "commonest_confidence_std": check(
            spread["commonest_std"], "measured with the share above", passed=not constant
        ),
    }
    return {"passed": all(one["passed"] for one in checks.values()), "checks": checks}


def write_artefact(folder: Path, card: ModelCard, model: bytes) -> ModelCard:
    """Put the artefact into `folder` at once and return its card as a reader finds it.

    One that was there gives way only to a whole one.

    Raises:
        ModelRefusedError: A session would not accept it.
        OSError: It cannot be written; what was there stays.
    """
    contents = {CARD_NAME: encode_card(card), MODEL_NAME: model}
    session = OnnxSession(contents)
    fresh = folder.with_name(f".{folder.name}.fresh")
    old = folder.with_name(f".{folder.name}.old")
    for left in (fresh, old):
        _remove(left)
    place_folder(fresh, contents, folder.with_name(f".{folder.name}.staging"))
    if folder.exists():
        folder.replace(old)
    fresh.replace(folder)
    _remove(old)
    return session.card


def _remove(folder: Path) -> None:
    if folder.is_dir():
        for one in folder.iterdir():
            one.unlink()
        folder.rmdir()


def _enough_rows(inputs: Float32Array, seed: int) -> Float32Array:
    if len(inputs) >= PARITY_ROWS_MIN:
        return inputs[np.linspace(0, len(inputs) - 1, PARITY_ROWS_MIN).astype(np.int64)]
    generator = np.random.default_rng(seed)
    chosen = inputs[generator.integers(0, len(inputs), PARITY_ROWS_MIN - len(inputs))]
    noise = generator.normal(scale=0.01, size=chosen.shape)
    return np.concatenate([inputs, (chosen * (1.0 + noise)).astype(np.float32)])
