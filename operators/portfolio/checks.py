"""Pre-trade checks of an entry: every one is measured and recorded, whatever the others say.

Each rule denies unless it can show that its value is known and within its limit.
"""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeGuard

from msgspec import Struct

from operators.portfolio.records import Verdicted
from operators.portfolio.rules import TradingRules
from operators.portfolio.sizing import UNKNOWN, Room, cut_to_room, risk_lots
from schemas.fields import Action, Provenance, Stance
from schemas.settings import PortfolioSettings, VoteSettings
from schemas.signals import SignalEmitted
from schemas.trading import CheckMeasured, CheckVerdict, DenialReason, Verdict

MILLISECOND_NS = 1_000_000
PRICE_MAX = 1e15
"""No price of any market; a larger one is a broken number."""
NO_MODELS = "no models"
"""Measured vote where the settings enable no model: there is nobody to ask."""
NO_OPINION = "no opinion"
"""Measured vote where models are enabled and none said anything that counts."""

Measure = tuple[str, str, bool]
"""Measured value, limit, and whether the value is known and within the limit."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EntryLimits(Struct, frozen=True, kw_only=True):
    """The account's limits in the units of the checks; the same for every strategy."""

    risk_per_trade_pct: Decimal
    position_notional_max_pct: Decimal
    gross_notional_max_pct: Decimal
    positions_max: int
    orders_per_minute_max: int
    daily_loss_max_pct: Decimal
    drawdown_max_pct: Decimal
    stale_after_ns: int
    trade_from_ns: int
    score_min: float
    opinion_required: bool
    """Whether an entry needs what a model thinks; never asked of a run without models."""
    models_enabled: bool
    provenances: frozenset[Provenance]
    provenances_text: str


class EntryFacts(Struct, frozen=True, kw_only=True):
    """What the account knows when a signal proposes an entry; None where it does not know."""

    signal: SignalEmitted
    rules: TradingRules | None
    halted: bool
    tick_age_ns: int | None
    """Age of the symbol's newest trade."""
    leg_state: str
    """`none`, `pending` or `open`: this strategy's leg in this symbol."""
    orders_in_last_minute: int
    """Orders sent in the last 60 s and this one."""
    positions: int
    """Open and pending legs and this one."""
    equity: Decimal
    day_start_equity: Decimal
    peak_equity: Decimal
    gross_usd: Decimal
    """Notional of open positions and pending orders."""
    cash_free_usd: Decimal
    """Cash that no pending order reserves."""
    reference: Decimal | None
    """The signal's close as an exact price."""
    unit_cost: Decimal | None
    """Cash that one unit of quantity is expected to cost, fee included."""


class Proposal(Struct, frozen=True, kw_only=True):
    """An entry with its prices as exact decimals; None where the signal's are unusable."""

    facts: EntryFacts
    limits: EntryLimits
    fault: str
    """What is wrong with the signal, empty if nothing."""
    stop: Decimal | None
    """The protective stop on the price grid."""
    distance: Decimal | None
    """From the reference down to the stop."""


def build_limits(
    portfolio: PortfolioSettings, vote: VoteSettings, *, models_enabled: bool
) -> EntryLimits:
    """Return the limits of the settings; `models_enabled` tells whether any model may vote.

    Raises:
        ValueError: `trade_from` is no ISO time.
    """
    return EntryLimits(
        risk_per_trade_pct=portfolio.risk_per_trade_pct,
        position_notional_max_pct=portfolio.position_notional_max_pct,
        gross_notional_max_pct=portfolio.gross_notional_max_pct,
        positions_max=portfolio.positions_max,
        orders_per_minute_max=portfolio.orders_per_minute_max,
        daily_loss_max_pct=portfolio.daily_loss_max_pct,
        drawdown_max_pct=portfolio.drawdown_max_pct,
        stale_after_ns=portfolio.stale_after_ms * MILLISECOND_NS,
        trade_from_ns=_iso_ns(portfolio.trade_from),
        score_min=vote.score_min,
        opinion_required=vote.opinion_required,
        models_enabled=models_enabled,
        provenances=frozenset(map(Provenance, portfolio.provenances)),
        provenances_text=" ".join(portfolio.provenances),
    )


def propose(facts: EntryFacts, limits: EntryLimits) -> Proposal:
    """Read a signal's prices; nothing of it is trusted to be a number."""
    signal, rules, reference = facts.signal, facts.rules, facts.reference
    stop = exact_price(signal.stop_price)
    distance = None
    if stop is not None and rules is not None:
        raw = stop
        stop = rules.price(rules.price_units_up(raw))
        if reference is not None:
            # A grid coarser than the distance is denied by TICK_SIZE, not hidden as unknown.
            distance = reference - (stop if stop < reference else raw)
    return Proposal(
        facts=facts,
        limits=limits,
        fault=_fault_of(signal, rules),
        stop=stop,
        distance=distance,
    )


def check_entry(facts: EntryFacts, limits: EntryLimits) -> Verdicted:
    """Run every check on a proposed entry and size it.

    The verdict is `denied` with the first failing check as its reason, `resized` if a cap cut the
    risk-based quantity, else `approved`.
    """
    proposal = propose(facts, limits)
    checks = [_check(name, *measure(proposal)) for name, measure in GATES]
    lots = wanted = _risk_lots(proposal)
    lot_size = facts.rules.lot_size if facts.rules is not None else Decimal(1)
    for name, room in zip(CAPS, _rooms(proposal), strict=True):
        lots, measured = cut_to_room(lots, lot_size, room, name)
        checks.append(measured)
    quantity = None if lots is None else lots * lot_size
    checks.extend(_check(name, *measure(proposal, quantity)) for name, measure in GRID)
    denied = next((check for check in checks if check.verdict is CheckVerdict.DENIED), None)
    if denied is not None or quantity is None:
        assert denied is not None
        text = f"{denied.reason}: measured {denied.measured}, limit {denied.limit}"
        return Verdicted(Verdict.DENIED, denied.reason, text, Decimal(0), checks)
    caps = [check.check for check in checks if check.verdict is CheckVerdict.RESIZED]
    verdict = Verdict.RESIZED if caps else Verdict.APPROVED
    text = _justify(proposal, quantity)
    if caps:
        text += f"; cut from {(wanted or 0) * lot_size:f} by {caps[-1]}"
    return Verdicted(verdict, "", text, quantity, checks)


def exact_price(value: object) -> Decimal | None:
    """Return a float's shortest decimal if it can be a price, else None."""
    return Decimal(repr(float(value))) if _is_price(value) else None


def _is_price(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # NaN compares false, so only a finite positive number passes.
    return 0 < value < PRICE_MAX


def _iso_ns(text: str) -> int:
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"`trade_from` must be an ISO time; found {text!r}; write it as 2024-06-01T00:00:00Z"
        raise ValueError(msg) from error
    span = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return (span.days * 86_400 + span.seconds) * 1_000_000_000 + span.microseconds * 1_000


def _justify(proposal: Proposal, quantity: Decimal) -> str:
    facts = proposal.facts
    return (
        f"buy {quantity:f} {facts.signal.symbol} near {proposal.facts.reference:f} with a stop at "
        f"{proposal.stop:f}, risking at most {proposal.limits.risk_per_trade_pct} % of equity "
        f"{facts.equity:f}"
    )


def _fault_of(signal: SignalEmitted, rules: TradingRules | None) -> str:
    if rules is None:
        return f"{signal.venue}:{signal.symbol} is not listed"
    close, score = signal.close, signal.score
    if not _is_price(close):
        return f"close {close!r} is no price"
    if not (isinstance(score, int | float) and -1 <= score <= 1):
        return f"score {score!r} is not between -1 and 1"
    if signal.action is not Action.ENTER or signal.stance is not Stance.BUY:
        return f"action {signal.action.value} with stance {signal.stance.value}"
    stop, target, trail = signal.stop_price, signal.target_price, signal.trail_distance
    if stop is not None and not (_is_price(stop) and stop < close):
        return f"stop {stop!r} is no price below the close {close!r}"
    if target is not None and not (_is_price(target) and target > close):
        return f"target {target!r} is no price above the close {close!r}"
    if trail is not None and not _is_price(trail):
        return f"trail distance {trail!r} is no distance"
    return ""


def _check(name: str, measured: str, limit: str, passed: bool) -> CheckMeasured:
    return CheckMeasured(
        check=name,
        measured=measured,
        limit=limit,
        verdict=CheckVerdict.PASSED if passed else CheckVerdict.DENIED,
        reason="" if passed else name,
    )


def _signal_schema(proposal: Proposal) -> Measure:
    fault = proposal.fault
    return (fault or "valid", "valid", not fault)


def _provenance(proposal: Proposal) -> Measure:
    found, allowed = proposal.facts.signal.provenance, proposal.limits.provenances
    passed = found is not Provenance.SYNTHETIC and found in allowed
    return (found.value, proposal.limits.provenances_text, passed)


def _warming_up(proposal: Proposal) -> Measure:
    time_ns, from_ns = proposal.facts.signal.event_time_ns, proposal.limits.trade_from_ns
    return (str(time_ns), str(from_ns), time_ns >= from_ns)


def _halted(proposal: Proposal) -> Measure:
    halted = proposal.facts.halted
    return ("halted" if halted else "running", "running", not halted)


def _stale(proposal: Proposal) -> Measure:
    age_ns, limit_ns = proposal.facts.tick_age_ns, proposal.limits.stale_after_ns
    passed = age_ns is not None and 0 <= age_ns <= limit_ns
    text = UNKNOWN if age_ns is None else str(age_ns)
    return (text, str(limit_ns), passed)


def _position_open(proposal: Proposal) -> Measure:
    state = proposal.facts.leg_state
    return (state, "none", state == "none")


def _vote_against(proposal: Proposal) -> Measure:
    signal, limits = proposal.facts.signal, proposal.limits
    score, limit = signal.score, limits.score_min
    known = isinstance(score, int | float) and math.isfinite(score)
    passed = known and score >= limit
    if signal.probability_buy is not None or not known:
        return (repr(float(score)) if known else UNKNOWN, repr(limit), passed)
    if not limits.models_enabled:
        return (NO_MODELS, repr(limit), passed)
    # The score of a silent vote is 0, which must not pass for a vote that is undecided.
    return (NO_OPINION, repr(limit), passed and not limits.opinion_required)


def _stop_missing(proposal: Proposal) -> Measure:
    stop = proposal.stop
    text = UNKNOWN if stop is None else f"{stop:f}"
    return (text, "a price", stop is not None)


def _order_rate(proposal: Proposal) -> Measure:
    sent, limit = proposal.facts.orders_in_last_minute, proposal.limits.orders_per_minute_max
    return (str(sent), str(limit), sent <= limit)


def _loss(start: Decimal, equity: Decimal, limit_pct: Decimal) -> Measure:
    if not (start.is_finite() and equity.is_finite() and start > 0):
        return (UNKNOWN, UNKNOWN, False)
    loss, limit = start - equity, start * limit_pct / 100
    return (f"{loss:f}", f"{limit:f}", loss <= limit)


def _daily_loss(proposal: Proposal) -> Measure:
    facts = proposal.facts
    limit_pct = proposal.limits.daily_loss_max_pct
    return _loss(facts.day_start_equity, facts.equity, limit_pct)


def _drawdown(proposal: Proposal) -> Measure:
    facts = proposal.facts
    limit_pct = proposal.limits.drawdown_max_pct
    return _loss(facts.peak_equity, facts.equity, limit_pct)


def _position_count(proposal: Proposal) -> Measure:
    count, limit = proposal.facts.positions, proposal.limits.positions_max
    return (str(count), str(limit), count <= limit)


def _risk_lots(proposal: Proposal) -> int | None:
    rules, distance, equity = proposal.facts.rules, proposal.distance, proposal.facts.equity
    if rules is None or distance is None or not equity.is_finite():
        return None
    return risk_lots(equity, proposal.limits.risk_per_trade_pct, distance, rules.lot_size)


def _rooms(proposal: Proposal) -> tuple[Room | None, Room | None, Room | None]:
    facts, limits, reference = proposal.facts, proposal.limits, proposal.facts.reference
    position = gross = cash = None
    if reference is not None:
        position_usd = facts.equity * limits.position_notional_max_pct / 100
        gross_usd = facts.equity * limits.gross_notional_max_pct / 100
        position = Room(Decimal(0), position_usd, reference)
        gross = Room(facts.gross_usd, gross_usd, reference)
    if facts.unit_cost is not None:
        cash = Room(Decimal(0), facts.cash_free_usd, facts.unit_cost)
    return position, gross, cash


def _lot_size(proposal: Proposal, quantity: Decimal | None) -> Measure:
    rules = proposal.facts.rules
    if rules is None or quantity is None:
        return (UNKNOWN, UNKNOWN, False)
    passed = quantity >= rules.lot_size
    return (f"{quantity:f}", f"{rules.lot_size:f}", passed)


def _tick_size(proposal: Proposal, quantity: Decimal | None) -> Measure:
    del quantity
    rules, stop, reference = proposal.facts.rules, proposal.stop, proposal.facts.reference
    if rules is None or stop is None or reference is None:
        return (UNKNOWN, UNKNOWN, False)
    passed = 0 < stop < reference and stop % rules.tick_size == 0
    limit = f"multiple of {rules.tick_size:f} below {reference:f}"
    return (f"{stop:f}", limit, passed)


def _notional_min(proposal: Proposal, quantity: Decimal | None) -> Measure:
    rules, reference = proposal.facts.rules, proposal.facts.reference
    if rules is None or quantity is None or reference is None:
        return (UNKNOWN, UNKNOWN, False)
    notional, limit = quantity * reference, rules.notional_min
    return (f"{notional:f}", f"{limit:f}", notional >= limit)


GATES: tuple[tuple[str, Callable[[Proposal], Measure]], ...] = (
    (DenialReason.SIGNAL_SCHEMA.value, _signal_schema),
    (DenialReason.PROVENANCE.value, _provenance),
    (DenialReason.WARMING_UP.value, _warming_up),
    (DenialReason.HALTED.value, _halted),
    (DenialReason.STALE.value, _stale),
    (DenialReason.POSITION_OPEN.value, _position_open),
    (DenialReason.VOTE_AGAINST.value, _vote_against),
    (DenialReason.STOP_MISSING.value, _stop_missing),
    (DenialReason.ORDER_RATE.value, _order_rate),
    (DenialReason.DAILY_LOSS.value, _daily_loss),
    (DenialReason.DRAWDOWN.value, _drawdown),
    (DenialReason.POSITION_COUNT.value, _position_count),
)
"""Checks that come before sizing."""

CAPS = (
    DenialReason.POSITION_NOTIONAL.value,
    DenialReason.GROSS_NOTIONAL.value,
    DenialReason.CASH.value,
)
"""Caps that cut the sized entry, in the order of `_rooms`."""

GRID: tuple[tuple[str, Callable[[Proposal, Decimal | None], Measure]], ...] = (
    (DenialReason.LOT_SIZE.value, _lot_size),
    (DenialReason.TICK_SIZE.value, _tick_size),
    (DenialReason.NOTIONAL_MIN.value, _notional_min),
)
"""Checks of the sized entry against the instrument's rules."""
