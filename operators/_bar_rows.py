"""Write closed cells as columns of `BarClosed`: integers become floats and names here, at the very end."""

import numpy as np
from numpy.typing import NDArray

from operators import _bar_cells as bar_cells
from operators._bar_cells import Integers
from operators.bar_columns import BarColumns
from schemas.ids import bar_id, tick_id
from schemas.ticks import PROVENANCE_CODES

_OPEN_TO_CLOSE = [bar_cells.OPEN, bar_cells.HIGH, bar_cells.LOW, bar_cells.CLOSE]


def render_rows(
    partition: int,
    symbols: list[tuple[str, str]],
    scales: NDArray[np.float64],
    timeframes: list[str],
    cells: Integers,
    gap_bars: Integers,
) -> BarColumns:
    """Return one bar per cell, in the order of `cells`.

    `symbols` are venue and symbol by the cells' symbol number; `scales` are the price scale and the
    size scale of each cell (2, cells); `timeframes` and `gap_bars` run along the cells.
    """
    price_scale, size_scale = scales
    named = [symbols[number] for number in (cells[bar_cells.KEY] & bar_cells.SYMBOL_MASK).tolist()]
    venues, names = [venue for venue, _ in named], [symbol for _, symbol in named]
    closes = cells[bar_cells.CLOSE_NS].tolist()
    places = zip(
        cells[bar_cells.LAST_OFFSET].tolist(), cells[bar_cells.LAST_LINE].tolist(), strict=True
    )
    open_, high, low, close = cells[_OPEN_TO_CLOSE] / price_scale
    bought = bar_cells.to_quantity(cells[bar_cells.BUY_HIGH], cells[bar_cells.BUY_LOW], size_scale)
    quotes = cells[bar_cells.QUOTES]
    spread_sum_bps = cells[bar_cells.SPREAD] / bar_cells.SPREAD_UNITS_PER_BPS
    return BarColumns(
        len(closes),
        {
            "id": list(map(bar_id, venues, names, timeframes, closes)),
            "cause": [tick_id(partition, offset, line) for offset, line in places],
            "venue": venues,
            "symbol": names,
            "timeframe": timeframes,
            "open_time_ns": cells[bar_cells.OPEN_NS],
            "close_time_ns": cells[bar_cells.CLOSE_NS],
            "open": open_,
            "high": high,
            "low": low,
            "close": close,
            "volume": bar_cells.to_quantity(
                cells[bar_cells.VOLUME_HIGH], cells[bar_cells.VOLUME_LOW], size_scale
            ),
            "buy_volume": np.where(cells[bar_cells.UNSIDED] > 0, np.nan, bought),
            "trades": cells[bar_cells.TRADES],
            "spread_bps_mean": np.where(
                quotes == 0, np.nan, spread_sum_bps / np.where(quotes > 0, quotes, 1)
            ),
            "gap_bars": gap_bars,
            "duplicates": cells[bar_cells.DUPLICATES],
            "partition": np.full(len(closes), partition, dtype=np.int64),
            "first_offset": cells[bar_cells.FIRST_OFFSET],
            "first_line": cells[bar_cells.FIRST_LINE],
            "last_offset": cells[bar_cells.LAST_OFFSET],
            "last_line": cells[bar_cells.LAST_LINE],
            "provenance": [PROVENANCE_CODES[code] for code in cells[bar_cells.PROVENANCE].tolist()],
        },
    )
