"""Sessions of an exchange, for its daily bars; straight from the exchange-calendars package."""

from bisect import bisect_right

ALWAYS_OPEN = "24/7"
_FIRST_DAY = "2000-01-01"


class Sessions:
    """Opening and closing times by calendar, loaded when first asked for."""

    def __init__(self) -> None:
        self._hours: dict[str, list[tuple[int, int]]] = {}

    def find(self, calendar: str, time_ns: int) -> tuple[int, int] | None:
        """Return the session `[open, close)` that holds `time_ns`, None outside of all."""
        hours = self._load(calendar)
        index = bisect_right(hours, (time_ns, 2**62)) - 1
        if index >= 0 and time_ns < hours[index][1]:
            return hours[index]
        return None

    def count_between(self, calendar: str, earlier_ns: int, later_ns: int) -> int:
        """Return how many sessions open after `earlier_ns` and before `later_ns`."""
        return sum(earlier_ns < open_ns < later_ns for open_ns, _ in self._load(calendar))

    def _load(self, calendar: str) -> list[tuple[int, int]]:
        if calendar not in self._hours:
            # Imports pandas (more than a second), which an all-crypto environment never needs.
            import exchange_calendars  # noqa: PLC0415

            known = exchange_calendars.get_calendar(calendar)
            earliest = known.bound_min()
            start = _FIRST_DAY if earliest is None else max(str(earliest.date()), _FIRST_DAY)
            hours = exchange_calendars.get_calendar(calendar, start=start)
            opens = hours.opens.to_numpy(dtype="datetime64[ns]").astype("int64").tolist()
            closes = hours.closes.to_numpy(dtype="datetime64[ns]").astype("int64").tolist()
            self._hours[calendar] = sorted(zip(opens, closes, strict=True))
        return self._hours[calendar]
