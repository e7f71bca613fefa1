"""A fresh database with every table and view, in the shared store."""

from uuid import uuid4

import pytest

from infra.clickhouse.client import connect, database_name, quoted
from infra.clickhouse.migrations import prepare_database
from schemas.codec import Origin, build_headers, encode
from schemas.settings import StoreSettings
from tests.infra.clickhouse.records import Record


@pytest.fixture(scope="session")
def store_settings(store):
    return StoreSettings(url=store.url, user=store.user, password=store.password, database="t")


def open_database(settings):
    opened = connect(settings)
    prepare_database(opened, database_name(settings, uuid4().hex[:12]))
    return opened


def drop_database(opened):
    opened.command(f"DROP DATABASE {quoted(opened.database)}")
    opened.close()


@pytest.fixture(scope="session")
def shared_database(store_settings):
    opened = open_database(store_settings)
    yield opened
    drop_database(opened)


@pytest.fixture
def client(shared_database):
    """A client bound to a migrated database whose tables of facts are empty."""
    yield shared_database
    sql = (
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND total_rows > 0 "
        "AND name NOT IN ('schema_migrations', 'feature_schemas')"
    )
    for (table,) in shared_database.query(sql).result_rows:
        shared_database.command(f"TRUNCATE TABLE {quoted(table)}")


@pytest.fixture
def own_client(store_settings):
    """A client bound to a migrated database of its own, for tests that change tables."""
    opened = open_database(store_settings)
    yield opened
    drop_database(opened)


@pytest.fixture
def as_record():
    """Return a message as the record that the log would hold."""

    def build(message, offset, *, config="cfg1", epoch=3, ingest_ns=10, emit_ns=5_000_010):
        origin = Origin(config_hash=config, epoch=epoch)
        provenance = getattr(message, "provenance", "recorded")
        headers = build_headers(type(message), message.id, message.cause, provenance, origin)
        stamps = [("ingest-ns", b"%d" % ingest_ns), ("emit-ns", b"%d" % emit_ns)]
        return Record(offset, encode(message), headers + stamps)

    return build
