"""Records as they were read from the log, whichever client read them."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

Headers = list[tuple[str, bytes | None]] | None


class FetchedRecord(NamedTuple):
    """One record of one partition."""

    offset: int
    timestamp_ms: int
    """Kafka's record timestamp: milliseconds since 1970 UTC."""
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None


# Built in C: one call per column instead of one Python frame per record.
_record = partial(tuple.__new__, FetchedRecord)


class FetchedRecords(Sequence[FetchedRecord]):
    """The records of one fetch as columns; a reader of columns never pays for a record.

    A feed of one tick a record hands over hundreds of thousands a second.
    """

    __slots__ = ("_records", "headers", "keys", "offsets", "timestamps_ms", "values")

    def __init__(
        self,
        offsets: NDArray[np.int64],
        timestamps_ms: NDArray[np.int64],
        keys: list[bytes | None],
        values: list[bytes | None],
        headers: list[Headers],
    ) -> None:
        """Hold columns of one length."""
        self.offsets, self.timestamps_ms = offsets, timestamps_ms
        self.keys, self.values, self.headers = keys, values, headers
        self._records: list[FetchedRecord] | None = None

    @classmethod
    def of(cls, records: Sequence[FetchedRecord]) -> "FetchedRecords":
        """Return `records` as columns."""
        if isinstance(records, cls):
            return records
        return cls(
            np.array([record.offset for record in records], dtype=np.int64),
            np.array([record.timestamp_ms for record in records], dtype=np.int64),
            [record.key for record in records],
            [record.value for record in records],
            [record.headers for record in records],
        )

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> FetchedRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[FetchedRecord]: ...
    def __getitem__(self, index: int | slice) -> FetchedRecord | list[FetchedRecord]:
        return self._whole()[index]

    def __iter__(self) -> Iterator[FetchedRecord]:
        return iter(self._whole())

    def _whole(self) -> list[FetchedRecord]:
        if self._records is None:
            self._records = list(
                map(
                    _record,
                    zip(
                        self.offsets.tolist(),
                        self.timestamps_ms.tolist(),
                        self.keys,
                        self.values,
                        self.headers,
                        strict=True,
                    ),
                )
            )
        return self._records
