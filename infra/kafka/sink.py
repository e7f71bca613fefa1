"""Bytewax sink to the topics: in order, each record once by its id, failures before the epoch ends.

Recovery state is `(version, {"topic/partition": confirmed offset})`. On resume the sink reads what
its topics hold past those offsets and drops each record that the replay makes again.
"""

import time
from collections.abc import Callable, Iterable, Sequence

import polars as pl
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from msgspec import Struct

from infra.kafka.errors import SnapshotVersionError
from infra.kafka.producer import DEADLINE_SECONDS, BatchProducer, Headers
from infra.kafka.tail import Place, WrittenIds
from infra.records import FetchedRecord
from schemas.batches import Outgoing, ProgressMarked
from schemas.codec import Origin, build_headers, encode, find_header
from schemas.frames import encode_rows
from schemas.settings import KafkaSettings
from schemas.topics import TOPICS, Topic, full_name, record_key

PART = "out"
SNAPSHOT_VERSION = 1
SinkState = tuple[int, dict[str, int]]
_NAMELESS = frozenset({"id", "cause", "provenance"})


class Target(Struct, frozen=True, kw_only=True):
    """A partition that the sink may write."""

    topic: str
    """Name without the environment."""
    partition: int = 0
    owns: Callable[[FetchedRecord], bool] | None = None
    """Which of its records this sink makes too, whoever wrote them; None: those of our writer."""


class KafkaSink(FixedPartitionedSink[list[Outgoing], SinkState]):
    """Writes lists of `Outgoing`, whatever their key, through one producer."""

    def __init__(
        self,
        settings: KafkaSettings,
        environment: str,
        origin: Origin,
        targets: Sequence[Target],
        writer: str = "",
        deadline_seconds: float = DEADLINE_SECONDS,
        linger_ms: int = 0,
        on_written: Callable[[str, int], None] | None = None,
        check_lease: Callable[[], None] | None = None,
        before_rebuild: Callable[[], None] | None = None,
    ) -> None:
        """Write to `targets` of `environment` and nowhere else.

        Args:
            settings: how to reach the broker.
            environment: prefix of the topics.
            origin: what is stamped on every record.
            targets: every partition that this sink may write; their tails are read on resume.
            writer: stable name of this sink's stream, needed where others write the same partition:
                it is stamped on every record, and only records with the same name count as ours.
            deadline_seconds: how long a record may take to be acknowledged.
            linger_ms: how long a record waits for company in its batch.
            on_written: called with a topic and a number of records handed to the producer.
            check_lease: called before every write; raises when this process may not write any more.
            before_rebuild: called when there is no recovery state but the targets hold records of
                ours; raises when these cannot be made again.
        """
        self._settings, self._environment, self._origin = settings, environment, origin
        self._targets = list(targets)
        self._writer = writer
        self._deadline_seconds, self._linger_ms = deadline_seconds, linger_ms
        self._on_written = on_written
        self._check_lease, self._before_rebuild = check_lease, before_rebuild

    def list_parts(self) -> list[str]:
        """Return the one part."""
        return [PART]

    def part_fn(self, item_key: str) -> int:  # noqa: ARG002
        """Return 0: there is one part."""
        return 0

    def build_part(
        self,
        step_id: str,
        for_part: str,  # noqa: ARG002
        resume_state: SinkState | None,
    ) -> "KafkaSinkPartition":
        """Read what the topics hold past the confirmed positions, then connect the producer.

        Raises:
            SnapshotVersionError: another release wrote the recovery state.
            OffsetGoneError: records past a confirmed position were deleted.
            HistoryGoneError: there is no recovery state, and the log is not whole any more.
            OffsetRegressionError: a topic lost records that were acknowledged.
            BrokerAwayError: the broker did not answer in time.
        """
        version, confirmed = resume_state or (SNAPSHOT_VERSION, {})
        if version != SNAPSHOT_VERSION:
            msg = (
                f"recovery state of step {step_id!r} must have version {SNAPSHOT_VERSION}; found "
                f"{version!r}; run the release that wrote it or start a new environment"
            )
            raise SnapshotVersionError(msg)
        written = WrittenIds()
        for target in self._targets:
            place = (full_name(self._environment, target.topic), target.partition)
            start = confirmed.get(_place_text(place))
            owns = target.owns or self._is_ours
            written.add_tail(self._settings, place, start, owns, self._deadline_seconds)
        if resume_state is None and written and self._before_rebuild is not None:
            self._before_rebuild()
        producer = BatchProducer(self._settings, self._deadline_seconds, self._linger_ms)
        return KafkaSinkPartition(
            producer,
            written,
            self._environment,
            self._origin,
            self._writer,
            self._on_written,
            self._check_lease,
        )

    def _is_ours(self, record: FetchedRecord) -> bool:
        return not self._writer or find_header(record.headers, "writer") == self._writer


class KafkaSinkPartition(StatefulSinkPartition[list[Outgoing], SinkState]):
    """The one part of a `KafkaSink`."""

    def __init__(
        self,
        producer: BatchProducer,
        written: WrittenIds,
        environment: str,
        origin: Origin,
        writer: str,
        on_written: Callable[[str, int], None] | None,
        check_lease: Callable[[], None] | None = None,
    ) -> None:
        """Write through `producer`, which this object closes, what `written` does not hold."""
        self._producer, self._written = producer, written
        self._environment, self._origin = environment, origin
        self._signature: Headers = [("writer", writer.encode())] if writer else []
        self._on_written, self._check_lease = on_written, check_lease

    @property
    def awaited(self) -> int:
        """How many records of the last run the replay has not made again yet."""
        return len(self._written)

    def write_batch(self, values: list[list[Outgoing]]) -> None:
        """Send the records in order; returns before they are durable unless an item asks to flush.

        Raises:
            DeliveryError: a record of this or an earlier batch was not delivered.
            LeaseLostError: this process may not write any more.
            ValueError: an item is for a partition that is not a target of this sink.
        """
        if self._check_lease is not None:
            self._check_lease()
        for items in values:
            for outgoing in items:
                self._write(outgoing)
                if outgoing.flush:
                    self._producer.flush()
        self._producer.check()

    def _write(self, outgoing: Outgoing) -> None:
        topic = TOPICS[outgoing.topic]
        place = self._place_of(topic, outgoing)
        stamps = self._stamps(outgoing)
        sent = 0
        if outgoing.messages:
            sent += self._send(place, self._message_records(outgoing.messages), stamps)
        frame = outgoing.frame()
        if frame is not None and frame.height:
            sent += self._send(place, self._frame_records(topic, frame), stamps)
        if outgoing.progress_ns is not None:
            self._send_progress(place, outgoing.progress_ns, stamps)
        if sent and self._on_written is not None:
            self._on_written(outgoing.topic, sent)

    def _place_of(self, topic: Topic, outgoing: Outgoing) -> Place:
        partition = outgoing.partition if topic.partitioned else 0
        name = full_name(self._environment, topic.name)
        if partition is None or (name, partition) not in self._written.ends:
            targets = sorted(map(_place_text, self._written.ends))
            msg = (
                f"records of topic {name!r} must go to a target of this sink; found partition "
                f"{partition!r} with targets {targets!r}; name it when the sink is made"
            )
            raise ValueError(msg)
        return name, partition

    def _stamps(self, outgoing: Outgoing) -> Headers:
        stamps = [*self._signature, ("emit-ns", b"%d" % time.time_ns())]
        if outgoing.ingest_time_ns:
            stamps.append(("ingest-ns", b"%d" % outgoing.ingest_time_ns))
        if outgoing.origin_id:
            stamps.append(("origin", outgoing.origin_id.encode()))
        return stamps

    def _message_records(self, messages: list[Struct]) -> Iterable[tuple[bytes, bytes, Headers]]:
        for message in messages:
            headers = build_headers(
                type(message),
                message.id,  # type: ignore[attr-defined]
                message.cause,  # type: ignore[attr-defined]
                getattr(message, "provenance", ""),
                self._origin,
            )
            yield record_key(message).encode(), encode(message), headers

    def _frame_records(
        self, topic: Topic, frame: pl.DataFrame
    ) -> Iterable[tuple[bytes, bytes, Headers]]:
        assert topic.message is not None, topic.name
        kind, origin = topic.message, self._origin
        keys = frame.select(pl.concat_str(topic.key, separator=":")).to_series().to_list()
        provenances = (
            frame["provenance"].to_list() if "provenance" in frame.columns else [""] * len(keys)
        )
        rows = zip(
            keys,
            encode_rows(frame),
            frame["id"].to_list(),
            frame["cause"].to_list(),
            provenances,
            strict=True,
        )
        for key, value, record_id, cause, provenance in rows:
            yield key.encode(), value, build_headers(kind, record_id, cause, provenance, origin)

    def _send(
        self, place: Place, records: Iterable[tuple[bytes, bytes, Headers]], stamps: Headers
    ) -> int:
        send, drop, held = self._producer.send, self._written.drop, bool(self._written)
        topic, partition = place
        sent = 0
        for key, value, headers in records:
            if held and drop(place, _record_id(headers)):
                continue
            send(topic, partition, key, value, headers + stamps)
            sent += 1
        return sent

    def _send_progress(self, place: Place, complete_through_ns: int, stamps: Headers) -> None:
        mark = ProgressMarked(partition=place[1], complete_through_ns=complete_through_ns)
        headers = [
            header
            for header in build_headers(ProgressMarked, "", "", "", self._origin)
            if header[0] not in _NAMELESS
        ]
        self._producer.send(*place, None, encode(mark), headers + stamps)

    def snapshot(self) -> SinkState:
        """Wait until everything is durable; return the confirmed positions.

        Raises:
            DeliveryError: a record was not delivered; the epoch does not close.
            LeaseLostError: this process may not write any more; the epoch does not close.
        """
        self._producer.flush()
        if self._check_lease is not None:
            self._check_lease()
        confirmed = self._written.confirmed(self._producer.positions)
        return (SNAPSHOT_VERSION, {_place_text(place): at for place, at in confirmed.items()})

    def close(self) -> None:
        """Leave the broker."""
        self._producer.close()


def _place_text(place: Place) -> str:
    return f"{place[0]}/{place[1]}"


def _record_id(headers: Headers) -> bytes:
    return next(value for name, value in headers if name == "id")
