"""Halt and resume count from one event time on, whoever replays them."""

import pickle

import pytest

from schemas.batches import ControlReceived
from schemas.operations import ControlApplied
from schemas.ticks import EVENT_TIME_MIN_NS
from schemas.trading import DecisionMade, OrderFilled, OrderStatus, OrderUpdated, OutcomeClosed
from tests.operators.portfolio.market import (
    HOUR,
    RECORDED,
    SECOND,
    START,
    book_of,
    command,
    control,
    feed,
    of,
    portfolio,
    signal,
)

AT = START + HOUR
PLENTY = 10**9


def tick(seconds, price=10_000, size=PLENTY, instrument=0):
    return (AT + seconds * SECOND, instrument, price, size, RECORDED)


def test_halt_denies_entries_and_resume_lets_them_pass():
    signals = [signal(AT + n * SECOND, strategy=f"s{n}") for n in (10, 20, 30)]
    controls = [control("halt", AT + 20 * SECOND, "a"), control("resume", AT + 30 * SECOND, "b")]
    records = feed(portfolio(), [tick(1), tick(40)], signals, controls=controls)
    assert [made.denial for made in of(DecisionMade, records)] == ["", "HALTED", ""]
    assert of(ControlApplied, records) == []


def test_halt_cancels_what_is_left_of_entries_and_keeps_protection_and_exits():
    leave = signal(AT + 30 * SECOND, action="exit")
    rows = [tick(1), tick(11, size=40_000), tick(25), tick(31)]
    controls = [control("halt", AT + 20 * SECOND)]
    records = feed(portfolio(), rows, [signal(AT + 10 * SECOND), leave], controls=controls)
    cancelled = [u for u in of(OrderUpdated, records) if u.status is OrderStatus.CANCELLED]
    assert (cancelled[0].purpose, cancelled[0].event_time_ns) == ("entry", AT + 20 * SECOND)
    assert [made.denial for made in of(DecisionMade, records)] == ["", ""]
    assert [fill.purpose for fill in of(OrderFilled, records)] == ["entry", "exit"]
    assert of(OutcomeClosed, records)[0].quantity == 40


def test_stop_fills_while_halted():
    rows = [tick(1), tick(11), tick(25, 9_000)]
    controls = [control("halt", AT + 20 * SECOND)]
    records = feed(portfolio(), rows, [signal(AT + 10 * SECOND)], controls=controls)
    assert of(OutcomeClosed, records)[0].exit_reason == "protective_stop"


def test_halt_without_a_time_counts_from_the_next_moment_and_is_announced_first():
    target = portfolio()
    feed(target, [tick(1)], [], through=AT + 5 * SECOND)
    signals = [signal(AT + 6 * SECOND)]
    records = feed(target, [tick(10)], signals, controls=[control("halt")])
    assert isinstance(records[0], ControlApplied)
    assert records[0].event_time_ns == AT + 5 * SECOND + 1
    assert records[0].cause == "c1"
    assert of(DecisionMade, records)[0].denial == "HALTED"


def test_replaying_the_announced_time_gives_the_same_records():
    rows, signals = [tick(1), tick(3)], [signal(AT + 2 * SECOND)]
    later = [signal(AT + n * SECOND, strategy=f"s{n}") for n in (5, 6)]
    live = portfolio()
    first = feed(live, rows, signals, through=AT + 4 * SECOND)
    second = feed(live, [tick(4), tick(9)], later, controls=[control("halt")])
    (applied,) = of(ControlApplied, second)
    given = ControlReceived(command=command("halt"), effective_ns=applied.event_time_ns)
    replayed = feed(portfolio(), [*rows, tick(4), tick(9)], [*signals, *later], controls=[given])
    assert replayed == first + second[1:]


def test_halt_before_any_data_counts_from_the_beginning():
    target = portfolio()
    records = feed(target, [tick(1)], [signal(AT + 2 * SECOND)], controls=[control("halt")])
    assert of(ControlApplied, records)[0].event_time_ns == EVENT_TIME_MIN_NS
    assert of(DecisionMade, records)[0].denial == "HALTED"


def test_halt_survives_a_restart():
    target = portfolio()
    feed(target, [tick(1)], [], through=AT + 2 * SECOND, controls=[control("halt")])
    target = pickle.loads(pickle.dumps(target))
    records = feed(target, [tick(3)], [signal(AT + 4 * SECOND)])
    assert of(DecisionMade, records)[0].denial == "HALTED"


def test_command_counts_once():
    target = portfolio()
    commands = [control("halt", identity="a"), control("halt", identity="a")]
    assert len(of(ControlApplied, feed(target, [tick(1)], [], controls=commands))) == 1
    again = feed(target, [tick(5)], [], controls=[control("halt", AT, identity="a")])
    assert of(ControlApplied, again) == []


def test_command_for_another_account_is_ignored():
    foreign = ControlReceived(command=command("halt", account="other"), effective_ns=None)
    records = feed(portfolio(), [tick(1)], [signal(AT + 2 * SECOND)], controls=[foreign])
    assert of(ControlApplied, records) == []
    assert of(DecisionMade, records)[0].denial == ""


def test_command_whose_time_has_passed_is_refused():
    target = portfolio()
    feed(target, [tick(1)], [])
    with pytest.raises(ValueError, match="command 'late' must be given before event time"):
        feed(target, [tick(9)], [], controls=[control("halt", AT, "late")], book=book_of())
