"""The source resumes exactly, ends when told, commits what is durable, and never skips."""

import signal
import time

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, run_main

from infra.kafka.errors import OffsetGoneError, OffsetRegressionError, SnapshotVersionError
from infra.kafka.skew import SkewGate
from infra.kafka.source import KafkaSource, Reading
from infra.kafka.stop_flag import StopFlag

WAIT_SECONDS = 20.0


def values(_partition, records):
    return [record.value for record in records]


@pytest.fixture
def open_part(either, topic):
    """Build a partition of the source; closed at the end."""
    opened = []

    def build(state=None, partition=0, group_id=None, **reading):
        source = KafkaSource(
            either, topic, [0, 1], group_id, Reading(**{"decode": values} | reading)
        )
        opened.append(source.build_part("in", str(partition), state))
        return opened[-1]

    yield build
    for part in opened:
        part.close()


def drain(part, count):
    found, deadline = [], time.monotonic() + WAIT_SECONDS
    while len(found) < count and time.monotonic() < deadline:
        for name, batch in part.next_batch():
            assert name == "0"
            found += batch
        time.sleep(0.001)
    return found


def test_parts_are_the_partitions_that_the_process_owns(kafka):
    source = KafkaSource(kafka, "t", [3, 1, 3], None, Reading(decode=values))
    assert source.list_parts() == ["1", "3"]


def test_an_idle_source_returns_nothing_at_once(open_part):
    assert open_part().next_batch() == []


def test_records_written_while_idle_are_emitted(open_part, topic, write):
    part = open_part()
    assert part.next_batch() == []
    write(topic, [b"a", b"b"])
    assert drain(part, 2) == [b"a", b"b"]


def test_a_resumed_source_continues_behind_the_last_emitted_record(open_part, topic, write):
    write(topic, [b"%d" % i for i in range(50)])
    part = open_part(records_max=7)
    first = drain(part, 20)
    state = part.snapshot()
    second = drain(open_part(state), 50 - len(first))
    assert first + second == [b"%d" % i for i in range(50)]


def test_a_fetch_that_decodes_to_nothing_still_moves_on(open_part, topic, write):
    write(topic, [b"a"])
    part = open_part(decode=lambda partition, records: None)
    deadline = time.monotonic() + WAIT_SECONDS
    while part.snapshot()[1] < 1 and time.monotonic() < deadline:
        assert part.next_batch() == []
    assert part.snapshot() == (1, 1)


def test_the_group_moves_only_after_the_snapshot_is_durable(open_part, topic, write):
    committed = []
    write(topic, [b"a", b"b"])
    part = open_part(group_id=f"g-{topic}", on_commit=lambda *position: committed.append(position))
    drain(part, 2)
    assert committed == []
    part.snapshot()
    assert committed == []
    part.next_batch()
    assert committed == [(0, 2)]
    part.next_batch()
    part.snapshot()
    part.next_batch()
    assert committed == [(0, 2)]


def test_a_bounded_run_ends_exactly_at_its_bound(open_part, topic, write):
    write(topic, [b"%d" % i for i in range(20)])
    part = open_part(until={0: 13})
    assert drain(part, 13) == [b"%d" % i for i in range(13)]
    assert part.snapshot() == (1, 13)
    with pytest.raises(StopIteration):
        part.next_batch()


def test_a_bound_behind_the_end_waits_for_its_records(open_part, topic, write):
    write(topic, [b"a"])
    part = open_part(until={0: 2})
    assert drain(part, 1) == [b"a"]
    assert part.next_batch() == []
    write(topic, [b"b"])
    assert drain(part, 1) == [b"b"]
    with pytest.raises(StopIteration):
        part.next_batch()


def test_a_signal_ends_the_source(open_part, topic, write):
    stop = StopFlag()
    before = signal.getsignal(signal.SIGUSR1)
    stop.listen(signal.SIGUSR1)
    try:
        write(topic, [b"a"])
        part = open_part(stop=stop)
        assert drain(part, 1) == [b"a"]
        signal.raise_signal(signal.SIGUSR1)
        with pytest.raises(StopIteration):
            part.next_batch()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_partition_ahead_in_event_time_waits_for_the_other(open_part, topic, write):
    write(topic, [b"100", b"200"], partition=0)
    write(topic, [b"10", b"150"], partition=1)
    gate = SkewGate(50)
    shared = {"gate": gate, "event_time_of": lambda batch: int(batch[-1]), "records_max": 1}
    ahead = open_part(partition=0, **shared)
    behind = open_part(partition=1, **shared)
    assert drain(ahead, 1) == [b"100"]
    for _ in range(20):
        assert ahead.next_batch() == []
        time.sleep(0.005)
    read, deadline = [], time.monotonic() + WAIT_SECONDS
    while len(read) < 3 and time.monotonic() < deadline:
        read += [value for _, batch in behind.next_batch() + ahead.next_batch() for value in batch]
        time.sleep(0.001)
    assert read == [b"10", b"150", b"200"]


def test_a_resume_position_that_is_gone_is_an_error(open_part, topic, write, delete_before):
    write(topic, [b"%d" % i for i in range(10)])
    delete_before(topic, 0, 6)
    with pytest.raises(OffsetGoneError):
        open_part((1, 5))


def test_a_log_that_lost_its_tail_is_an_error(open_part, topic, write):
    write(topic, [b"a"])
    with pytest.raises(OffsetRegressionError):
        open_part((1, 2))


def test_state_of_another_layout_is_refused(open_part):
    with pytest.raises(SnapshotVersionError, match="must have version 1; found 2"):
        open_part((2, 0))


def test_a_dataflow_reads_every_partition_to_its_bound(either, topic, write):
    write(topic, [b"%d" % i for i in range(100)], partition=0)
    write(topic, [b"%d" % i for i in range(100, 150)], partition=1)
    reading = Reading(decode=values, until={0: 100, 1: 50}, records_max=9)
    out = []
    flow = Dataflow("read")
    op.output(
        "out",
        op.input("in", flow, KafkaSource(either, topic, [0, 1], None, reading)),
        TestingSink(out),
    )
    run_main(flow)
    for name, low, high in [("0", 0, 100), ("1", 100, 150)]:
        read = [int(value) for partition, batch in out if partition == name for value in batch]
        assert read == list(range(low, high))
