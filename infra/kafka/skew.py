"""Hold back partitions that run ahead in event time, so that a merge over them stays small."""


class SkewGate:
    """Which partition of one process may read now; it throttles and never changes a value.

    A partition waits while its newest event time is more than `skew_ns` ahead of the slowest
    partition that still has records to read. The slowest one never waits, so nothing stalls. All
    partitions of one process share a gate and call it from one thread.
    """

    def __init__(self, skew_ns: int) -> None:
        """Allow a lead of `skew_ns` nanoseconds of event time."""
        self._skew_ns = skew_ns
        self._newest_ns: dict[int, int | None] = {}
        self._at_end: set[int] = set()

    def join(self, partition: int) -> None:
        """Take part; until its first report the partition counts as the slowest."""
        self._newest_ns.setdefault(partition, None)

    def leave(self, partition: int) -> None:
        """Stop taking part: the partition will not be read any more."""
        self._newest_ns.pop(partition, None)
        self._at_end.discard(partition)

    def report(self, partition: int, event_time_ns: int) -> None:
        """Note that `partition` was read up to `event_time_ns`."""
        newest_ns = self._newest_ns.get(partition)
        if newest_ns is None or event_time_ns > newest_ns:
            self._newest_ns[partition] = event_time_ns

    def may_read(self, partition: int, *, at_end: bool) -> bool:
        """Return whether `partition`, which has nothing left to read if `at_end`, may read."""
        if at_end:
            self._at_end.add(partition)
        else:
            self._at_end.discard(partition)
        newest_ns = self._newest_ns.get(partition)
        if newest_ns is None:
            return True
        for other, other_ns in self._newest_ns.items():
            if other == partition or other in self._at_end:
                continue
            if other_ns is None or newest_ns - other_ns > self._skew_ns:
                return False
        return True
