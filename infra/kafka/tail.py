"""What a topic already holds past a position: the ids that must not be written again.

A sink that resumes has, in its recovery state, the positions up to which its output was confirmed.
The records behind them were written by the run that died, and the replay makes them again.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from infra.kafka.consumers import DEADLINE_SECONDS, PartitionConsumer, open_consumer
from infra.kafka.errors import BrokerAwayError
from infra.kafka.security import bootstrap_servers
from infra.records import FetchedRecord
from schemas.settings import KafkaSettings

FETCH_RECORDS_MAX = 10_000

Place = tuple[str, int]
"""Full topic name and partition."""


class WrittenIds:
    """Ids that the topics hold past the confirmed positions, each dropped once when it comes again."""

    def __init__(self) -> None:
        self._ids: dict[Place, dict[bytes, int]] = {}
        self.ends: dict[Place, int] = {}
        """Where each tail ended when it was read."""

    def add_tail(
        self,
        settings: KafkaSettings,
        place: Place,
        start: int | None,
        owns: Callable[[FetchedRecord], bool],
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        """Read `place` from `start` (None: from its earliest record) to its end.

        Only records that `owns` says yes to count.

        Raises:
            OffsetGoneError: records past the confirmed position were deleted.
            OffsetRegressionError: the topic ends before the confirmed position.
            BrokerAwayError: no record came for `deadline_seconds`.
        """
        consumer = open_consumer(settings, *place, start, None, deadline_seconds)
        try:
            self.ends[place] = end = consumer.end_offset()
            ids = self._ids.setdefault(place, {})
            while consumer.position < end:
                for record in _fetch(consumer, settings, deadline_seconds):
                    record_id = _id_of(record)
                    if record_id and record.offset < end and owns(record):
                        ids.setdefault(record_id, record.offset)
        finally:
            consumer.close()

    def __bool__(self) -> bool:
        return any(self._ids.values())

    def __len__(self) -> int:
        return sum(map(len, self._ids.values()))

    def drop(self, place: Place, record_id: bytes) -> bool:
        """Return whether `place` holds `record_id` already; true once per record."""
        ids = self._ids.get(place)
        return bool(ids) and ids.pop(record_id, None) is not None  # type: ignore[union-attr]

    def confirmed(self, positions: Mapping[Place, int]) -> dict[Place, int]:
        """Return where the next resume must read from, given the ends of what was written.

        A tail that did not come again yet keeps its place: the epochs of a replay are not cut where
        the first run cut them.
        """
        resumed = dict(self.ends)
        for place, position in positions.items():
            resumed[place] = max(position, resumed.get(place, 0))
        for place, ids in self._ids.items():
            if ids:
                resumed[place] = next(iter(ids.values()))
        return resumed


def _fetch(
    consumer: PartitionConsumer, settings: KafkaSettings, deadline_seconds: float
) -> Sequence[FetchedRecord]:
    started, before = time.monotonic(), consumer.position
    while True:
        records = consumer.fetch(FETCH_RECORDS_MAX, 0.1)
        if records or consumer.position > before:
            return records
        if time.monotonic() - started > deadline_seconds:
            msg = (
                f"broker at {bootstrap_servers(settings)!r} must give the records at {before!r} "
                f"within {deadline_seconds:g} s; found none; start it or look at its log"
            )
            raise BrokerAwayError(msg)


def _id_of(record: FetchedRecord) -> bytes | None:
    return next((value for name, value in record.headers or () if name == "id"), None)
