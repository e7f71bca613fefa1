"""`quantstream train` and `quantstream models score`: exit codes, documents, what they leave behind."""

import json
import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from typer.testing import CliRunner

from dataflows.cli.main import app
from infra.onnx_session import OnnxSession
from tests.onnx_models.recorded import HOURS, LATER, SYMBOLS, write_days

QUICK = ("--folds", "0")


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    return write_days(tmp_path_factory.mktemp("recordings") / "bars.parquet", days=90)


@pytest.fixture(scope="module")
def later(tmp_path_factory):
    path = tmp_path_factory.mktemp("recordings") / "later.parquet"
    return write_days(path, days=40, source=LATER)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, bars, later):
    out = tmp_path_factory.mktemp("out")
    words = ("train", "lightgbm", "--data", bars, "--holdout", later, "--out", out, *QUICK)
    return out, run(*words, "--json"), run(*words)


@pytest.mark.acceptance("S-081", criterion="One command runs data to decision")
def test_one_command_trains_judges_and_tells(trained, measured):
    out, first, second = trained
    assert first.exit_code == 0, first.output
    document = json.loads(first.stdout)
    (model,) = document["models"]
    assert document["ok"] is True
    assert OnnxSession(out / "lightgbm_1h").version == model["version"]
    assert {"test", "holdout", "baselines", "importance"} <= model["evaluation"].keys()
    assert (out / "report.html").stat().st_size > 1_000_000
    assert second.exit_code == 0
    assert "lightgbm_1h" in second.stdout
    assert "(kept)" in second.stdout
    assert "class prior" in second.stdout
    measured(f"beats prior: {model['beats_prior']}, gate: {model['gate']['passed']}")


def test_models_are_scored_on_other_data_and_their_own_is_called_in_sample(
    trained, bars, later, tmp_path
):
    out, *_ = trained
    page = tmp_path / "page.html"
    found = run("models", "score", later, "--root", out, "--out", page, "--json")
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert document["in_sample"] is False
    assert document["scored"][0]["name"] == "lightgbm_1h"
    assert page.exists()
    again = run("models", "score", bars, "--root", out, "--out", page)
    assert again.exit_code == 0
    assert "IN-SAMPLE" in again.stdout


@pytest.mark.acceptance("S-147", criterion="One command trains, judges and says which serves")
def test_one_command_says_whether_a_model_or_the_rule_tells_the_regime(
    bars, later, tmp_path, measured
):
    words = ("train", "regime", "--data", bars, "--holdout", later, "--out", tmp_path, *QUICK)
    first, second = run(*words, "--json"), run(*words)
    assert first.exit_code == 0, first.output
    (model,) = json.loads(first.stdout)["models"]
    assert model["model"] == "regime_1h"
    assert OnnxSession(tmp_path / "regime_1h").version == model["version"]
    assert second.exit_code == 0, second.output
    told = " ".join(second.stdout.split())
    assert model["gate"]["reason"] in told
    assert "Regimes out of sample" in told
    assert (tmp_path / "report.html").stat().st_size > 1_000_000
    measured(model["gate"]["reason"])


@pytest.fixture
def trees_alone(monkeypatch):
    """What `all` asks for, without the minute that four models take."""
    monkeypatch.setattr("onnx_models.kinds.SERVED", ("lightgbm",))


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Bars of which none stands before a crisis."""
    return write_days(tmp_path_factory.mktemp("recordings") / "calm.parquet", days=60)


@pytest.mark.parametrize(
    ("days", "text"),
    [(20, "data must have at least 200 rows"), (40, "calibration period of final must have at")],
)
def test_too_few_rows_of_a_regime_leave_the_regime_model_out(tmp_path, trees_alone, days, text):
    path = write_days(tmp_path / "bars.parquet", days=days)
    found = run("train", "all", "--data", path, "--out", tmp_path / "out", *QUICK, "--json")
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert [one["model"] for one in document["models"]] == ["lightgbm_1h"]
    assert [one.partition(": ")[2].startswith(text) for one in document["left_out"]] == [True]


def test_a_regime_that_the_data_lack_leaves_the_regime_model_out_and_names_it(
    calm, tmp_path, trees_alone
):
    words = ("train", "all", "--data", calm, "--out", tmp_path, *QUICK)
    first, second = run(*words, "--json"), run(*words)
    assert first.exit_code == 0, first.output
    document = json.loads(first.stdout)
    assert [one["model"] for one in document["models"]] == ["lightgbm_1h"]
    (reason,) = document["left_out"]
    assert reason.startswith("regime: rows to learn from must hold every regime; found none of")
    assert second.exit_code == 0, second.output
    assert f"left out: {reason}" in " ".join(second.stdout.split())
    assert reason.partition(";")[0] in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "regime_1h").exists()


def test_a_holdout_too_short_for_a_regime_leaves_the_regime_model_out_alone(
    bars, tmp_path, trees_alone
):
    later = write_days(tmp_path / "later.parquet", days=10, source=LATER)
    words = ("--data", bars, "--holdout", later, "--out", tmp_path / "out", *QUICK, "--json")
    found = run("train", "all", *words)
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert [one["model"] for one in document["models"]] == ["lightgbm_1h"]
    assert document["left_out"] == [
        "regime: holdout must have rows of a known regime; found none; give a longer recording"
    ]


def test_a_regime_model_alone_without_every_regime_is_a_usage_error(calm, tmp_path):
    found = run("train", "regime", "--data", calm, "--out", tmp_path / "out", *QUICK, "--json")
    assert found.exit_code == 2
    assert "found none of ['crisis']" in json.loads(found.stdout)["error"]
    assert not (tmp_path / "out").exists()


def test_data_too_short_for_every_model_is_a_usage_error(tmp_path, trees_alone):
    path = write_days(tmp_path / "bars.parquet", days=5, symbols=SYMBOLS[:1])
    found = run("train", "all", "--data", path, "--out", tmp_path / "out", "--json")
    assert found.exit_code == 2
    assert "must have at least 200 rows; found" in json.loads(found.stdout)["error"]
    assert not (tmp_path / "out").exists()


def change(bars, path, **columns):
    pl.read_parquet(bars).with_columns(**columns).write_parquet(path)
    return path


def test_data_that_was_not_recorded_is_refused_by_a_safety_rule(bars, tmp_path):
    path = change(bars, tmp_path / "x.parquet", provenance=pl.lit("synthetic"))
    found = run("train", "lightgbm", "--data", path, "--out", tmp_path / "out", "--json")
    assert found.exit_code == 3
    assert "must be recorded" in json.loads(found.stdout)["error"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--symbol", "FTTUSDT"), "symbols must be in the data"),
        (("--horizon", "3"), "horizon must be labelled"),
        (("--holdout", "{bars}"), "holdout must begin after the training data"),
        (("--folds", "20"), "must have at least 200 rows"),
    ],
)
def test_a_question_that_makes_no_sense_is_a_usage_error(bars, tmp_path, words, text):
    said = [word.format(bars=bars) for word in words]
    found = run("train", "lightgbm", "--data", bars, "--out", tmp_path / "out", *said, "--json")
    assert found.exit_code == 2
    assert text in json.loads(found.stdout)["error"]
    assert not (tmp_path / "out").exists()


def test_an_unknown_kind_is_a_usage_error(bars, tmp_path):
    found = run("train", "oracle", "--data", bars, "--out", tmp_path, "--json")
    assert found.exit_code == 2
    assert "must be one of xgboost, lightgbm" in json.loads(found.stdout)["error"]


def test_too_few_rows_are_a_usage_error(tmp_path):
    path = write_days(tmp_path / "bars.parquet", days=5, symbols=SYMBOLS[:1])
    found = run("train", "lightgbm", "--data", path, "--out", tmp_path / "out", "--json")
    assert found.exit_code == 2
    assert "must have at least 200 rows; found" in json.loads(found.stdout)["error"]


def test_an_unreadable_file_is_a_usage_error(tmp_path):
    path = tmp_path / "bars.parquet"
    path.write_bytes(HOURS.read_bytes()[:1000])
    found = run("train", "lightgbm", "--data", path, "--out", tmp_path / "out", "--json")
    assert found.exit_code == 2
    assert "recording 'bars.parquet' must be readable" in json.loads(found.stdout)["error"]


def test_ctrl_c_leaves_no_half_artefact(bars, tmp_path):
    command = [sys.executable, "-m", "dataflows.cli.main", "train", "xgboost"]
    command += ["--data", str(bars), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ | {"TERM": "dumb"}
    )
    # The first fold that is kept says that training is under way, in the midst of the next one.
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").rglob("*.npz")) and time.monotonic() < deadline:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    process.stdout.close()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".folds"}
