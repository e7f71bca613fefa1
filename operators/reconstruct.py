"""Trades that rebuild a recorded bar exactly: the same open, high, low, close and volume as decimals.

A bar says nothing about the path between its prices, so one convention is used everywhere: a bar that
closes at or above its open visits the low first (open, low, high, close), any other the high first
(open, high, low, close). Its trades stand at 0, 1/4, 1/2 and 3/4 of its interval, so all of them lie
inside it. The volume is split evenly, in integer units of the volume's last decimal; the first trades
carry the remainder. A bar with fewer than four units gets one trade a price change, and none at all if
it has fewer units than price changes: such a bar is returned with its reason, never approximated.
"""

import re
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from schemas.recorded_bars import RECORDED_BARS
from schemas.ticks import TICK_WIRE

BAR_COLUMNS: Final = pl.Schema({**RECORDED_BARS, "size_decimals": pl.Int32()})
"""What `rebuild_trades` needs: recorded bars by open time, and the decimals of each volume."""

SKIPPED_BARS: Final = pl.Schema(
    {"ts_ns": pl.Int64(), "venue": pl.String(), "symbol": pl.String(), "reason": pl.String()}
)
"""Bars that publish nothing, with a reason of `SKIP_REASONS`."""

SKIP_REASONS: Final = (
    "zero_volume",
    "null_volume",
    "inconsistent_prices",
    "volume_off_grid",
    "unrebuildable",
)

TRADES_PER_BAR: Final = 4
_UNITS_MAX: Final = float(2**53)
_UNIT_NS: Final = {
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def timeframe_ns(timeframe: str) -> int:
    """Return the length of a timeframe such as `5m`; raises ValueError for any other text."""
    found = re.fullmatch(r"([1-9]\d{0,3})([smhd])", timeframe)
    if found is None:
        msg = (
            f"timeframe of a bar must be a number and s, m, h or d; found {timeframe!r}; "
            "name it like '5m'"
        )
        raise ValueError(msg)
    return int(found[1]) * _UNIT_NS[found[2]]


def rebuild_trades(bars: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the trades (`TICK_WIRE`) of `bars` (`BAR_COLUMNS`) and the bars that give none.

    The trades are sorted by event time, venue, symbol and sequence; the second frame has the columns
    of `SKIPPED_BARS`. Raises ValueError for a timeframe that is none.
    """
    bars = bars.sort("venue", "symbol", "ts_ns", maintain_order=True)
    steps = {name: timeframe_ns(name) // TRADES_PER_BAR for name in bars["timeframe"].unique()}
    if bars.is_empty():
        return pl.DataFrame(schema=TICK_WIRE), pl.DataFrame(schema=SKIPPED_BARS)
    step_ns = bars["timeframe"].replace_strict(steps, return_dtype=pl.Int64).to_numpy()
    path = _price_path(bars)
    scale = 10.0 ** bars["size_decimals"].to_numpy()
    units = np.rint(_floats(bars, "volume") * scale)
    changes = np.ones(path.shape, dtype=bool)
    changes[:, 1:] = path[:, 1:] != path[:, :-1]
    few = units < TRADES_PER_BAR
    visited = changes | ~few[:, None]
    trades = visited.sum(axis=1)
    reason = _skip_reason(bars, units, scale, trades)
    visited &= (reason == "")[:, None]
    frame = _lay_out(bars, path, step_ns, np.where(reason == "", units, 0.0), scale, visited)
    skipped = bars.select("ts_ns", "venue", "symbol").with_columns(
        pl.Series("reason", reason.astype(object), dtype=pl.String())
    )
    return frame, skipped.filter(pl.col("reason") != "")


def _floats(bars: pl.DataFrame, name: str) -> Floats:
    return bars[name].fill_null(float("nan")).to_numpy()


def _price_path(bars: pl.DataFrame) -> Floats:
    first, high, low, last = (_floats(bars, name) for name in ("open", "high", "low", "close"))
    rising = last >= first
    return np.stack([first, np.where(rising, low, high), np.where(rising, high, low), last], axis=1)


def _skip_reason(
    bars: pl.DataFrame, units: Floats, scale: Floats, trades: NDArray[np.int_]
) -> NDArray[np.str_]:
    volume = _floats(bars, "volume")
    first, high, low, last = (_floats(bars, name) for name in ("open", "high", "low", "close"))
    consistent = (low > 0) & (low <= np.minimum(first, last)) & (high >= np.maximum(first, last))
    off_grid = ~((volume > 0) & (units < _UNITS_MAX) & (units / scale == volume))
    return np.select(
        [
            np.isnan(volume),
            volume == 0,
            ~(consistent & np.isfinite(high)),
            off_grid,
            units < trades,
        ],
        ["null_volume", "zero_volume", "inconsistent_prices", "volume_off_grid", "unrebuildable"],
        default="",
    )


def _lay_out(
    bars: pl.DataFrame,
    path: Floats,
    step_ns: Integers,
    units: Floats,
    scale: Floats,
    visited: NDArray[np.bool_],
) -> pl.DataFrame:
    count = np.maximum(visited.sum(axis=1), 1)
    whole = units.astype(np.int64)
    share, remainder = whole // count, whole % count
    rank = np.cumsum(visited, axis=1) - 1
    sizes = (share[:, None] + (rank < remainder[:, None])) / scale[:, None]
    times = bars["ts_ns"].to_numpy()[:, None] + step_ns[:, None] * np.arange(TRADES_PER_BAR)
    kept = np.flatnonzero(visited)
    times = times.ravel()[kept]
    # The bars stand in the order venue, symbol, time: a stable sort by time alone keeps the rest.
    order = np.argsort(times, kind="stable")
    kept = kept[order]
    names = bars.select("venue", "symbol")[kept // TRADES_PER_BAR]
    nothing = {
        name: pl.lit(None, dtype=TICK_WIRE[name])
        for name in ("side", "trade_id", "bid", "bid_size", "ask", "ask_size")
    }
    return names.with_columns(
        kind=pl.lit("trade"),
        event_time_ns=pl.Series(times[order]),
        price=pl.Series(path.ravel()[kept]),
        size=pl.Series(sizes.ravel()[kept]),
        **nothing,
    ).select(TICK_WIRE.names())
