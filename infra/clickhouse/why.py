"""Why something was traded, or was not: the causal chain of one record, read from the archive."""

from typing import Any, TypeVar

from clickhouse_connect.driver.client import Client
from msgspec import Struct

from infra.clickhouse.errors import RecordUnknownError
from infra.clickhouse.reader import read_messages, read_origin
from schemas.ddl import TICK_TABLE
from schemas.features import FEATURE_SCHEMAS
from schemas.ids import tick_id
from schemas.market import BarClosed, FeaturesComputed
from schemas.models import ContextObserved
from schemas.opinions import OpinionPooled
from schemas.signals import SignalEmitted
from schemas.trading import DecisionMade, OrderFilled, OrderUpdated, OutcomeClosed, Verdict

M = TypeVar("M", bound=Struct)

_KEY = (
    "venue = {venue:String} AND symbol = {symbol:String} AND timeframe = {timeframe:String} "
    "AND close_time_ns = fromUnixTimestamp64Nano({time_ns:Int64}, 'UTC')"
)


class FeatureValue(Struct, frozen=True, kw_only=True):
    """One model input of a bar."""

    name: str
    value: float | None
    """Null where the feature was missing."""
    unit: str


class TickSpan(Struct, frozen=True, kw_only=True):
    """The ticks of a bar by their identities in the log."""

    first: str
    last: str
    stored: int
    """Trades of the bar's interval that the archive still holds."""


class Explanation(Struct, frozen=True, kw_only=True):
    """Everything that led to a record, and what came of it."""

    subject: str
    """`fill`, `order`, `decision`, `signal`, `outcome` or `moment`."""
    record_id: str
    summary: str
    """One sentence for a human."""
    venue: str
    symbol: str
    event_time_ns: int
    ticks: TickSpan | None
    bar: BarClosed | None
    feature_schema: str
    """Name and hash of the feature schema, empty without features."""
    features: list[FeatureValue]
    signal: SignalEmitted | None
    """With every vote and the hash of the model that cast it."""
    decision: DecisionMade | None
    """With every check, what it measured and what it allows."""
    orders: list[OrderUpdated]
    fills: list[OrderFilled]
    outcome: OutcomeClosed | None
    """None while the leg is open."""
    config_hash: str
    epoch: int
    missing: list[str]
    """Links of the chain that the archive does not hold."""
    also: list[str] = []
    """Other signals of the same moment."""
    regime: ContextObserved | None = None
    """The newest that was observed around the symbol when the bar closed."""
    opinion: OpinionPooled | None = None
    """Of a moment without a signal: what the models had said last."""


def explain(client: Client, record_id: str) -> Explanation:
    """Return the chain behind a fill, an order, a decision, a signal or an outcome.

    An order is also found by its `client_order_id`. Raises RecordUnknownError for an id that no
    table holds.
    """
    by_id = {"id": record_id}
    if fills := read_messages(client, OrderFilled, "id = {id:String}", by_id):
        return _explain_decision(client, "fill", record_id, fills[0].decision_id, OrderFilled)
    order = "id = {id:String} OR order_id = {id:String} OR client_order_id = {id:String}"
    if orders := read_messages(client, OrderUpdated, order, by_id, order_by="sequence", limit=1):
        found = orders[0].decision_id
        return _explain_decision(client, "order", record_id, found, OrderUpdated)
    if read_messages(client, DecisionMade, "id = {id:String}", by_id):
        return _explain_decision(client, "decision", record_id, record_id, DecisionMade)
    if outcomes := read_messages(client, OutcomeClosed, "id = {id:String}", by_id):
        found = outcomes[0].entry_decision_id
        return _explain_decision(client, "outcome", record_id, found, OutcomeClosed)
    if signals := read_messages(client, SignalEmitted, "id = {id:String}", by_id):
        return _explain_signal(client, signals[0])
    msg = (
        f"record must be a fill, order, decision, outcome or signal in database "
        f"{client.database!r}; found none with id {record_id!r}; check the id and the environment"
    )
    raise RecordUnknownError(msg)


def explain_at(client: Client, symbol: str, at_ns: int, *, venue: str | None = None) -> Explanation:
    """Return why `symbol` was or was not traded at `at_ns`, nanoseconds since 1970 UTC.

    The newest bars that had closed by then speak. If a strategy signalled on one of them, the
    signal with the most consequence is explained and the others are named; if none did, the bar and
    its features are returned. Raises RecordUnknownError if no bar had closed.
    """
    asked = {"symbol": symbol, "at": at_ns, "venue": venue or ""}
    before = (
        "symbol = {symbol:String} AND ({venue:String} = '' OR venue = {venue:String}) "
        "AND close_time_ns <= fromUnixTimestamp64Nano({at:Int64}, 'UTC')"
    )
    # Of bars that close together the shortest says most about the moment.
    order = "close_time_ns DESC, open_time_ns DESC, venue"
    bars = read_messages(client, BarClosed, before, asked, order_by=order, limit=1)
    if not bars:
        msg = (
            f"symbol {symbol!r} must have a closed bar by {at_ns} in database {client.database!r}; "
            "found none; check the symbol, the time and the venue"
        )
        raise RecordUnknownError(msg)
    bar = bars[0]
    moment = {"venue": bar.venue, "symbol": symbol, "time_ns": bar.close_time_ns}
    signals = read_messages(
        client,
        SignalEmitted,
        "venue = {venue:String} AND symbol = {symbol:String} "
        "AND event_time_ns = fromUnixTimestamp64Nano({time_ns:Int64}, 'UTC')",
        moment,
        order_by="strategy, id",
    )
    if signals:
        found = [_explain_signal(client, signal) for signal in signals]
        found.sort(key=lambda each: (-len(each.fills), -len(each.orders)))
        others = [each.record_id for each in found[1:]]
        return _with_others(found[0], others)
    return _explain_bar(client, bar)


def _with_others(explanation: Explanation, others: list[str]) -> Explanation:
    fields = {name: getattr(explanation, name) for name in explanation.__struct_fields__}
    return Explanation(**(fields | {"also": others}))


def _first(client: Client, message: type[M], where: str, parameters: dict[str, Any]) -> M | None:
    found = read_messages(client, message, where, parameters, limit=1)
    return found[0] if found else None


def _explain_decision(
    client: Client, subject: str, record_id: str, decision_id: str, message: type[Struct]
) -> Explanation:
    decision = _first(client, DecisionMade, "id = {id:String}", {"id": decision_id})
    signal = None
    if decision is not None:
        signal = _first(client, SignalEmitted, "id = {id:String}", {"id": decision.cause})
    return _assemble(client, subject, record_id, message, decision_id, decision, signal)


def _explain_signal(client: Client, signal: SignalEmitted) -> Explanation:
    decision = _first(client, DecisionMade, "cause = {id:String}", {"id": signal.id})
    decision_id = decision.id if decision else ""
    return _assemble(client, "signal", signal.id, SignalEmitted, decision_id, decision, signal)


def _assemble(
    client: Client,
    subject: str,
    record_id: str,
    message: type[Struct],
    decision_id: str,
    decision: DecisionMade | None,
    signal: SignalEmitted | None,
) -> Explanation:
    by_decision = {"id": decision_id}
    orders = fills = outcome = None
    if decision_id:
        owned, in_order = "decision_id = {id:String}", "event_time_ns, _offset"
        orders = read_messages(client, OrderUpdated, owned, by_decision, order_by=in_order)
        fills = read_messages(client, OrderFilled, owned, by_decision, order_by=in_order)
        outcome = _outcome_of(client, fills[0]) if fills else None
    bar = features = None
    if signal is not None:
        key = {
            "venue": signal.venue,
            "symbol": signal.symbol,
            "timeframe": signal.timeframe,
            "time_ns": signal.event_time_ns,
        }
        bar = _first(client, BarClosed, _KEY, key)
        caused = {**key, "id": signal.cause}
        features = _first(client, FeaturesComputed, _KEY + " AND id = {id:String}", caused)
    present = {"decision": decision, "signal": signal, "features": features, "bar": bar}
    missing = [link for link, value in present.items() if value is None]
    if decision is not None and decision.verdict is not Verdict.DENIED and not orders:
        missing.insert(0, "order")
    place = decision or signal or (fills or orders or [None])[0]
    config_hash, epoch = _origin(client, message, record_id)
    return Explanation(
        subject=subject,
        record_id=record_id,
        summary=_summarise(signal, decision, fills or [], outcome),
        venue=place.venue if place else "",
        symbol=place.symbol if place else "",
        event_time_ns=place.event_time_ns if place else 0,
        ticks=_tick_span(client, bar),
        bar=bar,
        feature_schema=_schema_of(features),
        features=_named_features(features),
        regime=_regime_at(client, bar),
        signal=signal,
        decision=decision,
        orders=orders or [],
        fills=fills or [],
        outcome=outcome,
        config_hash=config_hash,
        epoch=epoch,
        missing=missing,
    )


def _outcome_of(client: Client, fill: OrderFilled) -> OutcomeClosed | None:
    # Decisions alone do not tell the leg: a stop may close what a strategy's exit began.
    found = read_messages(
        client,
        OutcomeClosed,
        "account = {account:String} AND strategy = {strategy:String} AND venue = {venue:String} "
        "AND symbol = {symbol:String} "
        "AND entry_time_ns <= fromUnixTimestamp64Nano({at:Int64}, 'UTC') "
        "AND event_time_ns >= fromUnixTimestamp64Nano({at:Int64}, 'UTC')",
        {
            "account": fill.account,
            "strategy": fill.strategy,
            "venue": fill.venue,
            "symbol": fill.symbol,
            "at": fill.event_time_ns,
        },
        order_by="event_time_ns",
        limit=1,
    )
    return found[0] if found else None


def _explain_bar(client: Client, bar: BarClosed) -> Explanation:
    key = {
        "venue": bar.venue,
        "symbol": bar.symbol,
        "timeframe": bar.timeframe,
        "time_ns": bar.close_time_ns,
    }
    features = _first(client, FeaturesComputed, _KEY, key)
    config_hash, epoch = read_origin(client, BarClosed, bar.id)
    return Explanation(
        subject="moment",
        record_id=bar.id,
        summary=(
            f"no strategy crossed its condition on the {bar.timeframe} bar of {bar.symbol} "
            f"that closed at {bar.close}"
        ),
        venue=bar.venue,
        symbol=bar.symbol,
        event_time_ns=bar.close_time_ns,
        ticks=_tick_span(client, bar),
        bar=bar,
        feature_schema=_schema_of(features),
        features=_named_features(features),
        regime=_regime_at(client, bar),
        opinion=_newest(client, OpinionPooled, bar),
        signal=None,
        decision=None,
        orders=[],
        fills=[],
        outcome=None,
        config_hash=config_hash,
        epoch=epoch,
        missing=[] if features else ["features"],
    )


def _origin(client: Client, message: type[Struct], record_id: str) -> tuple[str, int]:
    config_hash, epoch = read_origin(client, message, record_id)
    if config_hash or message is not OrderUpdated:
        return config_hash, epoch
    # The order was asked for by another of its ids; every update of it has the same origin.
    where = "order_id = {id:String} OR client_order_id = {id:String}"
    update = _first(client, OrderUpdated, where, {"id": record_id})
    return read_origin(client, message, update.id) if update else ("", 0)


def _tick_span(client: Client, bar: BarClosed | None) -> TickSpan | None:
    if bar is None:
        return None
    sql = (
        f"SELECT count() FROM {TICK_TABLE} FINAL WHERE venue = {{venue:String}} "  # noqa: S608
        "AND symbol = {symbol:String} AND kind = 'trade' "
        "AND event_time_ns >= fromUnixTimestamp64Nano({open_ns:Int64}, 'UTC') "
        "AND event_time_ns < fromUnixTimestamp64Nano({close_ns:Int64}, 'UTC')"
    )
    interval = {
        "venue": bar.venue,
        "symbol": bar.symbol,
        "open_ns": bar.open_time_ns,
        "close_ns": bar.close_time_ns,
    }
    return TickSpan(
        first=tick_id(bar.partition, bar.first_offset, bar.first_line),
        last=tick_id(bar.partition, bar.last_offset, bar.last_line),
        stored=int(client.query(sql, parameters=interval).result_rows[0][0]),
    )


def _regime_at(client: Client, bar: BarClosed | None) -> ContextObserved | None:
    return _newest(client, ContextObserved, bar, "kind = 'regime' AND ") if bar else None


def _newest(client: Client, message: type[M], bar: BarClosed, where: str = "") -> M | None:
    """Return the newest message about the symbol of `bar` when it closed."""
    found = read_messages(
        client,
        message,
        where + "venue = {venue:String} AND symbol = {symbol:String} "
        "AND event_time_ns <= fromUnixTimestamp64Nano({at:Int64}, 'UTC')",
        {"venue": bar.venue, "symbol": bar.symbol, "at": bar.close_time_ns},
        order_by="event_time_ns DESC",
        limit=1,
    )
    return found[0] if found else None


def _schema_of(features: FeaturesComputed | None) -> str:
    return f"{features.schema_name} {features.schema_hash}" if features else ""


def _named_features(features: FeaturesComputed | None) -> list[FeatureValue]:
    if features is None:
        return []
    schema = FEATURE_SCHEMAS.get(features.schema_name)
    if schema is None or schema.schema_hash != features.schema_hash:
        # Another release wrote it: its positions are known, its names are not.
        pairs = [(f"feature_{place}", "") for place in range(len(features.vector))]
    else:
        pairs = [(feature.name, feature.unit) for feature in schema.features]
    return [
        FeatureValue(name=name, value=value, unit=unit)
        for (name, unit), value in zip(pairs, features.vector, strict=True)
    ]


def _summarise(
    signal: SignalEmitted | None,
    decision: DecisionMade | None,
    fills: list[OrderFilled],
    outcome: OutcomeClosed | None,
) -> str:
    parts = []
    if signal is not None:
        parts.append(f"{signal.strategy} proposed to {signal.action} {signal.symbol}")
        parts.append(signal.reason)
    if decision is not None:
        denial = f" ({decision.denial})" if decision.denial else ""
        parts.append(f"{decision.verdict}{denial}: {decision.justification}")
    elif signal is not None:
        parts.append("no decision is recorded")
    if fills:
        parts.append(f"{len(fills)} fills, the last at {fills[-1].price}")
    if outcome is not None:
        parts.append(f"closed by {outcome.exit_reason} with {outcome.net_pnl} net")
    return "; ".join(parts)
