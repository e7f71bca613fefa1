"""Who served and what each voter counted at a time, as `model.events` tells it."""

from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import NamedTuple

from schemas.models import VERSION_KINDS, ModelEventKind, ModelEventRecorded

_FLOOR = "floor:"
"""How the reason of a weight begins where no trade may rest on the voter."""

Owner = tuple[int, str]
"""Partition, and model or voter."""


class Version(NamedTuple):
    """What serves from a time on; both texts are empty where nothing does."""

    from_ns: int
    version: str
    content_hash: str


class Standing(NamedTuple):
    """What a voter counts from a time on."""

    from_ns: int
    weight: float
    on_floor: bool


class ModelHistory:
    """The events of all partitions, in the order of the log."""

    def __init__(self) -> None:
        self._versions: dict[Owner, list[Version]] = {}
        self._standings: dict[Owner, list[Standing]] = {}
        self._asked: tuple[object, ...] = ()
        self._found: list[Standing | None] = []

    def see(self, event: ModelEventRecorded) -> None:
        """Keep what changes a version or a weight; a refused version changes neither."""
        owner = (event.partition, event.model)
        if event.kind in VERSION_KINDS:
            serves = event.kind != ModelEventKind.RETIRED
            named = (event.version, event.content_hash) if serves else ("", "")
            span = Version(event.effective_from_ns, *named)
            insort(self._versions.setdefault(owner, []), span, key=lambda one: one.from_ns)
        elif event.kind is ModelEventKind.WEIGHTS and event.weight_effective is not None:
            on_floor = event.reason.startswith(_FLOOR)
            standing = Standing(event.effective_from_ns, event.weight_effective, on_floor)
            insort(self._standings.setdefault(owner, []), standing, key=lambda one: one.from_ns)

    def version(self, partition: int, model: str, time_ns: int) -> tuple[str, str]:
        """Return version and content hash that serve for a bar closing at `time_ns`."""
        spans = self._versions.get((partition, model), [])
        at = bisect_right(spans, time_ns, key=lambda one: one.from_ns)
        return (spans[at - 1].version, spans[at - 1].content_hash) if at else ("", "")

    def standings(
        self, partition: int, voters: Sequence[str], time_ns: int
    ) -> list[Standing | None]:
        """Return what each of `voters` counts for a bar closing at `time_ns`; None: never told."""
        key = (partition, time_ns, *voters)
        if key != self._asked:  # Bars of one close stand together, and share their weights.
            self._asked = key
            self._found = [self._standing((partition, one), time_ns) for one in voters]
        return self._found

    def _standing(self, owner: Owner, time_ns: int) -> Standing | None:
        told = self._standings.get(owner, [])
        at = bisect_right(told, time_ns, key=lambda one: one.from_ns)
        return told[at - 1] if at else None
