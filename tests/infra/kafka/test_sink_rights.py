"""What a sink counts as its own, whoever wrote it, and what it may not write at all."""

import pytest

from infra.kafka.errors import HistoryGoneError
from infra.kafka.sink import KafkaSink, Target
from infra.kafka.tail import WrittenIds
from infra.lease import LeaseLostError
from schemas.batches import Outgoing
from schemas.codec import Origin
from schemas.operations import AlertRaised
from schemas.topics import full_name

pytestmark = pytest.mark.stack


def owns_all(_record):
    return True


def alerts(*numbers, kind="lag"):
    raised = [
        AlertRaised(id=f"a{number}", cause="c", kind=kind, resolved=False, event_time_ns=1, text="")
        for number in numbers
    ]
    return [[Outgoing(topic="ops.alerts", messages=raised)]]


@pytest.fixture
def open_sink(kafka, environment):
    opened = []

    def build(state=None, owns=None, **options):
        targets = [Target(topic="ops.alerts", owns=owns)]
        origin = Origin(config_hash="c0ffee", epoch=1)
        sink = KafkaSink(kafka, environment, origin, targets, **options)
        opened.append(sink.build_part("out", "out", state))
        return opened[-1]

    yield build
    for part in opened:
        part.close()


@pytest.fixture
def written(kafka, environment):
    """Return how many records the topic holds."""

    def count():
        ids, place = WrittenIds(), (full_name(environment, "ops.alerts"), 0)
        ids.add_tail(kafka, place, None, owns_all)
        return ids.ends[place]

    return count


def test_what_another_flow_wrote_of_ours_is_not_written_again(open_sink, written):
    first = open_sink(writer="trading/0-1")
    first.write_batch(alerts(1, 2))
    first.snapshot()
    split = open_sink(writer="features/0", owns=owns_all)
    assert split.awaited == 2
    split.write_batch(alerts(1, 2, 3))
    split.snapshot()
    assert written() == 3


def test_records_that_are_not_ours_neither_count_nor_hold_the_position_back(open_sink, written):
    first = open_sink(writer="portfolio/0")
    first.write_batch(alerts(1, kind="other") + alerts(2, kind="mine"))
    first.snapshot()
    mine = open_sink(writer="portfolio/0", owns=lambda record: record.key == b"mine")
    assert mine.awaited == 1
    mine.write_batch(alerts(2, kind="mine"))
    _, confirmed = mine.snapshot()
    assert list(confirmed.values()) == [2]
    assert written() == 2


def test_nothing_is_written_and_no_epoch_closes_without_the_lease(open_sink, written):
    held = [True]

    def check():
        if not held[0]:
            msg = "gone"
            raise LeaseLostError(msg)

    part = open_sink(check_lease=check)
    part.write_batch(alerts(1))
    part.snapshot()
    held[0] = False
    with pytest.raises(LeaseLostError):
        part.write_batch(alerts(2))
    with pytest.raises(LeaseLostError):
        part.snapshot()
    assert written() == 1


def test_a_rebuild_is_asked_about_only_where_there_is_something_to_rebuild(open_sink):
    asked = []
    first = open_sink(before_rebuild=lambda: asked.append("empty"))
    first.write_batch(alerts(1))
    state = first.snapshot()
    open_sink(state, before_rebuild=lambda: asked.append("resumed"))
    assert asked == []

    def refuse():
        msg = "gone"
        raise HistoryGoneError(msg)

    with pytest.raises(HistoryGoneError):
        open_sink(before_rebuild=refuse)
