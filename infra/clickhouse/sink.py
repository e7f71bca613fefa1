"""Bytewax sink to ClickHouse: rows wait in memory for company and are written before the epoch closes."""

from collections.abc import Callable, Sequence

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from infra.clickhouse.errors import StoreUnavailableError
from infra.clickhouse.writer import ArchiveWriter, RecordBatch
from schemas.batches import TickBatch
from schemas.instruments import InstrumentBook
from schemas.operations import DeadLetterRecorded

ROWS_WAITING_MAX = 200_000
RETRY_SECONDS = 60
PART = "store"


class ArchiveSink(FixedPartitionedSink[RecordBatch | TickBatch, None]):
    """Writes record batches and tick batches, whatever their key, through one writer."""

    def __init__(
        self,
        connect: Callable[[], ArchiveWriter],
        book: InstrumentBook,
        observe: Callable[[str, int], None],
        bury: Callable[[Sequence[DeadLetterRecorded]], None],
    ) -> None:
        """Write through the writer of `connect`; `bury` makes dead letters durable before it returns."""
        self._connect, self._book, self._observe, self._bury = connect, book, observe, bury

    def list_parts(self) -> list[str]:
        """Return the one part."""
        return [PART]

    def part_fn(self, item_key: str) -> int:  # noqa: ARG002
        """Return 0: there is one part."""
        return 0

    def build_part(
        self,
        step_id: str,  # noqa: ARG002
        for_part: str,  # noqa: ARG002
        resume_state: None,  # noqa: ARG002
    ) -> "ArchiveSinkPartition":
        """Connect; nothing is resumed, because a row written twice is one row."""
        return ArchiveSinkPartition(self._connect(), self._book, self._observe, self._bury)


class ArchiveSinkPartition(StatefulSinkPartition[RecordBatch | TickBatch, None]):
    """The one part of an `ArchiveSink`."""

    def __init__(
        self,
        writer: ArchiveWriter,
        book: InstrumentBook,
        observe: Callable[[str, int], None],
        bury: Callable[[Sequence[DeadLetterRecorded]], None],
    ) -> None:
        self._writer, self._book, self._observe, self._bury = writer, book, observe, bury
        self._records: list[RecordBatch] = []
        self._ticks: list[TickBatch] = []
        self._waiting = 0

    def write_batch(self, values: list[RecordBatch | TickBatch]) -> None:
        """Keep `values`; write all that waits once it is much.

        Raises:
            StoreUnavailableError: The store did not take the rows for a minute; the process ends and
                the supervisor starts it again.
        """
        for value in values:
            if isinstance(value, TickBatch):
                self._ticks.append(value)
                self._waiting += value.ticks.height
            else:
                self._records.append(value)
                self._waiting += len(value.records)
        if self._waiting >= ROWS_WAITING_MAX:
            self._flush()

    def snapshot(self) -> None:
        """Write all that waits: the positions of this epoch must not run ahead of the rows."""
        self._flush()

    def close(self) -> None:
        """Write what a graceful end left over."""
        self._flush()

    def _flush(self) -> None:
        if not self._waiting and not self._ticks and not self._records:
            return
        for attempt in Retrying(
            retry=retry_if_exception_type(StoreUnavailableError),
            wait=wait_exponential(multiplier=0.2, max=5),
            stop=stop_after_delay(RETRY_SECONDS),
            reraise=True,
        ):
            with attempt:
                self._write()

    def _write(self) -> None:
        ticks = self._writer.write_ticks(self._ticks, self._book)
        records = self._writer.write(self._records)
        if records.invalid:
            self._bury(records.invalid)
        self._observe("ticks", ticks.rows)
        self._observe("rows", ticks.rows + records.rows)
        self._observe("inserts", ticks.inserts + records.inserts)
        self._observe("invalid_records", len(records.invalid))
        self._ticks, self._records, self._waiting = [], [], 0
