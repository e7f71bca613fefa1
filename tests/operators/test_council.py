"""Versions that change while a lane runs, models that are missing, and what is told about weights."""

import pickle
from functools import cache
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.bar_columns import BarColumns
from operators.model_schedule import ModelSchedule
from schemas.fields import Stance
from schemas.frames import to_messages
from schemas.models import ModelEventKind
from schemas.operations import Command, ControlCommanded
from schemas.opinions import OpinionPooled
from schemas.settings import ModelSettings
from tests.operators.councils import MODELS, ONNX, SQ120, Answering, Loader, build_council
from tests.operators.recorded_bars import recorded_frame

HOURS = 24 * 4
OLD, NEW = Answering("1"), Answering("2", lean=-1.0, trusted=False)


@cache
def bars() -> pl.DataFrame:
    """Return hourly bars of two symbols after everything has warmed up."""
    own = (pl.col("timeframe") == "1h") & pl.col("symbol").is_in(["BTCUSDT", "DOGEUSDT"])
    return recorded_frame().filter(own).slice(2 * 24 * 30, 2 * HOURS)


def loader():
    return Loader(lightgbm=[NEW, OLD], patchtst=[Answering(schema=SQ120)])


def change_ns() -> int:
    """Return a close in the middle of the bars."""
    return int(bars()["close_time_ns"].unique().sort()[HOURS // 2])


def activation(time_ns):
    """Return what a lane writes when version 2 is to serve from `time_ns` on."""
    schedule = ModelSchedule(0, ["lightgbm", "patchtst"], loader())
    schedule.start()
    schedule.on_bars(time_ns - 1)
    (event,) = schedule.on_commands([command("2")])
    assert (event.kind, event.effective_from_ns) == (ModelEventKind.ACTIVATED, time_ns)
    return event


def command(version):
    return ControlCommanded(
        id="c" * 32,
        cause="",
        account="main",
        command=Command.ACTIVATE,
        model="lightgbm",
        version=version,
        reason="drill",
        issued_at_ns=1,
        signer="local",
        signature="",
    )


def poll(council, frame):
    columns = BarColumns.of(frame)
    polled = council.poll(columns, range(columns.height))
    return [polled.rule(row) for row in range(columns.height)]


def lightgbm(ruling):
    return next(vote for vote in ruling.votes if vote.voter == "lightgbm")


@cache
def changed():
    """Return the rulings and events of a run in which version 2 takes over halfway."""
    council = build_council(loader=loader(), known=[activation(change_ns())])
    return poll(council, bars()), council.take_events()


@pytest.mark.acceptance("S-016", criterion="Decision events show the version that served")
def test_every_vote_names_the_version_that_served_at_its_close():
    rulings, _ = changed()
    for ruling in rulings:
        expected = "1" if ruling.time_ns < change_ns() else "2"
        vote = lightgbm(ruling)
        assert (vote.version, vote.content_hash) == (expected, f"hash of {expected}")


def test_a_new_version_begins_without_the_record_of_the_old_one():
    _, events = changed()
    own = [
        one
        for one in events
        if one.model == "lightgbm" and one.effective_from_ns == change_ns()
        if one.kind is ModelEventKind.WEIGHTS
    ]
    assert own[0].version == "2"
    assert own[0].scored_events == 0
    # Nobody showed yet that it beats the prior, so no trade may rest on it.
    assert own[0].reason == "floor: not scored yet"
    later = [one for one in changed()[0] if one.time_ns == change_ns()]
    assert all("; on the floor" in lightgbm(one).reason for one in later)


@settings(max_examples=8)
@given(st.lists(st.integers(0, 2 * HOURS), max_size=6), st.booleans())
def test_any_cut_and_any_restart_around_a_change_gives_the_same(cuts, restart):
    known = [activation(change_ns())]
    council = build_council(loader=loader(), known=known)
    rulings, events = [], []
    edges = [0, *sorted(cuts), 2 * HOURS]
    for start, end in pairwise(edges):
        rulings += poll(council, bars()[start:end]) if end > start else []
        events += council.take_events()
        if restart:
            state = pickle.loads(pickle.dumps(council.state))
            council = build_council(loader=loader(), known=known, state=state)
    assert (rulings, events) == changed()


def test_a_change_by_command_counts_behind_the_newest_bar():
    council, half = build_council(loader=loader()), HOURS
    before = poll(council, bars()[:half])
    (event,) = council.schedule.on_commands([command("2")])
    after = poll(council, bars()[half:])
    assert event.effective_from_ns == before[-1].time_ns + 1
    assert {lightgbm(one).version for one in before} == {"1"}
    assert {lightgbm(one).version for one in after} == {"2"}


def test_without_any_version_a_model_abstains_and_the_others_share_the_vote():
    council = build_council(loader=Loader(patchtst=[Answering(schema=SQ120)]))
    for ruling in poll(council, bars())[-20:]:
        assert lightgbm(ruling).stance is Stance.ABSTAIN
        assert lightgbm(ruling).reason == "no version of lightgbm was activated"
        assert lightgbm(ruling).weight == 0.0
        assert sum(vote.weight for vote in ruling.votes) == pytest.approx(1.0, abs=1e-9)


def test_where_every_model_abstains_nothing_is_said():
    models = {"lightgbm": ONNX, "patchtst": ONNX}
    (ruling,) = poll(build_council(models, Loader()), bars()[:1])
    assert (ruling.score, ruling.probabilities, ruling.agreement) == (0.0, None, "")
    assert {vote.stance for vote in ruling.votes} == {Stance.ABSTAIN}


def test_models_of_two_timeframes_are_refused():
    models = {**MODELS, "patchtst": ModelSettings(kind="onnx", timeframe="1d")}
    with pytest.raises(
        ValueError, match=r"models must all vote on one timeframe; found \['1d', '1h'\]"
    ):
        build_council(models)


def test_records_of_opinions_say_what_the_rulings_say():
    council = build_council(loader=loader())
    columns = BarColumns.of(bars())
    polled = council.poll(columns, range(columns.height))
    for row, record in enumerate(to_messages(OpinionPooled, polled.opinions().build())):
        ruling = polled.rule(row)
        assert record.event_time_ns == ruling.time_ns
        assert record.voters == council.voters
        np.testing.assert_allclose(
            record.weights, [vote.weight for vote in ruling.votes], atol=5e-5
        )


RIVER = MODELS["river_logistic"]


def four_hourly(chosen):
    return {name: one.model_copy(update={"timeframe": "4h"}) for name, one in chosen.items()}


def remembered():
    council = build_council(MODELS, loader=loader())
    council.poll(BarColumns.of(bars()), range(bars().height))
    return pickle.loads(pickle.dumps(council.state))


def resumed(chosen):
    """Return what is left of the hours that three voters saw, for the voters of now."""
    return build_council(chosen, loader=loader(), state=remembered()).state


def test_the_same_voters_go_on_with_all_that_they_knew():
    before, after = remembered(), resumed(MODELS)
    assert pickle.dumps(after.panel) == pickle.dumps(before.panel)
    assert list(after.rulings) == list(before.rulings) != []
    assert pickle.dumps(after.windows) == pickle.dumps(before.windows)


def test_bars_of_another_length_continue_nothing():
    after, fresh = (
        resumed(four_hourly(MODELS)),
        build_council(four_hourly(MODELS), loader=loader()).state,
    )
    assert after.rulings == {}
    assert pickle.dumps(after.windows) == pickle.dumps(fresh.windows)
    assert pickle.dumps(after.panel) == pickle.dumps(fresh.panel)
    assert after.newest_ns == remembered().newest_ns


def test_another_learner_under_the_same_name_inherits_no_record():
    other = MODELS | {"river_logistic": RIVER.model_copy(update={"learner": "hoeffding"})}
    after, fresh = resumed(other), build_council(other, loader=loader()).state
    assert after.rulings == {}
    assert pickle.dumps(after.panel) == pickle.dumps(fresh.panel)
    # The bars are the same: a model of sequences need not wait until its window is full again.
    assert pickle.dumps(after.windows) == pickle.dumps(remembered().windows)


def test_a_served_model_under_the_name_of_a_learner_inherits_no_record():
    before = build_council({"lightgbm": RIVER}).fingerprint
    assert before != build_council({"lightgbm": ONNX}).fingerprint


def test_bytes_that_were_missing_for_a_while_are_the_same_bytes():
    """A start without the artefact must not make the vote forget what the version said before."""

    class Missing(Loader):
        def load(self, model, version):
            return f"no bytes of {version}"

    def tilt(council, start):
        frame = bars().slice(2 * start, 2)
        return council.poll(BarColumns.of(frame), range(2)).opinion.tilts[0, 0]

    only = {"lightgbm": ONNX}
    whole = build_council(only, Loader(lightgbm=[OLD]))
    broken = build_council(only, Loader(lightgbm=[OLD]))
    for close in range(40):
        assert tilt(whole, close) == tilt(broken, close)
    remembered = tilt(whole, 40)
    assert remembered != 0.0
    live = list(ModelSchedule(0, ["lightgbm"], Loader(lightgbm=[OLD])).start())
    away = build_council(only, Missing(lightgbm=[OLD]), known=live, state=broken.state)
    assert np.isnan(away.poll(BarColumns.of(bars().slice(80, 2)), range(2)).said[0, 0, 0])
    back = build_council(only, Loader(lightgbm=[OLD]), state=away.state)
    assert abs(tilt(back, 41) - remembered) < 0.1 * abs(remembered)
