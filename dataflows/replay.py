"""Publish a recorded session to `market.ticks`: instruments first, then ticks with heartbeats."""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import polars as pl
from msgspec import Struct

from dataflows.known_commands import newest_written_ns
from dataflows.log_sources import ListingReader
from dataflows.recorded_session import RecordedSession
from dataflows.stack import kafka_settings
from infra.kafka.producer import BatchProducer
from infra.kafka.reading import read_backwards
from infra.settings import Settings, settings_hash
from infra.tick_decoder import TickDecoder
from infra.tick_encoder import EncodedRecord, Encoding, encode_heartbeats, encode_records
from schemas.codec import Origin, build_headers, encode
from schemas.instruments import InstrumentBook
from schemas.market import InstrumentListed
from schemas.ticks import PROVENANCE_CODES
from schemas.topics import full_name, record_key

PACE_SECONDS = 0.02
"""How long one step of a paced replay lasts on the wall clock."""
UNREADABLE_RECORDS_MAX = 100_000
"""How many records without a tick are looked through for the newest time before giving up."""


class OlderTimesError(RuntimeError):
    """The environment's log is already past the start of the session."""


class ReplayProgress(Struct, kw_only=True):
    """How far a replay came."""

    ticks: int = 0
    records: int = 0
    event_time_ns: int = 0


def replay(
    settings: Settings,
    session: RecordedSession,
    *,
    speed: float | None = None,
    encoding: Encoding = "ndjson",
    batch: int = 700,
    on_progress: Callable[[ReplayProgress], None] | None = None,
) -> ReplayProgress:
    """Publish `session`; return what was published.

    Args:
        settings: names the environment and the broker.
        session: what to publish.
        speed: event seconds per second; None publishes as fast as it goes.
        encoding: `ndjson` or `arrow`.
        batch: most ticks in one record.
        on_progress: called after every step.

    Raises:
        OlderTimesError: The environment already holds later times; a replay needs a fresh one.
    """
    refuse_older_times(settings, session.start_ns)
    producer = BatchProducer(kafka_settings(settings))
    topic = full_name(settings.environment, "market.ticks")
    partitions = settings.kafka.partitions
    progress = ReplayProgress()

    def send(records: list[EncodedRecord]) -> None:
        for record in records:
            producer.send(topic, record.partition, record.key, record.value, record.headers)
        progress.records += len(records)

    publish_instruments(settings, producer, session.instruments())
    started, worst = time.monotonic(), len(PROVENANCE_CODES) - 1
    for step in _steps(session, speed):
        progress.event_time_ns = int(step["event_time_ns"][-1])
        if speed is not None:
            due = (progress.event_time_ns - session.start_ns) / 1e9 / speed
            time.sleep(max(0.0, due - (time.monotonic() - started)))
        send(encode_records(step, partitions, encoding, batch))
        worst = min(worst, int(step["provenance"].to_numpy().min()))
        send(encode_heartbeats(progress.event_time_ns, partitions, PROVENANCE_CODES[worst]))
        if speed is not None:
            producer.flush()
        producer.check()
        progress.ticks += step.height
        if on_progress is not None:
            on_progress(progress)
    closing_ns = session.closing_time_ns(settings.bars.lateness_ms * 1_000_000)
    send(encode_heartbeats(closing_ns, partitions, PROVENANCE_CODES[worst]))
    producer.flush()
    producer.close()
    return progress


def _steps(session: RecordedSession, speed: float | None) -> Iterator[pl.DataFrame]:
    """Yield what is published together: whole chunks, or slices of `PACE_SECONDS` when paced."""
    for chunk in session.chunks():
        if speed is None:
            yield chunk
            continue
        width_ns = max(1, int(PACE_SECONDS * speed * 1e9))
        buckets = chunk["event_time_ns"].to_numpy() // width_ns
        edges = [0, *(np.flatnonzero(np.diff(buckets)) + 1).tolist(), chunk.height]
        for first, last in pairwise(edges):
            yield chunk[first:last]


def publish_instruments(
    settings: Settings, producer: BatchProducer, listings: list[InstrumentListed]
) -> None:
    """Publish listings and wait until they are durable: a tick must never come before its listing."""
    origin = Origin(config_hash=settings_hash(settings), epoch=0)
    topic = full_name(settings.environment, InstrumentListed.topic)
    for listing in listings:
        producer.send(
            topic,
            0,
            record_key(listing).encode(),
            encode(listing),
            build_headers(InstrumentListed, listing.id, listing.cause, "recorded", origin),
        )
    producer.flush()


def refuse_older_times(settings: Settings, start_ns: int) -> None:
    """Raise OlderTimesError if the log of the environment is past `start_ns`."""
    newest_ns = newest_event_time_ns(settings)
    if newest_ns is not None and newest_ns > start_ns:
        msg = (
            f"environment {settings.environment!r} must not be past the replay's start {start_ns}; "
            f"found {newest_ns}; use a fresh one with --env NAME"
        )
        raise OlderTimesError(msg)


def newest_event_time_ns(settings: Settings) -> int | None:
    """Return the newest event time that the log shows: of ticks and heartbeats, or of the account.

    None if it shows none. The account counts because retention deletes ticks before it forgets.

    Raises:
        OlderTimesError: The end of a partition holds nothing but what is no tick, for so long that
            its newest time cannot be told.
    """
    book = InstrumentBook()
    ListingReader(settings, book)
    times = [newest_written_ns(settings)]
    times += [
        _newest_tick_ns(settings, partition, book) for partition in range(settings.kafka.partitions)
    ]
    newest_ns = max(times)
    return None if newest_ns < 0 else newest_ns


def _newest_tick_ns(settings: Settings, partition: int, book: InstrumentBook) -> int:
    """Return the newest event time of a partition's last accepted ticks, -1 if it holds none."""
    topic = full_name(settings.environment, "market.ticks")
    decoder = TickDecoder(partition, settings.kafka.partitions, book, lambda: False)
    looked_at = 0
    for records in read_backwards(kafka_settings(settings), topic, partition):
        if not records:
            continue
        newest_ns = decoder.decode(records, time.time_ns()).ticks["event_time_ns"].max()
        if isinstance(newest_ns, int):
            return newest_ns
        looked_at += len(records)
        if looked_at > UNREADABLE_RECORDS_MAX:
            msg = (
                f"partition {partition} of topic {topic!r} must end with ticks that say how far it "
                f"is; found none in its last {looked_at} records; use a fresh environment with "
                "--env NAME"
            )
            raise OlderTimesError(msg)
    return -1
