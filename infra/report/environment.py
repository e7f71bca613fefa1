"""The session of an environment, read from the archive in as few rows as the report needs."""

from typing import Any

import polars as pl
from clickhouse_connect.driver.client import Client
from msgspec import Struct

from infra.clickhouse.client import quoted, require_database
from infra.report import session as tables
from infra.report.session import COVERAGE, LATENCY, SERIES, SessionTables, topic_of
from schemas.ddl import TICK_TABLE, table_name, time_columns
from schemas.frames import polars_schema
from schemas.market import BarClosed
from schemas.operations import SettingsPublished
from schemas.settings import TIMEFRAME_NS
from schemas.signals import SignalEmitted
from schemas.topics import message_topics
from schemas.trading import DecisionMade, OrderFilled

HOPS = (
    "market.bars",
    "market.features",
    "trade.signals",
    "trade.decisions",
    "trade.orders",
    "trade.fills",
)
"""Topics whose records are timed, in the order of the way."""


def load_environment(
    client: Client, database: str, environment: str = "", account: str = ""
) -> SessionTables:
    """Return the session that `database` holds; `account` keeps the records of one account.

    Raises LookupError if there is no such database, ValueError for a name that is none.
    """
    require_database(client, database)
    reader = _Reader(client, database)
    owned = "account = {account:String}" if account else "1"
    frames = {
        topic_of(message): reader.read(
            message,
            owned if "account" in polars_schema(message) else "1",
            {"account": account},
        )
        for message in tables.LOADED
    }
    coverage = reader.read_coverage()
    timeframe = tables.choose_timeframe(coverage)
    wanted = tables.wanted_series(frames[OrderFilled.topic], coverage)
    keys = [f"{venue}:{symbol}" for venue, symbol in wanted.rows()]
    series = reader.read(
        BarClosed,
        "timeframe = {timeframe:String} AND has({keys:Array(String)}, concat(venue, ':', symbol))",
        {"timeframe": timeframe, "keys": keys},
    )
    return SessionTables(
        name=environment or database,
        source="environment",
        frames=frames | {tables.BARS: series},
        settling_bars=reader.read(BarClosed, _settling(reader.table(SignalEmitted)), {}).select(
            tables.SETTLING
        ),
        coverage=coverage,
        counts=reader.read_counts() | {topic: frame.height for topic, frame in frames.items()},
        latency=reader.read_latency(),
        config_hashes=reader.read_config_hashes(),
        settings=tables.read_settings(frames[SettingsPublished.topic]),
    )


class _Reader:
    """Reads one database as polars frames."""

    def __init__(self, client: Client, database: str) -> None:
        self._client = client
        self._database = quoted(database)

    def table(self, message: type[Struct]) -> str:
        """Return the qualified name of the table of `message`."""
        return f"{self._database}.{table_name(topic_of(message))}"

    def read(self, message: type[Struct], where: str, parameters: dict[str, Any]) -> pl.DataFrame:
        """Return the rows of `message` as they are loaded, in the order of event time and log."""
        schema = {name: polars_schema(message)[name] for name in tables.loaded_names(message)}
        times = time_columns(message)
        # Another alias than the column's name, which the server would use in WHERE as well.
        columns = ", ".join(
            f"toUnixTimestamp64Nano({name}) AS out_{name}"
            if name in times
            else f"{name} AS out_{name}"
            for name in schema
        )
        order = [name for name in ("event_time_ns", "close_time_ns") if name in schema]
        sql = (
            f"SELECT {columns} FROM {self.table(message)} FINAL "  # noqa: S608
            f"WHERE {where} ORDER BY {', '.join([*order, '_offset'])}"
        )
        frame = self._frame(sql, parameters)
        return frame.select(
            pl.col(f"out_{name}").cast(dtype).alias(name) for name, dtype in schema.items()
        ).select(tables.loaded_columns(message))

    def read_coverage(self) -> pl.DataFrame:
        """Return which bars there are."""
        sql = (
            "SELECT venue, symbol, timeframe, provenance, toInt64(count()) AS bars, "  # noqa: S608  # no value is in it
            "toInt64(sum(trades)) AS all_trades, "
            "toUnixTimestamp64Nano(min(open_time_ns)) AS first_open, "
            "toUnixTimestamp64Nano(max(close_time_ns)) AS last_close "
            f"FROM {self.table(BarClosed)} FINAL "
            "GROUP BY venue, symbol, timeframe, provenance "
            "ORDER BY venue, symbol, timeframe, provenance"
        )
        frame = self._frame(sql, {})
        return frame.rename(dict(zip(frame.columns, COVERAGE, strict=True))).cast(COVERAGE)

    def read_counts(self) -> dict[str, int]:
        """Return the number of records of every topic and of the stored ticks."""
        counts = {}
        for topic in message_topics():
            table = f"{self._database}.{table_name(topic.name)}"
            rows = self._client.query(f"SELECT count() FROM {table} FINAL").result_rows  # noqa: S608
            counts[topic.name] = int(rows[0][0])
        ticks = f"SELECT count() FROM {self._database}.{TICK_TABLE} FINAL WHERE kind != 'heartbeat'"  # noqa: S608
        counts["market.ticks"] = int(self._client.query(ticks).result_rows[0][0])
        return counts

    def read_latency(self) -> pl.DataFrame:
        """Return the latency of every hop that has stamps."""
        parts = []
        for topic in HOPS:
            table = f"{self._database}.{table_name(topic)}"
            parts.append(
                f"SELECT '{topic}' AS topic, toInt64(count()) AS records, "  # noqa: S608
                "quantileExact(0.5)(passed) AS p50_ms, quantileExact(0.99)(passed) AS p99_ms FROM "
                "(SELECT (toUnixTimestamp64Nano(assumeNotNull(_emit_ns)) "
                "- toUnixTimestamp64Nano(assumeNotNull(_ingest_ns))) / 1e6 AS passed "
                f"FROM {table} FINAL WHERE isNotNull(_ingest_ns) AND isNotNull(_emit_ns))"
            )
        frame = self._frame(" UNION ALL ".join(parts), {}).cast(LATENCY).select(list(LATENCY))
        rank = pl.col("topic").replace_strict({hop: place for place, hop in enumerate(HOPS)})
        return frame.filter(pl.col("records") > 0).sort(rank)

    def read_config_hashes(self) -> tuple[str, ...]:
        """Return the settings hashes that the decisions carry, by first use."""
        sql = (
            "SELECT _config FROM "  # noqa: S608
            f"{self.table(DecisionMade)} FINAL GROUP BY _config ORDER BY min(_offset)"
        )
        return tuple(str(row[0]) for row in self._client.query(sql).result_rows if row[0])

    def _frame(self, sql: str, parameters: dict[str, Any]) -> pl.DataFrame:
        found = pl.from_arrow(
            self._client.query_arrow(sql, parameters=parameters, use_strings=True)
        )
        assert isinstance(found, pl.DataFrame)
        return found


def _settling(signals: str) -> str:
    """Return the condition of the bars that `session.settling_keys` names."""
    lengths = ", ".join(f"timeframe = '{name}', {length}" for name, length in TIMEFRAME_NS.items())
    return (
        "(venue, symbol, timeframe, toUnixTimestamp64Nano(close_time_ns)) IN ("  # noqa: S608
        f"SELECT {', '.join(SERIES)}, timeframe, "
        f"toUnixTimestamp64Nano(event_time_ns) + horizon_bars * multiIf({lengths}, 0) "
        f"FROM {signals} FINAL)"
    )
