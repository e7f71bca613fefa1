"""The trading flow over recorded bars: golden run, cut into other chunks, and what must hold."""

import json
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

from dataflows.backtest import run_backtest
from dataflows.recorded_session import RecordedFile, RecordedSession
from infra.folder_sink import topic_file
from infra.settings import load_settings
from schemas.times import parse_time_ns

RECORDING = Path(__file__).parents[2] / "onnx_models/recordings/bars_5m_binance_spot_demo.parquet"
END_NS = parse_time_ns("2024-06-25")
GOLDEN = Path(__file__).parents[1] / "golden" / "backtest_june_2024.json"
TOPICS = ("market.bars", "trade.signals", "trade.decisions", "trade.orders", "trade.fills",
          "trade.positions", "trade.outcomes")  # fmt: skip


def settings(**variables):
    return load_settings(
        environ={f"QUANTSTREAM_{key}": value for key, value in variables.items()}
    ).settings


def run(folder, **variables):
    session = RecordedSession([RecordedFile(path=RECORDING, end_ns=END_NS)])
    counts = run_backtest(settings(**variables), session, folder)
    return counts, {topic: pl.read_parquet(topic_file(folder, topic)) for topic in TOPICS}


def fingerprint(frame):
    return sha256(frame.write_ndjson().encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def rules_only(tmp_path_factory):
    """Rules alone: a golden run must not change with a retrained model."""
    return run(
        tmp_path_factory.mktemp("golden"),
        MODELS__LIGHTGBM__ENABLED="false",
        MODELS__RIVER_LOGISTIC__ENABLED="false",
    )


def test_the_golden_run_gives_the_same_records(rules_only):
    counts, tables = rules_only
    found = {
        "ticks": counts["ticks"],
        "records": {topic: frame.height for topic, frame in tables.items()},
        "hashes": {topic: fingerprint(frame) for topic, frame in tables.items()},
    }
    expected = json.loads(GOLDEN.read_text())

    assert found == expected, (
        f"update {GOLDEN.name} only if the change is meant: {json.dumps(found)}"
    )


def test_another_cut_into_chunks_changes_nothing(rules_only, tmp_path, monkeypatch):
    monkeypatch.setattr(RecordedSession.chunks, "__defaults__", (997,))
    _, tables = run(
        tmp_path,
        MODELS__LIGHTGBM__ENABLED="false",
        MODELS__RIVER_LOGISTIC__ENABLED="false",
    )
    for topic, frame in rules_only[1].items():
        assert frame.equals(tables[topic]), topic


def test_every_decision_has_its_signal_and_every_fill_its_decision(rules_only):
    _, tables = rules_only
    signals = set(tables["trade.signals"]["id"])
    decisions = tables["trade.decisions"]
    approved = set(decisions.filter(pl.col("verdict") != "denied")["id"])

    assert set(decisions["cause"]) == signals
    assert set(tables["trade.fills"]["decision_id"]) <= approved
    assert tables["trade.fills"].height > 0


def test_outcomes_and_open_legs_add_up_to_the_equity(rules_only):
    _, tables = rules_only
    marks = tables["trade.positions"].filter(pl.col("strategy") == "")
    flat = tables["trade.positions"].filter(pl.col("exposure") == 0)
    realised = sum(tables["trade.outcomes"]["net_pnl"].to_list(), Decimal(0))

    assert marks.height > 0
    last = flat.sort("event_time_ns").tail(1)
    until = last["event_time_ns"][0]
    closed = tables["trade.outcomes"].filter(pl.col("event_time_ns") <= until)["net_pnl"].to_list()
    assert last["equity"][0] == Decimal(100_000) + sum(closed, Decimal(0))
    assert realised != 0


def test_entries_before_the_trade_start_are_denied_as_warming_up(tmp_path):
    _, tables = run(
        tmp_path,
        MODELS__LIGHTGBM__ENABLED="false",
        MODELS__RIVER_LOGISTIC__ENABLED="false",
        PORTFOLIO__TRADE_FROM="2030-01-01",
    )
    entries = tables["trade.decisions"].filter(pl.col("action") == "enter")
    assert set(entries["denial"]) == {"WARMING_UP"}
    assert tables["trade.fills"].height == 0
