"""The kinds of models that can be trained, by the name they have on the command line."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from onnx_models.families import Family

SERVED = ("xgboost", "lightgbm", "nhits", "patchtst")
"""The ensemble; what `all` trains, with the regime model."""
REGIME = "regime"
"""The model of regimes, which is no family: it has other classes, labels and rivals."""

_PLACES = {
    "xgboost": ("onnx_models.trees", "XGBoostFamily", ("xgboost", "onnxmltools")),
    "lightgbm": ("onnx_models.trees", "LightGBMFamily", ("lightgbm", "onnxmltools")),
    "random_forest": ("onnx_models.trees", "RandomForestFamily", ("sklearn", "skl2onnx")),
    "nhits": ("onnx_models.networks.family", "nhits", ("torch",)),
    "patchtst": ("onnx_models.networks.family", "patchtst", ("torch",)),
    "lstm": ("onnx_models.networks.family", "lstm", ("torch",)),
}
KINDS = tuple(_PLACES)


class TrainingExtraMissingError(RuntimeError):
    """The packages that train are not installed; serving does not need them."""


def build_family(kind: str) -> Family:
    """Return the family of that name with its default parameters.

    Raises:
        ValueError: There is no such kind.
        TrainingExtraMissingError: Its library is not installed.
    """
    if kind not in _PLACES:
        names = ", ".join((*KINDS, REGIME))
        msg = f"kind of model must be one of {names}; found {kind!r}; correct the name"
        raise ValueError(msg)
    module, name, needed = _PLACES[kind]
    _require_packages(kind, needed)
    family: Family = getattr(import_module(module), name)()
    return family


def choose_kinds(asked: str) -> tuple[str, ...]:
    """Return the families behind a word of the command line; `all` is the ensemble."""
    if asked == REGIME:
        return ()
    return SERVED if asked == "all" else (asked,)


def wants_regime(asked: str) -> bool:
    """Return whether a word of the command line asks for the regime model.

    Raises `TrainingExtraMissingError` if it does and its libraries are not installed.
    """
    wanted = asked in {"all", REGIME}
    if wanted:
        _require_packages(REGIME, ("lightgbm", "onnxmltools", "skl2onnx"))
    return wanted


def _require_packages(kind: str, needed: Sequence[str]) -> None:
    absent = [one for one in (*needed, "onnx", "sklearn") if find_spec(one) is None]
    if absent:
        msg = (
            f"training {kind!r} must have the training packages; found no {absent!r}; install "
            f"quantstream[train]"
        )
        raise TrainingExtraMissingError(msg)
