"""Fixtures of the stack's own tests; `broker` and `store` come from `tests.stack_fixtures`."""

from uuid import uuid4

import pytest


@pytest.fixture
def database(store):
    """A fresh database in the shared store."""
    name = f"t_{uuid4().hex[:12]}"
    client = store.connect()
    client.command(f"CREATE DATABASE {name}")
    yield name
    client.command(f"DROP DATABASE {name}")
    client.close()


@pytest.fixture
def client(store, database):
    """An unmodified clickhouse-connect client in the fresh database."""
    opened = store.connect(database=database)
    yield opened
    opened.close()
