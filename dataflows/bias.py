"""Does some stage of the vote lean to one action? Counted over the last opinions of a run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataflows.stack import kafka_settings
from infra.folder_sink import read_topic
from infra.kafka.reading import read_backwards
from infra.kafka.topics import topic_ends
from infra.settings import Settings
from operators.vote import ActionMix, count_mix
from operators.vote.ballots import ACTIONS, CENTRED, DECIDED, POOLED
from schemas.checked import convert
from schemas.codec import decode
from schemas.opinions import OpinionPooled
from schemas.topics import full_name

_PLACES = {name: place for place, name in enumerate(ACTIONS)}


def read_opinions(settings: Settings, last: int) -> list[OpinionPooled]:
    """Return the last opinions of an environment, over all partitions, in order of time.

    Raises BrokerAwayError, TopicMissingError.
    """
    kafka, topic = kafka_settings(settings), OpinionPooled.topic
    found: list[OpinionPooled] = []
    for partition in topic_ends(kafka, settings.environment, [topic])[topic]:
        own: list[OpinionPooled] = []
        name = full_name(settings.environment, topic)
        for records in read_backwards(kafka, name, partition):
            own += [decode(OpinionPooled, one.value) for one in records if one.value is not None]
            if len(own) >= last:
                break
        found += own
    return _newest(found, last)


def load_opinions(folder: Path, last: int) -> list[OpinionPooled]:
    """Return the last opinions of a backtest; raises FileNotFoundError without its file."""
    rows = read_topic(folder, OpinionPooled).sort("event_time_ns", "id").tail(last).to_dicts()
    return [convert(row, OpinionPooled) for row in rows]


def _newest(found: list[OpinionPooled], last: int) -> list[OpinionPooled]:
    return sorted(found, key=lambda one: (one.event_time_ns, one.id))[-last:]


def count_mixes(opinions: Sequence[OpinionPooled]) -> list[ActionMix]:
    """Return the mix of every stage, in order: voters by name, what counts of each, pool, threshold."""
    names = sorted({name for one in opinions for name in one.voters})
    voters = [*names, *(f"{name} {CENTRED}" for name in names)]
    stages: dict[str, list[str]] = {name: [] for name in [*voters, POOLED, DECIDED]}
    for one in opinions:
        # A record of before tilts were taken off holds what was said alone.
        said = zip(one.voters, one.raw_stances or one.stances, one.stances, strict=True)
        for name, raw, counted in said:
            stages[name].append(raw)
            stages[f"{name} {CENTRED}"].append(counted)
        stages[POOLED].append(one.pooled_stance)
        stages[DECIDED].append(one.decided_stance)
    return [
        count_mix(stage, np.array([_PLACES.get(stance, -1) for stance in stances], dtype=np.int64))
        for stage, stances in stages.items()
    ]
