"""The kinds of models that can be trained, by the name they have on the command line."""

from importlib import import_module
from importlib.util import find_spec

from onnx_models.families import Family

SERVED = ("xgboost", "lightgbm", "nhits", "patchtst")
"""The ensemble; what `all` trains."""

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
        msg = f"kind of model must be one of {', '.join(KINDS)}; found {kind!r}; correct the name"
        raise ValueError(msg)
    module, name, needed = _PLACES[kind]
    absent = [one for one in (*needed, "onnx", "sklearn") if find_spec(one) is None]
    if absent:
        msg = (
            f"training {kind!r} must have the training packages; found no {absent!r}; install "
            f"quantstream[train]"
        )
        raise TrainingExtraMissingError(msg)
    family: Family = getattr(import_module(module), name)()
    return family


def choose_kinds(asked: str) -> tuple[str, ...]:
    """Return the kinds behind a word of the command line; `all` is the ensemble."""
    return SERVED if asked == "all" else (asked,)
