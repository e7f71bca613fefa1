"""One session through real processes: nothing is lost, everything joins, and the audit agrees."""

import json
import urllib.request
from collections import Counter

import numpy as np
import pytest

from dataflows.cli.verify import audit
from dataflows.lag import read_lags
from dataflows.registry import open_registry
from dataflows.seen_bars import load_seen_bars
from dataflows.stack import port_of
from operators.features import to_model_inputs
from schemas.codec import find_header
from schemas.ticks import CONTENT_ARROW
from schemas.topics import message_topics
from tests.integration.end_state import messages, read_records, table_state
from tests.integration.invalid_records import VENUE
from tests.integration.session_run import SYMBOLS, start_process

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def rows(played, sql):
    return played.client.query(sql).result_rows


def test_both_flows_end_without_lag(played):
    assert read_lags(played.settings) == {"trading": 0, "archive": 0}


def test_the_audit_of_the_session_is_clean(played):
    report = audit(played.settings, "", None, allow_running=False, quiet=True)
    assert report.first is None
    assert report.clean
    assert all(check.rows for check in report.checks if check.name != "late ticks")


def test_every_topic_is_in_its_table_once(played):
    for topic in message_topics():
        if not topic.compacted:
            count, keys, _ = table_state(played.client, topic.name)
            assert count == keys == len(read_records(played.settings, topic.name)), topic.name


@pytest.mark.acceptance("S-028", criterion="every fill joins to decision and outcome; 0 orphans")
def test_every_fill_joins_to_its_decision_and_its_outcome_or_open_position(played, measured):
    fills = rows(played, "SELECT count() FROM trade_fills FINAL")[0][0]
    without_decision = rows(
        played,
        "SELECT count() FROM trade_fills AS f FINAL LEFT ANTI JOIN trade_decisions AS d FINAL "
        "ON f.decision_id = d.id",
    )[0][0]
    without_end = rows(
        played,
        "SELECT count() FROM trade_fills AS f FINAL WHERE f.decision_id NOT IN "
        "(SELECT entry_decision_id FROM trade_outcomes FINAL UNION ALL "
        "SELECT exit_decision_id FROM trade_outcomes FINAL) "
        "AND (f.strategy, f.venue, f.symbol) NOT IN (SELECT strategy, venue, symbol FROM "
        "trade_positions FINAL WHERE strategy != '' GROUP BY strategy, venue, symbol "
        "HAVING argMax(quantity, _version) > 0)",
    )[0][0]
    assert fills > 50
    assert (without_decision, without_end) == (0, 0)
    measured(f"{fills} fills, 0 without decision, 0 without outcome or open position")


@pytest.mark.acceptance("S-111", criterion="P&L topic holds ledger-derived events only")
def test_there_is_one_outcome_for_each_closed_leg_and_no_other(played, measured):
    outcomes = messages(played.settings, "trade.outcomes")
    fills = {fill.id: fill for fill in messages(played.settings, "trade.fills")}
    held: Counter = Counter()
    closings = []
    for fill in sorted(fills.values(), key=lambda each: each.event_time_ns):
        leg = (fill.strategy, fill.symbol)
        held[leg] += fill.quantity if fill.side == "buy" else -fill.quantity
        if held[leg] == 0:
            closings.append(fill.id)
    assert sorted(outcome.cause for outcome in outcomes) == sorted(closings)
    assert len(outcomes) > 20
    measured(f"{len(outcomes)} outcomes, {len(closings)} closed legs")


@pytest.mark.acceptance("S-106", criterion="more than one signal a second on the replay")
def test_the_replay_makes_more_than_a_signal_a_second(played, measured):
    per_second = len(messages(played.settings, "trade.signals")) / played.seconds
    measured(f"{per_second:.1f} signals/s over {played.seconds:.1f} s")
    assert per_second > 1


def test_each_kind_of_invalid_record_is_kept_and_its_neighbours_count(played):
    letters = messages(played.settings, "ops.dead_letters")
    assert Counter(letter.reason for letter in letters) == Counter(played.expected_reasons.values())
    stored = rows(
        played,
        "SELECT reason, count() FROM ops_dead_letters FINAL GROUP BY reason",
    )
    assert dict(stored) == Counter(played.expected_reasons.values())
    bad_lines = sum(letter.line >= 0 for letter in letters)
    neighbours = rows(
        played,
        "SELECT count() FROM market_ticks FINAL WHERE price = 1000 AND size = 1 AND "
        f"venue = '{VENUE}' AND symbol = '{SYMBOLS[0]}'",
    )[0][0]
    assert neighbours == 2 * bad_lines + 1


def test_every_line_of_the_log_is_a_tick_or_a_dead_letter_and_never_both(played):
    lines = set()
    for partition, record in read_records(played.settings, "market.ticks"):
        value = record.value or b""
        if find_header(record.headers, "content-type") == CONTENT_ARROW:
            continue
        lines |= {
            (partition, record.offset, number)
            for number, text in enumerate(value.split(b"\n"))
            if text.strip()
        }
    ticks = set(rows(played, "SELECT partition, offset, line FROM market_ticks FINAL"))
    letters = [
        (letter.partition, letter.offset, letter.line)
        for letter in messages(played.settings, "ops.dead_letters")
    ]
    whole = {(partition, offset) for partition, offset, line in letters if line < 0}
    refused = set(letters)
    judged = {line for line in lines if line[:2] not in whole}
    assert not ticks & refused
    assert judged == ticks | {letter for letter in refused if letter[2] >= 0}


def test_models_are_judged_on_the_bars_that_the_session_saw(played, tmp_path):
    log, page = tmp_path / "score.log", tmp_path / "page.html"
    words = ["models", "score", "--env", "played", "--out", str(page), "--json"]
    process = start_process(["-m", "dataflows.cli.main", *words], played.settings, log)
    assert process.wait(300) == 0, log.read_text()
    found = json.loads(log.read_text())
    ((hours,),) = rows(played, "SELECT count() FROM market_bars FINAL WHERE timeframe = '1h'")
    told = {"environment": "played", "timeframe": "1h", "bars": {"reconstructed": hours}}
    assert found["source"] == told
    serving = {
        (entry.model, entry.version)
        for entry in open_registry(played.settings).read().entries()
        if entry.status == "active" and entry.horizon_bars == found["horizon_bars"]
    }
    scored = {(one["name"], one["version"]) for one in found["scored"] if one["status"] == "active"}
    assert len(serving) >= 4
    assert scored == serving
    assert found["in_sample"] is False
    assert page.exists()


def test_models_are_judged_on_the_very_inputs_of_the_lanes(played):
    data = load_seen_bars(played.settings).data
    vectors = [
        [np.nan if value is None else value for value in vector]
        for (vector,) in rows(
            played,
            "SELECT vector FROM market_features FINAL WHERE timeframe = '1h' AND "
            f"schema_name = '{data.schema.name}' ORDER BY close_time_ns, venue, symbol",
        )
    ]
    inputs = to_model_inputs(np.array(vectors), data.closes, data.schema).astype(np.float32)
    assert len(inputs) > 1_000
    np.testing.assert_array_equal(data.inputs, inputs)


def test_both_flows_answer_health_and_metrics(played):
    for flow in ("trading", "archive"):
        base = f"http://127.0.0.1:{port_of(played.settings, flow)}"
        with urllib.request.urlopen(f"{base}/health", timeout=10) as answer:
            health = json.load(answer)
        assert health["ok"]
        assert health["flow"] == flow
        with urllib.request.urlopen(f"{base}/metrics", timeout=10) as answer:
            assert b"quantstream_records_total" in answer.read()
