"""Trading sessions of an exchange as sorted arrays: which session an instant falls into."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

ALWAYS_OPEN = "24/7"
"""Calendar of instruments that trade around the clock: their day is the UTC day."""


class SessionTable(Struct, frozen=True, kw_only=True, eq=False):
    """The sessions of one calendar, each `[open, close)`, over a covered range of time.

    A lunch break belongs to its session. Raises ValueError if the sessions are not sorted, overlap,
    or lie outside the covered range.
    """

    calendar: str
    open_ns: NDArray[np.int64]
    close_ns: NDArray[np.int64]
    covers_from_ns: int
    """First instant for which the table knows whether there is a session."""
    covers_until_ns: int
    """First instant for which it does not know any more."""

    def __post_init__(self) -> None:
        edges = np.column_stack((self.open_ns, self.close_ns)).ravel()
        if edges.size and not (
            self.covers_from_ns <= edges[0]
            and edges[-1] <= self.covers_until_ns
            and (np.diff(edges)[::2] > 0).all()
            and (np.diff(edges)[1::2] >= 0).all()
        ):
            msg = (
                f"sessions of calendar {self.calendar!r}; must be sorted, apart and inside the"
                f" covered range; found {edges.size // 2} sessions from {int(edges[0])!r} to"
                f" {int(edges[-1])!r}; build the table again"
            )
            raise ValueError(msg)

    def locate(self, event_time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of the session that holds each instant, -1 where there is none.

        Raises ValueError for an instant outside the covered range, where a missing session would
        be a guess.
        """
        if event_time_ns.size == 0:
            return np.empty(0, dtype=np.int64)
        earliest, latest = int(event_time_ns.min()), int(event_time_ns.max())
        if earliest < self.covers_from_ns or latest >= self.covers_until_ns:
            found = earliest if earliest < self.covers_from_ns else latest
            msg = (
                f"calendar {self.calendar!r}; knows sessions from {self.covers_from_ns!r} until"
                f" {self.covers_until_ns!r} only; found event time {found!r} (ns); build the table"
                " over a range that holds it"
            )
            raise ValueError(msg)
        index = np.searchsorted(self.open_ns, event_time_ns, side="right").astype(np.int64) - 1
        if self.close_ns.size == 0:
            return index
        inside = (index >= 0) & (event_time_ns < self.close_ns[np.maximum(index, 0)])
        return np.where(inside, index, np.int64(-1))

    def count_between(self, earlier_ns: int, later_ns: int) -> int:
        """Return how many sessions open after one instant and before another.

        Raises ValueError as `locate` does.
        """
        self.locate(np.array([earlier_ns, later_ns]))
        first = np.searchsorted(self.open_ns, earlier_ns, side="right")
        return int(np.searchsorted(self.open_ns, later_ns, side="left") - first)
