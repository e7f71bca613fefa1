"""Served models: the card of an artefact, and a session over exactly the bytes that it names."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from msgspec import Struct

from schemas.checked import decoder
from schemas.features import (
    FEATURE_SCHEMAS,
    SEQUENCE_SCHEMAS,
    FeatureSchema,
    SequenceSchema,
)
from schemas.regime import REGIMES, RG11

CARD_NAME = "card.json"
MODEL_NAME = "model.onnx"
CLASSES = ("sell", "hold", "buy")
"""Order of the probability columns of a voter."""
REGIME_CLASSES = tuple(regime.value for regime in REGIMES)
"""Order of the probability columns of a regime model, which reads `rg11` and never votes."""

OPSETS = {"": range(9, 22), "ai.onnx.ml": range(1, 4)}
"""Operator set versions that are served, by domain."""

_SCHEMAS: dict[str, FeatureSchema | SequenceSchema] = {
    **FEATURE_SCHEMAS,
    **SEQUENCE_SCHEMAS,
    RG11.name: RG11,
}
_SELF_TEST_TOLERANCE = 1e-4
_BLOCK_ROWS = 4
"""Trees are added up in another order for rows beyond a multiple of this."""
_RUN_ROWS_MAX = 32 * _BLOCK_ROWS
"""A session never gives back what its largest run needed: of a network some 100 KiB a row."""
_EXTERNAL_MARK = b"location"
"""Key that every external tensor must carry, in whichever way its message is encoded."""


class ModelRefusedError(ValueError):
    """An artefact is not what its card says; it is not loaded and its voter abstains."""


class ModelCard(Struct, frozen=True, kw_only=True):
    """What is known about an artefact: what it reads, what it was trained on, how good it is."""

    name: str
    version: str
    timeframe: str
    feature_schema: str
    feature_schema_hash: str
    input_view: str
    """Which view of the features is the input, in words."""
    classes: tuple[str, ...]
    opset: int
    files: dict[str, str]
    """SHA-256 (hex) of every file of the folder except the card."""
    self_test_inputs: list[Any]
    """Rows of the input as nested lists."""
    self_test_probabilities: list[list[float]]
    """What the model answered to `self_test_inputs` when it was exported."""
    training: dict[str, Any]
    """Data (hash, range, rows, provenance), label, split, parameters, library versions."""
    evaluation: dict[str, Any]
    """Out-of-sample figures on the test part."""
    beats_prior: bool
    """Whether the interval of the log-loss gain over the class prior is above zero everywhere."""
    beats_prior_of_direction: bool
    """The same for buy against sell alone, which is what the score of a signal uses."""
    family: str = "lightgbm"
    """Kind of the model: lightgbm, xgboost, nhits, patchtst, random_forest, lstm."""
    horizon_bars: int = 4
    """Bars after which the label of a row is known."""
    input_shape: tuple[int, ...] = ()
    """Shape of one row of the input; empty: (features of the schema,)."""
    calibration: dict[str, Any] = {}
    """How raw scores became the probabilities that are served, and what it changed."""
    gate: dict[str, Any] = {}
    """What was measured before the model may be active, and whether it passed (`passed`)."""


class OnnxSession:
    """A verified model that scores on one thread of the CPU.

    Raises `ModelRefusedError` if a file is missing, added or differs from its hash in the card, if
    the model keeps tensors outside the file, needs an operator set that is not served, reads
    another feature schema or another shape, or answers its self test differently.
    """

    input_type: ClassVar[str] = "tensor(float)"

    def __init__(self, artefact: Path | Mapping[str, bytes]) -> None:
        """Open the artefact in a folder, or in the content of such a folder by file name."""
        contents = read_contents(artefact) if isinstance(artefact, Path) else artefact
        self.card, model = _read_verified(contents)
        self.version = self.card.version
        self.timeframe = self.card.timeframe
        self.feature_schema_hash = self.card.feature_schema_hash
        self.content_hash = sha256(model).hexdigest()
        self.input_shape = _check_features(self.card)
        self.classes = self.card.classes
        _check_format(self.card, model)
        self._session = _open(self.card, model)
        self._input = self._check_shapes()
        self._run_self_test()

    @property
    def horizon_bars(self) -> int:
        """Bars after which the label is known that the model was trained on."""
        return self.card.horizon_bars

    @property
    def trusted(self) -> bool:
        """Whether it was shown to beat the class prior on data that it never saw."""
        return self.card.beats_prior

    def score(self, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return (rows, classes) probabilities for (rows, *input_shape) float32 inputs.

        Raises `ValueError` for another shape or type.
        """
        if matrix.shape[1:] != self.input_shape or matrix.dtype != np.float32:
            msg = (
                f"input of model {self.card.name!r} must be float32 (rows, *{self.input_shape!r}); "
                f"found {matrix.dtype} {matrix.shape!r}; pass inputs of schema "
                f"{self.card.feature_schema!r}"
            )
            raise ValueError(msg)
        rows = len(matrix)
        # The last rows of a batch are treated otherwise than the first: with whole blocks only, a
        # row's answer does not depend on the rows beside it, to the last bit. The gate of every
        # model measures that this holds for it.
        padding = np.zeros((-rows % _BLOCK_ROWS, *self.input_shape), dtype=np.float32)
        batch = np.concatenate([matrix, padding])
        found = np.concatenate(
            [
                self._run(batch[first : first + _RUN_ROWS_MAX])
                for first in range(0, max(len(batch), 1), _RUN_ROWS_MAX)
            ]
        )
        return np.asarray(found[:rows], dtype=np.float64)

    def _run(self, batch: npt.NDArray[np.float32]) -> Any:
        (found,) = self._session.run(["probabilities"], {self._input: batch})
        return found

    def _check_shapes(self) -> str:
        inputs = [(one.name, one.type, one.shape[1:]) for one in self._session.get_inputs()]
        if len(inputs) != 1 or inputs[0][1:] != (self.input_type, list(self.input_shape)):
            rule = f"must read one {self.input_type} (rows, *{self.input_shape!r})"
            raise _refuse(self.card, rule, inputs)
        outputs = {one.name: one.shape[1:] for one in self._session.get_outputs()}
        if outputs.get("probabilities") != [len(self.classes)]:
            rule = f"must answer `probabilities` (rows, {len(self.classes)})"
            raise _refuse(self.card, rule, outputs)
        return str(inputs[0][0])

    def _run_self_test(self) -> None:
        if not self.card.self_test_inputs:
            raise _refuse(self.card, "must have a self test in its card", [])
        found = self.score(np.array(self.card.self_test_inputs, dtype=np.float32))
        expected = np.array(self.card.self_test_probabilities)
        alike = found.shape == expected.shape and np.isfinite(found).all()
        if not (alike and float(np.abs(found - expected).max()) <= _SELF_TEST_TOLERANCE):
            rule = f"must answer its self test within {_SELF_TEST_TOLERANCE}"
            raise _refuse(self.card, rule, found.tolist())


def read_contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file of an artefact; raises `ModelRefusedError` if it has others."""
    try:
        return {one.name: one.read_bytes() for one in sorted(folder.iterdir())}
    except OSError as e:
        raise _refuse_card(folder.name, e) from e


def load_card(folder: Path) -> ModelCard:
    """Return the card of the artefact in `folder`; raises `ModelRefusedError` if it has none."""
    try:
        return _decode_card((folder / CARD_NAME).read_bytes())
    except (OSError, msgspec.DecodeError) as e:
        raise _refuse_card(folder.name, e) from e


def _decode_card(content: bytes) -> ModelCard:
    card: ModelCard = decoder(ModelCard).decode(content)
    return card


def _refuse_card(name: str, error: object) -> ModelRefusedError:
    return ModelRefusedError(
        f"artefact {name!r} must have a readable {CARD_NAME}; found {error}; train the model "
        f"or restore the folder"
    )


def _read_verified(contents: Mapping[str, bytes]) -> tuple[ModelCard, bytes]:
    try:
        card = _decode_card(contents[CARD_NAME])
    except (KeyError, msgspec.DecodeError) as e:
        raise _refuse_card(", ".join(sorted(contents)), e) from e
    present = contents.keys() - {CARD_NAME}
    if present != card.files.keys() or MODEL_NAME not in card.files:
        rule = f"must hold exactly the files of its card, {sorted(card.files)}"
        raise _refuse(card, rule, sorted(present))
    for name, expected in card.files.items():
        found = sha256(contents[name]).hexdigest()
        if found != expected:
            raise _refuse(card, f"file {name!r} must hash to {expected!r}", found)
    # The session is built from these very bytes: nobody can swap the file in between.
    return card, contents[MODEL_NAME]


def _check_features(card: ModelCard) -> tuple[int, ...]:
    """Return the shape of one row of the input."""
    schema = _SCHEMAS.get(card.feature_schema)
    expected = None if schema is None else schema.schema_hash
    if schema is None or card.feature_schema_hash != expected:
        rule = f"feature schema {card.feature_schema!r} must hash to {expected!r}"
        raise _refuse(card, rule, card.feature_schema_hash)
    classes = REGIME_CLASSES if schema is RG11 else CLASSES
    if card.classes != classes:
        raise _refuse(card, f"classes must be {classes!r}", card.classes)
    if card.input_shape not in {(), schema.input_shape}:
        raise _refuse(card, f"input shape must be {schema.input_shape!r}", card.input_shape)
    return schema.input_shape


def _check_format(card: ModelCard, model: bytes) -> None:
    if _EXTERNAL_MARK in model:
        raise _refuse(card, "must keep every tensor inside the file", "external tensors")
    try:
        opsets = dict(_read_opsets(model))
    except (IndexError, UnicodeDecodeError) as e:
        raise _refuse(card, "must be an ONNX file", "bytes that end early") from e
    served = all(version in OPSETS.get(domain, ()) for domain, version in opsets.items())
    if not (opsets and served and opsets.get("", card.opset) <= card.opset):
        rule = f"must need operator sets {OPSETS!r} and at most opset {card.opset}"
        raise _refuse(card, rule, opsets)


def _open(card: ModelCard, model: bytes) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime raises a class per status, without a common parent
        raise _refuse(card, "must load in onnxruntime", str(e).splitlines()[0]) from e


def _refuse(card: ModelCard, rule: str, found: object) -> ModelRefusedError:
    return ModelRefusedError(
        f"model {card.name!r} {card.version}; {rule}; found {found!r}; export the model again or "
        f"restore the artefact"
    )


def _read_opsets(model: bytes) -> Iterator[tuple[str, int]]:
    """Yield (domain, version) of `ModelProto.opset_import` (field 8), read off the wire format."""
    for field, value in _read_fields(model):
        if field == 8 and isinstance(value, bytes):
            entry = dict(_read_fields(value))
            domain, version = entry.get(1, b""), entry.get(2, 0)
            if not (isinstance(domain, bytes) and isinstance(version, int)):
                raise IndexError(field)
            yield domain.decode(), version


def _read_fields(message: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Yield (field number, value) of a protobuf message; raises IndexError if it ends early."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _read_varint(message, at)
            yield field, value
            continue
        if wire_type == 2:
            length, at = _read_varint(message, at)
        elif wire_type in {1, 5}:
            length = 8 if wire_type == 1 else 4
        else:
            raise IndexError(wire_type)
        if at + length > len(message):
            raise IndexError(length)
        yield field, message[at : at + length]
        at += length


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
