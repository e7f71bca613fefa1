"""Which partition of `market.ticks` an instrument belongs to."""

from functools import cache

from kafka.partitioner.default import murmur2


@cache
def partition_of(venue: str, symbol: str, partitions: int) -> int:
    """Return the partition of `venue:symbol`, as the default partitioner of Kafka's Java client.

    That is murmur2 of the UTF-8 key with the sign bit cleared, modulo the number of partitions.
    """
    return int((murmur2(f"{venue}:{symbol}".encode()) & 0x7FFFFFFF) % partitions)
