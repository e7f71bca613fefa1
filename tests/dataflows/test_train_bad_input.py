"""Bad input of `train` and `models add`: one clear line each, and nothing half-written."""

import json
import subprocess
import sys

import numpy as np
import onnx
import polars as pl
import pytest
from typer.testing import CliRunner

from dataflows.cli.main import app
from dataflows.cli.output import ExitCode
from tests.infra.models.artefacts import WIDTH, linear_model, write_artefact
from tests.infra.models.test_registry import files_of
from tests.onnx_models.recorded import LATER, SYMBOLS, write_days

QUICK = ("--folds", "0", "--json")
LIMITED = (
    "import resource, signal, sys\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)\n"
    "from dataflows.cli.main import main\n"
    "main()\n"
)
"""A file that may not grow further fails as one on a full disk does, in the midst of a write."""


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def run_on_a_full_disk(limit_bytes, *words):
    command = [sys.executable, "-c", LIMITED, str(limit_bytes), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)


def says(found, code, *parts):
    """One document with the whole error in one line; no traceback anywhere."""
    assert found.exit_code == code, found.output
    error = json.loads(found.stdout)["error"]
    for part in parts:
        assert part in error
    assert "\n" not in error
    return error


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    return write_days(tmp_path_factory.mktemp("recordings") / "bars.parquet", days=40)


def spoil(bars, path, column, value, rows):
    """Write `bars` with `value` in the chosen rows of one column."""
    frame = pl.read_parquet(bars).with_row_index()
    changed = pl.when(rows).then(pl.lit(value)).otherwise(pl.col(column)).alias(column)
    frame.with_columns(changed).drop("index").write_parquet(path)
    return path


EVERY, ONE = pl.lit(value=True), pl.col("index") == 700


@pytest.mark.parametrize(
    ("column", "value", "rows", "text"),
    [
        ("close", float("nan"), EVERY, "finite positive prices"),
        ("close", float("nan"), ONE, "finite positive prices"),
        ("close", None, ONE, "finite positive prices"),
        ("volume", float("nan"), ONE, "finite volumes of at least 0; found nan of BTCUSDT"),
        ("volume", float("inf"), ONE, "finite volumes of at least 0; found inf of BTCUSDT"),
        ("volume", -1.0, ONE, "finite volumes of at least 0; found -1.0 of BTCUSDT"),
        ("volume", None, ONE, "finite volumes of at least 0; found None of BTCUSDT"),
        ("volume", 0.0, EVERY, "every feature of 'fs34' must have values; found none of"),
    ],
)
def test_columns_that_are_no_numbers_are_refused(bars, tmp_path, column, value, rows, text):
    path = spoil(bars, tmp_path / "bars.parquet", column, value, rows)
    says(
        run("train", "lightgbm", "--data", path, "--out", tmp_path / "out", *QUICK),
        ExitCode.USAGE,
        text,
    )
    assert not (tmp_path / "out").exists()


def test_ranges_that_overlap_a_test_range_are_refused(bars, tmp_path):
    later = write_days(tmp_path / "later.parquet", days=40, source=LATER)
    words = ("train", "lightgbm", "--data", bars, "--out", tmp_path / "out", *QUICK)
    twice = run(*words, "--data", bars)
    says(twice, ExitCode.USAGE, "a bar must be in one file only; found", "leave one of the files")
    touching = run(*words, "--data", later, "--holdout", later)
    says(touching, ExitCode.USAGE, "holdout must begin after the training data", "choose a later")
    assert not (tmp_path / "out").exists()


def test_too_few_rows_and_unknown_symbols_are_refused_for_networks_and_regimes_too(bars, tmp_path):
    few = write_days(tmp_path / "few.parquet", days=5, symbols=SYMBOLS[:1])
    for kind in ("nhits", "patchtst", "regime"):
        words = ("train", kind, "--out", tmp_path / "out", *QUICK)
        says(run(*words, "--data", few), ExitCode.USAGE, "rows; found")
        unknown = run(*words, "--data", bars, "--symbol", "NOSUCHUSDT")
        says(unknown, ExitCode.USAGE, "symbols must be in the data; found no ['NOSUCHUSDT']")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, bars):
    out = tmp_path_factory.mktemp("out")
    found = run("train", "lightgbm", "--data", bars, "--out", out, *QUICK)
    assert found.exit_code == ExitCode.OK, found.output
    return out


def test_a_disk_that_fills_while_a_model_is_exported_leaves_nothing(bars, trained, tmp_path):
    sizes = sorted(path.stat().st_size for path in (trained / "lightgbm_1h").iterdir())
    words = ("train", "lightgbm", "--data", bars, "--out", tmp_path / "out", *QUICK)
    found = run_on_a_full_disk(sizes[-1] - 1, *words)
    assert found.returncode == ExitCode.FAILED, found.stderr
    error = json.loads(found.stdout)["error"]
    assert "the disk must have room for what is written; found 'File too large'" in error
    assert "Traceback" not in found.stderr
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_a_disk_that_fills_while_the_report_is_written_keeps_the_models(bars, trained):
    before = files_of(trained)
    limit_bytes = max(map(len, before.values())) // 2
    words = ("train", "lightgbm", "--data", bars, "--out", trained, *QUICK)
    found = run_on_a_full_disk(limit_bytes, *words)
    assert found.returncode == ExitCode.FAILED, found.stderr
    assert "must have room for what is written" in json.loads(found.stdout)["error"]
    assert files_of(trained) == before


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of one's own with one version in it."""
    monkeypatch.setenv("QUANTSTREAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    found = run("models", "add", write_artefact(tmp_path / "first", seed=1), "--json")
    assert found.exit_code == ExitCode.OK, found.output
    return tmp_path / "state" / "models"


def external_model():
    model = linear_model(2)[0]
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    return model


FOREIGN = {
    "must read one tensor(float) (rows, *(34,))": linear_model(2, width=WIDTH - 1)[0],
    "must keep every tensor inside the file": external_model(),
    "must be an ONNX file": None,
}


@pytest.mark.parametrize("text", FOREIGN)
def test_a_foreign_model_is_refused_and_the_registry_stays(registry, tmp_path, text):
    before, model = files_of(registry), FOREIGN[text]
    content = np.random.default_rng(1).bytes(4_000) if model is None else model.SerializeToString()
    folder = write_artefact(tmp_path / "foreign", seed=2, model=content)
    says(run("models", "add", folder, "--json"), ExitCode.REFUSED, text, "export the model again")
    assert files_of(registry) == before


@pytest.mark.parametrize(
    ("damage", "text"),
    [("unsigned", "must be signed; found 0 signatures"), ("stranger", "must be signed by one of")],
)
def test_a_manifest_without_a_fitting_signature_is_refused(registry, tmp_path, damage, text):
    signatures = registry / "registry.sig"
    if damage == "unsigned":
        signatures.unlink()
    else:
        signatures.write_text(signatures.read_text().replace('"local"', '"stranger"'))
    before = files_of(registry)
    folder = write_artefact(tmp_path / "next", seed=2)
    for words in (("add", folder), ("list",), ("verify",)):
        says(run("models", *words, "--json"), ExitCode.REFUSED, text)
    assert files_of(registry) == before


def test_a_disk_that_fills_while_a_version_is_added_leaves_the_registry_as_it_was(
    registry, tmp_path
):
    before = files_of(registry)
    folder = write_artefact(tmp_path / "next", seed=2)
    found = run_on_a_full_disk(100, "models", "add", folder, "--json")
    assert found.returncode == ExitCode.FAILED, found.stderr
    assert "must have room for what is written" in json.loads(found.stdout)["error"]
    assert files_of(registry) == before
