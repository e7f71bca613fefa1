"""What a model learns to foresee, and which rows it may learn it from."""

import numpy as np
import numpy.typing as npt
import polars as pl
from msgspec import Struct

IntArray = npt.NDArray[np.int64]

SELL, HOLD, BUY = 0, 1, 2
UNKNOWN = -1


class Labelling(Struct, frozen=True, kw_only=True):
    """Three classes of the forward return against a band that trading must overcome."""

    horizon_bars: int = 4
    cost_bps: float = 22.0
    """Round trip: 10 bps of fee and 1 bps of half spread on either side."""
    volatility_factor: float = 0.5
    """Share of the horizon's expected deviation that is called noise."""

    @property
    def definition(self) -> str:
        """The label in words."""
        return (
            f"r = close[+{self.horizon_bars}] / close - 1; band = {self.cost_bps:g} bps + "
            f"{self.volatility_factor:g} * volatility_30 * sqrt({self.horizon_bars}); "
            f"buy if r > band, sell if r < -band, else hold"
        )


class DatasetSplit(Struct, frozen=True, kw_only=True):
    """Row numbers of three periods in order of time; what lies between belongs to none."""

    train: IntArray
    calibration: IntArray
    """Decides when boosting stops."""
    test: IntArray
    """Seen once, by the evaluation."""


def label_rows(rows: pl.DataFrame, labelling: Labelling) -> tuple[IntArray, IntArray]:
    """Return each row's class (`UNKNOWN` if not settled) and the close time that settles it.

    `rows` has `venue`, `symbol`, `close_time_ns`, `close` and `volatility` (per bar), each series
    in time order. A row whose horizon is longer in time than in bars, because a bar is missing, is
    settled by the bar that is there; its end time says when.
    """
    ahead, series = -labelling.horizon_bars, ["venue", "symbol"]
    forward = pl.col("close").shift(ahead).over(series) / pl.col("close") - 1.0
    noise = labelling.volatility_factor * pl.col("volatility") * labelling.horizon_bars**0.5
    band = labelling.cost_bps / 1e4 + noise
    label = pl.when(forward > band).then(BUY).when(forward < -band).then(SELL).otherwise(HOLD)
    known = forward.is_not_null() & band.is_not_null()
    found = rows.select(
        label=pl.when(known).then(label).otherwise(UNKNOWN).cast(pl.Int64),
        end=pl.col("close_time_ns").shift(ahead).over(series).fill_null(0),
    )
    return found["label"].to_numpy(), found["end"].to_numpy()


def split_rows(
    times_ns: IntArray,
    end_times_ns: IntArray,
    embargo_ns: int,
    shares: tuple[float, float] = (0.6, 0.8),
) -> DatasetSplit:
    """Return the chronological split at `shares` of the time range, purged and with an embargo.

    A row of an earlier period whose label is settled at or after the next period's start is purged;
    a period begins `embargo_ns` after the boundary, so that no row beside it sees the same moves.
    """
    first, last = int(times_ns.min()), int(times_ns.max())
    boundaries = [first + int((last - first) * share) for share in shares]
    starts = [boundary + embargo_ns for boundary in boundaries]
    return DatasetSplit(
        train=np.flatnonzero(end_times_ns < boundaries[0]),
        calibration=np.flatnonzero((times_ns >= starts[0]) & (end_times_ns < boundaries[1])),
        test=np.flatnonzero(times_ns >= starts[1]),
    )
