"""The verb over the folder of a backtest: what it says and how it leaves."""

import json
from decimal import Decimal

import polars as pl
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from dataflows.cli.main import app
from infra.audit.audit import Audit
from infra.audit.log import FolderLog, LogRecord
from infra.audit.report import Place
from infra.audit.ticks import parse_record
from infra.settings import settings_hash, settings_json
from schemas.frames import to_frame
from schemas.market import BarClosed
from schemas.ticks import TICK_WIRE
from schemas.topics import message_topics
from schemas.trading import OutcomeClosed
from tests.infra.audit.facts import SETTINGS
from tests.infra.audit.world import session


def write_folder(folder, records):
    """Write the messages as a backtest does, and its settings beside them."""
    for topic in message_topics():
        messages = [each.message for each in records if each.topic == topic.name]
        name = topic.name.replace(".", "_")
        to_frame(topic.message, messages).write_parquet(folder / f"{name}.parquet")
    settings = {"hash": settings_hash(SETTINGS), "settings": json.loads(settings_json(SETTINGS))}
    (folder / "settings.json").write_text(json.dumps(settings))


def write_ticks(folder, records):
    """Write the lines of partition 0 that are ticks; the empty record has no line to write."""
    rows = []
    log = [each for each in records if each.topic == "market.ticks" and each.partition == 0]
    for offset, record in enumerate(log):
        place = Place(record.topic, 0, offset)
        parsed = parse_record(LogRecord(place, 0, None, dict(record.headers), record.value))
        for line in [] if isinstance(parsed, str) else parsed:
            if line.tick is not None:
                fields = {name: getattr(line.tick, name) for name in TICK_WIRE}
                rows.append(
                    fields | {"offset": offset, "line": line.number, "provenance": "recorded"}
                )
    schema = {**TICK_WIRE, "offset": pl.Int64, "line": pl.Int32, "provenance": pl.String}
    pl.DataFrame(rows, schema=schema).write_parquet(folder / "ticks.parquet")


def without_dead_letters(records):
    return [each for each in records if each.topic != "ops.dead_letters"]


def changed(kind, **fields):
    return [
        each._replace(message=replace(each.message, **fields))
        if isinstance(each.message, kind)
        else each
        for each in session()
    ]


def verify(*arguments):
    return CliRunner().invoke(app, ["verify", *map(str, arguments)])


def test_a_true_folder_is_clean_and_says_what_was_not_checked(tmp_path):
    write_folder(tmp_path, session())
    answer = verify("--folder", tmp_path, "--json")
    assert answer.exit_code == 0
    report = json.loads(answer.output)
    assert report["ok"]
    skipped = {check["name"]: check["skipped"] for check in report["checks"] if check["skipped"]}
    assert "ticks.parquet" in skipped["bars"]
    assert "no headers" in skipped["headers"]
    assert "no store" in skipped["tables"]


def test_a_false_folder_leaves_with_1_and_names_the_row(tmp_path):
    write_folder(tmp_path, changed(OutcomeClosed, fees=Decimal("10.36")))
    answer = verify("--folder", tmp_path)
    assert answer.exit_code == 1
    assert "fees of an outcome" in answer.output
    assert "10.36" in answer.output
    assert "PAPER" in answer.output


def test_the_settings_of_the_folder_count(tmp_path):
    write_folder(tmp_path, [each for each in session() if each.topic != "ops.settings"])
    plain = json.loads((tmp_path / "settings.json").read_text())
    plain["settings"]["paper"]["latency_ms"] = 5_000
    (tmp_path / "settings.json").write_text(json.dumps(plain))
    answer = verify("--folder", tmp_path, "--json")
    assert answer.exit_code == 1
    assert "reached the venue" in answer.output


@pytest.mark.parametrize(
    "arguments", [("--folder", "nowhere"), ("--folder", ".", "--env", "paper"), ("--nonsense",)]
)
def test_wrong_usage_leaves_with_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert verify(*arguments).exit_code == 2


def test_ticks_beside_the_topics_are_audited(tmp_path):
    write_folder(tmp_path, without_dead_letters(session()))
    write_ticks(tmp_path, session())
    report = Audit("folder", FolderLog(tmp_path), None, SETTINGS).run()
    assert report.first is None
    assert report.check("bars").rows == 3
    assert report.check("late ticks").rows == 1
    write_folder(tmp_path, without_dead_letters(changed(BarClosed, trades=9)))
    report = Audit("folder", FolderLog(tmp_path), None, SETTINGS).run()
    assert report.check("bars").violations == 3
    assert report.check("bars").first[0].key.startswith("bar/")
