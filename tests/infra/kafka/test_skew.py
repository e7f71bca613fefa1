"""A partition that runs ahead waits, and somebody can always read."""

from hypothesis import given
from hypothesis import strategies as st

from infra.kafka.skew import SkewGate


def gate_of(*partitions, skew_ns=10):
    gate = SkewGate(skew_ns)
    for partition in partitions:
        gate.join(partition)
    return gate


def test_nobody_waits_at_the_start():
    gate = gate_of(0, 1)
    assert gate.may_read(0, at_end=False)
    assert gate.may_read(1, at_end=False)


def test_a_partition_waits_for_one_that_was_not_read_yet():
    gate = gate_of(0, 1)
    gate.report(0, 100)
    assert not gate.may_read(0, at_end=False)
    gate.report(1, 100)
    assert gate.may_read(0, at_end=False)


def test_the_lead_may_reach_the_skew_and_not_pass_it():
    gate = gate_of(0, 1)
    gate.report(0, 110)
    gate.report(1, 100)
    assert gate.may_read(0, at_end=False)
    gate.report(0, 111)
    assert not gate.may_read(0, at_end=False)
    assert gate.may_read(1, at_end=False)


def test_a_partition_at_its_end_holds_nobody_back():
    gate = gate_of(0, 1)
    gate.report(0, 1000)
    gate.report(1, 100)
    assert gate.may_read(1, at_end=True)
    assert gate.may_read(0, at_end=False)
    assert gate.may_read(1, at_end=False)
    assert not gate.may_read(0, at_end=False)


def test_a_partition_that_left_holds_nobody_back():
    gate = gate_of(0, 1)
    gate.report(0, 1000)
    gate.leave(1)
    assert gate.may_read(0, at_end=False)


def test_an_older_report_does_not_turn_the_clock_back():
    gate = gate_of(0, 1)
    gate.report(0, 100)
    gate.report(0, 50)
    gate.report(1, 111)
    assert not gate.may_read(1, at_end=False)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 1000), st.booleans()), min_size=1, max_size=50
    )
)
def test_whatever_happened_a_partition_with_records_left_may_read(events):
    gate = gate_of(0, 1, 2, 3)
    left = dict.fromkeys(range(4), True)
    for partition, event_time_ns, at_end in events:
        gate.report(partition, event_time_ns)
        gate.may_read(partition, at_end=at_end)
        left[partition] = not at_end
    waiting = [partition for partition, more in left.items() if more]
    assert not waiting or any(gate.may_read(partition, at_end=False) for partition in waiting)
