"""Which stage of the vote leans to one side, from the opinions that a run recorded."""

import json

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from dataflows.bias import count_mixes, load_opinions
from dataflows.cli.main import app
from infra.folder_sink import write_topic
from operators.vote import find_biased_stage
from schemas.opinions import OpinionPooled
from tests.contracts.samples import HOUR_NS, OPEN_NS, samples


def opinions(count, bearish=0):
    """Return opinions in which the first voter sells on the last `bearish` bars, else buys."""
    one = next(each for each in samples() if isinstance(each, OpinionPooled))
    return [
        replace(
            one,
            id=f"{number:032d}",
            event_time_ns=OPEN_NS + number * HOUR_NS,
            stances=["sell" if number >= count - bearish else "buy", "abstain"],
            pooled_stance="hold" if number % 2 else "buy",
            decided_stance="hold",
        )
        for number in range(count)
    ]


@pytest.mark.acceptance(
    "S-035", criterion="Per-model, per-stage action mix; names the stage that adds bias"
)
def test_every_stage_is_counted():
    mixes = {mix.stage: mix for mix in count_mixes(opinions(10, bearish=4))}
    counted = ["lightgbm less its tilt", "river_logistic less its tilt"]
    assert list(mixes) == ["lightgbm", "river_logistic", *counted, "pooled", "after threshold"]
    assert (mixes["lightgbm"].sell, mixes["lightgbm"].buy) == (4, 6)
    assert mixes["river_logistic"].abstained == 10
    assert (mixes["pooled"].hold, mixes["pooled"].buy) == (5, 5)
    assert mixes["after threshold"].hold == 10


def test_the_first_stage_that_leans_is_named():
    leaning = find_biased_stage(count_mixes(opinions(40, bearish=36)))
    assert leaning == "lightgbm: 90% of its 40 calls are SELL"
    # The voter is even, so what leans is the pool.
    pooled = find_biased_stage(count_mixes(opinions(80, bearish=40)))
    assert pooled == "pooled: 100% of its 40 calls are BUY"


def test_what_a_voter_said_and_what_counts_of_it_are_two_stages():
    leaning = [
        replace(one, raw_stances=["sell", "abstain"], tilts=[-0.4, None])
        for one in opinions(40, bearish=20)
    ]
    mixes = {mix.stage: mix for mix in count_mixes(leaning)}
    assert (mixes["lightgbm"].sell, mixes["lightgbm"].buy) == (40, 0)
    counted = mixes["lightgbm less its tilt"]
    assert (counted.sell, counted.buy) == (20, 20)
    assert find_biased_stage(list(mixes.values())) == "lightgbm: 100% of its 40 calls are SELL"


def test_few_calls_are_no_evidence():
    assert find_biased_stage(count_mixes(opinions(29, bearish=29))) is None


def run(*arguments):
    return CliRunner().invoke(app, ["models", "bias", *arguments])


@pytest.mark.acceptance(
    "S-035", criterion="One command: the mix of the last N, and the stage that leans"
)
def test_the_verb_looks_at_the_newest_opinions_of_a_backtest(tmp_path, measured):
    write_topic(tmp_path, OpinionPooled, list(reversed(opinions(80, bearish=32))))
    assert [one.stances[0] for one in load_opinions(tmp_path, 5)] == ["sell"] * 5
    arguments = ["--folder", str(tmp_path), "--last", "40"]
    found = json.loads(run(*arguments, "--json").output)
    assert (found["ok"], found["asked"], found["opinions"]) == (True, 40, 40)
    assert found["biased"] == "lightgbm: 80% of its 40 calls are SELL"
    assert found["stages"][0] == {
        "stage": "lightgbm", "sell": 32, "hold": 0, "buy": 8, "abstained": 0,
        "sell_share": 0.8, "hold_share": 0.0, "buy_share": 0.2, "calls": 40, "sell_of_calls": 0.8,
    }  # fmt: skip
    assert found["stages"][1]["sell_share"] is None
    text = run(*arguments)
    assert text.exit_code == 0
    assert "first stage that leans to one side: lightgbm: 80%" in text.output
    measured(found["biased"])


def test_fewer_opinions_than_asked_for_and_voters_without_calls_are_told(tmp_path):
    write_topic(tmp_path, OpinionPooled, opinions(37, bearish=17))
    result = run("--folder", str(tmp_path))
    assert result.exit_code == 0
    told = " ".join(result.output.split())
    assert "found 37 of 1000 opinions" in told
    assert "not judged: river_logistic (0), river_logistic less its tilt (0)" in told
    assert "pooled (19), after threshold (0)" in told


def test_without_opinions_nothing_is_counted(tmp_path):
    write_topic(tmp_path, OpinionPooled, [])
    result = run("--folder", str(tmp_path), "--json")
    assert result.exit_code == 1
    assert "found 0 of 1000" in json.loads(result.output)["error"]


def test_a_folder_without_a_backtest_is_refused(tmp_path):
    assert run("--folder", str(tmp_path)).exit_code == 1
