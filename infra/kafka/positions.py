"""Judge a resume position against what the log still holds; both clients share the rules."""

from infra.kafka.errors import (
    BrokerAwayError,
    OffsetGoneError,
    OffsetRegressionError,
    TopicMissingError,
)


def checked_start(topic: str, partition: int, offset: int | None, begin: int, end: int) -> int:
    """Return where reading starts; None means the earliest record.

    Raises:
        OffsetGoneError: `offset` is before `begin`.
        OffsetRegressionError: `offset` is past `end`.
    """
    if offset is None:
        return begin
    if offset < begin:
        raise offset_gone(topic, partition, offset, begin, end)
    if offset > end:
        msg = (
            f"partition {partition} of topic {topic!r} must reach the resume position {offset!r}; "
            f"found offsets {begin} to {end}, so acknowledged records were lost or the topic was "
            "made anew; halt, reconcile, and start in a new environment"
        )
        raise OffsetRegressionError(msg)
    return offset


def offset_gone(
    topic: str, partition: int, offset: int, begin: int | None = None, end: int | None = None
) -> OffsetGoneError:
    """Return the error for a position whose records were deleted."""
    span = "no such offset" if begin is None else f"offsets {begin} to {end}"
    msg = (
        f"partition {partition} of topic {topic!r} must still hold the position {offset!r}; "
        f"found {span}, so records were deleted before they were read; restore them or start in a "
        "new environment"
    )
    return OffsetGoneError(msg)


def topic_missing(topic: str, partition: int) -> TopicMissingError:
    """Return the error for a partition that does not exist."""
    msg = (
        f"partition {partition} of topic {topic!r} must exist; found none; "
        "start the stack to create the topics, with the same kafka.partitions"
    )
    return TopicMissingError(msg)


def broker_away(servers: str, deadline_seconds: float, found: object) -> BrokerAwayError:
    """Return the error for a broker that did not answer before the deadline."""
    msg = (
        f"broker at {servers!r} must answer within {deadline_seconds:g} s; found {str(found)!r}; "
        "start it or correct kafka.bootstrap"
    )
    return BrokerAwayError(msg)
