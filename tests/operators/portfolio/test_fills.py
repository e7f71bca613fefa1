"""How entries, stops, targets and exits fill on the paper venue."""

from decimal import Decimal

import pytest

from schemas.settings import PaperSettings
from schemas.trading import (
    DecisionMade,
    OrderFilled,
    OrderPurpose,
    OrderStatus,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
)
from tests.operators.portfolio.audit import audit
from tests.operators.portfolio.market import (
    HOUR,
    RECONSTRUCTED,
    RECORDED,
    SECOND,
    START,
    feed,
    of,
    paper,
    portfolio,
    signal,
)

AT = START + HOUR
PLENTY = 10**9
BEFORE = (AT - SECOND, 0, 10_000, PLENTY, RECORDED)


def tick(seconds, price, size=PLENTY, code=RECORDED):
    return (AT + int(seconds * SECOND), 0, price, size, code)


def play(*rows, signals=None, paper_settings=None, through=AT + 10 * HOUR, **extras):
    target = portfolio(paper_settings=paper_settings)
    given = [signal(AT, **extras)] if signals is None else signals
    records = feed(target, [BEFORE, *rows], given, through=through)
    audit(records, Decimal(100_000), 0)
    return records


def fills(records, purpose):
    return [fill for fill in of(OrderFilled, records) if fill.purpose is purpose]


def updates(records, purpose):
    return [update for update in of(OrderUpdated, records) if update.purpose is purpose]


ENTRY, STOP = OrderPurpose.ENTRY, OrderPurpose.PROTECTIVE_STOP
TARGET, EXIT = OrderPurpose.TARGET, OrderPurpose.EXIT


def test_entry_fills_only_after_the_latency():
    rows = [tick(0.1, 9_990), tick(0.25, 9_991), tick(0.250000001, 9_992)]
    records = play(*rows, paper_settings=paper(latency_ms=250))
    assert [fill.price for fill in fills(records, ENTRY)] == [Decimal("99.92")]


def test_entry_pays_the_configured_half_spread_rounded_against_it():
    records = play(tick(1, 10_001), paper_settings=paper(half_spread_bps=Decimal(1)))
    (fill,) = fills(records, ENTRY)
    assert (fill.tick_price, fill.price) == (Decimal("100.01"), Decimal("100.03"))
    assert fill.slippage_bps == pytest.approx(3.0)


def test_entry_pays_half_of_the_newest_quoted_spread():
    quotes = [
        (AT + SECOND, 0, 0, 0, RECORDED, 9_990, 9_999),
        (AT + 3 * SECOND, 0, 0, 0, 2, 1, 9_999),
    ]
    records = play(*quotes, tick(2, 10_000), paper_settings=paper(half_spread_bps=Decimal(50)))
    assert fills(records, ENTRY)[0].price == Decimal("100.05")


def test_entry_takes_its_share_of_each_tick_in_whole_lots():
    rows = [tick(1, 10_000, 10), tick(2, 10_000, 3), tick(3, 10_000, 40_001), tick(4, 10_000)]
    records = play(*rows, paper_settings=paper(participation_max=Decimal("0.25")))
    quantities = [fill.quantity for fill in fills(records, ENTRY)]
    assert quantities == [Decimal("0.002"), Decimal("10.000"), Decimal("89.998")]
    statuses = [update.status for update in updates(records, ENTRY)]
    assert statuses == [
        OrderStatus.SUBMITTED,
        OrderStatus.PARTIALLY_FILLED,
        OrderStatus.PARTIALLY_FILLED,
        OrderStatus.FILLED,
    ]


def test_what_is_left_of_an_entry_is_cancelled_after_its_lifetime():
    rows = [tick(59.9, 10_000, 1_000), tick(60, 10_000)]
    records = play(*rows, paper_settings=paper(order_lifetime_ms=60_000))
    assert [fill.quantity for fill in fills(records, ENTRY)] == [Decimal(1)]
    last = updates(records, ENTRY)[-1]
    assert (last.status, last.event_time_ns) == (OrderStatus.CANCELLED, AT + 60 * SECOND)
    assert of(PositionChanged, records)[-1].exposure == Decimal(100)


def test_stop_covers_every_partial_entry():
    records = play(tick(1, 10_000, 40_000), tick(2, 10_010, 30_000), tick(3, 10_020))
    stops = updates(records, STOP)
    assert [stop.quantity for stop in stops] == [Decimal(40), Decimal(70), Decimal(100)]
    assert [stop.status for stop in stops] == [OrderStatus.SUBMITTED, *[OrderStatus.AMENDED] * 2]
    assert {stop.stop_price for stop in stops} == {Decimal("95.00")}


def test_stop_fills_at_the_tick_after_a_gap_in_recorded_trades():
    records = play(tick(1, 10_000), tick(2, 9_300))
    assert [fill.price for fill in fills(records, STOP)] == [Decimal("93.00")]


def test_stop_fills_at_its_level_on_a_path_rebuilt_from_one_bar():
    rows = [tick(0, 10_000, code=RECONSTRUCTED), tick(75, 9_900, code=RECONSTRUCTED)]
    rows += [tick(150, 9_300, code=RECONSTRUCTED)]
    venue = paper(half_spread_bps=Decimal(2))
    records = play(*rows, paper_settings=venue)
    (fill,) = fills(records, STOP)
    assert (fill.price, fill.tick_price) == (Decimal("94.98"), Decimal("93.00"))


def test_stop_fills_at_the_open_after_a_gap_between_two_rebuilt_bars():
    rows = [tick(75, 10_000, code=RECONSTRUCTED), tick(225, 9_900, code=RECONSTRUCTED)]
    rows += [tick(300, 9_300, code=RECONSTRUCTED)]
    assert fills(play(*rows), STOP)[0].price == Decimal("93.00")


def test_stop_triggers_at_its_level_and_not_above_it():
    assert fills(play(tick(1, 10_000), tick(2, 9_501)), STOP) == []
    assert fills(play(tick(1, 10_000), tick(2, 9_500)), STOP)[0].price == Decimal(95)


def test_stop_ignores_ticks_of_the_moment_at_which_it_was_placed():
    records = play(tick(1, 10_000, 40_000), tick(1, 9_000, 10), tick(2, 10_000))
    assert fills(records, STOP) == []


def test_triggered_stop_goes_on_as_a_market_order_and_ends_the_entry():
    rows = [tick(1, 10_000, 50_000), tick(2, 9_400, 20_000), tick(3, 9_600)]
    records = play(*rows)
    assert [fill.price for fill in fills(records, STOP)] == [Decimal("94.00"), Decimal("96.00")]
    last = updates(records, ENTRY)[-1]
    assert (last.status, last.event_time_ns) == (OrderStatus.CANCELLED, AT + 2 * SECOND)
    assert of(OutcomeClosed, records)[0].quantity == Decimal(50)


def test_stop_that_triggers_on_a_tick_too_small_to_fill_ends_the_entry_at_once():
    rows = [tick(1, 10_000, 50_000), tick(2, 9_400, 1), tick(3, 9_600)]
    records = play(*rows, paper_settings=paper(participation_max=Decimal("0.5")))
    last = updates(records, ENTRY)[-1]
    assert (last.status, last.event_time_ns) == (OrderStatus.CANCELLED, AT + 2 * SECOND)
    assert [fill.price for fill in fills(records, STOP)] == [Decimal("96.00")]


def test_target_fills_only_when_a_trade_goes_through_it_and_pays_the_maker_fee():
    rows = [tick(1, 10_000), tick(2, 11_000), tick(3, 11_001)]
    venue = paper(half_spread_bps=Decimal(5))
    records = play(*rows, paper_settings=venue, target_price=110.0)
    (fill,) = fills(records, TARGET)
    assert (fill.price, fill.liquidity) == (Decimal("110.00"), "maker")
    assert fill.event_time_ns == AT + 3 * SECOND
    assert fill.slippage_bps == 0
    assert updates(records, STOP)[-1].status is OrderStatus.CANCELLED
    assert of(OutcomeClosed, records)[0].exit_reason == "target"


def test_tick_at_the_target_fills_the_entry_but_not_the_target():
    records = play(tick(1, 10_000, 40_000), tick(2, 11_000), target_price=110.0)
    assert len(fills(records, ENTRY)) == 2
    assert fills(records, TARGET) == []


def test_partly_filled_target_shrinks_the_stop():
    rows = [tick(1, 10_000), tick(2, 11_100, 30_000), tick(3, 9_000)]
    records = play(*rows, target_price=110.0)
    assert [fill.quantity for fill in fills(records, TARGET)] == [Decimal(30)]
    assert [fill.quantity for fill in fills(records, STOP)] == [Decimal(70)]
    amended = [update for update in updates(records, STOP) if update.status is OrderStatus.AMENDED]
    assert [update.quantity for update in amended] == [Decimal(70)]
    assert of(OutcomeClosed, records)[0].exit_fills == 2


def test_trailing_stop_follows_the_best_tick_and_never_loosens():
    prices = [10_000, 10_400, 10_200, 10_600, 10_301, 10_300]
    records = play(*[tick(1 + n, price) for n, price in enumerate(prices)], trail_distance=3.0)
    (fill,) = fills(records, STOP)
    assert (fill.event_time_ns, fill.price) == (AT + 6 * SECOND, Decimal("103.00"))
    assert [update.stop_price for update in updates(records, STOP)] == [
        Decimal("97.00"),
        Decimal("103.00"),
        Decimal("103.00"),
    ]


def test_trailing_stop_starts_no_lower_than_the_proposed_stop():
    records = play(tick(1, 10_000), tick(2, 9_499), trail_distance=8.0)
    assert updates(records, STOP)[0].stop_price == Decimal("95.00")
    assert len(fills(records, STOP)) == 1


def test_trail_is_recorded_at_the_hour_and_not_at_every_tick():
    rows = [tick(1 + n, 10_000 + 10 * n) for n in range(100)]
    records = play(*rows, trail_distance=3.0)
    amended = [update for update in updates(records, STOP) if update.status is OrderStatus.AMENDED]
    assert [(update.event_time_ns, update.stop_price) for update in amended] == [
        (AT + HOUR, Decimal("106.90"))
    ]


def test_exit_signal_sells_while_the_stop_stays_until_it_has_filled():
    leave = signal(AT + 100 * SECOND, action="exit")
    rows = [tick(1, 10_000), tick(99, 10_000), tick(100, 10_000), tick(101, 10_100, 60_000)]
    records = play(*rows, tick(102, 10_200), signals=[signal(AT), leave])
    assert [fill.price for fill in fills(records, EXIT)] == [Decimal("101.00"), Decimal("102.00")]
    stops = updates(records, STOP)
    assert [stop.status for stop in stops] == [
        OrderStatus.SUBMITTED,
        OrderStatus.AMENDED,
        OrderStatus.CANCELLED,
    ]
    assert stops[1].quantity == Decimal(40)
    (outcome,) = of(OutcomeClosed, records)
    assert outcome.exit_decision_id == of(DecisionMade, records)[1].id


def test_stop_that_triggers_while_an_exit_waits_sells_nothing_twice():
    leave = signal(AT + 100 * SECOND, action="exit")
    rows = [tick(1, 10_000), tick(101, 9_400, 60_000), tick(102, 9_300)]
    records = play(*rows, signals=[signal(AT), leave])
    sold = sum(fill.quantity for fill in [*fills(records, STOP), *fills(records, EXIT)])
    assert sold == Decimal(100)
    assert fills(records, EXIT)[0].quantity == Decimal(40)


def test_exit_without_a_position_is_denied():
    records = play(tick(1, 10_000), signals=[signal(AT, action="exit")])
    (decision,) = of(DecisionMade, records)
    assert (decision.verdict, decision.denial) == ("denied", "NO_POSITION")
    assert of(OrderUpdated, records) == []


def test_second_exit_is_denied_while_the_first_is_being_sold():
    leave = [signal(AT + n * SECOND, action="exit") for n in (100, 110)]
    records = play(tick(1, 10_000), tick(120, 10_000), signals=[signal(AT), *leave])
    assert [decision.denial for decision in of(DecisionMade, records)] == ["", "", "NO_POSITION"]
    assert len(fills(records, EXIT)) == 1


def test_exit_ends_an_entry_that_has_not_filled():
    leave = signal(AT + SECOND, action="exit")
    records = play(tick(2, 10_000), signals=[signal(AT), leave])
    assert of(OrderFilled, records) == []
    assert updates(records, ENTRY)[-1].status is OrderStatus.CANCELLED


@pytest.mark.parametrize("between", [(), (tick(1, 10_000),)])
def test_second_entry_is_denied_while_the_leg_is_pending_or_open(between):
    again = signal(AT + 5 * SECOND, id="again")
    records = play(*between, tick(6, 10_000), signals=[signal(AT), again])
    assert [decision.denial for decision in of(DecisionMade, records)] == ["", "POSITION_OPEN"]


def test_cash_that_the_price_ran_away_from_ends_the_entry():
    # Ten entries reserve all cash; the price then doubles before they fill.
    many = [signal(AT, strategy=f"s{n}", id=f"s{n}") for n in range(10)]
    records = play(tick(1, 20_000), tick(2, 20_000), signals=many)
    cancelled = [
        update for update in updates(records, ENTRY) if update.status is OrderStatus.CANCELLED
    ]
    assert cancelled
    assert all(update.reason.startswith("cash ") for update in cancelled)
    assert of(PositionChanged, records)[-1].cash >= 0


def test_provenance_is_the_worst_of_signal_and_tick():
    records = play(tick(1, 10_000, code=RECONSTRUCTED))
    assert fills(records, ENTRY)[0].provenance == "reconstructed"


def test_default_venue_settings_fill_too():
    records = play(tick(1, 10_000), tick(2, 10_000), paper_settings=PaperSettings())
    assert len(fills(records, ENTRY)) == 1
