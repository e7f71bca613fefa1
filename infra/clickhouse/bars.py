"""The bars of an environment in the columns of a recording, read from the archive."""

from collections.abc import Sequence

import polars as pl
from clickhouse_connect.driver.client import Client

from infra.clickhouse.client import quoted, require_database
from schemas.ddl import table_name
from schemas.market import BarClosed
from schemas.recorded_bars import RECORDED_BARS

SEEN_BARS = pl.Schema({**RECORDED_BARS, "provenance": pl.String()})
"""Columns of recorded bars (`ts_ns`: the open), and where their ticks came from."""


def read_bars(client: Client, database: str, timeframes: Sequence[str]) -> pl.DataFrame:
    """Return the bars (`SEEN_BARS`) of the first of `timeframes` that `database` holds, by close.

    No rows if it holds none of them. Raises LookupError if there is no such database.
    """
    require_database(client, database)
    table = f"{quoted(database)}.{table_name(BarClosed.topic)}"
    held = {row[0] for row in client.query(f"SELECT DISTINCT timeframe FROM {table}").result_rows}  # noqa: S608  # a quoted name
    chosen = next((name for name in timeframes if name in held), "")
    sql = (
        "SELECT toUnixTimestamp64Nano(open_time_ns) AS ts_ns, venue, symbol, timeframe, "  # noqa: S608
        f"open, high, low, close, volume, provenance FROM {table} FINAL "
        "WHERE timeframe = {timeframe:String} ORDER BY close_time_ns, venue, symbol"
    )
    found = pl.from_arrow(
        client.query_arrow(sql, parameters={"timeframe": chosen}, use_strings=True)
    )
    assert isinstance(found, pl.DataFrame)
    return found.cast(SEEN_BARS).select(list(SEEN_BARS))
