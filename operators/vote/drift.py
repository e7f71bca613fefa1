"""Alarms when a voter's losses change by more than chance explains."""

from msgspec import Struct
from river.drift import ADWIN, PageHinkley

ADWIN_DELTA = 0.002
"""Chance of a false alarm that ADWIN accepts per window (A. Bifet and R. Gavalda, SDM 2007)."""
PAGE_HINKLEY_SLACK = 0.02
"""Rise of the mean loss, in nats, that Page-Hinkley lets pass (E. S. Page, Biometrika 41 (1954))."""
PAGE_HINKLEY_THRESHOLD = 3.0
"""Sum of losses above mean and slack, in nats, at which it raises an alarm."""


class DriftAlarm(Struct, frozen=True):
    """One alarm of one detector."""

    detector: str
    mean_before: float
    """Mean loss over the detector's window before the alarm, in nats."""
    mean_after: float
    """ADWIN: mean of the part that was kept; Page-Hinkley: the last value."""


class LossDrift:
    """ADWIN and Page-Hinkley on one voter's loss per close; it pickles and continues alike.

    The loss is the voter's log-loss less the class prior's on the same labels: an hour that surprised
    everybody is no fault of a voter. One value per close, not one per symbol: the symbols of one hour share their surprises, which the
    detectors would take for independent.
    """

    __slots__ = ("_adwin", "_page_hinkley")

    def __init__(self) -> None:
        self._adwin = ADWIN(delta=ADWIN_DELTA)
        self._page_hinkley = PageHinkley(
            min_instances=30,
            delta=PAGE_HINKLEY_SLACK,
            threshold=PAGE_HINKLEY_THRESHOLD,
            mode="up",
        )

    def update(self, loss: float) -> list[DriftAlarm]:
        """Take the next value; return the alarms that it raises, at most one per detector."""
        alarms = []
        before = self._adwin.estimation
        self._adwin.update(loss)
        # ADWIN also cuts its window when losses fall; only a rise is bad news.
        if self._adwin.drift_detected and self._adwin.estimation > before:
            alarms.append(DriftAlarm("ADWIN", before, self._adwin.estimation))
        self._page_hinkley.update(loss)
        if self._page_hinkley.drift_detected:
            alarms.append(DriftAlarm("Page-Hinkley", before, loss))
        return alarms
