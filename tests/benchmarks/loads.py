"""What is measured with: recorded market data, and load shapes made of it that say what they are."""

from pathlib import Path

import polars as pl
from msgspec import Struct

from dataflows.demo import RECORDINGS
from dataflows.recorded_session import RecordedFile, RecordedSession
from schemas.settings import TIMEFRAME_NS

EQUITY_TRADES = "ticks/equity_trades_us_20131007_08.parquet"
LONG_BARS = "bars/bars_5m_binance_spot_202401_202409.parquet"
MINUTE_BARS = "bars/bars_1m_crossvenue_btc_stablecoins_202303.parquet"
SHIPPED_BARS = RECORDINGS / "bars_5m_binance_spot_demo.parquet"
_DAY_NS = 86_400_000_000_000
LOAD_VENUE = "loadtest"
"""Venue of every load shape, so that no table shows one as a market."""


class Load(Struct, frozen=True, kw_only=True):
    """A session and where it comes from, in words."""

    name: str
    files: list[RecordedFile]

    def open(self) -> RecordedSession:
        return RecordedSession(self.files)


class Loads:
    """Finds the recordings and cuts what a run needs into a folder of its own."""

    def __init__(self, data: Path, folder: Path, *, quick: bool) -> None:
        self._data, self._folder, self._quick = data, folder, quick

    def trades(self) -> Load | None:
        """Recorded equity trades, None when the recording is not here."""
        path = self._data / EQUITY_TRADES
        if not path.exists():
            return None
        name = "recorded US equity trades, 4 symbols, 2 days"
        return self._load(path, name, pl.scan_parquet(path), 40_000)

    def shipped_bars(self) -> Load:
        """The shipped 5-minute bars, replayed as trades that rebuild them."""
        name = "shipped 5m bars of 6 crypto symbols (reconstructed trades)"
        return self._load(SHIPPED_BARS, name, pl.scan_parquet(SHIPPED_BARS), 12_000)

    def long_bars(self) -> Load:
        """The longest recording of 5-minute bars that is here."""
        path = self._data / LONG_BARS
        if not path.exists():
            return self.shipped_bars()
        name = "863,569 recorded 5m bars of 12 crypto symbols (reconstructed trades)"
        return self._load(path, name, pl.scan_parquet(path), 12_000)

    def warm_up(self) -> Load:
        """A little of the shipped bars, to compile kernels with."""
        cut = self._folder / "warm_up.parquet"
        if not cut.exists():
            pl.scan_parquet(SHIPPED_BARS).head(6_000).collect().write_parquet(cut)
        return Load(name="warm-up", files=[RecordedFile(path=cut)])

    def _load(self, path: Path, name: str, rows: pl.LazyFrame, quick_rows: int) -> Load:
        if not self._quick:
            return Load(name=name, files=[RecordedFile(path=path)])
        cut = self._folder / f"quick_{path.name}"
        if not cut.exists():
            rows.sort("ts_ns", maintain_order=True).head(quick_rows).collect().write_parquet(cut)
        return Load(name=f"first {quick_rows:,} rows of {name}", files=[RecordedFile(path=cut)])

    def trade_shape(self, names: int, passes: int) -> Load | None:
        """Return recorded trades dealt out to `names` and renamed; `passes` repeats them at later times.

        This is the shape of a load, not a market: a name holds every n-th trade of a real one.
        None when the recording is not here.
        """
        path = self._data / EQUITY_TRADES
        if not path.exists():
            return None
        cut = self._folder / f"trades_{names}x{passes}.parquet"
        if not cut.exists():
            dealt = _deal_out(pl.read_parquet(path), names)
            days = dealt["ts_ns"].max() // _DAY_NS - dealt["ts_ns"].min() // _DAY_NS + 1  # type: ignore[operator]
            pl.concat(
                dealt.with_columns(pl.col("ts_ns") + repeat * days * _DAY_NS)
                for repeat in range(passes)
            ).write_parquet(cut)
        name = (
            f"load shape, not market data: recorded US equity trades dealt out to {names} names, "
            f"{passes} times over"
        )
        return Load(name=name, files=[RecordedFile(path=cut)])

    def load_shape(self, names: int, bars_of_each: int, passes: int, timeframe: str) -> Load | None:
        """Return `names` series cut from recorded bars, shifted to one start and renamed.

        This is the shape of a load, not a market: prices of different days stand side by side.
        `passes` repeats the whole at later times. None when there is no recording of `timeframe`.
        """
        path = self._data / MINUTE_BARS if timeframe == "1m" else self.long_bars().files[0].path
        if not path.exists():
            return None
        cut = self._folder / f"shape_{timeframe}_{names}x{bars_of_each}x{passes}.parquet"
        if not cut.exists():
            _cut_shape(path, names, bars_of_each, passes, timeframe).write_parquet(cut)
        name = (
            f"load shape, not market data: {names} names x {bars_of_each * passes} {timeframe} bars "
            "cut from recorded bars of other days"
        )
        return Load(name=name, files=[RecordedFile(path=cut)])


def _deal_out(trades: pl.DataFrame, names: int) -> pl.DataFrame:
    """Return `trades` by time under `names` new names, as many for each symbol as for every other."""
    of_each, left = divmod(names, trades["symbol"].n_unique())
    assert not left, f"{names} names"
    number = (pl.col("symbol").rank("dense") - 1) * of_each + pl.int_range(pl.len()).over(
        "symbol"
    ) % of_each
    return trades.sort("ts_ns", maintain_order=True).with_columns(
        venue=pl.lit(LOAD_VENUE),
        symbol=pl.format("LOAD{}USDT", number.cast(pl.String).str.zfill(3)),
    )


def _cut_shape(
    path: Path, names: int, bars_of_each: int, passes: int, timeframe: str
) -> pl.DataFrame:
    length_ns = TIMEFRAME_NS[timeframe]
    bars = pl.read_parquet(path).filter(pl.col("volume") > 0)
    series = []
    for part in bars.sort("ts_ns").partition_by("venue", "symbol", maintain_order=True):
        series += [
            part[first : first + bars_of_each]
            for first in range(0, part.height - bars_of_each + 1, bars_of_each)
        ]
    assert series, f"no series of {bars_of_each} bars"
    start_ns = int(bars["ts_ns"].min()) // 86_400_000_000_000 * 86_400_000_000_000  # type: ignore[arg-type]
    parts = []
    for repeat in range(passes):
        first_ns = start_ns + repeat * bars_of_each * length_ns
        times = pl.Series("ts_ns", range(bars_of_each)) * length_ns + first_ns
        parts += [
            series[number % len(series)].with_columns(
                times, venue=pl.lit(LOAD_VENUE), symbol=pl.lit(f"LOAD{number:03d}USDT")
            )
            for number in range(names)
        ]
    return pl.concat(parts).sort("ts_ns", "symbol")
