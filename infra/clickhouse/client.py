"""Connections to ClickHouse over HTTP, with deadlines and errors that name the remedy."""

import re
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from infra.clickhouse.errors import StoreRefusedError, StoreUnavailableError
from schemas.settings import StoreSettings

CONNECT_TIMEOUT_SECONDS = 5
ANSWER_TIMEOUT_SECONDS = 60

TRANSIENT_CODES = frozenset({159, 202, 203, 209, 210, 241, 242, 243, 252, 285, 319, 425})
"""Server errors that pass: time-outs, too many queries or parts, memory, disk, read-only, network."""

_ENVIRONMENT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def database_name(settings: StoreSettings, environment: str) -> str:
    """Return the database of `environment`: `<database>_<environment>`, `-` written as `_`.

    Every environment has a database of its own, so a fresh one is empty and dropping one touches
    no other. Raises ValueError for a name that could mean something else in SQL.
    """
    if _ENVIRONMENT.fullmatch(environment) is None:
        msg = (
            f"environment must be lower-case letters, digits, '-' and '_'; found {environment!r}; "
            "choose another name"
        )
        raise ValueError(msg)
    return f"{settings.database}_{environment.replace('-', '_')}"


def connect(
    settings: StoreSettings,
    *,
    url: str = "",
    password: str | None = None,
    database: str | None = None,
    answer_timeout_seconds: int = ANSWER_TIMEOUT_SECONDS,
) -> Client:
    """Return a client of the store in `settings`, bound to `database` if given.

    `url` replaces `settings.url` (the embedded store's address), `password` the one in `settings`.
    Raises StoreUnavailableError if nothing answers in time, StoreRefusedError if the answer is no,
    ValueError for an address that is none.
    """
    address = url or settings.url or f"http://127.0.0.1:{settings.embedded_port}"
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        msg = f"store address must be http[s]://host:port; found {address!r}; correct store.url"
        raise ValueError(msg)
    secret = settings.password.get_secret_value() if password is None else password
    try:
        return clickhouse_connect.get_client(
            interface=parts.scheme,
            host=parts.hostname,
            port=parts.port or (8443 if parts.scheme == "https" else 8123),
            username=settings.user,
            password=secret,
            database=database or "default",
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            send_receive_timeout=answer_timeout_seconds,
            query_retries=0,
            autogenerate_session_id=False,
            ca_cert=settings.ca_file or None,
        )
    except (ClickHouseError, OSError) as error:
        raise translated(error, f"store at {address} as user {settings.user!r}") from error


def translated(error: Exception, subject: str) -> StoreUnavailableError | StoreRefusedError:
    """Return `error` of the client library as one of ours; `subject` says what was asked of whom."""
    code = getattr(error, "code", None)
    found = (str(error).splitlines() or [type(error).__name__])[0][:300]
    if code is None or code in TRANSIENT_CODES:
        msg = f"{subject} must be answered in time; found {found!r}; start the store or free it"
        return StoreUnavailableError(msg)
    msg = f"{subject} must be accepted; found {found!r}; check user, password and migrations"
    return StoreRefusedError(msg)


def ensure_database(client: Client, database: str) -> None:
    """Create `database` unless it exists, and bind `client` to it."""
    client.command(f"CREATE DATABASE IF NOT EXISTS {quoted(database)}")
    client.database = database


def require_database(client: Client, database: str) -> None:
    """Raise LookupError if there is no such database."""
    found = client.query(
        "SELECT count() FROM system.databases WHERE name = {name:String}",
        parameters={"name": database},
    ).result_rows
    if not found[0][0]:
        msg = (
            f"database of the environment must exist; found no {database!r}; "
            "run the archive flow first or correct the name"
        )
        raise LookupError(msg)


def quoted(identifier: str) -> str:
    """Return `identifier` in back-ticks; raises ValueError for anything but a plain name."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", identifier) is None:
        msg = f"identifier must be letters, digits and '_'; found {identifier!r}; rename it"
        raise ValueError(msg)
    return f"`{identifier}`"


def query_rows(
    client: Client, sql: str, parameters: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Return the rows of `sql` as dictionaries; `{name:Type}` in it is bound by the server."""
    return list(client.query(sql, parameters=parameters or {}).named_results())
