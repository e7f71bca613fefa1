"""What a model learns to foresee: which barrier the closes of the next bars leave first.

Triple-barrier labels after M. Lopez de Prado, *Advances in Financial Machine Learning* (2018), ch. 3,
with two changes. Closes touch the barriers, not highs and lows: a signal acts at a close, and a bar
whose high and low lie beyond both barriers would have no answer. The band is the cost of a round
trip plus a share of the deviation expected over the horizon, so that a label of direction is a move
that could have paid.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Struct

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

SELL, HOLD, BUY = 0, 1, 2
UNKNOWN = -1
HORIZONS_BARS = (1, 4)
"""Horizons that a data set is labelled for; with hourly bars one and four hours."""

_SERIES = ("venue", "symbol")


class Labelling(Struct, frozen=True, kw_only=True):
    """Three classes: the first close beyond a band that trading must overcome, or none."""

    horizon_bars: int = 4
    cost_bps: float = 22.0
    """Round trip: 10 bps of fee and 1 bps of half spread on either side."""
    volatility_factor: float = 0.5
    """Share of the horizon's expected deviation that is called noise."""

    @property
    def definition(self) -> str:
        """The label in words."""
        return (
            f"r[i] = close[+i] / close - 1 for i = 1..{self.horizon_bars}; band = "
            f"{self.cost_bps:g} bps + {self.volatility_factor:g} * volatility_30 * "
            f"sqrt({self.horizon_bars}); the first r[i] beyond the band decides: buy if above band, "
            f"sell if below -band; hold if none is"
        )


class Target(Struct, frozen=True, kw_only=True):
    """What became of each bar, by one labelling."""

    labelling: Labelling
    labels: IntArray
    """0 sell, 1 hold, 2 buy; `UNKNOWN` where the horizon has not closed or there is no band."""
    returns: FloatArray
    """close[+horizon] / close - 1; NaN where the horizon has not closed."""
    ends_ns: IntArray
    """Close time of the horizon's last bar, after which the label is known; 0 where unknown."""


def label_rows(rows: pl.DataFrame, labelling: Labelling) -> Target:
    """Return what became of each bar.

    `rows` has `venue`, `symbol`, `close_time_ns`, `close` and `volatility` (standard deviation of
    the return of one bar), each series in time order. Where a bar is missing the next one counts:
    the horizon is then longer in time, and its end says so. A label of direction is counted as known
    at the horizon's end too, though its barrier may have been touched before.
    """
    horizon = labelling.horizon_bars
    close = pl.col("close")
    moves = [close.shift(-i).over(_SERIES) / close - 1.0 for i in range(1, horizon + 1)]
    noise = labelling.volatility_factor * pl.col("volatility") * horizon**0.5
    band = pl.lit(labelling.cost_bps / 1e4) + noise
    # Asked from the last bar back, so that the first touch is the one that stands.
    label = pl.lit(HOLD)
    for move in reversed(moves):
        label = pl.when(move > band).then(BUY).when(move < -band).then(SELL).otherwise(label)
    known = moves[-1].is_not_null() & band.is_not_null()
    found = rows.select(
        label=pl.when(known).then(label).otherwise(UNKNOWN).cast(pl.Int64),
        forward=moves[-1].fill_null(float("nan")),
        end=pl.col("close_time_ns").shift(-horizon).over(_SERIES).fill_null(0),
    )
    return Target(
        labelling=labelling,
        labels=found["label"].to_numpy(),
        returns=found["forward"].to_numpy(),
        ends_ns=found["end"].to_numpy(),
    )
