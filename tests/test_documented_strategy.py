"""The strategy of the how-to works as written: one file, a few settings, nothing else."""

import importlib
import sys

import polars as pl
import pytest

import operators.strategies
from dataflows.backtest import run_backtest
from dataflows.recorded_session import RecordedFile, RecordedSession
from infra.settings import load_settings
from operators.strategies import build_strategies, discover_strategies
from schemas.times import parse_time_ns
from tests.documents import ROOT, marked

PAGE = "docs/how-to/own-strategy.md"
RECORDING = ROOT / "onnx_models" / "recordings" / "bars_5m_binance_spot_demo.parquet"
MODULE = "operators.strategies.trend_pullback"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Settings of the page, with its file beside the strategies."""
    (tmp_path / "trend_pullback.py").write_text(marked(PAGE, "strategy"))
    paths = [*operators.strategies.__path__, str(tmp_path)]
    monkeypatch.setattr(operators.strategies, "__path__", paths)
    importlib.invalidate_caches()
    file = tmp_path / "quantstream.toml"
    file.write_text(marked(PAGE, "settings"))
    yield load_settings(file, {}).settings
    sys.modules.pop(MODULE, None)
    vars(operators.strategies).pop("trend_pullback", None)


def test_the_file_alone_makes_the_strategy_known(settings):
    assert "trend_pullback" in discover_strategies()
    built = {strategy.name: strategy for strategy in build_strategies(settings.strategies)}
    assert len(built) == 6
    assert built["trend_pullback"].parameters.rsi_entry_max == 48.0


@pytest.mark.acceptance("S-161", criterion="a new strategy by one file and settings, no core edit")
def test_the_documented_strategy_trades(settings, tmp_path, measured):
    session = RecordedSession([RecordedFile(path=RECORDING, end_ns=parse_time_ns("2024-06-22"))])
    run_backtest(settings, session, tmp_path / "out")
    signals = pl.read_parquet(tmp_path / "out" / "trade_signals.parquet")
    fills = pl.read_parquet(tmp_path / "out" / "trade_fills.parquet")

    own = signals.filter(pl.col("strategy") == "trend_pullback")
    entries = own.filter(pl.col("action") == "enter")
    traded = fills.filter(pl.col("strategy") == "trend_pullback")
    measured(f"{entries.height} entry signals, {traded.height} fills of the fifth strategy")

    assert entries.height
    assert traded.height
    assert entries["reason"].str.contains("RSI .* below 48").all()
