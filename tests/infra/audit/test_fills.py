"""What a fill must have cost: quoted and unquoted markets, stops on a path, targets."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from infra.audit.audit import Audit
from infra.audit.evidence import Evidence
from infra.audit.fills import FillAudit, is_one_path, worsened
from infra.audit.prices import Print, TradePrices
from infra.audit.report import Check, Place
from infra.audit.ticks import Tick
from operators.portfolio.paper_venue import PaperVenue
from schemas.fields import Provenance, Side
from schemas.market import InstrumentListed
from schemas.settings import PaperSettings
from schemas.ticks import KIND_QUOTE, KIND_TRADE, PROVENANCE_CODES
from schemas.trading import (
    DecisionMade,
    OrderFilled,
    OrderKind,
    OrderPurpose,
    OrderUpdated,
)
from tests.infra.audit.changes import changed, index_of
from tests.infra.audit.facts import CONFIG, SETTINGS, SYMBOL, VENUE, at
from tests.infra.audit.world import ListedLog, session

D = Decimal
MARKET = (VENUE, SYMBOL)
RECONSTRUCTED = PROVENANCE_CODES.index("reconstructed")
RECORDED = PROVENANCE_CODES.index("recorded")
QUARTER_S = 15
"""Trades of a rebuilt minute are this far apart."""

STOPS: dict = {"purpose": OrderPurpose.PROTECTIVE_STOP, "side": Side.SELL}


def trade(seconds, price, provenance=RECONSTRUCTED):
    return Tick(
        0, 0, 0, KIND_TRADE, at(seconds), MARKET, D(price), D(9), "", -1, D(0), D(0), provenance
    )


def quote(seconds, bid, ask):
    return Tick(
        0, 0, 0, KIND_QUOTE, at(seconds), MARKET, D(0), D(0), "", -1, D(bid), D(ask), RECORDED
    )


def told(ticks):
    prices = TradePrices()
    for tick in ticks:
        prices.add(tick)
    return prices


def costs(fill, order, prices):
    """Return the rules of price and fee that one fill of one order breaks."""
    return audit(fill, order, prices)[0]


def audit(fill, order, prices):
    """Return the rules that one fill breaks: of its costs, of its provenance."""
    evidence = Evidence(SETTINGS)
    records = session()
    for kind in (InstrumentListed, DecisionMade):
        message = records[index_of(records, kind)].message
        evidence.see(Place(kind.topic, 0, 0), message, CONFIG)
    evidence.see(Place("trade.orders", 0, 0), order, CONFIG)
    evidence.see(Place("trade.fills", 0, 0), fill, CONFIG)
    checks = Check("fill costs", ""), Check("provenance", "")
    FillAudit(*checks, evidence, prices).run()
    return [[each.rule for each in check.result().first] for check in checks]


def stopped(price, tick_price, seconds, level="95", **fields):
    """Return a stop at `level` from 61 s on, and its fill; fees and slippage as they must be."""
    records = session()
    order = records[index_of(records, OrderUpdated, purpose=OrderPurpose.PROTECTIVE_STOP)].message
    order = replace(order, stop_price=D(level))
    fill = replace(
        records[index_of(records, OrderFilled)].message,
        **STOPS,
        order_id=order.order_id,
        event_time_ns=at(seconds),
        price=D(price),
        tick_price=D(tick_price),
        fee=D(price) * 50 / 1000,
        slippage_bps=float((D(level) - D(price)) * 10_000 / D(level)),
        provenance=Provenance.RECONSTRUCTED,
        **fields,
    )
    return fill, order


PATH = [trade(120, "99"), trade(135, "97"), trade(150, "94"), trade(165, "96")]


def test_a_stop_within_a_rebuilt_bar_fills_from_its_level():
    assert costs(*stopped("94.99", "94", 150), told(PATH)) == []
    (rule,) = costs(*stopped("93.99", "94", 150), told(PATH))
    assert "the price follows" in rule


def test_a_stop_that_a_jump_triggers_fills_from_the_trade():
    jump = [trade(165, "99"), trade(180, "94")]
    assert costs(*stopped("93.99", "94", 180), told(jump)) == []
    (rule,) = costs(*stopped("94.99", "94", 180), told(jump))
    assert "the price follows" in rule


def test_a_stop_between_recorded_trades_fills_from_the_trade():
    recorded = [each._replace(provenance=RECORDED) for each in PATH]
    assert costs(*stopped("93.99", "94", 150), told(recorded)) == []
    assert costs(*stopped("94.99", "94", 150), told(recorded))


def test_a_stop_that_was_triggered_before_may_fill_from_the_trade():
    again = [trade(75, "94"), *PATH]
    assert costs(*stopped("93.99", "94", 150), told(again)) == []
    assert costs(*stopped("93.98", "94", 150), told(again))


def test_without_ticks_a_stop_fills_from_its_level_or_its_trade():
    assert costs(*stopped("94.99", "94", 150), None) == []
    assert costs(*stopped("93.99", "94", 150), None) == []
    assert costs(*stopped("94.5", "94", 150), None)


def test_a_target_fills_at_its_limit_once_a_trade_goes_through():
    fill, order = stopped("110", "111", 150)
    order = replace(
        order,
        kind=OrderKind.LIMIT,
        purpose=OrderPurpose.TARGET,
        stop_price=None,
        limit_price=D(110),
    )
    target = replace(fill, purpose=OrderPurpose.TARGET, liquidity="maker", slippage_bps=0.0)
    ticks = told([trade(150, "111"), trade(165, "110")])
    assert costs(target, order, ticks) == []
    assert "through its limit" in costs(replace(target, tick_price=D(110)), order, ticks)[0]
    better = replace(target, price=D(111), fee=D("5.55"), slippage_bps=-10_000 / 110)
    assert "the price follows" in costs(better, order, ticks)[0]


@pytest.mark.parametrize(
    ("ticks", "price"),
    [
        ([quote(90, "98.9", "99.1"), trade(135, "97"), trade(180, "94")], "93.9"),
        ([trade(180, "94"), quote(180, "90", "91")], "93.99"),
        ([quote(180, "93.95", "94"), trade(180, "94")], "93.97"),
        ([quote(60, "1", "2"), quote(90, "93.99", "94"), trade(180, "94")], "93.99"),
    ],
)
def test_a_taker_pays_half_of_the_newest_quoted_spread(ticks, price):
    assert costs(*stopped(price, "94", 180), told(ticks)) == []
    assert costs(*stopped(str(D(price) - D("0.01")), "94", 180), told(ticks))


def test_a_quoted_market_without_ticks_is_not_judged_and_said_so():
    records = session()
    log = ListedLog([each for each in records if each.topic != "market.ticks"])
    log.has_ticks = False
    report = Audit("t", log, None, SETTINGS).run()
    assert report.clean
    assert "quoted markets" in report.check("fill costs").skipped


def test_an_entry_of_a_kind_that_is_not_allowed_is_found():
    narrow = {"provenances": ("live",)}
    portfolio = SETTINGS.portfolio.model_copy(update=narrow)
    settings = SETTINGS.model_copy(update={"portfolio": portfolio})
    records = [each for each in changed(OrderFilled) if each.topic != "ops.settings"]
    check = Audit("t", ListedLog(records), None, settings).run().check("provenance")
    assert [(each.rule, each.offset) for each in check.first] == [
        ("only allowed provenances fill an entry", 0)
    ]


def test_a_fill_is_worth_no_more_than_its_trade():
    fill, order = stopped("93.99", "94", 180)
    recorded = replace(fill, provenance=Provenance.RECORDED)
    for origin, rules in ((RECORDED, 0), (RECONSTRUCTED, 1)):
        found = audit(recorded, order, told([trade(180, "94", origin)]))[1]
        assert len(found) == rules
        assert all("its decision and its trade" in rule for rule in found)


def test_late_ticks_stand_where_they_belong():
    ticks = [trade(120, "99"), trade(150, "94"), trade(135, "97"), quote(140, "90", "91")]
    prices = told([*ticks, quote(125, "80", "82")])
    ((before, found),) = prices.at(MARKET, at(150))
    assert (before.price, before.spread) == (D("97.0"), D(2))
    assert (found.price, found.spread) == (D("94.0"), D(1))
    assert prices.before(MARKET, at(150)) == D("97.0")
    assert prices.before(MARKET, at(120)) is None
    assert prices.lowest_between(MARKET, at(120), at(150)) == D("97.0")
    assert prices.lowest_between(MARKET, at(135), at(150)) is None


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ((0, RECONSTRUCTED), (15, RECONSTRUCTED), True),
        ((45, RECONSTRUCTED), (60, RECONSTRUCTED), False),
        ((0, RECORDED), (15, RECONSTRUCTED), False),
        ((0, RECONSTRUCTED), (7, RECONSTRUCTED), False),
    ],
)
def test_one_path_is_within_one_rebuilt_bar(first, second, same):
    # Times within the first minute of a day, so that longer bars would hold them as well.
    minute = at(0) - at(0) % 86_400_000_000_000 + 86_400_000_000_000 - 60_000_000_000
    earlier, later = (
        Print(minute + seconds * 1_000_000_000, D(1), D(1), provenance, None)
        for seconds, provenance in (first, second)
    )
    assert is_one_path(earlier, later) is same


@given(
    side=st.sampled_from(Side),
    units=st.integers(1, 10**9),
    spread=st.none() | st.integers(0, 10**4),
    half_spread=st.decimals(0, 50, places=2),
    decimals=st.integers(0, 8),
)
def test_the_price_of_the_auditor_is_that_of_the_venue(side, units, spread, half_spread, decimals):
    paper = PaperSettings(half_spread_bps=half_spread)
    told_spread = None if spread is None else D(spread).scaleb(-decimals)
    found = worsened(side, D(units).scaleb(-decimals), told_spread, paper, decimals)
    venue = PaperVenue(paper).worsened(side, units, -1 if spread is None else spread)
    assert found == D(venue).scaleb(-decimals)
