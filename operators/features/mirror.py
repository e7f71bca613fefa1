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
LOG_RISE_MAX = 100.0
"""A larger rise has the image of this one, a fall to a half but for rounding; beyond 709 `exp` overflows."""

_EVEN = frozenset(
    ("volatility_7", "volatility_30", "atr_14", "atr_pct", "adx_14", "bb_width", "relative_spread",
     "volume_sma_20", "volume_ratio")
)  # fmt: skip
"""Inputs that are the same in the mirror."""
_ODD = frozenset(
    ("returns", "log_returns", "roc_10", "macd", "macd_signal", "macd_hist",
     *(f"momentum_{bars}" for bars in (5, 10, 20)),
     *(f"{mean}_{bars}" for mean in ("sma", "ema") for bars in (7, 14, 30, 50)))
)  # fmt: skip
"""Inputs that change their sign; returns do so in the logarithm only, else see `_CURVED`."""
_ABOUT = {"rsi_14": 100.0, "stoch_k": 100.0, "stoch_d": 100.0, "bb_position": 1.0}
"""Inputs that are so much less what they were."""
_SWAPPED = {
    "bb_upper": ("bb_lower", -1.0),
    "bb_lower": ("bb_upper", -1.0),
    "plus_di": ("minus_di", 1.0),
    "minus_di": ("plus_di", 1.0),
}
"""Inputs that become another one, times the number."""


def _reflect_returns(returns: FloatArray) -> FloatArray:
    """Return what `close / price - 1` is with `2 * close - price` for the price."""
    known = np.maximum(returns, -FALL_MAX)
    return -known / (1.0 + 2.0 * known)


_CURVED: dict[str, Callable[[FloatArray], FloatArray]] = {
    "returns": _reflect_returns,
    "log_returns": lambda found: np.log1p(
        _reflect_returns(np.expm1(np.minimum(found, LOG_RISE_MAX)))
    ),
    "roc_10": lambda found: 100.0 * _reflect_returns(found / 100.0),
}
"""Inputs whose image at the close is a function of them that is no line."""


class Mirror(Struct, frozen=True):
    """How each input of a schema looks in the mirror: `inputs[..., sources] * factors + offsets`, or a curve."""

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
        images = [_find_image(name) for name in schema.names]
        sources, factors, offsets = zip(*images, strict=True)
        places = np.array([schema.names.index(source) for source in sources])
        at_the_close = isinstance(schema, FeatureSchema)
        curved = [
            (i, name) for i, name in enumerate(schema.names) if name in _CURVED and at_the_close
        ]
        return cls(places, np.array(factors), np.array(offsets), tuple(curved))

    @property
    def digest(self) -> str:
        """Return what differs where an image differs: 16 hex digits of SHA-256."""
        lines = (self.sources.astype(np.int64), self.factors, self.offsets)
        known = [each.tobytes() for each in lines] + [repr(self.curved).encode()]
        return sha256(b"".join(known)).hexdigest()[:16]

    def reflect(self, inputs: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """Return the images (..., features) of `inputs`, the scale-free view.

        The image of an image is the inputs again, but for rounding and returns beyond `FALL_MAX`.
        """
        found = inputs[..., self.sources] * self.factors + self.offsets
        for place, name in self.curved:
            found[..., place] = _CURVED[name](inputs[..., place].astype(np.float64))
        return np.asarray(found, dtype=inputs.dtype)


def _find_image(name: str) -> tuple[str, float, float]:
    """Return of which input the image of `name` is made, its factor and what is added."""
    if name in _EVEN:
        return name, 1.0, 0.0
    if name in _ODD:
        return name, -1.0, 0.0
    if name in _ABOUT:
        return name, -1.0, _ABOUT[name]
    if name in _SWAPPED:
        return *_SWAPPED[name], 0.0
    msg = f"every input must have an image in the mirror; found none of {name!r}; add it"
    raise ValueError(msg)
