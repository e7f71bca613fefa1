"""`quantstream models score`: from files or from what an environment saw, with the status of each version."""

import json
import shutil

import polars as pl
import pytest
from typer.testing import CliRunner

from dataflows.cli.main import app
from dataflows.cli.output import ExitCode
from infra.clickhouse.client import connect, database_name, quoted
from infra.clickhouse.migrations import prepare_database
from onnx_models.dataset import load_data_set
from onnx_models.train import Training, TrainOptions
from onnx_models.trees import LightGBMFamily
from schemas.settings import TIMEFRAME_NS, StoreSettings
from schemas.times import format_time_ns
from tests.infra.models.test_registry import flip
from tests.onnx_models.recorded import (
    DAY_NS,
    HOURS,
    LATER,
    SYMBOLS,
    quick,
    three_symbols,
    write_days,
)

MODEL = "lightgbm_1h"
TIMES = ("open_time_ns", "close_time_ns")


@pytest.fixture
def score(tmp_path, monkeypatch):
    """Run the verb as an operator whose state is empty does."""
    monkeypatch.setenv("QUANTSTREAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("QUANTSTREAM_KAFKA__EMBEDDED_PORT", "9")
    monkeypatch.chdir(tmp_path)

    def invoke(*words, verb="score"):
        return CliRunner().invoke(
            app, ["models", verb, *(str(word) for word in words)], env={"COLUMNS": "200"}
        )

    return invoke


def document(result, code=ExitCode.OK):
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A version that is no shipped one, of the same data."""
    out = tmp_path_factory.mktemp("made")
    options = TrainOptions(folds=0)
    return Training(quick(LightGBMFamily), three_symbols(), options, out).run()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Hours that no model has seen."""
    path = tmp_path_factory.mktemp("recording") / "later.parquet"
    return write_days(path, days=40, source=LATER)


@pytest.fixture
def trial(score, made):
    """The shipped versions, and one in the shadow."""
    document(score(made.folder, "--json", verb="add"))
    told = score(MODEL, made.card.version, "--reason", "trial", verb="shadow")
    assert told.exit_code == ExitCode.OK
    return told.stdout


def archive(client, bars, timeframe, provenance):
    """Write recorded bars as those of an environment."""
    opened = pl.col("ts_ns")
    closed = (opened + TIMEFRAME_NS[timeframe]).alias("close_time_ns")
    client.insert_arrow(
        "market_bars",
        bars.select(
            pl.format("{}/{}/{}", "symbol", pl.lit(timeframe), opened).alias("id"),
            "venue", "symbol", pl.lit(timeframe).alias("timeframe"),
            opened.alias("open_time_ns"), closed,
            "open", "high", "low", "close", "volume", pl.lit(provenance).alias("provenance"),
        )
        .with_columns(pl.col(TIMES).cast(pl.Datetime("ns", "UTC")))
        .to_arrow(),
    )  # fmt: skip


@pytest.fixture
def environment(store, monkeypatch, request):
    """Return what makes the archive of an environment of that name and a client of it."""
    settings = StoreSettings(url=store.url, user=store.user, password=store.password)
    monkeypatch.setenv("QUANTSTREAM_STORE__URL", store.url)
    monkeypatch.setenv("QUANTSTREAM_STORE__USER", store.user)
    monkeypatch.setenv("QUANTSTREAM_STORE__PASSWORD", store.password)

    def make(name):
        client = connect(settings)
        prepare_database(client, database_name(settings, name))
        request.addfinalizer(client.close)
        request.addfinalizer(lambda: client.command(f"DROP DATABASE {quoted(client.database)}"))
        return client

    return make


@pytest.fixture
def seen(environment, recording):
    """An environment that was played the recording: hours and, of other bars, five minutes."""
    client = environment("seen")
    bars = pl.read_parquet(recording)
    archive(client, bars, "1h", "reconstructed")
    # Written again, as after a crash of the archive.
    archive(client, bars[:100], "1h", "reconstructed")
    archive(client, bars.with_columns(pl.col("close") * 2), "5m", "reconstructed")
    return client


def by_version(told):
    return {(one["name"], one["version"]): one for one in told["scored"]}


@pytest.mark.stack
def test_what_serves_and_what_is_in_the_shadow_are_judged_on_what_an_environment_saw(
    score, trial, seen, recording, made
):
    found = document(score("--env", "seen", "--json"))
    rows = pl.read_parquet(recording).height
    told = {"environment": "seen", "timeframe": "1h", "bars": {"reconstructed": rows}}
    assert found["source"] == told
    assert found["root"].endswith("state/models")
    scored = by_version(found)
    assert scored[MODEL, made.card.version]["status"] == "shadow"
    beside = [one["status"] for (name, _), one in scored.items() if name == MODEL]
    assert (beside.count("active"), beside.count("shadow")) == (1, 1)
    assert {one["evaluation"]["rows"] for one in scored.values()} == {found["rows"]}
    assert found["in_sample"] is False
    # Bars rebuilt from a recording are judged on as the recording is.
    words = (recording, "--root", found["root"], "--json")
    files = document(score(*words))
    assert files["source"]["bars"] == {"recorded": rows}
    assert files["scored"] == found["scored"]


def test_a_trial_in_another_registry_names_it(score, made, tmp_path):
    document(score(made.folder, "--json", verb="add"))
    other = shutil.copytree(tmp_path / "state" / "models", tmp_path / "elsewhere")
    told = score(MODEL, made.card.version, "--root", other, verb="shadow")
    assert told.exit_code == ExitCode.OK, told.output
    assert f"score --env paper --root {other}" in told.stdout


@pytest.mark.stack
def test_the_table_tells_status_provenance_and_range(score, trial, seen, made, recording):
    found = score("--env", "seen", "--symbol", "BTCUSDT")
    assert found.exit_code == ExitCode.OK, found.output
    text = " ".join(found.stdout.split())
    assert made.card.version in text
    assert "(shadow)" in text
    assert "(active)" in text
    assert "960 reconstructed bars of 1h of environment seen (PAPER)" in text
    assert "out of sample: no model has seen this range" in text
    assert format_time_ns(pl.read_parquet(recording)["ts_ns"].min()) in text
    # The line that closes `models shadow` is the command that does all this.
    assert "judge it: quantstream models score --env paper\n" in trial


@pytest.mark.stack
def test_hours_are_made_of_shorter_bars_where_an_environment_has_none(
    score, environment, recording
):
    hours = pl.read_parquet(recording).filter(pl.col("symbol") == "BTCUSDT")
    later = [pl.col("ts_ns") + part * TIMEFRAME_NS["5m"] for part in range(12)]
    bars = pl.concat([hours.with_columns(ts_ns) for ts_ns in later])
    # The last hour is not over.
    archive(environment("shorter"), bars.sort("ts_ns")[:-1], "5m", "live")
    found = document(score("--env", "shorter", "--json"))
    assert found["source"]["timeframe"] == "5m"
    assert found["source"]["bars"] == {"live": 12 * 960 - 1}
    assert found["last_close_ns"] == hours["ts_ns"].max()


@pytest.mark.stack
def test_synthetic_bars_are_refused_by_a_safety_rule(score, environment, recording):
    client = environment("made-up")
    bars = pl.read_parquet(recording)
    archive(client, bars[:1000], "1h", "recorded")
    archive(client, bars[1000:1001], "1h", "synthetic")
    refused = document(score("--env", "made-up", "--json"), ExitCode.REFUSED)
    assert "found ['synthetic'] among the bars" in refused["error"]


@pytest.mark.stack
def test_an_environment_without_archive_or_without_bars_is_told_in_one_line(score, environment):
    absent = document(score("--env", "absent", "--json"), ExitCode.USAGE)
    assert "database of the environment must exist" in absent["error"]
    environment("empty")
    empty = document(score("--env", "empty", "--json"), ExitCode.USAGE)
    assert "environment 'empty' must have archived bars of 5m, 15m, 30m, 1h" in empty["error"]


@pytest.mark.parametrize(("both", "word"), [(True, "both"), (False, "neither")])
def test_files_and_an_environment_exclude_each_other(score, recording, both, word):
    words = (recording, "--env", "paper") if both else ()
    refused = document(score(*words, "--json"), ExitCode.USAGE)
    assert f"recorded FILEs or on --env; found {word}; give one of them" in refused["error"]


def test_a_folder_without_a_registry_has_no_statuses(score, made, recording):
    found = document(score(recording, "--root", made.folder.parent, "--json"))
    assert {one["status"] for one in found["scored"]} == {""}
    assert found["left_out"] == []


def test_statuses_that_nobody_known_signed_are_not_told_and_the_reason_is(
    score, trial, recording, tmp_path
):
    root = shutil.copytree(tmp_path / "state" / "models", tmp_path / "changed")
    flip(root / "registry.json", -2)
    found = document(score(recording, "--root", root, "--json"))
    assert {one["status"] for one in found["scored"]} == {""}
    assert any(one.startswith("statuses: ") and "signed" in one for one in found["left_out"])


def test_only_bars_between_two_times_are_judged_and_older_ones_warm_up(score, made, recording):
    words = (recording, "--root", made.folder.parent, "--symbol", "BTCUSDT", "--json")
    first_ns = pl.read_parquet(recording)["ts_ns"].min()
    since_ns, until_ns = first_ns + 10 * DAY_NS, first_ns + 20 * DAY_NS
    span = ("--since", format_time_ns(since_ns), "--until", format_time_ns(until_ns))
    found = document(score(*words, *span))
    assert (found["first_open_ns"], found["last_close_ns"]) == (since_ns, until_ns)
    # Ten days of hours, less the last ones, whose label was not known by then; none to warm up.
    assert found["rows"] == 10 * 24 - 4
    nothing = document(score(*words, "--since", "2030-01-01"), ExitCode.USAGE)
    assert "rows that every model can read and whose label is known" in nothing["error"]


def test_data_that_was_learnt_from_is_told_with_the_time_from_which_it_was_not(
    score, made, recording, tmp_path
):
    learnt = write_days(tmp_path / "learnt.parquet", days=200)
    words = (learnt, recording, "--root", made.folder.parent)
    seen = score(*words)
    assert seen.exit_code == ExitCode.OK, seen.output
    since = format_time_ns(load_data_set([HOURS], symbols=SYMBOLS).manifest.last_close_ns)
    text = " ".join(seen.stdout.split())
    assert "IN-SAMPLE: models marked so have seen this range" in text
    assert f"--since {since} judges what none has seen" in text
    assert document(score(*words, "--since", since, "--json"))["in_sample"] is False
