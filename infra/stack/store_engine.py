"""The one owner of the chDB directory: runs statements for many clients at once.

Every request gets an engine connection of its own (0.3 ms), so settings, database and read-only
mode of one client never reach another. A client's `session_id` pins a connection only once its
session holds something (SET, USE, a temporary table).

chDB allows one directory per process, and one process per directory; it is not fork-safe.
"""

import json
import re
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import chdb
import msgspec

from infra.private_folder import make_private
from infra.stack.store_errors import StoreError, read_engine_error
from infra.stack.store_sql import Statement, parse_statement

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
FORMAT_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]*$")
# chDB's Python layer takes these for objects of its own, not for output formats.
PYTHON_FORMATS = frozenset({"arrowtable", "dataframe", "datastore", "debug"})
READONLY_HINT = (
    " For queries over HTTP, method GET implies readonly. "
    "You should use method POST for modifying queries."
)
# One block a request: a row that does not parse, or a kill, leaves nothing of the request behind.
WHOLE_REQUEST_SETTINGS = {
    "max_insert_block_size": "1000000000",
    "min_insert_block_size_rows": "1000000000",
    "min_insert_block_size_bytes": "1000000000000",
}
# Formats whose blocks concatenate into one valid document, so that they may be sent as they come.
STREAMABLE_FORMATS = frozenset(
    {
        "Native",
        "TabSeparated",
        "TSV",
        "CSV",
        "RowBinary",
        "JSONEachRow",
        "TabSeparatedRaw",
        "TSVRaw",
    }
)
SESSION_SECONDS_DEFAULT = 60.0
SESSION_SECONDS_MAX = 3600.0


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """One request: SQL (with inline data), where and how to run it."""

    sql: bytes
    database: str = ""
    default_format: str = "TabSeparated"
    settings: dict[str, str] = {}
    parameters: dict[str, str] = {}
    readonly: bool = False
    session_id: str = ""
    session_seconds: float = SESSION_SECONDS_DEFAULT


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine returned: `output_format` is None for a statement without rows.

    `summary` has the keys of `X-ClickHouse-Summary`; every count is a decimal string.
    """

    body: bytes
    output_format: str | None
    summary: dict[str, str]


class Session:
    """A client's pinned engine connection; `busy` is held while a statement runs in it."""

    def __init__(self) -> None:
        self.busy = threading.Lock()
        self.connection: Any = None
        self.expires_monotonic = 0.0


class StoreEngine:
    """Owns the chDB directory for the life of the process; safe to call from many threads."""

    def __init__(self, database_dir: Path, incoming_dir: Path) -> None:
        """Open the directory, creating it when new.

        Raises:
            StoreError: another process holds the directory, or it does not open.
        """
        make_private(database_dir)
        make_private(incoming_dir)
        for left_over in incoming_dir.iterdir():
            left_over.unlink()
        self._path = str(database_dir.resolve())
        self._incoming_dir = incoming_dir
        self._sessions: dict[str, Session] = {}
        self._sessions_lock = threading.Lock()
        # The engine lives as long as one connection is open.
        self._keeper = self._connect()
        row = _run(self._keeper, b"SELECT version(), timezone() FORMAT TSV").bytes().decode()
        self.version, self.timezone = row.rstrip("\n").split("\t")

    def close(self) -> None:
        """Close every connection; the directory can be opened by another process afterwards."""
        with self._sessions_lock:
            for session in self._sessions.values():
                if session.connection is not None:
                    session.connection.close()
            self._sessions.clear()
        self._keeper.close()

    def execute(self, query: Query) -> Answer:
        """Run one statement to its end.

        Raises:
            StoreError: the statement is refused or fails; nothing of an insert was kept.
        """
        statement = parse_statement(query.sql)
        _check_query(query)
        if query.session_id:
            return self._execute_in_session(query, statement)
        with self._fresh_connection(query) as connection:
            return self._execute_on(connection, query, statement)

    @contextmanager
    def stream(self, query: Query) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Run a reading statement and yield its format and its pieces as the engine makes them.

        Only for `can_stream` queries. Errors found before the first row surface when the context
        is entered, later ones from the iterator.

        Raises:
            StoreError: the statement is refused or fails.
        """
        statement = parse_statement(query.sql)
        _check_query(query)
        name = statement.output_format or query.default_format
        with self._fresh_connection(query) as connection:
            try:
                result = connection.send_query(query.sql, name, params=dict(query.parameters))
            except RuntimeError as e:
                raise read_engine_error(str(e)) from e
            pieces = _read_pieces(result)
            try:
                first = next(pieces, b"")
                yield name, _chain(first, pieces)
            finally:
                pieces.close()
                result.close()

    def can_stream(self, query: Query) -> bool:
        """Return whether `stream` may serve this query instead of `execute`."""
        if query.session_id and query.session_id in self._sessions:
            return False
        statement = parse_statement(query.sql)
        name = statement.output_format or query.default_format
        return statement.selects and name in STREAMABLE_FORMATS

    def _connect(self) -> Any:
        try:
            return chdb.connect(self._path)
        except RuntimeError as e:
            raise read_engine_error(str(e)) from e

    @contextmanager
    def _fresh_connection(self, query: Query) -> Iterator[Any]:
        connection = self._connect()
        try:
            if query.database:
                _run(connection, f"USE {_quote_name(query.database)}".encode())
            # chDB takes a bare expression for a SELECT; a server reports a syntax error.
            settings = {"implicit_select": "0", **query.settings}
            if query.readonly and settings.get("readonly", "0") == "0":
                # 2 = reads and settings only, as ClickHouse treats GET. Last, for it closes SET.
                settings.pop("readonly", None)
                settings["readonly"] = "2"
            _set_settings(connection, settings)
            yield connection
        finally:
            connection.close()

    def _execute_in_session(self, query: Query, statement: Statement) -> Answer:
        session = self._find_session(query.session_id)
        if not session.busy.acquire(blocking=False):
            msg = f"Session {query.session_id} is locked by a concurrent client"
            raise StoreError(373, "SESSION_IS_LOCKED", msg)
        try:
            seconds = min(query.session_seconds, SESSION_SECONDS_MAX)
            session.expires_monotonic = time.monotonic() + seconds
            if session.connection is None and statement.kind != "session":
                with self._fresh_connection(query) as connection:
                    return self._execute_on(connection, query, statement)
            if query.readonly and statement.kind != "read":
                msg = "Cannot execute query in readonly mode." + READONLY_HINT
                raise StoreError(164, "READONLY", msg)
            if session.connection is None:
                session.connection = self._connect()
            return self._execute_pinned(session.connection, query, statement)
        finally:
            session.busy.release()

    def _execute_pinned(self, connection: Any, query: Query, statement: Statement) -> Answer:
        """Run in a session: the request's own settings are taken back afterwards."""
        if query.database:
            _run(connection, f"USE {_quote_name(query.database)}".encode())
        before = _read_settings(connection, query.settings)
        _set_settings(connection, query.settings)
        try:
            return self._execute_on(connection, query, statement)
        finally:
            _set_settings(connection, before)

    def _find_session(self, session_id: str) -> Session:
        """Return the client's session, and end those whose time is over."""
        now = time.monotonic()
        with self._sessions_lock:
            over = [
                key
                for key, session in self._sessions.items()
                if session.expires_monotonic < now and not session.busy.locked()
            ]
            for key in over:
                ended = self._sessions.pop(key)
                if ended.connection is not None:
                    ended.connection.close()
            session = self._sessions.setdefault(session_id, Session())
            session.expires_monotonic = now + SESSION_SECONDS_DEFAULT
            return session

    def _execute_on(self, connection: Any, query: Query, statement: Statement) -> Answer:
        try:
            if statement.kind == "insert":
                return self._insert(connection, query, statement)
            name = statement.output_format or query.default_format
            result = _run(connection, statement.sql, name, query.parameters)
        except StoreError as e:
            if e.code == 164 and query.readonly:
                raise StoreError(e.code, e.name, e.text + READONLY_HINT) from e
            raise
        reading = statement.kind == "read"
        body = result.bytes() if reading or result.size() else b""
        return Answer(
            body=body,
            output_format=name if reading else None,
            summary=_summarise(result, reading=reading),
        )

    def _insert(self, connection: Any, query: Query, statement: Statement) -> Answer:
        """Insert the inline rows as one block, by way of a file: the engine's fastest way in."""
        if not FORMAT_NAME.match(statement.input_format):
            msg = f"Unknown format {statement.input_format}"
            raise StoreError(73, "UNKNOWN_FORMAT", msg)
        defaults = {k: v for k, v in WHOLE_REQUEST_SETTINGS.items() if k not in query.settings}
        if not query.readonly:
            _set_settings(connection, defaults)
        with tempfile.NamedTemporaryFile(dir=self._incoming_dir, suffix=".rows") as rows:
            rows.write(memoryview(statement.sql)[statement.rows_start :])
            rows.flush()
            sql = b"".join(
                (
                    statement.head[: statement.place],
                    f" FROM INFILE {_quote_text(rows.name)} ".encode(),
                    statement.head[statement.place :],
                    f" FORMAT {statement.input_format}".encode(),
                )
            )
            result = _run(connection, sql, parameters=query.parameters)
        return Answer(body=b"", output_format=None, summary=_summarise(result, reading=False))


def _run(
    connection: Any,
    sql: bytes,
    name: str = "TabSeparated",
    parameters: Mapping[str, str] | None = None,
) -> Any:
    try:
        return connection.query(sql, name, params=dict(parameters or {}))
    except RuntimeError as e:
        raise read_engine_error(str(e)) from e


def _read_pieces(result: Any) -> Generator[bytes, None, None]:
    while True:
        try:
            piece = result.fetch()
        except RuntimeError as e:
            raise read_engine_error(str(e)) from e
        if piece is None:
            return
        yield piece.bytes()


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _check_query(query: Query) -> None:
    for key in (*query.settings, *query.parameters):
        if not NAME.match(key):
            msg = f"Unknown setting {key!r}"
            raise StoreError(115, "UNKNOWN_SETTING", msg)
    name = query.default_format
    if not FORMAT_NAME.match(name) or name.lower() in PYTHON_FORMATS:
        msg = f"Unknown format {name}"
        raise StoreError(73, "UNKNOWN_FORMAT", msg)


def _set_settings(connection: Any, settings: Mapping[str, str]) -> None:
    if settings:
        clause = ", ".join(f"{key} = {_quote_text(value)}" for key, value in settings.items())
        _run(connection, f"SET {clause}".encode())


def _read_settings(connection: Any, names: Mapping[str, str]) -> dict[str, str]:
    """Return the session's present values, for putting them back; unknown names are left out."""
    values: dict[str, str] = {}
    for key in names:
        with suppress(StoreError):
            answer = _run(
                connection, f"SELECT toString(getSetting('{key}'))".encode(), "JSONCompact"
            )
            values[key] = json.loads(answer.bytes())["data"][0][0]
    return values


def _quote_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _quote_name(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def _summarise(result: Any, *, reading: bool) -> dict[str, str]:
    """Map chDB's counters onto the summary; chDB counts result rows as read, inserts as written."""
    written_rows, written_bytes = result.rows_written(), result.bytes_written()
    read_rows = result.storage_rows_read() if reading else written_rows
    read_bytes = result.storage_bytes_read() if reading else written_bytes
    counts = {
        "read_rows": read_rows,
        "read_bytes": read_bytes,
        "written_rows": written_rows,
        "written_bytes": written_bytes,
        "total_rows_to_read": 0,
        "result_rows": result.rows_read() if reading else written_rows,
        "result_bytes": result.bytes_read() if reading else written_bytes,
        "elapsed_ns": int(result.elapsed() * 1_000_000_000),
    }
    return {key: str(value) for key, value in counts.items()}
