"""One environment, run by other flows than before: nothing is written twice, and never by two."""

from collections import Counter
from typing import Any

import pytest

from dataflows.backtest import run_backtest
from dataflows.replay import publish_instruments, replay
from dataflows.stack import kafka_settings
from infra.kafka.producer import BatchProducer
from infra.settings import Settings
from schemas.codec import find_header
from schemas.settings import PortfolioSettings, RunSettings
from schemas.topics import full_name
from tests.integration.end_state import DERIVED, folder_lines, log_lines, read_records
from tests.integration.session_run import (
    TRADE_FROM,
    finished,
    open_session,
    prepare,
    running,
    session_settings,
    start_process,
    wait_until,
)

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

COMPARED = ("trade.decisions", "trade.fills")
SPLIT = {"features": 1, "signals": 1, "portfolio": 1}
BARS_BEFORE_THE_SWITCH = 2_000


def counted(settings: Settings) -> dict[str, Counter[str]]:
    return {
        topic: Counter(
            find_header(record.headers, "id") or "" for _, record in read_records(settings, topic)
        )
        for topic in DERIVED
    }


def run_to_the_end(settings: Settings, flows: dict[str, int]) -> dict[str, Counter[str]]:
    with running(settings, flows) as started:
        wait_until(finished(settings, tuple(flows)), "the flows", started)
    return counted(settings)


def refused(settings: Settings, flow: str) -> str:
    log = settings.state_dir / f"refused-{flow}.log"
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    process = start_process(["-m", "dataflows.cli.main", "run", flow], settings, log)
    assert process.wait(120) == 3, log.read_text()
    return log.read_text()


@pytest.mark.acceptance(
    "I1", criterion="one writer per partition and account, across hosts; a change doubles nothing"
)
def test_an_environment_changes_between_fused_and_split_flows_without_a_doubled_record(
    broker, store: Any, tmp_path, excerpt_files, measured
):
    out = tmp_path / "backtest"
    limits = PortfolioSettings(trade_from=TRADE_FROM)
    run_backtest(Settings(portfolio=limits), open_session(excerpt_files), out)
    expected = {topic: folder_lines(out, topic) for topic in COMPARED}
    lease = RunSettings(lease_seconds=6)
    settings = prepare(session_settings(tmp_path / "a", "switched", broker, store, run=lease))
    elsewhere = settings.model_copy(update={"state_dir": tmp_path / "b"})
    session = open_session(excerpt_files)
    producer = BatchProducer(kafka_settings(settings))
    publish_instruments(settings, producer, session.instruments())
    ticks = full_name(settings.environment, "market.ticks")
    for number in range(settings.kafka.partitions):
        producer.send(ticks, number, None, b"no tick", [("content-type", b"application/x-ndjson")])
    producer.flush()
    producer.close()
    replay(settings, session)

    with running(settings, {"trading": 1}) as flows:
        wait_until(
            lambda: len(read_records(settings, "market.bars")) > BARS_BEFORE_THE_SWITCH,
            "the first bars",
            flows,
        )
        for flow in ("portfolio", "signals"):
            assert "must have one holder; found process" in refused(settings, flow)
        assert "must have one holder; found member" in refused(elsewhere, "features")
        flows["trading"].stop()
    fused = counted(settings)
    split = run_to_the_end(settings, SPLIT)
    again = run_to_the_end(settings, {"trading": 1})

    for topic in DERIVED:
        assert max(split[topic].values(), default=1) == 1, topic
        assert fused[topic] <= split[topic] == again[topic], topic
    assert len(split["ops.dead_letters"]) == settings.kafka.partitions
    for topic in COMPARED:
        found = log_lines(settings, topic)
        assert sorted(set(found) ^ set(expected[topic]))[:4] == [], topic
        assert len(found) == len(expected[topic]), topic
    measured(
        f"{sum(map(len, fused.values()))} records by trading, {sum(map(len, split.values()))} after "
        "the split flows and after trading again; 0 doubled, decisions and fills as in the backtest"
    )
