"""The recording behind a backtest: its bars added up again, and the trades that they stand for.

Written from the rules, in plain polars and numpy: a bar is rebuilt as open, low, high, close if it
rose and open, high, low, close if it fell, on the quarters of its interval, its volume in equal parts
of the last decimal, the first ones larger. A bar that gives no such trades is left out.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from infra.audit.prices import TradePrices
from infra.audit.report import Check, Place
from infra.audit.sessions import ALWAYS_OPEN
from infra.audit.ticks import Market
from schemas.fields import Provenance
from schemas.ids import bar_id
from schemas.market import BarClosed, InstrumentListed
from schemas.settings import TIMEFRAME_NS
from schemas.ticks import PROVENANCE_CODES

BARS_FILE = "market_bars.parquet"
QUARTERS = 4

_KEY = ["venue", "symbol"]
_PRICES = ["open", "high", "low", "close"]
_COMPARED = [*_PRICES, "volume"]
_RECONSTRUCTED = PROVENANCE_CODES.index(Provenance.RECONSTRUCTED)


class RecordedBars:
    """Files of recorded bars, and the folder of the backtest that ran over them."""

    def __init__(self, files: Sequence[Path], folder: Path) -> None:
        """Read the files; raises ValueError if one holds no bars of a known timeframe."""
        self._bars = pl.concat([_read(path) for path in files]).sort(*_KEY, "open_ns")
        columns = [*_KEY, "timeframe", "open_time_ns", "close_time_ns", *_COMPARED]
        found = pl.read_parquet(folder / BARS_FILE, columns=columns).with_row_index("offset")
        self._found = found.rename({"open_time_ns": "open_ns"})
        self._start_ns = min(self._found["open_ns"].to_list(), default=0)
        self._end_ns = max(self._found["close_time_ns"].to_list(), default=0)

    def prepare(self, listings: dict[Market, InstrumentListed]) -> None:
        """Count volumes in units of the last decimal and leave out what gives no trades.

        Of the files counts what lies within the bars of the folder: a backtest may take a part.
        """
        rows = [(*market, each.size_decimals, each.calendar) for market, each in listings.items()]
        schema = {
            "venue": pl.String,
            "symbol": pl.String,
            "decimals": pl.Int32,
            "calendar": pl.String,
        }
        known = pl.DataFrame(rows, schema=schema, orient="row")
        rising = pl.col("close") >= pl.col("open")
        second = pl.when(rising).then("low").otherwise("high")
        third = pl.when(rising).then("high").otherwise("low")
        bars = self._bars.join(known, on=_KEY, how="inner").filter(
            pl.col("low") <= pl.min_horizontal("open", "close"),
            pl.col("high") >= pl.max_horizontal("open", "close"),
            pl.col("open_ns") >= self._start_ns,
            pl.col("open_ns") + pl.col("length_ns") <= self._end_ns,
        )
        bars = bars.with_columns(
            units=(pl.col("volume") * 10.0 ** pl.col("decimals")).round().cast(pl.Int64),
            changes=1
            + (second != pl.col("open")).cast(pl.Int64)
            + (third != second).cast(pl.Int64)
            + (pl.col("close") != third).cast(pl.Int64),
            second=second,
            third=third,
        )
        self._bars = bars.filter(pl.col("units") >= pl.min_horizontal(QUARTERS, "changes"))

    def compare(self, check: Check) -> None:
        """Record every bar of the folder that does not add up from the files, and what is missing."""
        for timeframe in sorted(self._found["timeframe"].unique()):
            length_ns = TIMEFRAME_NS[timeframe]
            source = self._bars.filter(pl.col("length_ns") <= length_ns)
            found = self._found.filter(pl.col("timeframe") == timeframe)
            if timeframe == "1d":
                closed = source.filter(pl.col("calendar") != ALWAYS_OPEN).select(_KEY).unique()
                source = source.join(closed, on=_KEY, how="anti")
                found = found.join(closed, on=_KEY, how="anti")
                if closed.height:
                    check.skip("daily bars of exchanges that close were not added up again")
            expected = _added_up(source, length_ns, self._end_ns)
            self._compare_timeframe(check, timeframe, expected, found)

    def _compare_timeframe(
        self, check: Check, timeframe: str, expected: pl.DataFrame, found: pl.DataFrame
    ) -> None:
        check.rows += found.height
        joined = found.join(
            expected, on=[*_KEY, "open_ns"], how="full", coalesce=True, suffix="_in"
        )
        differs = pl.any_horizontal(
            pl.col(name).ne_missing(pl.col(f"{name}_in")) for name in _COMPARED
        )
        length_ns = TIMEFRAME_NS[timeframe]
        for row in joined.filter(differs).sort("open_ns", *_KEY).iter_rows(named=True):
            offset = -1 if row["offset"] is None else row["offset"]
            key = bar_id(row["venue"], row["symbol"], timeframe, row["open_ns"] + length_ns)
            have = {name: row[name] for name in _COMPARED}
            want = {name: row[f"{name}_in"] for name in _COMPARED}
            rule = "a bar adds up from the recording"
            check.violate(rule, Place(BarClosed.topic, 0, offset), key, want, have)

    def prices(self) -> TradePrices:
        """Return the trades that the bars stand for."""
        prices = TradePrices()
        for (venue, symbol), bars in self._bars.group_by(_KEY, maintain_order=True):
            path = bars.select("open", "second", "third", "close").to_numpy()
            units, few = bars["units"].to_numpy(), bars["units"].to_numpy() < QUARTERS
            moves = np.c_[np.ones(len(path), dtype=bool), path[:, 1:] != path[:, :-1]]
            visited = moves | ~few[:, None]
            count = visited.sum(axis=1)
            rank = visited.cumsum(axis=1) - 1
            scale = 10.0 ** bars["decimals"].to_numpy()
            shares = (units // count)[:, None] + (rank < (units % count)[:, None])
            step_ns = (bars["length_ns"] // QUARTERS).to_numpy()
            times = bars["open_ns"].to_numpy()[:, None] + step_ns[:, None] * np.arange(QUARTERS)
            sizes = (shares / scale[:, None])[visited]
            market = (str(venue), str(symbol))
            prices.load(market, times[visited], path[visited], sizes, _RECONSTRUCTED)
        return prices


def _added_up(source: pl.DataFrame, length_ns: int, end_ns: int) -> pl.DataFrame:
    """Return the bars of `length_ns` that the smaller ones of `source` make and that have ended."""
    opened = pl.col("open_ns") - pl.col("open_ns") % length_ns
    return (
        source.with_columns(open_ns=opened)
        .group_by(*_KEY, "open_ns", maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            (pl.col("units").sum() / 10.0 ** pl.col("decimals").first()).alias("volume"),
        )
        .filter(pl.col("open_ns") + length_ns <= end_ns)
    )


def _read(path: Path) -> pl.DataFrame:
    wanted = ["ts_ns", *_KEY, "timeframe", *_COMPARED]
    table = pl.scan_parquet(path) if path.suffix == ".parquet" else pl.scan_csv(path)
    columns = table.collect_schema().names()
    if not set(wanted) <= set(columns):
        msg = (
            f"input {path.name!r} must hold recorded bars with the columns {', '.join(wanted)}; "
            f"found {columns!r}; audit without --input"
        )
        raise ValueError(msg)
    kept = table.select(wanted).collect()
    unknown = sorted(set(kept["timeframe"].unique()) - TIMEFRAME_NS.keys())
    if unknown:
        msg = (
            f"bars of input {path.name!r} must have a timeframe of {', '.join(TIMEFRAME_NS)}; "
            f"found {unknown!r}; audit without --input"
        )
        raise ValueError(msg)
    lengths = pl.col("timeframe").replace_strict(TIMEFRAME_NS, return_dtype=pl.Int64)
    return kept.select(
        *_KEY,
        pl.col("ts_ns").cast(pl.Int64).alias("open_ns"),
        lengths.alias("length_ns"),
        *(pl.col(name).cast(pl.Float64) for name in _COMPARED),
    )
