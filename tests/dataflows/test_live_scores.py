"""`quantstream models live` over a backtest, against the cards that are shipped."""

import json

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from dataflows.cli.main import app
from dataflows.live_scores import score_bands
from infra.folder_sink import write_topic
from infra.settings import load_settings
from schemas.models import ModelEventKind, ModelEventRecorded
from tests.contracts.samples import samples


def live(*arguments):
    return CliRunner().invoke(app, ["models", "live", *map(str, arguments)])


def scored(content_hash, log_loss):
    one = next(each for each in samples() if isinstance(each, ModelEventRecorded))
    changes = {"kind": ModelEventKind.SCORED, "scored_events": 5000, "log_loss": log_loss}
    return replace(one, id=f"{content_hash}", content_hash=content_hash, **changes)


@pytest.mark.acceptance(
    "S-097", criterion="One command compares live scores with the shipped cards"
)
@pytest.mark.parametrize(("shift", "standing"), [(-0.5, "below"), (0.0, "inside"), (0.5, "above")])
def test_the_verb_holds_a_backtest_against_the_shipped_cards(tmp_path, shift, standing, measured):
    bands = score_bands(load_settings(environ={}).settings)
    assert len(bands) >= 4
    content_hash, band = min(bands.items())
    write_topic(tmp_path, ModelEventRecorded, [scored(content_hash, band.log_loss + shift)])
    (row,) = json.loads(live("--folder", tmp_path, "--json").output)["models"]
    assert (row["standing"], row["band"]["log_loss"]) == (standing, band.log_loss)
    assert standing in live("--folder", tmp_path).output
    measured(f"{row['log_loss']:.4f} against {band.low:.4f} to {band.high:.4f}: {standing}")


def test_a_backtest_without_scores_says_why_there_are_none(tmp_path):
    write_topic(tmp_path, ModelEventRecorded, [])
    assert "no model has been scored yet" in live("--folder", tmp_path).output


def test_a_folder_without_a_backtest_is_refused(tmp_path):
    result = live("--folder", tmp_path)
    assert result.exit_code == 1
    assert "must hold a backtest; found no model_events.parquet" in " ".join(result.output.split())
