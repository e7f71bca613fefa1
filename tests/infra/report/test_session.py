import json
from collections import defaultdict

import polars as pl
import pytest

from infra.clickhouse.client import connect, ensure_database, quoted
from infra.clickhouse.migrations import prepare_database
from infra.clickhouse.writer import ArchiveWriter
from infra.folder_sink import topic_file
from infra.report.environment import load_environment
from infra.report.session import (
    COVERAGE,
    build_session,
    choose_timeframe,
    load_folder,
    loaded_schema,
)
from infra.report.summary import summarise
from schemas.codec import Origin, build_headers, encode
from schemas.frames import to_frame
from schemas.settings import StoreSettings
from schemas.topics import TOPICS
from tests.infra.clickhouse.records import Record, batches_of
from tests.infra.report.ledger_of_two import CASH, session_records


def write_folder(folder):
    rows = defaultdict(list)
    for record in session_records():
        rows[type(record)].append(record)
    for message, found in rows.items():
        to_frame(message, found).write_parquet(topic_file(folder, message.topic))


def test_folder_gives_the_summary_of_its_records(tmp_path, summary):
    folder = tmp_path / "by-hand"
    folder.mkdir()
    write_folder(folder)
    assert summarise(load_folder(folder), CASH) == summary


def test_folder_tells_its_settings(tmp_path):
    (tmp_path / "settings.json").write_text(
        json.dumps({"hash": "abc", "settings": {"account": "A"}})
    )
    found = load_folder(tmp_path)
    assert found.config_hashes == ("abc",)
    assert found.settings == {"account": "A"}


def test_missing_files_are_empty_frames_of_their_message(tmp_path):
    found = load_folder(tmp_path)
    for topic, frame in found.frames.items():
        assert frame.is_empty()
        assert frame.schema == loaded_schema(TOPICS[topic].message)
    assert found.coverage.schema == COVERAGE


def test_file_of_another_version_is_refused(tmp_path):
    write_folder(tmp_path)
    path = topic_file(tmp_path, "trade.fills")
    pl.read_parquet(path).drop("fee").write_parquet(path)
    with pytest.raises(ValueError, match=r"found \['fee'\] missing"):
        load_folder(tmp_path)


def test_absent_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="must exist"):
        load_folder(tmp_path / "absent")


@pytest.mark.parametrize(("fine", "chosen"), [(10_000, "5m"), (10_001, "1h")])
def test_drawn_series_is_the_finest_that_is_light_enough(fine, chosen):
    rows = [("v", "s", "5m", "recorded", fine, 1, 0, 1), ("v", "s", "1h", "recorded", 90, 1, 0, 1)]
    assert choose_timeframe(pl.DataFrame(rows, schema=COVERAGE, orient="row")) == chosen


def test_untraded_symbols_are_drawn_when_nothing_was_traded(empty):
    records = [row for row in session_records() if type(row).__name__ == "BarClosed"]
    assert build_session("quiet", records)["market.bars"]["symbol"].n_unique() == 2
    assert empty["market.bars"].is_empty()


@pytest.fixture
def archive(store):
    settings = StoreSettings(url=store.url, user=store.user, password=store.password)
    client = connect(settings)
    prepare_database(client, "report_by_hand")
    yield client
    client.command(f"DROP DATABASE {quoted('report_by_hand')}")
    client.close()


def as_record(message, offset):
    origin = Origin(config_hash="cfg1", epoch=3)
    headers = build_headers(type(message), message.id, message.cause, "recorded", origin)
    stamps = [("ingest-ns", b"%d" % 1_000), ("emit-ns", b"%d" % 5_001_000)]
    return Record(offset, encode(message), headers + stamps)


@pytest.mark.stack
def test_environment_gives_the_summary_of_its_records(archive, summary):
    writer = ArchiveWriter(archive)
    writer.write(batches_of(session_records(), as_record))
    writer.write(batches_of(session_records(), as_record))
    archive.database = "default"
    session = load_environment(archive, "report_by_hand", "by-hand", summary["account"])
    found = summarise(session, CASH)
    for part in ("performance", "buy_and_hold", "strategies", "costs", "funnel", "not_traded"):
        assert found[part] == summary[part], part
    assert found["voters"] == summary["voters"]
    assert found["settings_hashes"] == ["cfg1"]
    assert found["counts"]["ticks"] == 0
    hops = {hop["topic"]: hop for hop in found["latency"]["hops"]}
    assert hops["trade.fills"] == {
        "topic": "trade.fills",
        "records": 6,
        "p50_ms": 5.0,
        "p99_ms": 5.0,
    }
    for topic, frame in session.frames.items():
        assert frame.schema == loaded_schema(TOPICS[topic].message)


@pytest.mark.stack
def test_absent_environment_is_refused_by_name(archive):
    ensure_database(archive, "report_by_hand")
    with pytest.raises(LookupError, match="found no 'report_of_nothing'"):
        load_environment(archive, "report_of_nothing")
