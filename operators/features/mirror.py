"""The market in a mirror: what the inputs of models would be had every move gone the other way.

A market that is not known to have a direction of its own is as likely as its image. For features of
prices these are reflected at the close of the bar, `2 * close - price`: a rise of the close is a fall,
the upper band is the lower one, and prices, their differences and returns are reflected exactly. For
windows they are reflected in their logarithm, `close ** 2 / price`, of which log returns change their
sign exactly whichever bar they are of. What knows no direction (volatility, volume, range) is the same;
where it is measured against a price that is not the close, it is so up to the square of the move.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schemas.features import FeatureSchema, SequenceSchema

FloatArray = npt.NDArray[np.float64]
Number = TypeVar("Number", np.float32, np.float64)

FALL_MAX = 1 / 3
"""A larger fall has the image of this one, a rise to the double; a fall to a half has none."""


def _reflect_returns(returns: FloatArray) -> FloatArray:
    """Return what `close / price - 1` is with `2 * close - price` for the price."""
    known = np.maximum(returns, -FALL_MAX)
    return -known / (1.0 + 2.0 * known)


_CURVED: dict[str, Callable[[FloatArray], FloatArray]] = {
    "returns": _reflect_returns,
    # The logarithm of 1 + returns, rewritten so that no rise is too large for `exp`.
    "log_returns": lambda found: -np.log1p(-np.expm1(-np.maximum(found, np.log1p(-FALL_MAX)))),
    "roc_10": lambda found: 100.0 * _reflect_returns(found / 100.0),
}
"""Inputs whose image at the close is a function of them that is no line."""
_EVEN = (
    "volatility_7", "volatility_30", "atr_14", "atr_pct", "adx_14", "bb_width", "relative_spread",
    "volume_sma_20", "volume_ratio",
)  # fmt: skip
_ODD = (
    "macd", "macd_signal", "macd_hist", *(f"momentum_{bars}" for bars in (5, 10, 20)),
    *(f"{mean}_{bars}" for mean in ("sma", "ema") for bars in (7, 14, 30, 50)),
)  # fmt: skip
_ABOUT = {"rsi_14": 100.0, "stoch_k": 100.0, "stoch_d": 100.0, "bb_position": 1.0}

Line = tuple[str, float, float]
"""Of which input an image is made, its factor, and what is added."""

_AT_THE_CLOSE: dict[str, Line] = {
    **{name: (name, 1.0, 0.0) for name in (*_EVEN, *_CURVED)},
    **{name: (name, -1.0, 0.0) for name in _ODD},
    **{name: (name, -1.0, whole) for name, whole in _ABOUT.items()},
    "bb_upper": ("bb_lower", -1.0, 0.0),
    "bb_lower": ("bb_upper", -1.0, 0.0),
    "plus_di": ("minus_di", 1.0, 0.0),
    "minus_di": ("plus_di", 1.0, 0.0),
}
"""Images of features; those with a curve are put through it."""
_IN_WINDOWS: dict[str, Line] = {
    "log_returns": ("log_returns", -1.0, 0.0),
    "relative_spread": ("relative_spread", 1.0, 0.0),
    "volume_ratio": ("volume_ratio", 1.0, 0.0),
}
"""Images of the channels of windows."""


class Mirror(Struct, frozen=True):
    """How each input looks in the mirror: `inputs[..., sources] * factors + offsets`, or a curve."""

    sources: npt.NDArray[np.intp]
    """(features,)"""
    factors: FloatArray
    """(features,)"""
    offsets: FloatArray
    """(features,)"""
    curved: tuple[tuple[int, str], ...]
    """Place and name of the inputs that have a curve of their own."""

    @classmethod
    def of(cls, schema: FeatureSchema | SequenceSchema) -> Self:
        """Return the mirror of a schema; raises ValueError for an input whose image is not known."""
        windows = isinstance(schema, SequenceSchema)
        lines = _IN_WINDOWS if windows else _AT_THE_CLOSE
        unknown = [name for name in schema.names if name not in lines]
        if unknown:
            msg = f"every input must have an image in the mirror; found none of {unknown}; add it"
            raise ValueError(msg)
        sources, factors, offsets = zip(*(lines[name] for name in schema.names), strict=True)
        places = np.array([schema.names.index(source) for source in sources])
        curves = {} if windows else _CURVED
        curved = tuple((i, name) for i, name in enumerate(schema.names) if name in curves)
        return cls(places, np.array(factors), np.array(offsets), curved)

    @property
    def digest(self) -> str:
        """Return what differs where an image differs: 16 hex digits of SHA-256."""
        lines = (self.sources.astype(np.int64), self.factors, self.offsets)
        known = [each.tobytes() for each in lines] + [repr((self.curved, FALL_MAX)).encode()]
        return sha256(b"".join(known)).hexdigest()[:16]

    def reflect(self, inputs: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """Return the images (..., features) of `inputs`, the scale-free view.

        The image of an image is the inputs again, but for rounding and returns beyond
        `FALL_MAX` or the double.
        """
        found = inputs[..., self.sources] * self.factors + self.offsets
        for place, name in self.curved:
            found[..., place] = _CURVED[name](inputs[..., place].astype(np.float64))
        return np.asarray(found, dtype=inputs.dtype)
