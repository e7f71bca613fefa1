"""One wrong fact at a time: how to make it, and the row that an audit must name."""

from decimal import Decimal

from msgspec.structs import replace

from schemas.fields import Provenance
from schemas.market import BarClosed, FeaturesComputed, TickLate
from schemas.models import ContextObserved
from schemas.operations import ControlApplied, ControlCommanded, DeadLetterRecorded
from schemas.signals import SignalEmitted
from schemas.trading import (
    DecisionMade,
    OrderFilled,
    OrderPurpose,
    OrderStatus,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
    Verdict,
)
from tests.infra.audit.changes import (
    changed,
    index_of,
    revalued,
    revoted,
    synthetic,
    without,
    without_all,
)
from tests.infra.audit.facts import at, tick_line, tick_record
from tests.infra.audit.opinion_mutations import OPINION_MUTATIONS
from tests.infra.audit.world import session

MUTATIONS = {
    "a bar is missing": (
        lambda: without(BarClosed, 1),
        ("bars", "the ticks make this bar", "market.bars", -1, "/1m/"),
    ),
    "a bar has another close": (
        lambda: changed(BarClosed, 1, close=99.51),
        ("bars", "close of the bar", "market.bars", 1, "/1m/"),
    ),
    "a bar forgets its duplicate": (
        lambda: changed(BarClosed, 0, duplicates=0),
        ("bars", "duplicates of the bar", "market.bars", 0, "/1m/"),
    ),
    "a bar has another spread": (
        lambda: changed(BarClosed, 0, spread_bps_mean=1.98021),
        ("bars", "spread_bps_mean of the bar", "market.bars", 0, ""),
    ),
    "a late tick is not recorded": (
        lambda: without(TickLate),
        ("late ticks", "behind the watermark", "market.late", -1, "tick/0/3/0"),
    ),
    "a late tick is less late": (
        lambda: changed(TickLate, late_by_ns=1),
        ("late ticks", "behind the watermark", "market.late", 0, "tick/0/3/0"),
    ),
    "a broken line has no dead letter": (
        lambda: without(DeadLetterRecorded, line=0),
        ("conservation", "a line that is no tick", "market.ticks", 1, "0/1/0"),
    ),
    "an empty record has no dead letter": (
        lambda: without(DeadLetterRecorded, line=-1),
        ("conservation", "a record that cannot be read", "market.ticks", 4, "0/4/-1"),
    ),
    "a dead letter has other bytes": (
        lambda: changed(DeadLetterRecorded, payload_sha256="0" * 64),
        ("conservation", "exact bytes", "market.ticks", 1, "0/1/0"),
    ),
    "a dead letter names no line": (
        lambda: changed(DeadLetterRecorded, line=9),
        ("conservation", "names a line", "market.ticks", 1, "0/1/9"),
    ),
    "a dead letter names no record": (
        lambda: changed(DeadLetterRecorded, 1, offset=99),
        ("conservation", "names a record", "market.ticks", 99, ""),
    ),
    "an unlisted symbol is accepted": (
        lambda: [*session(), tick_record(tick_line(184, symbol="DOGE", price=1, size=1))],
        ("conservation", "a line that is no tick", "market.ticks", 7, "0/7/0"),
    ),
    "a feature vector is missing": (
        lambda: without(FeaturesComputed, 2),
        ("causal chain", "one vector for each bar", "market.features", -1, "bar/"),
    ),
    "a vector does not fit its mask": (
        lambda: changed(FeaturesComputed, 1, missing_mask=0),
        ("features", "the mask", "market.features", 1, "features/"),
    ),
    "a vector has another schema": (
        lambda: changed(FeaturesComputed, 1, schema_hash="0" * 16),
        ("features", "fits its schema", "market.features", 1, "features/"),
    ),
    "a signal has another id": (
        lambda: changed(SignalEmitted, 2, id="f" * 32),
        ("ids", "id follows", "trade.signals", 2, "f" * 32),
    ),
    "a signal has no features": (
        lambda: changed(SignalEmitted, 2, cause="features/x"),
        ("causal chain", "cause exists", "trade.signals", 2, ""),
    ),
    "a signal was not decided": (
        lambda: without(DecisionMade, 2),
        ("causal chain", "a signal has one decision", "trade.signals", 2, ""),
    ),
    "a decision has no signal": (
        lambda: without(SignalEmitted, 2),
        ("causal chain", "cause exists", "trade.decisions", 2, ""),
    ),
    "an approved exit sent no order": (
        lambda: without_all(OrderUpdated, purpose=OrderPurpose.EXIT),
        ("causal chain", "sends one order", "trade.decisions", 1, ""),
    ),
    "a decision lacks a check": (
        lambda: changed(
            DecisionMade,
            0,
            checks=session()[index_of(session(), DecisionMade)].message.checks[:-1],
        ),
        ("decision checks", "every check is measured", "trade.decisions", 0, ""),
    ),
    "a verdict contradicts its checks": (
        lambda: changed(DecisionMade, 1, verdict=Verdict.RESIZED),
        ("decision checks", "verdict follows", "trade.decisions", 1, ""),
    ),
    "a denial names another reason": (
        lambda: changed(DecisionMade, 2, denial="STALE"),
        ("decision checks", "first failed check", "trade.decisions", 2, ""),
    ),
    "an entry passed while halted": (
        lambda: changed(ControlApplied, event_time_ns=at(59)),
        ("decision checks", "while entries are halted", "trade.decisions", 0, ""),
    ),
    "a command took effect that nobody gave": (
        lambda: without(ControlCommanded),
        ("causal chain", "cause exists", "ops.applied", 0, ""),
    ),
    "a fill has no order": (
        lambda: changed(OrderFilled, 1, order_id="0" * 32),
        ("causal chain", "cause exists", "trade.fills", 1, ""),
    ),
    "a fill is doubled": (
        lambda: [*session(), session()[index_of(session(), OrderFilled)]],
        ("unique ids", "once in a topic", "trade.fills", 2, ""),
    ),
    "a fill comes within the latency": (
        lambda: changed(OrderFilled, 0, event_time_ns=at(60.25)),
        ("orders and fills", "reached the venue", "trade.fills", 0, ""),
    ),
    "a fill happens without a trade": (
        lambda: changed(OrderFilled, 0, tick_price=Decimal("102.02")),
        ("orders and fills", "on a trade of its symbol", "trade.fills", 0, ""),
    ),
    "a fill takes more than its share": (
        lambda: changed(OrderFilled, 0, quantity=Decimal("100.00001")),
        ("orders and fills", "its share", "trade.fills", 0, ""),
    ),
    "a fill is a cent cheaper": (
        lambda: changed(OrderFilled, 0, price=Decimal("102.00")),
        ("fill costs", "the price follows", "trade.fills", 0, ""),
    ),
    "a sale is a cent dearer": (
        lambda: changed(OrderFilled, 1, price=Decimal("105.00")),
        ("fill costs", "the price follows", "trade.fills", 1, ""),
    ),
    "a fee is cheaper by the last digit": (
        lambda: changed(OrderFilled, 1, fee=Decimal("5.24949999")),
        ("fill costs", "the fee follows", "trade.fills", 1, ""),
    ),
    "a fee is paid in another currency": (
        lambda: changed(OrderFilled, 1, fee_currency="USD"),
        ("fill costs", "the fee follows", "trade.fills", 1, ""),
    ),
    "slippage has another sign": (
        lambda: changed(OrderFilled, 0, slippage_bps=-100.0),
        ("fill costs", "slippage is", "trade.fills", 0, ""),
    ),
    "a decision fills within its latency": (
        lambda: changed(OrderFilled, 1, event_time_ns=at(120.25)),
        ("fill costs", "only after the latency", "trade.fills", 1, ""),
    ),
    "a synthetic trade fills": (
        lambda: changed(OrderFilled, 1, provenance=Provenance.SYNTHETIC),
        ("provenance", "nothing synthetic", "trade.fills", 1, ""),
    ),
    "a fill is worth more than its trade": (
        lambda: changed(OrderFilled, 0, provenance=Provenance.LIVE),
        ("provenance", "no more than its decision and its trade", "trade.fills", 0, ""),
    ),
    "a decision is worth less than its fill": (
        lambda: changed(DecisionMade, 0, provenance=Provenance.RECONSTRUCTED),
        ("provenance", "no more than its decision and its trade", "trade.fills", 0, ""),
    ),
    "synthetic ticks are read": (
        lambda: [*session(), synthetic(tick_line(184, price=1, size=1))],
        ("conservation", "a record that cannot be read", "market.ticks", 7, "0/7/-1"),
    ),
    "a score does not follow from its votes": (
        lambda: changed(SignalEmitted, 1, score=0.4999999),
        ("votes", "the score follows", "trade.signals", 1, ""),
    ),
    "a voter voted twice": (
        lambda: revoted(1, lambda votes: [votes[0], *votes]),
        ("votes", "votes once", "trade.signals", 1, ""),
    ),
    "a vote has a negative weight": (
        lambda: revoted(1, lambda votes: [replace(votes[0], weight=-1.0), *votes[1:]]),
        ("votes", "none is negative", "trade.signals", 1, "/model"),
    ),
    "a vote counts that abstained": (
        lambda: revoted(1, lambda votes: [*votes[:2], replace(votes[2], weight=0.5)]),
        ("votes", "who abstains", "trade.signals", 1, "/silent"),
    ),
    "probabilities of a vote sum to more than one": (
        lambda: revoted(1, lambda votes: [replace(votes[0], probability_hold=0.3), *votes[1:]]),
        ("votes", "three probabilities", "trade.signals", 1, "/model"),
    ),
    "weights do not sum to one": (
        lambda: revoted(1, lambda votes: [replace(votes[0], weight=0.9), *votes[1:]]),
        ("votes", "they sum to one", "trade.signals", 1, ""),
    ),
    "a pool stands where no vote has a weight": (
        lambda: revoted(1, lambda votes: [replace(each, weight=0.0) for each in votes]),
        ("votes", "pooled probabilities follow", "trade.signals", 1, ""),
    ),
    "a pooled probability is not that of the votes": (
        lambda: changed(SignalEmitted, 1, probability_buy=0.6250001),
        ("votes", "pooled probabilities follow", "trade.signals", 1, ""),
    ),
    "a rule's vote has a weight": (
        lambda: revoted(1, lambda votes: [*votes[:3], replace(votes[3], weight=0.5)]),
        ("votes", "its weight is zero", "trade.signals", 1, ""),
    ),
    "a regime is of no feature vector": (
        lambda: changed(ContextObserved, 1, cause="features/none"),
        ("causal chain", "cause exists", "market.context", 1, ""),
    ),
    "a regime has another id": (
        lambda: changed(ContextObserved, 1, id="0" * 32),
        ("ids", "follows from the inputs", "market.context", 1, "0" * 32),
    ),
    "a return is not that of the bars": (
        lambda: revalued(1, "returns", 99.5 / 101.0 - 1 + 2e-9),
        ("features", "returns follows from the bars", "market.features", 1, "features/"),
    ),
    "a feature has a value too early": (
        lambda: revalued(2, "sma_7", 101.0),
        ("features", "sma_7 follows from the bars", "market.features", 2, "features/"),
    ),
    "a feature is missing that the bars give": (
        lambda: revalued(2, "log_returns", None),
        ("features", "log_returns follows from the bars", "market.features", 2, "features/"),
    ),
    "an order is filled before it is submitted": (
        lambda: changed(OrderUpdated, 0, status=OrderStatus.AMENDED),
        ("orders and fills", "begins submitted", "trade.orders", 0, "/0"),
    ),
    "an order skips a number": (
        lambda: changed(OrderUpdated, 1, sequence=2),
        ("orders and fills", "without a gap", "trade.orders", 1, "/2"),
    ),
    "a filled quantity is not that of the fills": (
        lambda: changed(OrderUpdated, 1, filled_quantity=Decimal(49)),
        ("orders and fills", "sum of the fills", "trade.orders", 1, ""),
    ),
    "a stop outlives its position": (
        lambda: without(OrderUpdated, status=OrderStatus.CANCELLED),
        ("orders and fills", "working stops cover", "trade.fills", 1, "rule"),
    ),
    "cash is off by the last digit": (
        lambda: changed(PositionChanged, 0, cash=Decimal("94894.399500000001")),
        ("ledger", "cash follows", "trade.positions", 0, ""),
    ),
    "a fee is off by the last digit": (
        lambda: changed(OrderFilled, 0, fee=Decimal("5.10050001")),
        ("ledger", "cash follows", "trade.positions", 0, ""),
    ),
    "a position is not covered": (
        lambda: changed(PositionChanged, 0, protected_quantity=Decimal(49)),
        ("ledger", "protected_quantity", "trade.positions", 0, ""),
    ),
    "an hour mark uses another price": (
        lambda: changed(PositionChanged, 1, exposure=Decimal(4980), equity=Decimal("99874.3995")),
        ("ledger", "exposure is the positions", "trade.positions", 1, ""),
    ),
    "a peak is forgotten": (
        lambda: changed(PositionChanged, 2, peak_equity=Decimal(100_000)),
        ("ledger", "peak_equity", "trade.positions", 2, ""),
    ),
    "a position record is missing": (
        lambda: without(PositionChanged, 2),
        ("ledger", "a fill changes a position", "trade.fills", 1, ""),
    ),
    "an outcome earns a cent more": (
        lambda: changed(OutcomeClosed, net_pnl=Decimal("138.66")),
        ("outcomes", "net_pnl", "trade.outcomes", 0, ""),
    ),
    "a closed leg has no outcome": (
        lambda: without(OutcomeClosed),
        ("outcomes", "has one outcome", "trade.fills", 1, ""),
    ),
    "an outcome is of no leg": (
        lambda: changed(OutcomeClosed, cause="x"),
        ("outcomes", "its fills closed", "trade.outcomes", 0, ""),
    ),
    "a decision breaks the position cap": (
        lambda: changed(DecisionMade, 0, quantity=Decimal("99.01")),
        ("limits", "position notional", "trade.decisions", 0, ""),
    ),
    "a decision is no whole number of lots": (
        lambda: changed(DecisionMade, 0, quantity=Decimal("50.000001")),
        ("limits", "whole number of lots", "trade.decisions", 0, ""),
    ),
    "a decision knows another equity": (
        lambda: changed(DecisionMade, 0, equity=Decimal("100000.01")),
        ("limits", "equity of a decision", "trade.decisions", 0, ""),
    ),
    "an entry has no stop": (
        lambda: changed(SignalEmitted, 0, stop_price=None),
        ("limits", "a stop below", "trade.decisions", 0, ""),
    ),
    "an entry lacks the votes": (
        lambda: changed(SignalEmitted, 0, score=-0.1),
        ("limits", "has the votes", "trade.decisions", 0, ""),
    ),
} | OPINION_MUTATIONS
