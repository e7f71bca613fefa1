"""Numbered migrations: SQL files that are applied once, in order, and never changed afterwards.

A file is `infra/migrations/NNNN_name.sql`; its statements end with `;` at the end of a line and name
tables without a database. Statements must be safe to repeat (`IF NOT EXISTS`, `OR REPLACE`), because
a process may die between a statement and the note that its file was applied.

`0001_tables.sql` is what `schemas.ddl` rendered for the first release. A contract that gains a field
gets a new migration with `ALTER TABLE … ADD COLUMN`; a test compares the tables that the migrations
build with those that the contracts ask for.
"""

import re
from hashlib import sha256
from pathlib import Path

from clickhouse_connect.driver.client import Client
from msgspec import Struct

from infra.clickhouse.client import ensure_database
from infra.clickhouse.errors import MigrationChangedError
from schemas.features import FEATURE_SCHEMAS

MIGRATIONS = Path(__file__).parents[1] / "migrations"

_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_LEDGER = """CREATE TABLE IF NOT EXISTS schema_migrations
(
    number UInt32,
    name String,
    sha256 String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
ORDER BY number"""


class Migration(Struct, frozen=True, kw_only=True):
    """One file of statements."""

    number: int
    name: str
    sha256: str
    statements: tuple[str, ...]


def load_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """Return the migrations in `folder` by number.

    Raises ValueError for a file that is not named `NNNN_name.sql` or a number that is missing or
    used twice.
    """
    found = sorted((_load(path) for path in folder.glob("*.sql")), key=lambda each: each.number)
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            msg = (
                f"migrations must be numbered 1, 2, 3 without a gap; found {migration.number!r} "
                f"in place {expected}; rename the files in migrations"
            )
            raise ValueError(msg)
    return found


def _load(path: Path) -> Migration:
    name = _FILE_NAME.fullmatch(path.name)
    if name is None:
        msg = f"migration must be named NNNN_name.sql; found {path.name!r}; rename the file"
        raise ValueError(msg)
    text = path.read_text(encoding="utf-8")
    return Migration(
        number=int(name[1]),
        name=name[2],
        sha256=sha256(text.encode()).hexdigest(),
        statements=split_statements(text),
    )


def split_statements(text: str) -> tuple[str, ...]:
    """Return the statements of `text`, which end with `;` at the end of a line."""
    bare = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))
    parts = (part.strip() for part in re.split(r";[ \t]*(?:\n|$)", bare))
    return tuple(part for part in parts if part)


def apply_migrations(client: Client, migrations: list[Migration] | None = None) -> list[int]:
    """Apply to the database of `client` what it lacks; return the numbers that were applied.

    Raises MigrationChangedError if an applied migration is not the one given, or if the database
    was built by a newer release.
    """
    wanted = load_migrations() if migrations is None else migrations
    client.command(_LEDGER)
    rows = client.query("SELECT number, sha256 FROM schema_migrations FINAL").result_rows
    applied = {int(number): str(digest) for number, digest in rows}
    _check_applied(client.database, applied, wanted)
    new = [migration for migration in wanted if migration.number not in applied]
    for migration in new:
        for statement in migration.statements:
            client.command(statement)
        client.insert(
            "schema_migrations",
            [[migration.number, migration.name, migration.sha256]],
            column_names=["number", "name", "sha256"],
        )
    return [migration.number for migration in new]


def _check_applied(database: str, applied: dict[int, str], wanted: list[Migration]) -> None:
    known = {migration.number: migration for migration in wanted}
    for number, digest in sorted(applied.items()):
        if number not in known:
            msg = (
                f"database {database!r} must not be newer than this release; found migration "
                f"{number!r}; install the newer release or use another environment"
            )
            raise MigrationChangedError(msg)
        if known[number].sha256 != digest:
            msg = (
                f"migration {number} of database {database!r} must have SHA-256 {digest[:12]!r}; "
                f"found {known[number].sha256[:12]!r}; restore the file and add a new migration"
            )
            raise MigrationChangedError(msg)


def prepare_database(client: Client, database: str) -> list[int]:
    """Create `database` if it is missing, bind `client` to it and apply the migrations.

    Returns the numbers that were applied; raises MigrationChangedError.
    """
    ensure_database(client, database)
    applied = apply_migrations(client)
    _publish_feature_schemas(client)
    return applied


def _publish_feature_schemas(client: Client) -> None:
    """Write the names behind the positions of feature vectors; of a hash there is only one list."""
    columns = ["schema_name", "schema_hash", "names", "units", "formulas"]
    rows = [
        [
            schema.name,
            schema.schema_hash,
            list(schema.names),
            [feature.unit for feature in schema.features],
            [feature.formula for feature in schema.features],
        ]
        for schema in FEATURE_SCHEMAS.values()
    ]
    client.insert("feature_schemas", rows, column_names=columns)
