"""A running dataflow changes and refuses versions of a model, without a restart and for good."""

import json
import shutil
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from dataflows.log_flow import recovery_folder
from dataflows.model_commands import Adoption, command_lanes
from dataflows.registry import own_root
from dataflows.replay import replay
from dataflows.stack import kafka_settings
from infra.kafka.topics import ensure_topics
from infra.partitions import partition_of
from infra.settings import Settings
from schemas.models import ModelEventKind, ModelEventRecorded
from schemas.operations import AlertRaised, Command
from schemas.opinions import OpinionPooled
from schemas.signals import SignalEmitted
from schemas.topics import full_name
from tests.infra.models.artefacts import write_artefact
from tests.infra.models.test_registry import flip
from tests.integration.end_state import TopicState, messages, topic_state
from tests.integration.session_run import (
    Excerpt,
    RunningFlow,
    finished,
    open_session,
    prepare,
    running,
    session_settings,
    start_process,
    wait_until,
)

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

MODEL, VOTER = "lightgbm_1h", "lightgbm"
REMADE = (OpinionPooled.topic, SignalEmitted.topic)
EDGES = ("2024-07-10", "2024-07-24", "2024-08-01", "2024-08-08")


class Drill(Struct, kw_only=True):
    """What happened while `trading` ran."""

    answer: dict[str, Any]
    """Of `quantstream models rollback --json`."""
    seconds: float
    """Wall time of that command, its own start included."""
    same_process: bool
    """Whether the process that ran before ran to the end."""
    tampered: Adoption
    """What the lanes made of a version whose bytes were changed on disk."""
    signals: list[SignalEmitted]
    events: list[ModelEventRecorded]
    alerts: list[AlertRaised]
    bias: dict[str, Any]
    """Of `quantstream models bias --json`."""
    made: dict[str, TopicState]
    """What `trading` had written to the topics of opinions and signals."""
    remade: dict[str, TopicState]
    """The same once these topics and the recovery folder were removed and the flow ran again."""


def run_verb(settings: Settings, *arguments: str) -> dict[str, Any]:
    """Run a verb as an operator does; return what it printed as JSON."""
    out = settings.state_dir / "verb.log"
    out.unlink(missing_ok=True)
    process = start_process(["-m", "dataflows.cli.main", *arguments, "--json"], settings, out)
    assert process.wait(300) == 0, out.read_text()
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def publish(settings: Settings, file: Path, flows: dict[str, RunningFlow]) -> None:
    replay(settings, open_session([file]))
    wait_until(finished(settings, ("trading",)), "trading", flows)


def add_tampered(settings: Settings, folder: Path) -> str:
    """Add a version whose bytes then change on disk; return it."""
    made = write_artefact(folder / "made", name=MODEL, seed=5)
    added: str = run_verb(settings, "models", "add", str(made))["version"]
    model = own_root(settings) / "objects" / MODEL / added / "model.onnx"
    flip(model, len(model.read_bytes()) // 2)
    return added


def forget(settings: Settings) -> None:
    """Empty the topics that are to be made again, and remove all that `trading` remembers."""
    shutil.rmtree(recovery_folder(settings, "trading", range(settings.kafka.partitions)))
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap})
    # Without it the old positions would say at once that everything was read.
    group = f"{settings.environment}.trading"
    admin.delete_consumer_groups([group])[group].result()
    names = {full_name(settings.environment, topic) for topic in REMADE}
    for deleted in admin.delete_topics(sorted(names)).values():
        deleted.result()
    wait_until(lambda: not names & set(admin.list_topics(timeout=30).topics), "deletion of topics")
    ensure_topics(kafka_settings(settings), settings.environment)


def states(settings: Settings) -> dict[str, TopicState]:
    return {topic: topic_state(settings, topic) for topic in REMADE}


@pytest.fixture(scope="module")
def drill(broker: str, store: Any, tmp_path_factory: pytest.TempPathFactory) -> Drill:
    folder = tmp_path_factory.mktemp("drill")
    parts = [
        Excerpt(start=f"{start}T01:00:00", end=f"{end}T00:00:00", trades=False).cut(folder / start)[
            0
        ]
        for start, end in pairwise(EDGES)
    ]
    settings = prepare(session_settings(folder / "state", "drill", broker, store))
    with running(settings, {"trading": 1}) as flows:
        publish(settings, parts[0], flows)
        began = time.monotonic()
        answer = run_verb(settings, "models", "rollback", MODEL, "--env", "drill")
        seconds = time.monotonic() - began
        publish(settings, parts[1], flows)
        bad = add_tampered(settings, folder)
        tampered = command_lanes(settings, Command.ACTIVATE, MODEL, bad, "drill", 60.0)
        publish(settings, parts[2], flows)
        same_process = flows["trading"].process.poll() is None
        found = [messages(settings, kind.topic) for kind in (SignalEmitted, ModelEventRecorded)]
        made = states(settings)
        bias = run_verb(settings, "models", "bias", "--env", "drill", "--last", "100")
        flows["trading"].kill()
        forget(settings)
        flows["trading"] = RunningFlow(settings, "trading")
        wait_until(finished(settings, ("trading",)), "trading once more", flows)
        return Drill(
            answer=answer,
            seconds=seconds,
            same_process=same_process,
            tampered=tampered,
            signals=found[0],
            events=found[1],
            alerts=messages(settings, AlertRaised.topic),
            bias=bias,
            made=made,
            remade=states(settings),
        )


def versions_by_change(drill: Drill) -> dict[bool, set[str]]:
    """Return the versions that voted before and from the change of their partition on."""
    effective = {int(key): value for key, value in drill.answer["effective_from_ns"].items()}
    found: dict[bool, set[str]] = {False: set(), True: set()}
    for signal in drill.signals:
        (vote,) = [one for one in signal.votes if one.voter == VOTER]
        if vote.version:
            at = effective[partition_of(signal.venue, signal.symbol, 4)]
            found[signal.event_time_ns >= at].add(vote.version)
    return found


@pytest.mark.acceptance("S-016", criterion="Rollback < 5 min without a restart, timed")
@pytest.mark.acceptance("S-154", criterion="Rollback of a model that serves, timed")
def test_a_rollback_reaches_every_lane_of_a_running_dataflow_without_a_restart(
    drill: Drill, measured: Any
) -> None:
    assert drill.answer["ok"]
    assert sorted(map(int, drill.answer["effective_from_ns"])) == [0, 1, 2, 3]
    assert drill.seconds < 300.0
    assert drill.same_process
    measured(f"{drill.answer['seconds']} s in the lanes, {drill.seconds:.1f} s with the command")


@pytest.mark.acceptance("S-016", criterion="Decision events show the older version")
def test_the_votes_behind_decisions_name_the_older_version_from_then_on(
    drill: Drill, measured: Any
) -> None:
    versions = versions_by_change(drill)
    assert versions[True] == {drill.answer["version"]}
    assert versions[False] == {drill.answer["previous_version"]}
    measured({"before": sorted(versions[False]), "after": sorted(versions[True])})


@pytest.mark.acceptance("S-015", criterion="in a running dataflow: refused, the one before, alert")
def test_a_version_whose_bytes_were_changed_is_refused_and_the_one_before_goes_on(
    drill: Drill, measured: Any
) -> None:
    assert sorted(drill.tampered.refusals) == [0, 1, 2, 3]
    (reason,) = set(drill.tampered.refusals.values())
    assert "model.onnx" in reason, reason
    refused = [one for one in drill.events if one.kind is ModelEventKind.REFUSED]
    assert {one.partition for one in refused} == {0, 1, 2, 3}
    raised = [one for one in drill.alerts if not one.resolved]
    assert [one.kind for one in raised] == ["MODEL_REFUSED"] * 4
    assert {one.cause for one in raised} == {one.id for one in refused}
    measured(reason)


def test_the_alert_ends_once_the_version_of_the_registry_serves_again(drill: Drill) -> None:
    resolved = [one for one in drill.alerts if one.resolved]
    assert [one.kind for one in resolved] == ["MODEL_REFUSED"] * 4
    for one in resolved:
        assert drill.answer["version"] in one.text, one.text


def test_the_bias_of_the_running_environment_is_one_command(drill: Drill) -> None:
    assert drill.bias["opinions"] == 100
    stages = {row.pop("stage"): row for row in drill.bias["stages"]}
    assert {"lightgbm", "nhits", "patchtst", "xgboost", "pooled", "after threshold"} <= set(stages)
    for row in stages.values():
        assert row["sell"] + row["hold"] + row["buy"] + row["abstained"] == 100


def test_a_rebuild_from_the_log_makes_every_opinion_and_signal_again_byte_for_byte(
    drill: Drill,
) -> None:
    for topic in REMADE:
        assert drill.made[topic].records > 0
        assert drill.made[topic].doubled == 0
    assert drill.remade == drill.made
