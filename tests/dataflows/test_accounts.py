"""The account's step knows the commands it applied before, whichever source is read first."""

import pickle

import msgspec
import polars as pl

from dataflows.accounts import PUT_OFF_ROWS_MAX, AccountStep
from dataflows.lanes import LaneItem
from dataflows.log_sources import ControlsRead
from schemas.batches import AccountInput, Outgoing
from schemas.operations import ControlApplied
from schemas.trading import DecisionMade
from tests.operators.portfolio.market import (
    HOUR,
    RECORDED,
    SECOND,
    START,
    book_of,
    control,
    portfolio,
    signal,
    ticks_frame,
)

AT = START + HOUR


def step(known=(), state=None):
    return AccountStep(
        portfolio, lambda _resumed: None, book_of(), lambda _kind, _count: None, known, state
    )


def item(seconds):
    time_ns = AT + seconds * SECOND
    given = AccountInput(
        partition=0,
        ticks=ticks_frame([(time_ns - SECOND, 0, 10_000, 10**9, RECORDED)]),
        signals=[signal(time_ns)],
        tick_watermark_ns=time_ns,
        signal_watermark_ns=time_ns,
    )
    return LaneItem(partition=0, sequence=0, input=given, bars=None, outgoing=[])


def found(seconds, partition=0, rows=1):
    """Return an item with what its lane found."""
    late = Outgoing(topic="market.late", rows=pl.DataFrame({"id": ["late"] * rows}))
    given = item(seconds)
    given.input.partition = given.partition = partition
    given.outgoing = [late]
    return given


def topics(batches):
    return [outgoing.topic for records in batches for outgoing in records]


def two_lanes():
    return AccountStep(
        lambda: portfolio(partitions=(0, 1)),
        lambda _resumed: None,
        book_of(),
        lambda _kind, _count: None,
        (),
        None,
    )


def messages(kind, batches):
    return [
        message
        for outgoing in batches
        for records in outgoing
        for message in records.messages
        if isinstance(message, kind)
    ]


def test_a_command_alone_is_applied_before_any_tick_came():
    read = ControlsRead(controls=[control("halt")], dead_letters=[])
    (applied,) = messages(ControlApplied, step().on_batch([read]))
    assert applied.cause == "c1"


def test_a_replay_that_reads_the_ticks_first_halts_from_the_same_moment():
    halt = control("halt", AT + 5 * SECOND)
    resumed = step([halt], pickle.loads(pickle.dumps(step().snapshot())))
    decided = messages(DecisionMade, resumed.on_batch([item(4), item(6)]))
    assert [decision.denial for decision in decided] == ["", "HALTED"]
    late = ControlsRead(controls=[halt], dead_letters=[])
    assert resumed.on_batch([late]) == []


def test_a_command_that_the_snapshot_knows_already_counts_once():
    halt = control("halt", AT + 5 * SECOND)
    first = step([halt])
    first.on_batch([item(6)])
    resumed = step([halt], pickle.loads(pickle.dumps(first.snapshot())))
    decided = messages(DecisionMade, resumed.on_batch([item(8)]))
    assert [decision.denial for decision in decided] == ["HALTED"]


def test_a_command_that_came_while_the_account_was_down_counts_before_what_it_missed():
    resumed = step([control("halt")], pickle.loads(pickle.dumps(step().snapshot())))
    records = resumed.on_batch([item(4)])
    assert messages(ControlApplied, records)[0].cause == "c1"
    assert [decision.denial for decision in messages(DecisionMade, records)] == ["HALTED"]


def test_a_command_that_came_while_the_account_was_down_changes_nothing_that_is_written():
    written_ns = AT + 4 * SECOND
    halt = msgspec.structs.replace(control("halt"), not_before_ns=written_ns + 1)
    records = step([halt]).on_batch([item(4), item(6)])
    assert messages(ControlApplied, records)[0].event_time_ns == written_ns + 1
    assert [decision.denial for decision in messages(DecisionMade, records)] == ["", "HALTED"]


def test_what_one_lane_found_does_not_hold_up_the_decision_that_waits_for_the_other():
    account = two_lanes()
    assert account.on_batch([found(4)]) == []
    assert set(topics(account.on_batch([found(4, partition=1)]))) == {
        "trade.decisions",
        "trade.orders",
    }
    assert topics(account.settle()) == ["market.late"] * 2
    assert account.settle() == []


def test_what_was_put_off_survives_a_crash():
    first = step()
    first.on_batch([found(4)])
    resumed = step(state=pickle.loads(pickle.dumps(first.snapshot())))
    assert topics(resumed.settle()) == ["market.late"]


def test_history_is_written_at_once():
    account = step()
    assert "market.late" in topics(account.on_batch([found(4, rows=PUT_OFF_ROWS_MAX + 1)]))
    assert account.settle() == []


def test_what_is_put_off_call_by_call_does_not_grow_for_ever():
    account = step()
    assert topics(account.on_batch([found(4, rows=PUT_OFF_ROWS_MAX)])) == [
        "trade.decisions",
        "trade.orders",
    ]
    assert topics(account.on_batch([found(6)]))[-2:] == ["market.late"] * 2
    assert account.settle() == []


def test_a_resumed_account_stands_under_the_settings_of_now():
    adopted = []
    first = AccountStep(portfolio, adopted.append, book_of(), lambda _kind, _count: None, (), None)
    assert adopted == []

    AccountStep(
        portfolio, adopted.append, book_of(), lambda _kind, _count: None, (), first.snapshot()
    )
    assert len(adopted) == 1


def test_what_serves_is_written_before_what_was_decided_with_it():
    given, account = found(4), step()
    given.outgoing = [*given.outgoing, Outgoing(topic="model.events", flush=True)]
    assert topics(account.on_batch([given]))[:2] == ["model.events", "trade.decisions"]
    assert topics(account.settle()) == ["market.late"]
