"""Cut the shipped recordings out of the source files, byte for byte the same with the same pyarrow.

Run `python -m onnx_models.recordings.make_excerpts SOURCE_FOLDER [--out FOLDER]`, where the source
folder holds `bars/` and `ticks/` as the README beside this file describes.
"""

import argparse
from hashlib import sha256
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from onnx_models.dataset import to_hourly

BARS = "bars/bars_5m_binance_spot_202401_202409.parquet"
TRADES = "ticks/crypto_trades_binance_20240808.parquet"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "LINKUSDT")

TRAIN_START_NS = 1_704_067_200_000_000_000
"""2024-01-01 00:00."""
DEMO_START_NS = 1_717_200_000_000_000_000
"""2024-06-01 00:00: the training excerpt ends one bar before it."""
DEMO_END_NS = 1_723_161_600_000_000_000
"""2024-08-09 00:00: the last bar opens 5 minutes before it."""

LATER_END_NS = 1_725_667_200_000_000_000
"""2024-09-07 00:00: the last whole day of the source."""


def cut_bars(source: Path, start_ns: int, end_ns: int) -> pl.DataFrame:
    """Return the bars of `SYMBOLS` that open in [start_ns, end_ns), by symbol and time."""
    return (
        pl.read_parquet(source / BARS)
        .filter(pl.col("symbol").is_in(SYMBOLS))
        .filter(pl.col("ts_ns").is_between(start_ns, end_ns, closed="left"))
        .sort("symbol", "ts_ns")
    )


def cut_hours(source: Path, start_ns: int, end_ns: int) -> pl.DataFrame:
    """Return the hours of [start_ns, end_ns) of every symbol of the source, made of its bars."""
    bars = pl.read_parquet(source / BARS)
    inside = bars.filter(pl.col("ts_ns").is_between(start_ns, end_ns, closed="left"))
    return (
        to_hourly(inside)
        .rename({"open_time_ns": "ts_ns"})
        .select(bars.columns)
        .sort("symbol", "ts_ns")
    )


def cut_trades(source: Path) -> pl.DataFrame:
    """Return the spot trades in the order of the source; columns without a value are left out."""
    return (
        pl.read_parquet(source / TRADES)
        .filter(pl.col("venue") == "binance_spot")
        .drop("event_ns", "exec_type")
    )


def write_excerpt(frame: pl.DataFrame, path: Path) -> None:
    """Write `frame` as one Parquet row group; delta-coded integers and zstd 22 were the smallest."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
    integers = [name for name, dtype in frame.schema.items() if dtype == pl.Int64]
    names = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=22,
        use_dictionary=names,
        column_encoding=dict.fromkeys(integers, "DELTA_BINARY_PACKED"),
        row_group_size=1 << 20,
        data_page_size=1 << 26,
        store_schema=False,
    )


def make_excerpts(source: Path, out: Path) -> dict[str, str]:
    """Write every excerpt and `SHA256SUMS` into `out`; return the checksums by file name."""
    excerpts = {
        "bars_1h_binance_spot_later.parquet": cut_hours(source, DEMO_START_NS, LATER_END_NS),
        "bars_1h_binance_spot_train.parquet": cut_hours(source, TRAIN_START_NS, DEMO_START_NS),
        "bars_5m_binance_spot_demo.parquet": cut_bars(source, DEMO_START_NS, DEMO_END_NS),
        "bars_5m_binance_spot_train.parquet": cut_bars(source, TRAIN_START_NS, DEMO_START_NS),
        "trades_binance_spot_20240808.parquet": cut_trades(source),
    }
    sums: dict[str, str] = {}
    for name, frame in excerpts.items():
        write_excerpt(frame, out / name)
        sums[name] = sha256((out / name).read_bytes()).hexdigest()
    lines = [f"{digest}  {name}\n" for name, digest in sums.items()]
    (out / "SHA256SUMS").write_text("".join(lines))
    return sums


def main() -> None:
    """Read the arguments, write the excerpts, print their checksums."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    for name, digest in make_excerpts(arguments.source, arguments.out).items():
        print(f"{digest}  {name}")


if __name__ == "__main__":
    main()
