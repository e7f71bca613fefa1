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
from schemas.settings import default_models
from schemas.times import parse_time_ns

RECORDING = Path(__file__).parents[2] / "onnx_models/recordings/bars_5m_binance_spot_demo.parquet"
END_NS = parse_time_ns("2024-06-25")
WEEK_END_NS = parse_time_ns("2024-06-08")
GOLDEN = Path(__file__).parents[1] / "golden" / "backtest_june_2024.json"
TOPICS = ("market.bars", "trade.signals", "trade.decisions", "trade.orders", "trade.fills",
          "trade.positions", "trade.outcomes")  # fmt: skip

WARM_AFTER_BARS = 144
"""120 bars of inputs, behind the features' own history."""

NO_MODELS = {f"MODELS__{name.upper()}__ENABLED": "false" for name in default_models()}


def settings(**variables):
    return load_settings(
        environ={f"QUANTSTREAM_{key}": value for key, value in variables.items()}
    ).settings


def run(folder, end_ns=END_NS, **variables):
    session = RecordedSession([RecordedFile(path=RECORDING, end_ns=end_ns)])
    counts = run_backtest(settings(**variables), session, folder)
    return counts, {topic: pl.read_parquet(topic_file(folder, topic)) for topic in TOPICS}


def fingerprint(frame):
    # Lanes write side by side: the order of their records among each other means nothing.
    return sha256(frame.sort("id").write_ndjson().encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def rules_only(tmp_path_factory):
    """Rules alone: a golden run must not change with a retrained model."""
    return run(tmp_path_factory.mktemp("golden"), **NO_MODELS)


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
    _, tables = run(tmp_path, **NO_MODELS)
    for topic, frame in rules_only[1].items():
        assert frame.sort("id").equals(tables[topic].sort("id")), topic


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    """A week in which all default models vote."""
    folder = tmp_path_factory.mktemp("voted")
    run(folder, WEEK_END_NS)
    return folder


@pytest.mark.acceptance("S-107", criterion="Vote record shows 4 real contributors")
def test_the_default_models_vote_and_some_entries_rest_on_them(voted, measured):
    signals = pl.read_parquet(topic_file(voted, "trade.signals"))
    votes = signals.select(pl.col("votes").explode()).unnest("votes")
    spoken = votes.filter(pl.col("stance") != "abstain", pl.col("kind") != "rule")
    assert set(spoken["voter"]) == set(default_models())
    entries = signals.filter(pl.col("strategy") == "ensemble", pl.col("action") == "enter")
    assert entries.height > 0
    assert (entries["expected_edge_bps"] > entries["edge_threshold_bps"]).all()
    weights = votes.filter(pl.col("kind") == "rule")["weight"]
    assert (weights == 0.0).all()
    measured(f"{signals.height} signals, {entries.height} entries of the ensemble")


def test_with_models_another_cut_into_chunks_changes_nothing(voted, tmp_path, monkeypatch):
    monkeypatch.setattr(RecordedSession.chunks, "__defaults__", (997,))
    run(tmp_path, WEEK_END_NS)
    for topic in (*TOPICS, "model.events", "model.opinions"):
        found, expected = (
            pl.read_parquet(topic_file(folder, topic)).sort("id") for folder in (tmp_path, voted)
        )
        assert found.equals(expected), topic


def test_every_hour_of_every_symbol_has_one_opinion_with_the_weights_in_effect(voted):
    opinions = pl.read_parquet(topic_file(voted, "model.opinions"))
    bars = pl.read_parquet(topic_file(voted, "market.bars")).filter(pl.col("timeframe") == "1h")
    assert sorted(opinions["bar_id"]) == sorted(bars["id"])
    sums = opinions.filter(pl.col("pooled_buy").is_not_null())["weights"].list.sum()
    assert (sums - 1.0).abs().max() < 5e-4


@pytest.mark.acceptance("S-107", criterion="4 real contributors on at least 99.9 % of the bars")
def test_once_warm_four_models_weigh_in_on_every_bar(voted, measured):
    opinions = pl.read_parquet(topic_file(voted, "model.opinions"))
    number = pl.col("event_time_ns").rank("dense").over("symbol")
    voters = opinions.filter(number > WARM_AFTER_BARS).explode("voters", "weights")
    served = [name for name, one in default_models().items() if one.kind == "onnx"]
    onnx = voters.filter(pl.col("voters").is_in(served))
    counts = onnx.group_by("id").agg(pl.col("weights").gt(0.0).sum())["weights"]
    share = float((counts == 4).mean())
    assert len(counts) > 100
    assert share >= 0.999
    measured(
        f"{share:.2%} of {len(counts)} bars once {WARM_AFTER_BARS} bars of a symbol had closed"
    )


def test_every_lane_says_which_versions_serve_and_what_they_weigh(voted):
    events = pl.read_parquet(topic_file(voted, "model.events"))
    first = events.filter(pl.col("kind") == "activated")
    served = {f"{name}_1h" for name, one in default_models().items() if one.kind == "onnx"}
    lanes = set(first["partition"])
    assert {(model, lane) for model in served for lane in lanes} == set(
        first.select("model", "partition").iter_rows()
    )
    weights = events.filter(pl.col("kind") == "weights")
    sums = weights.group_by("partition", "effective_from_ns").agg(
        pl.col("weight_effective").sum(), pl.len()
    )
    assert (sums["weight_effective"] - 1.0).abs().max() < 1e-9
    assert weights["weight_effective"].min() >= 0.05 - 1e-9
    assert weights["weight_effective"].max() <= 0.60 + 1e-9


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
        **NO_MODELS,
        PORTFOLIO__TRADE_FROM="2030-01-01",
    )
    entries = tables["trade.decisions"].filter(pl.col("action") == "enter")
    assert set(entries["denial"]) == {"WARMING_UP"}
    assert tables["trade.fills"].height == 0
