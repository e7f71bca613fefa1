"""Write closed cells as rows of `BarClosed`: integers become floats and names here, at the very end."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from operators import _bar_cells as bar_cells
from operators._bar_cells import Integers
from schemas.frames import polars_schema
from schemas.ids import bar_id, tick_id
from schemas.market import BarClosed
from schemas.ticks import PROVENANCE_CODES


def render_rows(
    partition: int,
    symbols: list[tuple[str, str]],
    scales: NDArray[np.float64],
    timeframes: list[str],
    cells: Integers,
    gap_bars: Integers,
) -> pl.DataFrame:
    """Return one row per cell, in the order of `cells`.

    `symbols` are venue and symbol by the cells' symbol number; `scales` are the price scale and the
    size scale of each cell (2, cells); `timeframes` and `gap_bars` run along the cells.
    """
    price_scale, size_scale = scales
    number = cells[bar_cells.KEY] & bar_cells.SYMBOL_MASK
    venues = pl.Series([venue for venue, _ in symbols]).gather(number)
    names = pl.Series([symbol for _, symbol in symbols]).gather(number)
    closes = cells[bar_cells.CLOSE_NS].tolist()
    last_offsets = cells[bar_cells.LAST_OFFSET].tolist()
    last_lines = cells[bar_cells.LAST_LINE].tolist()
    bought = bar_cells.to_quantity(cells[bar_cells.BUY_HIGH], cells[bar_cells.BUY_LOW], size_scale)
    quotes = cells[bar_cells.QUOTES]
    spread_sum_bps = cells[bar_cells.SPREAD] / bar_cells.SPREAD_UNITS_PER_BPS
    spread_bps_mean = spread_sum_bps / np.where(quotes > 0, quotes, 1)
    columns = {
        "id": list(map(bar_id, venues.to_list(), names.to_list(), timeframes, closes)),
        "cause": [
            tick_id(partition, offset, line)
            for offset, line in zip(last_offsets, last_lines, strict=True)
        ],
        "venue": venues,
        "symbol": names,
        "timeframe": timeframes,
        "open_time_ns": cells[bar_cells.OPEN_NS],
        "close_time_ns": cells[bar_cells.CLOSE_NS],
        "open": cells[bar_cells.OPEN] / price_scale,
        "high": cells[bar_cells.HIGH] / price_scale,
        "low": cells[bar_cells.LOW] / price_scale,
        "close": cells[bar_cells.CLOSE] / price_scale,
        "volume": bar_cells.to_quantity(
            cells[bar_cells.VOLUME_HIGH], cells[bar_cells.VOLUME_LOW], size_scale
        ),
        "buy_volume": _null_where(bought, cells[bar_cells.UNSIDED] > 0),
        "trades": cells[bar_cells.TRADES],
        "spread_bps_mean": _null_where(spread_bps_mean, quotes == 0),
        "gap_bars": gap_bars,
        "duplicates": cells[bar_cells.DUPLICATES],
        "partition": np.full(len(closes), partition, dtype=np.int64),
        "first_offset": cells[bar_cells.FIRST_OFFSET],
        "first_line": cells[bar_cells.FIRST_LINE],
        "last_offset": cells[bar_cells.LAST_OFFSET],
        "last_line": cells[bar_cells.LAST_LINE],
        "provenance": pl.Series(PROVENANCE_CODES).gather(cells[bar_cells.PROVENANCE]),
    }
    # A list of typed series is taken as it is; a dictionary would be inspected value by value.
    return pl.DataFrame(
        [pl.Series(name, columns[name], dtype) for name, dtype in polars_schema(BarClosed).items()]
    )


def _null_where(values: NDArray[np.float64], absent: NDArray[np.bool_]) -> pl.Series:
    return pl.Series(values).set(pl.Series(absent), None)
