"""What an audit found: one result per check, with the first wrong rows in full."""

import time
from typing import NamedTuple

from msgspec import Struct

VIOLATIONS_SHOWN_MAX = 20
_TEXT_MAX = 400


class Place(NamedTuple):
    """Where a row stands in the log; offset -1 names a row that is in no log."""

    topic: str
    partition: int
    offset: int


class Violation(Struct, frozen=True, kw_only=True):
    """A row that breaks a rule."""

    rule: str
    topic: str
    partition: int
    offset: int
    key: str
    expected: str
    found: str


class CheckResult(Struct, frozen=True, kw_only=True):
    """What one check examined and found."""

    name: str
    invariants: str
    """Numbers of the reliability invariants that the check serves."""
    rows: int
    violations: int
    first: list[Violation]
    """At most `VIOLATIONS_SHOWN_MAX`, in the order in which they were found."""
    skipped: str
    """Why the check, or a part of it, could not be made; empty if it was made in full."""


class AuditReport(Struct, frozen=True, kw_only=True):
    """Every check of one environment."""

    environment: str
    checks: list[CheckResult]
    notes: list[str]
    seconds: float

    @property
    def clean(self) -> bool:
        """Whether no check found a violation."""
        return not any(check.violations for check in self.checks)

    @property
    def first(self) -> Violation | None:
        """The first wrong row, or None."""
        return next((found for check in self.checks for found in check.first), None)

    def check(self, name: str) -> CheckResult:
        """Return the result of the check `name`; raises KeyError if there is none."""
        for result in self.checks:
            if result.name == name:
                return result
        raise KeyError(name)


class Check:
    """Collects what one check examines and finds."""

    def __init__(self, name: str, invariants: str) -> None:
        self.name, self.invariants = name, invariants
        self.rows = 0
        self._violations = 0
        self._first: list[Violation] = []
        self._skipped: list[str] = []

    def violate(self, rule: str, place: Place, key: str, expected: object, found: object) -> None:
        """Record a row that breaks `rule`."""
        self._violations += 1
        if len(self._first) < VIOLATIONS_SHOWN_MAX:
            self._first.append(
                Violation(
                    rule=rule,
                    topic=place.topic,
                    partition=place.partition,
                    offset=place.offset,
                    key=key,
                    expected=_text(expected),
                    found=_text(found),
                )
            )

    def require(self, rule: str, place: Place, key: str, expected: object, found: object) -> None:
        """Record a violation unless `found` equals `expected`."""
        if found != expected:
            self.violate(rule, place, key, expected, found)

    def skip(self, reason: str) -> None:
        """Say what could not be checked."""
        if reason not in self._skipped:
            self._skipped.append(reason)

    def result(self) -> CheckResult:
        """Return what was found so far."""
        return CheckResult(
            name=self.name,
            invariants=self.invariants,
            rows=self.rows,
            violations=self._violations,
            first=list(self._first),
            skipped="; ".join(self._skipped),
        )


class Watch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start


def _text(value: object) -> str:
    text = str(value)
    return text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}…"
