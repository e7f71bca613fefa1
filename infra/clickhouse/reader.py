"""Rows of the archive as the messages that they were."""

from collections.abc import Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, TypeVar

from clickhouse_connect.driver.client import Client
from msgspec import Struct

from schemas.checked import convert
from schemas.ddl import clickhouse_columns, table_name, time_columns
from schemas.frames import polars_schema

M = TypeVar("M", bound=Struct)


def read_messages(
    client: Client,
    message: type[M],
    where: str,
    parameters: Mapping[str, Any],
    *,
    order_by: str = "",
    limit_by: str = "",
    limit: int = 0,
) -> list[M]:
    """Return the messages of class `message` that match `where`, each once.

    `where`, `order_by` and `limit_by` are SQL over the table's columns; values are bound by the
    server through `{name:Type}`. Instants are compared with `fromUnixTimestamp64Nano`. Raises
    msgspec.ValidationError for a row that is no such message.
    """
    times = time_columns(message)
    names = list(polars_schema(message))
    columns = ", ".join(
        f"toUnixTimestamp64Nano({name})" if name in times else name for name in names
    )
    table = table_name(message.topic)  # type: ignore[attr-defined]
    sql = f"SELECT {columns} FROM {table} FINAL WHERE {where}"  # noqa: S608  # no value is in it
    sql += f" ORDER BY {order_by}" if order_by else ""
    sql += f" LIMIT 1 BY {limit_by}" if limit_by else ""
    sql += f" LIMIT {limit}" if limit else ""
    rows = client.query(sql, parameters=dict(parameters)).result_rows
    return [
        convert(
            {name: _plain(value) for name, value in zip(names, row, strict=True)},
            message,
            builtin_types=(Decimal,),
        )
        for row in rows
    ]


def read_origin(client: Client, message: type[Struct], record_id: str) -> tuple[str, int]:
    """Return the settings hash and the writer's epoch of a record; empty and 0 if it is unknown."""
    table = table_name(message.topic)  # type: ignore[attr-defined]
    assert "_config" in clickhouse_columns(message)
    sql = f"SELECT _config, _epoch FROM {table} FINAL WHERE id = {{id:String}} LIMIT 1"  # noqa: S608
    rows = client.query(sql, parameters={"id": record_id}).result_rows
    return (str(rows[0][0]), int(rows[0][1])) if rows else ("", 0)


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        # The table pads every amount to 12 decimals; a reader wants the number.
        return Decimal(format(value.normalize(), "f"))
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.value if isinstance(value, Enum) else value
