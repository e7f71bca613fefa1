"""One version at every event time, whoever asks, however often the lane died."""

from itertools import pairwise
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.model_schedule import ModelSchedule
from schemas.models import ModelEventKind, ModelEventRecorded
from schemas.operations import AlertRaised, Command, ControlCommanded

MODEL = "lightgbm"


class Model:
    """What a schedule needs of a loaded model."""

    timeframe = "1h"
    feature_schema_hash = "f"

    def __init__(self, version, content_hash):
        self.version, self.content_hash = version, content_hash

    def score(self, matrix):
        raise NotImplementedError


class Shelf:
    """A registry in memory."""

    def __init__(self, active="v1", earlier=(), broken=()):
        self.active, self.earlier, self.broken = active, tuple(earlier), set(broken)
        self.untrusted = ""
        self.hashes = {}

    def active_versions(self, model):
        if self.untrusted:
            return self.untrusted
        return (self.active, *self.earlier) if self.active else ()

    def load(self, model, version):
        if version in self.broken:
            return f"{version} is broken"
        return Model(version, self.hashes.get(version, f"hash of {version}"))


def command(version, number=1, kind=Command.ACTIVATE, model=MODEL):
    return ControlCommanded(
        id=f"command-{number}",
        account="PAPER-1",
        command=kind,
        reason="drill",
        issued_at_ns=number,
        signer="local",
        signature="",
        model=model,
        version=version,
    )


def events(made):
    return [each for each in made if isinstance(each, ModelEventRecorded)]


def alerts(made):
    return [(each.resolved, each.text) for each in made if isinstance(each, AlertRaised)]


def begin(shelf, log=(), not_before_ns=0, commands=()):
    """Begin with what `log` holds, events and alerts."""
    told = [each.id for each in log if isinstance(each, AlertRaised)]
    schedule = ModelSchedule(3, [MODEL], shelf, events(log), not_before_ns, told)
    return schedule, schedule.start(commands)


def version_at(schedule, time_ns):
    return schedule.serving(MODEL, time_ns).version


def test_the_active_version_serves_from_the_beginning():
    schedule, made = begin(Shelf())
    (event,) = made
    assert (event.kind, event.version, event.content_hash) == ("activated", "v1", "hash of v1")
    assert (event.effective_from_ns, event.partition, event.previous_version) == (0, 3, "")
    found = schedule.serving(MODEL, 0)
    assert (found.version, found.scorer.content_hash, found.reason) == ("v1", "hash of v1", "")


def test_a_command_counts_behind_the_newest_bar_and_names_its_cause():
    schedule, _ = begin(Shelf())
    schedule.on_bars(100)
    (event,) = schedule.on_commands([command("v2")])
    assert (event.effective_from_ns, event.event_time_ns, event.cause) == (101, 100, "command-1")
    assert (event.version, event.previous_version, event.reason) == ("v2", "v1", "drill")
    assert [version_at(schedule, at) for at in (99, 100, 101, 10**18)] == ["v1", "v1", "v2", "v2"]
    assert schedule.on_commands([command("v2")]) == []


@pytest.mark.acceptance("S-016", criterion="a rollback serves the older version without a restart")
def test_a_rollback_brings_the_older_version_back(measured):
    schedule, _ = begin(Shelf())
    schedule.on_bars(100)
    schedule.on_commands([command("v2")])
    schedule.on_bars(200)
    (event,) = schedule.on_commands([command("v1", 2, Command.ROLLBACK)])
    assert (event.kind, event.version, event.previous_version) == ("rolled_back", "v1", "v2")
    found = [version_at(schedule, at) for at in (100, 101, 200, 201)]
    measured(found)
    assert found == ["v1", "v2", "v2", "v1"]


def test_a_version_that_does_not_load_is_refused_and_what_served_goes_on():
    shelf = Shelf(broken={"v2"})
    schedule, _ = begin(shelf)
    made = schedule.on_commands([command("v2")])
    (event,) = events(made)
    assert (event.kind, event.version, event.reason) == ("refused", "v2", "v2 is broken")
    assert event.previous_version == "v1"
    ((resolved, text),) = alerts(made)
    assert not resolved
    assert "'lightgbm' v2 in partition 3 was refused; v2 is broken" in text
    assert version_at(schedule, 10**18) == "v1"
    shelf.broken.clear()
    again = schedule.on_commands([command("v2", 2)])
    assert [each.kind for each in events(again)] == ["activated"]
    assert [resolved for resolved, _ in alerts(again)] == [True]


def test_commands_for_others_are_left_alone_and_unknown_models_are_answered():
    schedule, _ = begin(Shelf())
    assert schedule.on_commands([command("", kind=Command.HALT)]) == []
    made = schedule.on_commands([command("v2", model="nobody")])
    assert [(each.kind, each.model) for each in events(made)] == [("refused", "nobody")]
    assert alerts(made) == []
    (nameless,) = events(schedule.on_commands([command("", 2, Command.ROLLBACK)]))
    assert (nameless.kind, nameless.reason) == ("refused", "command must name a version")


def test_a_rebuild_uses_what_was_live_and_writes_nothing_again():
    shelf = Shelf()
    schedule, made = begin(shelf)
    schedule.on_bars(100)
    made += schedule.on_commands([command("v2")])
    shelf.active = "v2"
    rebuilt, again = begin(shelf, made, not_before_ns=101, commands=[command("v2")])
    assert again == []
    assert [version_at(rebuilt, at) for at in (0, 100, 101)] == ["v1", "v1", "v2"]


def test_events_of_other_partitions_and_other_kinds_do_not_count():
    schedule, made = begin(Shelf())
    made += schedule.on_commands([command("v2")])
    from msgspec.structs import replace

    others = [replace(each, partition=4) for each in made]
    weights = [replace(each, kind=ModelEventKind.WEIGHTS, version="v7") for each in made]
    rebuilt, again = begin(Shelf(), [*made[:1], *others, *weights])
    assert again == []
    assert version_at(rebuilt, 10**18) == "v1"


def test_a_command_that_came_while_the_lane_was_down_counts_behind_all_that_is_written():
    _, made = begin(Shelf())
    schedule, new = begin(Shelf("v2", ["v1"]), made, 500, [command("v2")])
    (event,) = new
    assert (event.cause, event.effective_from_ns, event.kind) == ("command-1", 500, "activated")
    assert [version_at(schedule, at) for at in (499, 500)] == ["v1", "v2"]


def test_a_registry_that_changed_while_the_lane_was_down_is_followed():
    _, made = begin(Shelf())
    schedule, new = begin(Shelf("v2", ["v1"]), made, 500)
    (event,) = new
    assert (event.cause, event.version, event.effective_from_ns) == ("", "v2", 500)
    assert [version_at(schedule, at) for at in (499, 500)] == ["v1", "v2"]


@pytest.mark.acceptance("S-015", criterion="at a start the version before serves, with an alert")
def test_a_broken_active_version_gives_way_to_the_one_before_from_then_on(measured):
    _, made = begin(Shelf("v2", ["v1"]))
    schedule, new = begin(Shelf("v2", ["v1"], broken={"v2"}), made, 500)
    refused, back = events(new)
    measured([(each.kind.value, each.version) for each in (refused, back)])
    assert (refused.kind, refused.version, refused.reason) == ("refused", "v2", "v2 is broken")
    assert (back.kind, back.version, back.effective_from_ns) == ("rolled_back", "v1", 500)
    assert [resolved for resolved, _ in alerts(new)] == [False]
    assert version_at(schedule, 500) == "v1"
    # Bars from before were scored by bytes that are gone: nothing else speaks in their place.
    lost = schedule.serving(MODEL, 499)
    assert (lost.version, lost.scorer, lost.reason) == ("v2", None, "v2 is broken")


def test_a_lane_that_dies_at_once_says_a_refusal_once_and_the_cure_resolves_it():
    log = begin(Shelf("v2", ["v1"]))[1]
    log += begin(Shelf("v2", ["v1"], broken={"v2"}), log, 500)[1]
    assert begin(Shelf("v2", ["v1"], broken={"v2"}), log, 500)[1] == []
    schedule, cured = begin(Shelf("v2", ["v1"]), log, 700)
    (event,) = events(cured)
    assert (event.kind, event.version, event.effective_from_ns) == ("activated", "v2", 700)
    assert [resolved for resolved, _ in alerts(cured)] == [True]
    assert [version_at(schedule, at) for at in (499, 699, 700)] == ["v2", "v1", "v2"]


def test_an_alert_that_a_kill_behind_its_event_lost_is_said_at_the_next_start():
    shelf = Shelf(broken={"v2"})
    schedule, log = begin(shelf)
    refused, raised = schedule.on_commands([command("v2")])
    shelf.active, shelf.earlier = "v2", ("v1",)
    assert begin(shelf, [*log, refused])[1] == [raised]
    log += [refused, raised]
    assert begin(shelf, log)[1] == []
    shelf.broken.clear()
    cured, resolved = begin(shelf, log)[1]
    assert resolved.resolved
    assert begin(shelf, [*log, cured])[1] == [resolved]
    assert begin(shelf, [*log, cured, resolved])[1] == []


def test_of_several_refusals_the_alert_of_the_first_is_said_again():
    shelf = Shelf("v2", ["v1"], broken={"v1", "v2"})
    _, made = begin(shelf)
    raised = made[1]
    assert begin(shelf, events(made))[1] == [raised]
    assert begin(shelf, made)[1] == []


def test_a_refusal_of_a_model_that_does_not_vote_here_needs_no_alert():
    schedule, log = begin(Shelf())
    log += schedule.on_commands([command("v2", model="nobody")])
    assert begin(Shelf(), log)[1] == []


def test_with_nothing_that_loads_the_model_abstains_and_says_why():
    schedule, made = begin(Shelf("v2", ["v1"], broken={"v1", "v2"}))
    assert [each.kind for each in events(made)] == ["refused", "refused"]
    assert len(alerts(made)) == 1
    found = schedule.serving(MODEL, 0)
    assert (found.version, found.scorer) == ("", None)
    assert "no version of lightgbm was activated" in found.reason


def test_a_registry_that_nobody_can_trust_is_told_and_what_is_loaded_goes_on():
    _, made = begin(Shelf())
    shelf = Shelf()
    shelf.untrusted = "manifest must be signed"
    schedule, new = begin(shelf, made, 500)
    (event,) = events(new)
    assert (event.kind, event.version, event.reason) == ("refused", "v1", shelf.untrusted)
    assert version_at(schedule, 500) == "v1"
    shelf.untrusted = ""
    later = begin(shelf, [*made, *new], 500)[1]
    assert [each.kind for each in events(later)] == ["activated"]
    assert [resolved for resolved, _ in alerts(later)] == [True]


def test_a_model_that_was_retired_serves_no_more():
    _, made = begin(Shelf())
    schedule, new = begin(Shelf(""), made, 500)
    assert [each.kind for each in new] == ["retired"]
    assert version_at(schedule, 499) == "v1"
    gone = schedule.serving(MODEL, 500)
    assert (gone.scorer, gone.version) == (None, "")
    assert "retired" in gone.reason
    assert begin(Shelf(""), [*made, *new], 600)[1] == []


def test_other_bytes_under_the_same_version_are_refused():
    _, made = begin(Shelf())
    shelf = Shelf()
    shelf.hashes["v1"] = "another"
    schedule, new = begin(shelf, made, 500)
    assert [each.kind for each in events(new)] == ["refused"]
    found = schedule.serving(MODEL, 0)
    assert found.scorer is None
    assert "must hash to 'hash of v1' as when it went live; found 'another'" in found.reason


def test_a_version_is_let_go_once_no_later_bar_can_ask_for_it():
    schedule, _ = begin(Shelf())
    schedule.on_bars(100)
    first = ref(schedule.serving(MODEL, 100).scorer)
    schedule.on_commands([command("v2")])
    # The rest of the newest close may still come.
    schedule.on_bars(100)
    assert first() is not None
    schedule.on_bars(101)
    assert first() is None
    assert version_at(schedule, 101) == "v2"
    schedule.on_commands([command("v1", 2, Command.ROLLBACK)])
    assert schedule.serving(MODEL, 102).scorer.version == "v1"


def test_frames_are_cut_where_a_version_changes():
    schedule, _ = begin(Shelf())
    schedule.on_bars(100)
    schedule.on_commands([command("v2")])
    assert schedule.cut([101, 102]) == [slice(0, 2)]
    assert schedule.cut([90, 100, 101, 102]) == [slice(0, 2), slice(2, 4)]
    assert schedule.cut([90, 100]) == [slice(0, 2)]
    assert schedule.cut([]) == []


STEPS = st.lists(
    st.one_of(
        st.integers(1, 50).map(lambda width: ("bars", width)),
        st.sampled_from(["v1", "v2", "v3", "broken"]).map(lambda version: ("command", version)),
        st.integers(0, 60).map(lambda lost: ("crash", lost)),
    ),
    max_size=30,
)


@settings(max_examples=200)
@given(STEPS, st.lists(st.integers(1, 400), max_size=6))
def test_any_number_of_crashes_and_any_cut_leave_one_version_per_event_time(steps, cuts):
    shelf = Shelf(broken={"broken"})
    log, used = [], {}
    schedule, made = begin(shelf)
    log += events(made)
    number, newest, ids = 0, 0, []

    def score(first, last):
        times = list(range(first, last + 1))
        for part in schedule.cut(times):
            for at in times[part]:
                version = version_at(schedule, at)
                # Made again after a crash: it must be what was written before.
                assert used.setdefault(at, version) == version
            assert len({used[at] for at in times[part]}) == 1
        schedule.on_bars(last)

    for kind, value in steps:
        if kind == "bars":
            score(newest + 1, newest + value)
            newest += value
        elif kind == "command":
            number += 1
            log += events(schedule.on_commands([command(value, number)]))
        else:
            # Everything is in the log, the snapshot is older by `lost` bars.
            resumed = max(newest - value, 0)
            schedule = ModelSchedule(3, [MODEL], shelf, log, newest + 1)
            schedule.state = resumed
            log += events(schedule.start([]))
            score(resumed + 1, newest)
    ids = [each.id for each in log]
    assert len(set(ids)) == len(ids)
    assert [e.effective_from_ns for e in log] == sorted(e.effective_from_ns for e in log)
    rebuilt = ModelSchedule(3, [MODEL], shelf, log, newest + 1)
    edges = sorted({0, newest, *(cut for cut in cuts if cut < newest)})
    for first, last in pairwise(edges):
        times = list(range(first + 1, last + 1))
        for part in rebuilt.cut(times):
            assert {version_at(rebuilt, at) for at in times[part]} == {
                used[at] for at in times[part]
            }
        rebuilt.on_bars(last)
