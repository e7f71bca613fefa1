"""Every way to run one session gives the same decisions and fills, by hash of their values."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dataflows.backtest import run_backtest
from dataflows.replay import replay
from infra.settings import Settings
from infra.tick_encoder import Encoding
from schemas.settings import PortfolioSettings
from tests.integration.end_state import folder_lines, log_lines
from tests.integration.session_run import (
    TRADE_FROM,
    finished,
    open_session,
    prepare,
    running,
    session_settings,
    wait_until,
)

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

COMPARED = ("trade.signals", "trade.decisions", "trade.fills", "model.events", "market.context")
SPLIT = ("features", "signals", "portfolio")
Hashes = dict[str, tuple[int, str]]


def hashed(lines: list[str]) -> tuple[int, str]:
    return len(lines), sha256("\n".join(lines).encode()).hexdigest()


@pytest.fixture(scope="module")
def backtested(tmp_path_factory: pytest.TempPathFactory, excerpt_files: list[Path]) -> Hashes:
    out = tmp_path_factory.mktemp("backtest")
    settings = Settings(portfolio=PortfolioSettings(trade_from=TRADE_FROM))
    run_backtest(settings, open_session(excerpt_files), out)
    found = {topic: hashed(folder_lines(out, topic)) for topic in COMPARED}
    assert all(count > 50 for count, _ in found.values())
    return found


def play(
    settings: Settings,
    files: list[Path],
    flows: dict[str, int],
    encoding: Encoding = "ndjson",
    batch: int = 700,
) -> Hashes:
    """Publish the session, run `flows` over it as processes, and return what they decided."""
    prepare(settings)
    replay(settings, open_session(files), encoding=encoding, batch=batch)
    with running(settings, flows) as started:
        wait_until(finished(settings, tuple(flows)), "the flows", started)
    return {topic: hashed(log_lines(settings, topic)) for topic in COMPARED}


@pytest.mark.acceptance("I12", criterion="trading on the log equals the backtest by hash")
@pytest.mark.parametrize(("encoding", "batch"), [("ndjson", 700), ("arrow", 700), ("ndjson", 1)])
def test_however_the_log_is_cut_and_encoded_trading_equals_the_backtest(
    backtested, broker, store: Any, tmp_path, excerpt_files, encoding, batch, measured
):
    settings = session_settings(tmp_path, f"cut-{encoding}-{batch}", broker, store)
    assert play(settings, excerpt_files, {"trading": 1}, encoding, batch) == backtested
    measured(f"{encoding} x {batch}: {backtested}")


@pytest.mark.acceptance(
    "I12", criterion="split flows on 1 and 2 workers equal the backtest by hash"
)
@pytest.mark.parametrize("workers", [1, 2])
def test_split_flows_equal_the_backtest(
    backtested, broker, store: Any, tmp_path, excerpt_files, workers, measured
):
    settings = session_settings(tmp_path, f"split-{workers}", broker, store)
    flows = dict.fromkeys(SPLIT, workers) | {"portfolio": 1}
    assert play(settings, excerpt_files, flows) == backtested
    measured(f"{workers} workers: {backtested}")
