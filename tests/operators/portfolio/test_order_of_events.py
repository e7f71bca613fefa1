"""One order of events: no cut, interleaving or restart changes a record."""

import pickle
from decimal import Decimal

import numpy as np
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.batches import AccountInput
from schemas.settings import PaperSettings
from schemas.trading import OrderFilled, OrderUpdated, OutcomeClosed
from tests.operators.portfolio.audit import audit
from tests.operators.portfolio.market import (
    HOUR,
    RECONSTRUCTED,
    RECORDED,
    SECOND,
    START,
    book_of,
    control,
    of,
    portfolio,
    settings,
    signal,
    ticks_frame,
)

SYMBOLS = ("AAA", "BBB", "CCC")
PARTITION = {"AAA": 0, "BBB": 1, "CCC": 1}
BOOK = book_of(*SYMBOLS)
PAPER = PaperSettings(
    latency_ms=1_000, participation_max=Decimal("0.25"), order_lifetime_ms=600_000
)
CASH = Decimal(20_000)


def _ticks_of(chance, number, symbol, rows):
    count = int(chance.integers(20, 250))
    price, time_ns = 10_000, START
    for step in chance.normal(0, 120, count):
        price = max(2_000, price + int(step))
        # Several ticks may share a moment.
        time_ns += int(chance.choice([0, 1, 30, 200])) * SECOND
        size = int(chance.choice([3, 5_000, 20_000, 400_000]))
        code = int(chance.choice([RECONSTRUCTED, RECORDED]))
        if chance.random() < 0.1:
            quote = (time_ns, number, 0, 0, code, price - 3, price + 2)
            rows[PARTITION[symbol]].append(quote)
        rows[PARTITION[symbol]].append((time_ns, number, price, size, code))


def _signals_of(chance, symbol, signals):
    made = {}
    for _ in range(int(chance.integers(0, 20))):
        at = START + int(chance.integers(0, 40)) * 300 * SECOND
        action = str(chance.choice(["enter", "exit"]))
        close = int(chance.integers(9_500, 10_500)) / 100
        extras = {}
        if action == "enter":
            distance = int(chance.choice([1, 150, 900, 3_000])) / 100
            extras = {
                "stop_price": close - distance,
                "target_price": close + distance if chance.random() < 0.7 else None,
                "trail_distance": distance if chance.random() < 0.3 else None,
            }
        strategy = str(chance.choice(["one", "two"]))
        given_signal = signal(at, symbol, action, strategy, close=close, **extras)
        made[given_signal.id] = given_signal
    signals[PARTITION[symbol]].extend(made.values())


def market_of(seed):
    """Ticks by partition in log order, signals by partition, and commands."""
    chance = np.random.default_rng(seed)
    rows, signals = {0: [], 1: []}, {0: [], 1: []}
    for number, symbol in enumerate(SYMBOLS):
        _ticks_of(chance, number, symbol, rows)
        _signals_of(chance, symbol, signals)
    for ticks in rows.values():
        ticks.sort(key=lambda row: row[0])
    commands = []
    if chance.random() < 0.3:
        halt_ns = START + int(chance.integers(0, 60)) * 180 * SECOND
        commands = [control("halt", halt_ns, "h")]
        commands.append(control("resume", halt_ns + 3_600 * SECOND, "r"))
    return rows, signals, commands


def markets():
    """Random markets; a seed instead of drawn ticks, so that most of them really trade."""
    return st.integers(0, 2**32 - 1).map(market_of)


END = START + 60 * 1_000 * SECOND


def fresh():
    limits = settings(
        starting_cash_usd=CASH, position_notional_max_pct=Decimal(40), positions_max=4
    )
    return portfolio((0, 1), limits, PAPER)


def at_once(market):
    rows, signals, commands = market
    inputs = [
        AccountInput(
            partition=partition,
            ticks=ticks_frame(rows[partition]),
            signals=signals[partition],
            tick_watermark_ns=END,
            signal_watermark_ns=END,
            controls=commands if partition == 0 else [],
        )
        for partition in (0, 1)
    ]
    target = fresh()
    return target, target.advance(inputs, BOOK)


def _edges(data):
    cuts = sorted(data.draw(st.lists(st.integers(0, 20_000), max_size=6)))
    return [*[START + cut * SECOND for cut in cuts], END]


def pieces_of(market, data):
    """Cut ticks and signals of each partition apart at random, out of order within a piece."""
    rows, signals, commands = market
    queues = []
    for partition in (0, 1):
        ticks_queue, since = [], 0
        for edge in _edges(data):
            part = [row for row in rows[partition] if since <= row[0] < edge]
            if data.draw(st.booleans()):
                # Out of order within the lateness; equal times keep their log order.
                part.sort(key=lambda row: -row[0])
            frame = ticks_frame(part) if part else None
            ticks_queue.append(
                AccountInput(partition=partition, ticks=frame, tick_watermark_ns=edge)
            )
            since = edge
        signals_queue, since = [], 0
        for edge in _edges(data):
            part = [s for s in signals[partition] if since < s.event_time_ns <= edge]
            signals_queue.append(
                AccountInput(partition=partition, signals=part, signal_watermark_ns=edge)
            )
            since = edge
        queues += [ticks_queue, signals_queue]
    queues[0][0].controls = commands
    ordered = [queues[0].pop(0)]
    while left := [number for number, queue in enumerate(queues) if queue]:
        ordered.append(queues[data.draw(st.sampled_from(left))].pop(0))
    return ordered


@hypothesis_settings(max_examples=150, suppress_health_check=list(HealthCheck), database=None)
@given(market=markets(), data=st.data())
def test_every_cut_interleaving_and_restart_gives_the_same_records(market, data):
    _, expected = at_once(market)
    target, found = fresh(), []
    for piece in pieces_of(market, data):
        found += target.advance([piece], BOOK)
        if data.draw(st.integers(0, 3)) == 0:
            target = pickle.loads(pickle.dumps(target))
    assert found == expected


@hypothesis_settings(max_examples=150, suppress_health_check=list(HealthCheck), database=None)
@given(market=markets())
def test_every_history_keeps_the_invariants(market):
    target, records = at_once(market)
    cash, positions, net = audit(records, CASH, 1_000_000_000)
    ledger = target.state.ledger
    assert ledger.cash == cash
    assert {key: leg.quantity for key, leg in ledger.legs.items()} == positions
    assert ledger.realised == net + sum(leg.realised - leg.fees for leg in ledger.legs.values())
    by_asset = {}
    for (_, asset), amount in ledger.balances.items():
        by_asset[asset] = by_asset.get(asset, 0) + amount
    assert set(by_asset.values()) == {0}


def test_the_random_markets_reach_every_kind_of_end():
    records = [record for seed in range(40) for record in at_once(market_of(seed))[1]]
    reasons = {outcome.exit_reason for outcome in of(OutcomeClosed, records)}
    assert reasons == {"protective_stop", "target", "exit"}
    statuses = {(update.purpose, update.status) for update in of(OrderUpdated, records)}
    assert len(statuses) >= 16
    assert len(of(OrderFilled, records)) > 400


def test_nothing_is_decided_before_every_partition_has_passed_it():
    target = fresh()
    at = START + HOUR
    first = AccountInput(
        partition=0,
        ticks=ticks_frame(
            [(at - SECOND, 0, 10_000, 90_000, 2), (at + 2 * SECOND, 0, 10_000, 90_000, 2)]
        ),
        signals=[signal(at)],
        tick_watermark_ns=at + HOUR,
        signal_watermark_ns=at + HOUR,
    )
    assert target.advance([first], BOOK) == []
    lagging = AccountInput(partition=1, tick_watermark_ns=at - 1, signal_watermark_ns=at + HOUR)
    assert target.advance([lagging], BOOK) == []
    caught_up = AccountInput(partition=1, tick_watermark_ns=at + HOUR)
    assert len(of(OrderFilled, target.advance([caught_up], BOOK))) == 1


def test_no_tick_is_acted_on_while_an_earlier_signal_may_come():
    at = START + HOUR
    rows = [
        (at + n * SECOND, 0, price, 90_000, RECORDED) for n, price in ((-1, 10_000), (2, 9_990))
    ]
    target = portfolio(paper_settings=PAPER)
    ahead = AccountInput(
        partition=0, ticks=ticks_frame(rows), tick_watermark_ns=at + HOUR, signals=[signal(at)]
    )
    assert target.advance([ahead], BOOK) == []
    decided = target.advance([AccountInput(partition=0, signal_watermark_ns=at)], BOOK)
    assert of(OrderFilled, decided) == []
    waiting = AccountInput(partition=0, signal_watermark_ns=at + 2 * SECOND - 1)
    assert target.advance([waiting], BOOK) == []
    passed = AccountInput(partition=0, signal_watermark_ns=at + 2 * SECOND)
    assert len(of(OrderFilled, target.advance([passed], BOOK))) == 1
