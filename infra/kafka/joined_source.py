"""Several sources as one input of a flow, so that all of their partitions change epoch together."""

from collections.abc import Mapping
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

Tagged = tuple[str, tuple[str, Any]]
"""Name of the source, and what it read: partition and item."""


class JoinedSource(FixedPartitionedSource[Tagged, Any]):
    """The partitions of every source of `sources`, each read exactly as its own source reads it.

    A partition whose epoch has ended is not read before every other partition's has ended too. Each
    input of a flow counts its epochs from its own start, so with two inputs the one whose epoch
    ends first waits, without rest, for as long as the other is behind: up to a whole epoch, every
    epoch. Within one input all partitions count from the same moment.
    """

    def __init__(self, sources: Mapping[str, FixedPartitionedSource[tuple[str, Any], Any]]) -> None:
        """Join `sources`, by the names that their items will carry."""
        self._sources = dict(sources)

    def list_parts(self) -> list[str]:
        """Return `name/partition` of every partition."""
        return [
            f"{name}/{part}"
            for name, source in self._sources.items()
            for part in source.list_parts()
        ]

    def build_part(
        self, step_id: str, for_part: str, resume_state: Any | None
    ) -> "JoinedSourcePartition":
        """Open a partition as its own source does, with the same errors."""
        name, part = for_part.split("/", 1)
        return JoinedSourcePartition(
            name, self._sources[name].build_part(step_id, part, resume_state)
        )


class JoinedSourcePartition(StatefulSourcePartition[Tagged, Any]):
    """One partition of one of the sources; what it reads carries the source's name."""

    def __init__(self, name: str, partition: StatefulSourcePartition[tuple[str, Any], Any]) -> None:
        """Read `partition` for the source called `name`."""
        self._name, self._partition = name, partition

    def next_batch(self) -> list[Tagged]:
        """Return what the partition has read, named."""
        return [(self._name, item) for item in self._partition.next_batch()]

    def next_awake(self) -> Any:
        """Return when the partition wants to be asked again."""
        return self._partition.next_awake()

    def snapshot(self) -> Any:
        """Return the partition's position."""
        return self._partition.snapshot()

    def close(self) -> None:
        """Close the partition."""
        self._partition.close()
