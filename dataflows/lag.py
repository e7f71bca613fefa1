"""How many records each flow has not finished yet, from the positions it committed to its group."""

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from dataflows.stack import kafka_settings
from infra.kafka.security import kafka_python_options
from infra.kafka.topics import topic_begins, topic_ends
from infra.settings import Settings
from schemas.topics import full_name, message_topics

READS: dict[str, tuple[str, ...]] = {
    "features": ("market.ticks",),
    "signals": ("market.bars", "ops.control"),
    "portfolio": ("market.ticks", "trade.signals", "ops.control"),
    "trading": ("market.ticks", "ops.control"),
    "archive": ("market.ticks", *(topic.name for topic in message_topics())),
}
"""Topics that each flow reads."""


def read_lags(settings: Settings) -> dict[str, int]:
    """Return the records that each flow with a group has not committed; others are left out."""
    kafka = kafka_settings(settings)
    topics = sorted({topic for reads in READS.values() for topic in reads})
    admin = KafkaAdminClient(**kafka_python_options(kafka))
    try:
        committed = {flow: _committed(admin, f"{settings.environment}.{flow}") for flow in READS}
    finally:
        admin.close()
    # Read behind the positions: what one flow had written by then the next one must have read.
    begins = topic_begins(kafka, settings.environment, topics)
    ends = topic_ends(kafka, settings.environment, topics)
    lags: dict[str, int] = {}
    for flow, reads in READS.items():
        if committed[flow]:
            lags[flow] = sum(
                # Of a partition without a commit only what it still holds is waited for.
                max(0, end - committed[flow].get((name, number), begins[topic][number]))
                for topic, name in ((each, full_name(settings.environment, each)) for each in reads)
                for number, end in ends[topic].items()
            )
    return lags


def _committed(admin: KafkaAdminClient, group: str) -> dict[tuple[str, int], int]:
    try:
        found = admin.list_group_offsets(group)[group]
    except KafkaError:
        # A broker that never saw a group has no coordinator for one: nothing was committed.
        return {}
    return {(place.topic, place.partition): meta.offset for place, meta in found.items()}
