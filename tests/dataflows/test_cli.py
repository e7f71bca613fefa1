"""The command line: help, JSON, exit codes; what needs a running stack is tested in integration."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from dataflows.cli.main import app
from dataflows.cli.output import ExitCode

RECORDING = (
    Path(__file__).parents[2] / "onnx_models/recordings/trades_binance_spot_20240808.parquet"
)
VERBS = (
    "demo", "up", "down", "status", "doctor", "run", "replay", "backtest", "features", "why",
    "verify", "report", "halt", "resume", "config show", "config validate", "schema export",
)  # fmt: skip


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTSTREAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("QUANTSTREAM_KAFKA__EMBEDDED_PORT", "9")
    monkeypatch.setenv("QUANTSTREAM_STORE__EMBEDDED_PORT", "9")
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(one) for one in arguments])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_json(cli, verb):
    result = cli(*verb.split(), "--help")
    assert result.exit_code == ExitCode.OK
    assert "--json" in result.output


def test_config_show_tells_where_each_value_comes_from(cli, tmp_path):
    result = cli("config", "show", "--json")
    rows = {row["key"]: row for row in json.loads(result.stdout)["settings"]}
    assert rows["kafka.embedded_port"] == {
        "key": "kafka.embedded_port", "value": "9", "origin": "environment",
    }  # fmt: skip
    assert rows["account"]["origin"] == "default"


def test_config_validate_names_the_wrong_key(cli, tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text("[portfolio]\ndrawdown_max_pc = 3\n")
    result = cli("config", "validate", file, "--json")
    assert result.exit_code == ExitCode.USAGE
    assert "drawdown_max_pct" in json.loads(result.stdout)["error"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("QUANTSTREAM_STRATEGIES__RSI_MEAN_REVERSION__PARAMETERS__ENTRI", "rsi_mean_reversion"),
        ("QUANTSTREAM_STRATEGIES__RSI_MEAN_REVERSHUN__ENABLED", "rsi_mean_reversion"),
    ],
)
def test_config_validate_knows_strategies_and_their_parameters(cli, monkeypatch, key, text):
    monkeypatch.setenv(key, "1")
    result = cli("config", "validate", "--json")
    assert result.exit_code == ExitCode.USAGE
    assert text in json.loads(result.stdout)["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("why",),
        ("why", "id", "--symbol", "BTCUSDT", "--at", "2024-08-08"),
        ("replay", RECORDING, "--speed", "0"),
        ("replay", RECORDING, "--start", "yesterday"),
        ("features", RECORDING, "--out", "f.parquet", "--timeframe", "7m"),
        ("features", RECORDING, "--out", "f.parquet", "--schema", "fs35"),
        ("run", "archive", "--workers", "2"),
        ("up", "--flows", "trding"),
        ("backtest", "missing.parquet", "--out", "out"),
    ],
)
def test_a_wrong_request_is_a_usage_error(cli, arguments):
    assert cli(*arguments).exit_code == ExitCode.USAGE


def test_flows_that_write_the_same_are_refused_before_anything_starts(cli, tmp_path):
    result = cli("up", "--flows", "trading,features", "--json")
    assert result.exit_code == ExitCode.REFUSED
    assert "'trading' and 'features'" in json.loads(result.stdout)["error"]
    assert not (tmp_path / "state").exists()


def test_down_without_a_stack_is_no_error(cli):
    result = cli("down", "--json")
    assert result.exit_code == ExitCode.OK
    assert json.loads(result.stdout)["was_running"] is False


def test_status_without_a_stack_says_down_and_fails(cli):
    result = cli("status", "--json")
    assert result.exit_code == ExitCode.FAILED
    assert json.loads(result.stdout)["broker"] == "down"


def test_doctor_checks_and_names_each(cli):
    result = cli("doctor", "--json")
    checks = {row["check"]: row for row in json.loads(result.stdout)["checks"]}
    assert checks["python"]["ok"]
    assert checks["settings"]["ok"]
    assert {"packages", "java", "disk", "ports", "clock"} <= set(checks)


def test_features_writes_every_feature_of_the_schema(cli, tmp_path):
    result = cli(
        "features",
        RECORDING,
        "--timeframe",
        "1m",
        "--schema",
        "fs64",
        "--out",
        "f.parquet",
        "--json",
    )
    frame = pl.read_parquet(tmp_path / "f.parquet")

    assert result.exit_code == ExitCode.OK
    assert json.loads(result.stdout)["rows"] == frame.height > 0
    assert frame["funding_rate"].null_count() == frame.height
    assert frame["body_size"].null_count() == 0


def test_schema_export_writes_what_is_committed(cli, tmp_path):
    assert cli("schema", "export", "--out", tmp_path / "out").exit_code == ExitCode.OK
    reference = Path(__file__).parents[2] / "docs" / "reference"
    assert (tmp_path / "out" / "tables.sql").read_text() == (reference / "tables.sql").read_text()
