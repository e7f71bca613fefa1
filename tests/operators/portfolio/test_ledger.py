"""The ledger is exact: postings sum to zero and the fills alone rebuild it."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.portfolio.ledger import CURRENCY, Ledger, fee_of, notional_of
from schemas.fields import Side

KEY = ("rule", "spot", "AAA")
START_CASH = Decimal(1_000_000)
PLAYS = st.lists(
    st.tuples(
        st.booleans(),
        st.decimals("0.00000001", "50", places=8),
        st.decimals("0.00000001", "90000", places=8),
    ),
    min_size=1,
    max_size=30,
)


def book_all(plays):
    """Book what is possible of `plays`, sales at most the position; return ledger and fills."""
    ledger, fills = Ledger(START_CASH), []
    for buys, quantity, price in plays:
        leg = ledger.legs.get(KEY)
        held = leg.quantity if leg else Decimal(0)
        side = Side.BUY if buys or not held else Side.SELL
        size = quantity if side is Side.BUY else min(quantity, held)
        fee = fee_of(notional_of(side, size, price), Decimal("0.00075"))
        postings = ledger.post_fill(KEY, side, size, price, fee)
        by_asset = {}
        for _, asset, amount in postings:
            by_asset[asset] = by_asset.get(asset, Decimal(0)) + amount
        assert set(by_asset.values()) == {Decimal(0)}
        fills.append((side, size, price, fee))
    return ledger, fills


@given(PLAYS)
def test_fills_alone_rebuild_cash_and_position(plays):
    ledger, fills = book_all(plays)
    cash, held = START_CASH, Decimal(0)
    for side, quantity, price, fee in fills:
        sign = 1 if side is Side.BUY else -1
        cash -= sign * notional_of(side, quantity, price) + fee
        held += sign * quantity
    assert ledger.cash == cash
    assert ledger.legs[KEY].quantity == held
    assert ledger.balances["position/rule", "spot:AAA"] == held


@given(PLAYS)
def test_realised_profit_and_cost_explain_the_cash(plays):
    ledger, _ = book_all(plays)
    leg = ledger.legs[KEY]
    assert ledger.cash == START_CASH + leg.realised - leg.fees - leg.cost
    assert ledger.realised == leg.realised - leg.fees
    assert ledger.balances["inventory", CURRENCY] == leg.cost
    assert ledger.balances["realised", CURRENCY] == -leg.realised


@given(PLAYS)
def test_nothing_of_the_cost_is_left_when_the_leg_is_flat(plays):
    ledger, _ = book_all(plays)
    held = ledger.legs[KEY].quantity
    if held:
        ledger.post_fill(KEY, Side.SELL, held, Decimal(7), Decimal(0))
    closed = ledger.close_leg(KEY)
    assert closed.realised == closed.sold_notional - closed.bought_notional


def test_fee_is_rounded_up_to_eight_decimals():
    assert fee_of(Decimal("0.10001"), Decimal("0.00075")) == Decimal("0.00007501")
    assert fee_of(Decimal("0.1"), Decimal("0.001")) == Decimal("0.0001")


def test_notional_beyond_twelve_decimals_is_rounded_against_the_account():
    quantity, price = Decimal("0.00000001"), Decimal("0.00000003")
    assert notional_of(Side.BUY, quantity, price) == Decimal("1e-12")
    assert notional_of(Side.SELL, quantity, price) == 0


def test_selling_more_than_the_leg_holds_is_refused():
    ledger = Ledger(START_CASH)
    ledger.post_fill(KEY, Side.BUY, Decimal(1), Decimal(10), Decimal(0))
    with pytest.raises(AssertionError):
        ledger.post_fill(KEY, Side.SELL, Decimal("1.001"), Decimal(10), Decimal(0))
