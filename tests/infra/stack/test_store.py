import datetime as dt
import threading
from decimal import Decimal

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from infra.stack.process import find_free_port
from infra.stack.store import StoreConfig, build_store_command, wait_until_store_ready
from infra.stack.store_errors import STATUS_BY_CODE
from tests.stack_fixtures import end, start, start_store

pytestmark = pytest.mark.stack

FACTS = (
    "CREATE TABLE facts (id UInt64, price Decimal(38, 10), at DateTime64(9, 'UTC'), "
    "symbol LowCardinality(String), score Nullable(Float64)) ENGINE = MergeTree ORDER BY id"
)
COLUMNS = ["id", "price", "at", "symbol", "score"]


@pytest.fixture
def facts(client):
    client.command(FACTS)
    return client


def build_frame(rows):
    number = pl.Series("id", np.arange(rows, dtype=np.uint64))
    return pl.DataFrame(
        {
            "id": number,
            "price": number.cast(pl.Decimal(38, 10)),
            "at": number.cast(pl.Int64).cast(pl.Datetime("ns", "UTC")),
            "symbol": ["BTCUSDT", "ETHUSDT"] * (rows // 2),
            "score": number.cast(pl.Float64) / 7,
        }
    )


def test_client_shakes_hands(store):
    client = store.connect()
    assert client.server_version.startswith("26.")
    assert str(client.server_tz) == "UTC"
    assert client.ping()
    client.close()


def test_rows_keep_every_digit(facts):
    row = [
        7,
        Decimal("0.0000000001"),
        dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
        "A",
        None,
    ]
    facts.insert("facts", [row], column_names=COLUMNS)
    (found,) = facts.query("SELECT * FROM facts", tz_mode="aware").result_rows
    assert list(found) == row


@pytest.mark.parametrize("rows", [2, 100_000])
def test_polars_frame_comes_back_equal(facts, rows):
    frame = build_frame(rows)
    summary = facts.insert_df_arrow("facts", frame)
    assert summary.written_rows == rows
    found = pl.from_arrow(facts.query_arrow("SELECT * FROM facts ORDER BY id"))
    assert found.equals(frame)


def test_arrow_table_comes_back_equal(facts):
    table = build_frame(1_000).to_arrow()
    facts.insert_arrow("facts", table)
    assert isinstance(facts.query_arrow("SELECT * FROM facts ORDER BY id"), pa.Table)
    assert facts.command("SELECT count() FROM facts") == 1_000


@pytest.mark.parametrize("compress", ["lz4", "zstd", "gzip", False])
def test_compression_both_ways(store, database, compress):
    client = store.connect(database=database, compress=compress)
    client.command(FACTS)
    client.insert("facts", build_frame(1_000).rows(), column_names=COLUMNS)
    assert client.query("SELECT sum(id) FROM facts").result_rows == [(499_500,)]
    assert len(client.query("SELECT * FROM facts").result_rows) == 1_000
    client.close()


def test_parameters_are_bound_by_the_engine(client):
    text = "it's \\ a\ttab; DROP TABLE x"
    found = client.query(
        "SELECT {n:Int64}, {s:String}, {l:Array(String)}",
        parameters={"n": -5, "s": text, "l": ["a'b", "c"]},
    )
    assert found.result_rows == [(-5, text, ["a'b", "c"])]


def test_settings_hold_for_one_request(client):
    assert client.command("SELECT getSetting('max_threads')", settings={"max_threads": 3}) == 3
    assert client.command("SELECT getSetting('max_threads')") != 3


def test_session_keeps_what_was_set_and_other_clients_do_not_see_it(store, database):
    first, second = store.connect(database=database), store.connect(database=database)
    first.command("SET max_block_size = 1234")
    first.command("CREATE TEMPORARY TABLE mine (a Int8)")
    assert first.command("SELECT getSetting('max_block_size')") == 1234
    assert first.command("SELECT getSetting('max_block_size')", settings={"max_block_size": 9}) == 9
    assert first.command("SELECT getSetting('max_block_size')") == 1234
    assert first.query("SELECT * FROM mine").result_rows == []
    assert second.command("SELECT getSetting('max_block_size')") != 1234
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        second.query("SELECT * FROM mine")
    first.close()
    second.close()


def test_repeated_token_inserts_once(client):
    client.command(
        "CREATE TABLE once (a Int64) ENGINE = MergeTree ORDER BY a "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    for _ in range(3):
        client.insert("once", [[1]], settings={"insert_deduplication_token": "flow:t:0:1-1"})
    client.insert("once", [[1]], settings={"insert_deduplication_token": "flow:t:0:2-2"})
    assert client.command("SELECT count() FROM once") == 2


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("SELECT * FROM absent", 60),
        ("SELECT * FROM absent_database.t", 81),
        ("SELEC 1", 62),
        ("SELECT absent_column", 47),
        ("SELECT throwIf(1)", 395),
        ("CREATE TABLE k (a Int8) ENGINE = Kafka('b:9092', 't', 'g', 'CSV')", 344),
    ],
)
def test_errors_carry_clickhouse_codes(client, sql, code):
    with pytest.raises(DatabaseError) as caught:
        client.command(sql)
    assert caught.value.code == code


def test_statuses_are_those_of_the_named_errors(client):
    """Codes are numbers in our table; the engine itself knows their names."""
    names = dict(
        client.query(
            "SELECT number, errorCodeToName(toUInt32(number)) FROM numbers(1, 1100)"
        ).result_rows
    )
    by_status = {}
    for code, status in STATUS_BY_CODE.items():
        by_status.setdefault(status, set()).add(names[code])
    assert {"UNKNOWN_TABLE", "UNKNOWN_DATABASE", "UNKNOWN_SETTING"} <= by_status[404]
    assert {"SYNTAX_ERROR", "BAD_ARGUMENTS", "TYPE_MISMATCH"} <= by_status[400]
    assert by_status[401] == {"REQUIRED_PASSWORD"}
    assert {"AUTHENTICATION_FAILED", "ACCESS_DENIED"} <= by_status[403]
    assert by_status[501] == {"NOT_IMPLEMENTED"}
    assert "" not in set().union(*by_status.values())


def test_wrong_password_is_refused(store):
    with pytest.raises(DatabaseError) as caught:
        store._replace(password="guess").connect()
    assert caught.value.code == 516


def test_insert_with_one_bad_row_keeps_none(facts):
    rows = b"".join(b'{"id":%d}\n' % number for number in range(200_000)) + b'{"id":"x"}\n'
    with pytest.raises(DatabaseError, match="Cannot parse"):
        facts.raw_insert("facts", ["id"], rows, fmt="JSONEachRow")
    assert facts.command("SELECT count() FROM facts") == 0


def test_large_answer_streams(client):
    count = 0
    with client.query_row_block_stream("SELECT number FROM numbers(300000)") as blocks:
        for block in blocks:
            count += len(block)
    assert count == 300_000


def test_many_clients_at_once_lose_nothing(store, database):
    setup = store.connect(database=database)
    setup.command(FACTS)
    failures = []

    def write(number):
        try:
            client = store.connect(database=database)
            frame = build_frame(100).with_columns(id=pl.lit(number, pl.UInt64))
            for _ in range(5):
                client.insert_df_arrow("facts", frame)
                client.query("SELECT count() FROM facts")
            client.close()
        except Exception as e:  # noqa: BLE001 - any failure of a thread counts.
            failures.append(e)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = setup.query("SELECT id, count() FROM facts GROUP BY id ORDER BY id").result_rows
    assert found == [(number, 500) for number in range(12)]
    setup.close()


def test_acknowledged_inserts_survive_a_kill(tmp_path):
    port = find_free_port()
    running, address = start_store(tmp_path, port)
    client = address.connect()
    client.command(FACTS)
    for _ in range(10):
        client.insert_df_arrow("facts", build_frame(1_000))
    running.process.kill()
    running.process.wait(20)
    running, address = start_store(tmp_path, port)
    try:
        assert address.connect().command("SELECT count() FROM facts") == 10_000
    finally:
        end(running)


def test_sigterm_lets_a_running_query_end_and_exits_zero(tmp_path):
    running, address = start_store(tmp_path, find_free_port())
    client = address.connect()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(client.command("SELECT sleep(1.5)")))
    thread.start()
    for _ in range(200):
        probe = address.connect(autogenerate_session_id=False)
        if (
            probe.command("SELECT count() FROM system.processes WHERE query LIKE '%sleep(1.5)%'")
            > 1
        ):
            break
    assert running.stop() == 0
    thread.join()
    assert answers == [0]


def test_directory_of_a_living_store_is_refused(tmp_path):
    running, _ = start_store(tmp_path, find_free_port())
    config = StoreConfig(state_dir=tmp_path, port=find_free_port())
    second = start(build_store_command(config), tmp_path / "second.log")
    try:
        assert second.process.wait(30) == 1
        assert "store stopped; StoreError" in second.log.read_text()
    finally:
        end(running)


def test_waiting_for_an_absent_store_ends_with_a_reason():
    with pytest.raises(TimeoutError, match="read the log of the store process"):
        wait_until_store_ready(f"http://127.0.0.1:{find_free_port()}", 0.2)


def test_left_over_insert_files_are_removed(tmp_path):
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "half.rows").write_bytes(b"x")
    running, _ = start_store(tmp_path, find_free_port())
    end(running)
    assert list((tmp_path / "incoming").iterdir()) == []
