"""Puts a session of `world` into a real broker and a real store, with plain clients."""

import json
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
from kafka import KafkaAdminClient, KafkaProducer

from infra.audit.log import LogRecord
from infra.audit.report import Place
from infra.audit.tables import decimal_text
from infra.audit.ticks import find_fault, parse_record
from schemas.ddl import TIME, all_ddl, clickhouse_columns, table_name
from schemas.settings import KafkaSettings, StoreSettings
from schemas.ticks import TICK_WIRE
from schemas.topics import TOPICS, full_name
from tests.infra.audit.facts import PARTITIONS, T0, Written, at
from tests.infra.audit.world import session

TIMESTAMP_MS = T0 // 1_000_000 + 200_000


def publish(bootstrap: str, environment: str, records: list[Written]) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics(
        {
            full_name(environment, name): {
                "num_partitions": PARTITIONS if topic.partitioned else 1,
                "replication_factor": 1,
                "configs": {"max.message.bytes": str(topic.max_message_bytes)},
            }
            for name, topic in TOPICS.items()
        }
    )
    admin.close()
    append(bootstrap, environment, records)


def append(bootstrap: str, environment: str, records: list[Written]) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5)
    for record in records:
        producer.send(
            full_name(environment, record.topic),
            value=record.value,
            key=record.key,
            headers=record.headers,
            partition=record.partition,
            timestamp_ms=TIMESTAMP_MS,
        )
    producer.flush()
    producer.close()


def archive(client: Any, database: str, records: list[Written]) -> None:
    """Write every record into its table, as the archive would."""
    client.command(f"CREATE DATABASE {database}")
    client.database = database
    for statement in all_ddl().split(";\n"):
        if statement.strip():
            client.command(statement)
    offsets: dict[tuple[str, int], int] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        where = (record.topic, record.partition)
        offset = offsets[where] = offsets.get(where, -1) + 1
        if record.topic == "market.ticks":
            rows.setdefault("market_ticks", []).extend(tick_rows(record, offset))
        else:
            rows.setdefault(table_name(record.topic), []).append(message_row(record, offset))
    for table, found in rows.items():
        block = "\n".join(json.dumps(row) for row in found).encode()
        client.raw_insert(table, list(found[0]), block, fmt="JSONEachRow")


def tick_rows(record: Written, offset: int) -> list[dict[str, Any]]:
    place = Place(record.topic, record.partition, offset)
    parsed = parse_record(LogRecord(place, 0, record.key, dict(record.headers), record.value))
    rows = []
    for line in [] if isinstance(parsed, str) else parsed:
        if line.tick is None or find_fault(line.tick, TIMESTAMP_MS, listing()):
            continue
        tick = {name: getattr(line.tick, name) for name in TICK_WIRE}
        rows.append(
            {
                "partition": record.partition,
                "offset": offset,
                "line": line.number,
                **{name: tick[name] for name in ("price", "size", "trade_id", "bid", "ask")},
                **{name: tick[name] or "" for name in ("kind", "venue", "symbol", "side")},
                "event_time_ns": instant(tick["event_time_ns"]),
                "provenance": "recorded",
                "_ingest_ns": "2100-01-01 00:00:00",
            }
        )
    return rows


def listing() -> Any:
    return next(each.message for each in session() if each.topic == "market.instruments")


def instant(time_ns: int) -> str:
    return f"{time_ns // 10**9}.{time_ns % 10**9:09d}"


def message_row(record: Written, offset: int) -> dict[str, Any]:
    columns = clickhouse_columns(type(record.message))
    own = {name: plain(getattr(record.message, name, None)) for name in columns}
    logged = {
        "_topic_partition": record.partition,
        "_offset": offset,
        "_version": offset,
        "_config": dict(record.headers)["config"].decode(),
        "_epoch": int(dict(record.headers)["epoch"]),
        "_ingest_ns": at(5),
        "_emit_ns": at(7),
    }
    row = own | logged
    times = {name for name, kind in columns.items() if TIME in kind}
    return {name: instant(value) if name in times else value for name, value in row.items()}


def plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return decimal_text(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    return value


def kafka(bootstrap: str) -> KafkaSettings:
    return KafkaSettings(bootstrap=bootstrap, partitions=PARTITIONS)


def clickhouse(store: Any) -> StoreSettings:
    return StoreSettings(
        url=store.url, user=store.user, password=store.password, database="audited"
    )
