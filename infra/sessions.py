"""Trading sessions of real exchanges, from the exchange-calendars package."""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

ALWAYS_OPEN = "24/7"

FIRST_DAY = date(2000, 1, 1)
LAST_DAY = date(2045, 12, 31)
"""Holidays this far ahead follow today's rules; an extraordinary closure needs a newer package."""

_MARGIN = timedelta(days=15)

T_co = TypeVar("T_co", covariant=True)


class SessionTableBuilder(Protocol[T_co]):
    """What makes a table of sessions; `operators.sessions.SessionTable` is one."""

    def __call__(
        self,
        *,
        calendar: str,
        open_ns: NDArray[np.int64],
        close_ns: NDArray[np.int64],
        covers_from_ns: int,
        covers_until_ns: int,
    ) -> T_co:
        """Build the table of one calendar."""


def load_sessions(
    calendars: Iterable[str],
    build: SessionTableBuilder[T_co],
    first_day: date = FIRST_DAY,
    last_day: date = LAST_DAY,
) -> dict[str, T_co]:
    """Return the sessions of each calendar but "24/7", which has none and costs no import.

    The tables cover at least `first_day` to `last_day` (UTC, inclusive), or as much of it as the
    calendar knows. Raises ValueError for a calendar that exchange-calendars does not know.
    """
    return {
        calendar: _load_calendar(calendar, build, first_day, last_day)
        for calendar in sorted(set(calendars) - {ALWAYS_OPEN})
    }


def _load_calendar(
    calendar: str, build: SessionTableBuilder[T_co], first_day: date, last_day: date
) -> T_co:
    # Imports pandas (more than a second), which an all-crypto environment never needs.
    import exchange_calendars  # noqa: PLC0415

    try:
        known = exchange_calendars.get_calendar(calendar)
    except exchange_calendars.errors.InvalidCalendarName as error:
        msg = (
            f"calendar {calendar!r}; must be one of exchange-calendars; found no such name; use"
            f" an ISO market code such as 'XNYS', or {ALWAYS_OPEN!r}"
        )
        raise ValueError(msg) from error
    earliest, latest = known.bound_min(), known.bound_max()
    start, end = first_day - _MARGIN, last_day + _MARGIN
    hours = exchange_calendars.get_calendar(
        calendar,
        start=start if earliest is None else max(start, earliest.date()),
        end=end if latest is None else min(end, latest.date()),
    )
    open_ns = hours.opens.to_numpy(dtype="datetime64[ns]").astype(np.int64)
    close_ns = hours.closes.to_numpy(dtype="datetime64[ns]").astype(np.int64)
    # A session may begin on the evening before its date, so only what lies between the first and the
    # last one is known for certain.
    return build(
        calendar=calendar,
        open_ns=open_ns[1:-1],
        close_ns=close_ns[1:-1],
        covers_from_ns=int(close_ns[0]),
        covers_until_ns=int(open_ns[-1]),
    )
