"""A fresh database with every table and view, in the shared store."""

from uuid import uuid4

import pytest

from infra.clickhouse.client import connect, database_name, quoted
from infra.clickhouse.migrations import prepare_database
from schemas.codec import Origin, build_headers, encode
from schemas.settings import StoreSettings
from tests.infra.clickhouse.records import Record


@pytest.fixture
def store_settings(store):
    return StoreSettings(url=store.url, user=store.user, password=store.password, database="t")


@pytest.fixture
def client(store_settings):
    """A client bound to a migrated database of its own."""
    opened = connect(store_settings)
    database = database_name(store_settings, uuid4().hex[:12])
    prepare_database(opened, database)
    yield opened
    opened.command(f"DROP DATABASE {quoted(database)}")
    opened.close()


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
