"""All four models from recorded bars to the decisions of an account: train, judge, shadow, decide."""

import json
import os

import polars as pl
import pytest
from typer.testing import CliRunner

from dataflows.backtest import run_backtest
from dataflows.cli.main import app
from dataflows.cli.output import ExitCode
from dataflows.recorded_session import RecordedFile, RecordedSession
from dataflows.registry import own_root
from infra.folder_sink import topic_file
from infra.settings import load_settings
from tests.onnx_models.recorded import LATER, RECORDINGS, SYMBOLS, write_days

DEMO = RECORDINGS / "bars_5m_binance_spot_demo.parquet"
SERVED = ("lightgbm", "nhits", "patchtst", "xgboost")
BUDGET_MINUTES = "0.3"
"""For five models: what is learnt in it is little, and every step is taken all the same."""
SESSION_DAYS = 9
"""A window of 120 hours and its warm-up, and some days in which the networks vote."""
CPU_SECONDS_MAX = 60.0


def run(*words, code=ExitCode.OK):
    found = CliRunner().invoke(app, [*(str(word) for word in words), "--json"])
    assert found.exit_code == code, found.output
    return json.loads(found.stdout)


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("QUANTSTREAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("QUANTSTREAM_KAFKA__EMBEDDED_PORT", "9")
    monkeypatch.chdir(tmp_path)
    return load_settings().settings


def train_all(folder):
    """Return what the verb says of each model, and the later bars that judged it."""
    bars = write_days(folder / "bars.parquet", days=90)
    later = write_days(folder / "later.parquet", days=30, source=LATER)
    words = ("train", "all", "--data", bars, "--holdout", later, "--out", folder / "out")
    document = run(*words, "--folds", "0", "--budget", BUDGET_MINUTES)
    return {one["model"]: one for one in document["models"]}, later


def into_the_shadow(models):
    """Add every model beside the one that serves, to be judged before it may."""
    for model in models.values():
        run("models", "add", model["folder"])
    for name, model in models.items():
        run("models", "shadow", name, model["version"], "--reason", "trial")


def decide(models):
    """Let the gate decide of each; return the versions that serve afterwards by model."""
    for name, model in models.items():
        passed = model["gate"]["passed"]
        code = ExitCode.OK if passed else ExitCode.REFUSED
        run("models", "activate", name, model["version"], "--reason", "trial", code=code)
    rows = run("models", "list")["models"]
    return {row["model"]: row["version"] for row in rows if row["status"] == "active"}


def trade(settings, folder):
    """Run a session on what serves; return its signals and its decisions."""
    bars = write_days(folder / "session.parquet", SESSION_DAYS, DEMO, SYMBOLS[:2])
    run_backtest(settings, RecordedSession([RecordedFile(path=bars)]), folder / "session")
    return [
        pl.read_parquet(topic_file(folder / "session", topic))
        for topic in ("trade.signals", "trade.decisions")
    ]


def cpu_seconds():
    """Return the seconds that this process has computed, on all of its threads."""
    return sum(os.times()[:2])


@pytest.mark.timeout(420)
@pytest.mark.acceptance(
    "S-081", criterion="Data, train, eval, shadow, decision for 4 of 4 models on recorded data"
)
def test_four_of_four_models_go_from_recorded_bars_to_decisions(settings, tmp_path, measured):
    started = cpu_seconds()
    trained, later = train_all(tmp_path)
    models = {f"{kind}_1h": trained[f"{kind}_1h"] for kind in SERVED}
    assert set(trained) == {*models, "regime_1h"}
    for model in models.values():
        assert {"test", "holdout", "baselines"} <= model["evaluation"].keys()
    into_the_shadow(models)
    score = run("models", "score", later, "--root", own_root(settings), "--out", tmp_path / "page")
    scored = {(one["name"], one["version"]): one for one in score["scored"]}
    shadows = {(name, model["version"]) for name, model in models.items()}
    # Each beside the version that serves, on the very same rows, which neither has seen.
    assert shadows <= scored.keys()
    standing = {(name, one["status"]) for (name, _), one in scored.items()}
    assert standing >= {(name, each) for name in models for each in ("active", "shadow")}
    assert not any(scored[one]["in_sample"] for one in shadows)
    serving = decide(models)
    accepted = {name for name, model in models.items() if serving[name] == model["version"]}
    assert accepted == {name for name, model in models.items() if model["gate"]["passed"]}
    signals, decisions = trade(settings, tmp_path)
    votes = signals.select("id", "votes").explode("votes").unnest("votes")
    spoken = votes.filter(pl.col("kind") == "onnx", pl.col("stance") != "abstain")
    assert dict(spoken.select("voter", "version").unique().iter_rows()) == {
        kind: serving[f"{kind}_1h"] for kind in SERVED
    }
    decided = set(decisions["cause"]) & set(spoken["id"])
    assert decided
    used = cpu_seconds() - started
    assert used < CPU_SECONDS_MAX
    measured(
        f"4 of 4 trained, judged and scored in the shadow; the gate let {len(accepted)} serve; "
        f"{len(decided)} decisions rest on their votes; {used:.0f} s of CPU"
    )
