"""Forecasts of finished folds, kept so that an interrupted training goes on where it stopped."""

import io
import zipfile
from pathlib import Path

import msgspec
import numpy as np

from onnx_models.evaluation import Yardstick
from onnx_models.families import FitRecord, FloatArray
from schemas.checked import decoder


class FoldResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a model fitted for one fold said about its test rows."""

    probabilities: FloatArray
    """Calibrated."""
    expected_returns: FloatArray | None
    yardstick: Yardstick
    record: FitRecord


def save_fold(path: Path, result: FoldResult) -> None:
    """Write `result`, whole or not at all."""
    arrays = {"probabilities": result.probabilities}
    if result.expected_returns is not None:
        arrays["expected_returns"] = result.expected_returns
    for name in ("yardstick", "record"):
        arrays[name] = np.frombuffer(msgspec.json.encode(getattr(result, name)), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # names are ours
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.write_bytes(buffer.getvalue())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def load_fold(path: Path, rows: int) -> FoldResult | None:
    """Return the fold kept in `path`; None if there is none of `rows` rows that can be read."""
    try:
        with np.load(path, allow_pickle=False) as found:
            result = FoldResult(
                probabilities=found["probabilities"],
                expected_returns=found.get("expected_returns"),
                yardstick=decoder(Yardstick).decode(found["yardstick"].tobytes()),
                record=decoder(FitRecord).decode(found["record"].tobytes()),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        # A fold that cannot be read is a fold that was not finished; it is made again.
        return None
    return result if len(result.probabilities) == rows else None
