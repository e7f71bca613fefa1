"""Rate, caps, marks, day start and outcomes over whole histories."""

import pickle
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from operators.portfolio.rules import build_rules
from schemas.batches import AccountInput
from schemas.instruments import InstrumentBook
from schemas.trading import (
    DecisionMade,
    OrderFilled,
    OrderPurpose,
    OrderStatus,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
)
from tests.operators.portfolio.audit import audit, key_of
from tests.operators.portfolio.market import (
    DAY,
    HOUR,
    RECORDED,
    SECOND,
    START,
    book_of,
    feed,
    listing,
    of,
    paper,
    portfolio,
    settings,
    signal,
    ticks_frame,
)
from tests.operators.portfolio.test_order_of_events import CASH, at_once, markets

AT = START + HOUR
PLENTY = 10**9


def tick(seconds, price=10_000, size=PLENTY, instrument=0):
    return (AT + seconds * SECOND, instrument, price, size, RECORDED)


def marks(records):
    return [record for record in of(PositionChanged, records) if not record.strategy]


@pytest.mark.acceptance("S-200", criterion="500 orders in 2 minutes are stopped at the cap")
def test_a_runaway_strategy_is_stopped_at_the_order_rate(measured):
    limits = settings(
        positions_max=1_000, orders_per_minute_max=60, position_notional_max_pct=Decimal("0.1")
    )
    step = 120 * SECOND // 500
    signals = [signal(AT + n * step, strategy=f"s{n}") for n in range(500)]
    records = feed(
        portfolio(portfolio_settings=limits), [tick(-1)], signals, through=AT + 10 * HOUR
    )
    sent = [u.event_time_ns for u in of(OrderUpdated, records) if u.sequence == 0]
    densest = max(sum(at - 60 * SECOND < other <= at for other in sent) for at in sent)
    denials = [made.denial for made in of(DecisionMade, records)]
    assert densest == 60
    assert denials[60] == "ORDER_RATE"
    measured(f"{len(sent)} of 500 orders sent, at most {densest} in any 60 s")
    assert len(sent) == 120


def test_protective_orders_count_towards_the_rate():
    limits = settings(orders_per_minute_max=3)
    signals = [signal(AT), signal(AT + 2 * SECOND, strategy="b")]
    rows = [tick(-1), tick(1), tick(9)]
    target = portfolio(portfolio_settings=limits)
    first = signal(AT, target_price=110.0)
    records = feed(target, rows, [first, signals[1]])
    assert [made.denial for made in of(DecisionMade, records)] == ["", "ORDER_RATE"]


@pytest.mark.acceptance("S-111", criterion="one outcome per closed leg, from fills alone")
@hypothesis_settings(max_examples=60, suppress_health_check=list(HealthCheck), database=None)
@given(market=markets())
def test_outcomes_are_the_closed_legs_and_their_fills(market):
    _, records = at_once(market)
    held, closed, rounds = {}, [], {}
    for fill in of(OrderFilled, records):
        key = key_of(fill)
        sign = 1 if fill.purpose is OrderPurpose.ENTRY else -1
        held[key] = held.get(key, Decimal(0)) + sign * fill.quantity
        rounds.setdefault(key, []).append((sign, fill))
        if not held[key]:
            closed.append((fill.id, rounds.pop(key)))
    outcomes = of(OutcomeClosed, records)
    assert [outcome.cause for outcome in outcomes] == [identity for identity, _ in closed]
    for outcome, (_, fills) in zip(outcomes, closed, strict=True):
        paid = sum(sign * fill.quantity * fill.price + fill.fee for sign, fill in fills)
        assert outcome.net_pnl == -paid
        assert outcome.entry_fills + outcome.exit_fills == len(fills)


@hypothesis_settings(max_examples=100, suppress_health_check=list(HealthCheck), database=None)
@given(market=markets())
@pytest.mark.acceptance("S-177", criterion="no prefix of a history exceeds a cap when it sends")
def test_no_prefix_exceeds_a_cap_when_an_entry_is_sent(market):
    """Counts pending orders in full and open positions at the last recorded exposure."""
    _, records = at_once(market)
    pending, references, live = {}, {}, set()
    for record in records:
        if isinstance(record, DecisionMade):
            references[record.id] = record
            if record.verdict != "denied" and record.action == "enter":
                gross = sum(
                    left * references[made].reference_price for made, left in pending.items()
                )
                by_check = {check.check: check for check in record.checks}
                notional = record.quantity * record.reference_price
                assert notional <= record.equity * 40 / 100
                exposure = record.equity - _cash_at(records, record)
                assert exposure + gross + notional <= record.equity
                assert len(live) + 1 <= 4
                assert int(by_check["POSITION_COUNT"].measured) == len(live) + 1
        elif isinstance(record, OrderUpdated) and record.purpose is OrderPurpose.ENTRY:
            done = record.status in {OrderStatus.FILLED, OrderStatus.CANCELLED}
            pending[record.decision_id] = record.quantity - record.filled_quantity
            live.add(key_of(record))
            if done:
                del pending[record.decision_id]
                if not record.filled_quantity:
                    live.discard(key_of(record))
        elif isinstance(record, OutcomeClosed):
            live.discard(key_of(record))


def _cash_at(records, decision):
    cash = CASH
    for record in records:
        if record is decision:
            return cash
        if isinstance(record, PositionChanged):
            cash = record.cash
    return cash


@pytest.mark.acceptance("S-177", criterion="pending orders count towards every cap")
@pytest.mark.parametrize(
    ("cap", "limits", "allowed_usd"),
    [
        ("GROSS_NOTIONAL", {"gross_notional_max_pct": Decimal(15)}, Decimal(5_000)),
        ("CASH", {"position_notional_max_pct": Decimal(60)}, Decimal("39900.0")),
    ],
)
def test_pending_orders_take_up_a_cap(cap, limits, allowed_usd, measured):
    signals = [signal(AT, strategy=name, stop_price=99.0) for name in ("a", "b")]
    records = feed(portfolio(portfolio_settings=settings(**limits)), [tick(-1)], signals)
    first, second = of(DecisionMade, records)
    assert second.verdict == "resized"
    assert second.justification.endswith(cap)
    assert second.quantity * 100 == pytest.approx(allowed_usd, rel=Decimal("0.001"))
    measured(f"{cap}: {first.quantity} pending leaves {second.quantity}")


def test_mark_comes_at_each_full_hour_that_follows_a_trade():
    rows = [(START + n * HOUR + SECOND, 0, 10_000, 1, RECORDED) for n in (0, 1, 5)]
    records = feed(portfolio(), rows, [], through=START + 2 * DAY)
    assert [mark.event_time_ns for mark in marks(records)] == [START + n * HOUR for n in (1, 2, 6)]
    assert {mark.cause.split("/")[0] for mark in marks(records)} == {"mark"}


def test_marks_keep_the_peak_and_the_drawdown():
    rows = [tick(-1), tick(1), tick(3_000, 12_000), tick(4_000, 10_000)]
    records = feed(portfolio(), rows, [signal(AT)], through=AT + 3 * HOUR)
    _, high, low = marks(records)
    assert high.equity > Decimal(100_000)
    assert low.peak_equity == high.equity
    assert low.drawdown_pct == pytest.approx(float((high.equity - low.equity) * 100 / high.equity))


def test_day_starts_with_the_equity_at_midnight():
    held = [tick(-1), tick(1), (START + DAY - SECOND, 0, 12_000, 1, RECORDED)]
    rows = [*held, (START + DAY + SECOND, 0, 9_600, 1, RECORDED)]
    at_midnight = Decimal(100_000) - 10 + 2_000
    target = portfolio()
    late = signal(START + DAY + 2 * SECOND, strategy="b", close=96.0, stop_price=90.0)
    records = feed(target, rows, [signal(AT), late], through=START + DAY + HOUR)
    checks = {check.check: check for check in of(DecisionMade, records)[1].checks}
    assert target.state.day_start_equity == at_midnight
    assert Decimal(checks["DAILY_LOSS"].measured) == Decimal(2_400)
    assert Decimal(checks["DAILY_LOSS"].limit) == at_midnight * 5 / 100


def test_a_loss_beyond_the_daily_limit_stops_entries_until_the_next_day():
    limits = settings(daily_loss_max_pct=Decimal("0.4"))
    rows = [tick(-1), tick(1), tick(10, 9_500), tick(11, 9_500)]
    rows.append((START + DAY + SECOND, 0, 9_500, PLENTY, RECORDED))
    rows.append((START + DAY + 9 * SECOND, 0, 9_500, PLENTY, RECORDED))
    next_day = START + DAY + 5 * SECOND
    signals = [signal(AT)] + [
        signal(at, strategy="b", close=95.0, stop_price=90.0) for at in (AT + 20 * SECOND, next_day)
    ]
    records = feed(portfolio(portfolio_settings=limits), rows, signals)
    assert [made.denial for made in of(DecisionMade, records)] == ["", "DAILY_LOSS", ""]


def test_equity_is_start_plus_outcomes_plus_what_is_open():
    rows = [tick(-1), tick(1), tick(2, 9_400), tick(4, 10_000), tick(5, 10_300)]
    again = signal(AT + 3 * SECOND, id="again")
    target = portfolio()
    records = feed(target, rows, [signal(AT), again], through=AT + 2 * HOUR)
    audit(records, Decimal(100_000), 0)
    (outcome,) = of(OutcomeClosed, records)
    (leg,) = target.state.ledger.legs.values()
    unrealised = leg.quantity * Decimal("103.00") - leg.cost
    expected = Decimal(100_000) + outcome.net_pnl + leg.realised - leg.fees + unrealised
    assert marks(records)[-1].equity == expected


def test_stale_symbol_is_not_entered():
    records = feed(portfolio(), [tick(-901), tick(5)], [signal(AT)])
    assert of(DecisionMade, records)[0].denial == "STALE"


def test_a_tick_at_the_decision_time_is_not_known_yet():
    records = feed(portfolio(), [tick(-900), tick(0, 10), tick(5)], [signal(AT)])
    checks = {check.check: check for check in of(DecisionMade, records)[0].checks}
    assert checks["STALE"].measured == str(900 * SECOND)


def test_tick_before_the_watermark_is_refused():
    target = portfolio()
    feed(target, [tick(1)], [], through=AT + 9 * SECOND)
    with pytest.raises(ValueError, match="ticks must not be earlier than the watermark"):
        feed(target, [tick(2)], [])


def test_signal_before_the_watermark_is_refused():
    target = portfolio()
    feed(target, [tick(1)], [], through=AT + 9 * SECOND)
    with pytest.raises(ValueError, match="must be later than the watermark"):
        feed(target, [], [signal(AT + 9 * SECOND)])


def test_partition_of_another_account_is_refused():
    with pytest.raises(ValueError, match="input of partition 7 must belong"):
        portfolio().advance([AccountInput(partition=7)], book_of())


def test_changed_decimals_are_refused():
    target = portfolio()
    feed(target, [tick(1)], [])
    changed = listing(price_decimals=3, valid_from_ns=START + DAY)
    with pytest.raises(ValueError, match="must keep its decimals"):
        feed(target, [tick(9)], [], book=InstrumentBook([changed]))


def test_new_fees_count_from_their_own_time():
    target = portfolio(paper_settings=paper())
    first = feed(target, [tick(-1), tick(1)], [signal(AT)], through=AT + 10 * SECOND)
    dearer = InstrumentBook([listing(valid_from_ns=AT + 15 * SECOND, taker_fee_bps=20.0)])
    later = [signal(AT + n * SECOND, strategy=f"s{n}") for n in (12, 20)]
    second = feed(target, [tick(13), tick(21)], later, book=dearer)
    fees = [fill.fee for fill in of(OrderFilled, first + second)]
    assert fees == [Decimal(10), Decimal("9.999"), Decimal("19.996")]


def test_idle_symbols_keep_only_what_is_still_to_come():
    target = portfolio()
    for hour in range(40):
        start = START + hour * HOUR
        rows = [(start + n * SECOND, 0, 10_000, 1, RECORDED) for n in range(1_000)]
        given = AccountInput(
            partition=0,
            ticks=ticks_frame(rows),
            tick_watermark_ns=start + 990 * SECOND,
            signal_watermark_ns=start + 990 * SECOND,
        )
        target.advance([given], book_of())
    (tape,) = target.state.timeline.tapes.values()
    assert tape.rows <= 9_300
    restored = pickle.loads(pickle.dumps(target))
    assert [tape.rows for tape in restored.state.timeline.tapes.values()] == [10]


def test_two_legs_that_fill_on_one_tick_are_each_recorded_with_their_own_worth():
    account = portfolio()
    records = feed(account, [tick(-1)], [signal(AT, strategy=name) for name in ("one", "two")])
    records += feed(account, [tick(1)])
    first, second = (record for record in of(PositionChanged, records) if record.strategy)
    worth = first.quantity * Decimal(100)
    assert (first.exposure, second.exposure) == (worth, 2 * worth)


def test_worth_is_rounded_down_beyond_the_decimals_that_are_stored():
    fine = build_rules(listing(price_decimals=8, size_decimals=6, lot_size=Decimal("0.000001")))
    assert fine.worth(1_000_199, 1) == (12, 10_001)
    coarse = build_rules(listing())
    assert coarse.worth(7, 11) == (5, 77)
