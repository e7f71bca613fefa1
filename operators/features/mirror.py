"""The market in a mirror: what the inputs of models would be had every move gone the other way.

A market that is not known to have a direction of its own is as likely as its image, in which prices are
reflected at the close of the bar. In it a rise of the close is a fall, the upper band is the lower one,
and what knows no direction (volatility, volume, range) is the same. Prices and their differences are
reflected exactly; returns as far as they are small: the exact image of x is -x / (1 + 2x).
"""

from hashlib import sha256
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schemas.features import FeatureSchema, SequenceSchema

FloatArray = npt.NDArray[np.float64]
Number = TypeVar("Number", np.float32, np.float64)

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
"""Inputs that change their sign."""
_ABOUT = {"rsi_14": 100.0, "stoch_k": 100.0, "stoch_d": 100.0, "bb_position": 1.0}
"""Inputs that are so much less what they were."""
_SWAPPED = {
    "bb_upper": ("bb_lower", -1.0),
    "bb_lower": ("bb_upper", -1.0),
    "plus_di": ("minus_di", 1.0),
    "minus_di": ("plus_di", 1.0),
}
"""Inputs that become another one, times the number."""


class Mirror(Struct, frozen=True):
    """How each input of a schema looks in the mirror: `inputs[..., sources] * factors + offsets`."""

    sources: npt.NDArray[np.intp]
    """(features,)"""
    factors: FloatArray
    """(features,)"""
    offsets: FloatArray
    """(features,)"""

    @classmethod
    def of(cls, schema: FeatureSchema | SequenceSchema) -> Self:
        """Return the mirror of a schema; raises ValueError for an input whose image is not known."""
        images = [_find_image(name) for name in schema.names]
        sources, factors, offsets = zip(*images, strict=True)
        places = np.array([schema.names.index(source) for source in sources])
        return cls(places, np.array(factors), np.array(offsets))

    @property
    def digest(self) -> str:
        """Return what differs where an image differs: 16 hex digits of SHA-256."""
        images = (self.sources.astype(np.int64), self.factors, self.offsets)
        return sha256(b"".join(each.tobytes() for each in images)).hexdigest()[:16]

    def reflect(self, inputs: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """Return the images (..., features) of `inputs`, the scale-free view.

        The image of an image is the inputs again, but for rounding.
        """
        found = inputs[..., self.sources] * self.factors + self.offsets
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
