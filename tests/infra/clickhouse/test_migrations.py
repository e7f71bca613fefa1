from uuid import uuid4

import pytest

from infra.clickhouse.client import connect, database_name, ensure_database, query_rows, quoted
from infra.clickhouse.errors import MigrationChangedError
from infra.clickhouse.migrations import apply_migrations, load_migrations, split_statements
from schemas.ddl import (
    TICK_COLUMNS,
    TICK_KEY,
    TICK_TABLE,
    clickhouse_columns,
    partitioning_time,
    table_name,
)
from schemas.features import FEATURE_SCHEMAS
from schemas.topics import message_topics


def test_statements_end_at_a_semicolon_at_the_end_of_a_line():
    text = "-- a; comment;\nSELECT ';' ;\n\nSELECT 2\n  , 3;\n"
    assert split_statements(text) == ("SELECT ';'", "SELECT 2\n  , 3")


def test_migrations_are_numbered_without_a_gap(tmp_path):
    (tmp_path / "0001_a.sql").write_text("SELECT 1;\n")
    (tmp_path / "0003_b.sql").write_text("SELECT 1;\n")
    with pytest.raises(ValueError, match="found 3 in place 2"):
        load_migrations(tmp_path)


def test_a_misnamed_migration_is_refused(tmp_path):
    (tmp_path / "first.sql").write_text("SELECT 1;\n")
    with pytest.raises(ValueError, match=r"must be named NNNN_name.sql; found 'first.sql'"):
        load_migrations(tmp_path)


@pytest.mark.stack
def test_migrations_build_exactly_the_tables_that_the_contracts_ask_for(client):
    wanted = {table_name(t.name): clickhouse_columns(t.message) for t in message_topics()}
    keys = {table_name(t.name): t.message.natural_key for t in message_topics()} | {
        TICK_TABLE: TICK_KEY
    }
    times = {table_name(t.name): partitioning_time(t.message) for t in message_topics()}
    times[TICK_TABLE] = "event_time_ns"
    wanted[TICK_TABLE] = TICK_COLUMNS
    sql = "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {t:String}"
    for table, columns in wanted.items():
        found = {row["name"]: row["type"] for row in query_rows(client, sql, {"t": table})}
        assert found == columns, f"{table}; add a migration"
        (row,) = query_rows(
            client,
            "SELECT engine, sorting_key, partition_key FROM system.tables "
            "WHERE database = currentDatabase() AND name = {t:String}",
            {"t": table},
        )
        time = times[table]
        row["sorting_key"] = row["sorting_key"].strip("()")
        assert row == {
            "engine": "ReplacingMergeTree",
            "sorting_key": ", ".join(keys[table]),
            "partition_key": f"toYYYYMM({time})" if time else "",
        }


@pytest.mark.stack
def test_applying_again_does_nothing(client):
    assert apply_migrations(client) == []
    rows = query_rows(client, "SELECT number, name FROM schema_migrations ORDER BY number")
    assert [row["number"] for row in rows] == [each.number for each in load_migrations()]


@pytest.mark.stack
def test_a_migration_interrupted_before_its_note_is_repeated(own_client):
    own_client.command("TRUNCATE TABLE schema_migrations")
    assert apply_migrations(own_client) == [each.number for each in load_migrations()]


@pytest.mark.stack
def test_an_applied_migration_must_not_change(client, tmp_path):
    for number in (1, 2):
        (tmp_path / f"000{number}_same.sql").write_text("SELECT 1;\n")
    with pytest.raises(
        MigrationChangedError, match=r"migration 1 of database .* must have SHA-256"
    ):
        apply_migrations(client, load_migrations(tmp_path))


@pytest.mark.stack
def test_a_database_of_a_newer_release_is_refused(client):
    with pytest.raises(
        MigrationChangedError, match="must not be newer than this release; found migration 2"
    ):
        apply_migrations(client, load_migrations()[:1])


@pytest.mark.stack
def test_new_migrations_are_applied_after_the_old_ones(own_client, tmp_path):
    for migration in load_migrations():
        assert migration.statements
    following = load_migrations()
    (tmp_path / "0001_more.sql").write_text(
        "ALTER TABLE market_bars ADD COLUMN IF NOT EXISTS note String;\n"
    )
    (more,) = load_migrations(tmp_path)
    number = len(following) + 1
    fields = {name: getattr(more, name) for name in more.__struct_fields__} | {"number": number}
    assert apply_migrations(own_client, [*following, type(more)(**fields)]) == [number]
    assert (
        own_client.command(
            "SELECT count() FROM system.columns WHERE database = currentDatabase() "
            "AND table = 'market_bars' AND name = 'note'"
        )
        == 1
    )


@pytest.mark.stack
def test_names_of_features_are_in_the_database(client):
    rows = query_rows(client, "SELECT schema_name, schema_hash, names FROM feature_schemas FINAL")
    assert {row["schema_name"]: (row["schema_hash"], tuple(row["names"])) for row in rows} == {
        name: (schema.schema_hash, schema.names) for name, schema in FEATURE_SCHEMAS.items()
    }


@pytest.mark.stack
def test_votes_of_before_the_ensemble_survive_its_migration(store_settings):
    opened = connect(store_settings)
    ensure_database(opened, database_name(store_settings, uuid4().hex[:12]))
    try:
        apply_migrations(opened, load_migrations()[:2])
        opened.command(
            "INSERT INTO trade_signals (id, event_time_ns, votes) VALUES ('old', now64(9), "
            "[('lightgbm', 'onnx', '1', 'ab', 'hold', 0.25, 0.5, 0.25, 1.0, 'as it was')])"
        )
        assert apply_migrations(opened) == [each.number for each in load_migrations()[2:]]
        sql = (
            "SELECT id, vote.voter AS voter, vote.reason AS reason, vote.probability_hold AS hold, "
            "vote.weight_configured AS configured, vote.role AS role, agreement, confidence "
            "FROM trade_signals FINAL ARRAY JOIN votes AS vote"
        )
        assert query_rows(opened, sql) == [
            {
                "id": "old",
                "voter": "lightgbm",
                "reason": "as it was",
                "hold": 0.5,
                "configured": None,
                "role": "",
                "agreement": "",
                "confidence": None,
            }
        ]
    finally:
        opened.command(f"DROP DATABASE {quoted(opened.database)}")
        opened.close()
