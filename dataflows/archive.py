"""The `archive` flow: every topic into ClickHouse; the only writer of its tables.

`python -m bytewax.run dataflows.archive:flow` runs it on the settings of the environment.
"""

from collections.abc import Sequence

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from dataflows.inputs import STEP, Sources
from dataflows.log_flow import LogFlow, open_whole_flow
from dataflows.log_sources import record_source, tick_source
from dataflows.stack import kafka_settings, store_settings
from infra.clickhouse.client import connect, database_name
from infra.clickhouse.migrations import prepare_database
from infra.clickhouse.sink import ArchiveSink
from infra.clickhouse.writer import ArchiveWriter
from infra.kafka.joined_source import JoinedSource
from infra.kafka.producer import BatchProducer
from schemas.codec import build_headers, encode
from schemas.operations import DeadLetterRecorded
from schemas.topics import full_name, message_topics, record_key

NAME = "archive"


def build_flow(log: LogFlow) -> Dataflow:
    """Return the flow over every partition of every topic."""
    flow, settings = Dataflow(NAME), log.settings
    ticks = tick_source(settings, log.partitions, NAME, log.book, log.watch, align=False)
    sources: Sources = {"market.ticks": ticks} | {
        topic.name: record_source(
            settings,
            topic.name,
            log.partitions if topic.partitioned else [0],
            NAME,
            log.watch,
        )
        for topic in message_topics()
    }

    def open_writer() -> ArchiveWriter:
        store = store_settings(settings)
        client = connect(store)
        prepare_database(client, database_name(store, settings.environment))
        return ArchiveWriter(client)

    def bury(letters: Sequence[DeadLetterRecorded]) -> None:
        producer = BatchProducer(kafka_settings(settings))
        topic = full_name(settings.environment, DeadLetterRecorded.topic)
        for letter in letters:
            headers = build_headers(
                DeadLetterRecorded, letter.id, letter.cause, "recorded", log.origin
            )
            producer.send(topic, 0, record_key(letter).encode(), encode(letter), headers)
        producer.flush()
        producer.close()

    read = op.input(STEP, flow, JoinedSource(sources))
    batches = op.map("batches", read, lambda tagged: tagged[1])
    op.output("store", batches, ArchiveSink(open_writer, log.book, log.workload.observe, bury))
    return flow


def flow() -> Dataflow:
    """Return the flow for `bytewax.run`."""
    return build_flow(open_whole_flow(NAME))
