from decimal import Decimal

import msgspec
import pytest

from infra.clickhouse.client import query_rows
from infra.clickhouse.why import explain
from infra.clickhouse.writer import ArchiveWriter, RecordBatch
from schemas.market import BarClosed
from schemas.models import ContextObserved, ModelEventRecorded
from schemas.opinions import OpinionPooled
from schemas.regime import Regime
from schemas.signals import SignalEmitted
from schemas.trading import (
    DecisionMade,
    OrderFilled,
    OrderPurpose,
    OrderStatus,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
)
from tests.contracts.samples import (
    HOUR_NS,
    OPEN_NS,
    bar,
    closed_leg,
    denied_leg,
    fill,
    order,
    outcome,
    samples,
)
from tests.infra.clickhouse.records import batches_of

pytestmark = pytest.mark.stack

DAY_NS = 24 * HOUR_NS
LEG = closed_leg()
DENIED = denied_leg(OPEN_NS + 5 * HOUR_NS)
VIEWS = (
    "why",
    "orphans",
    "funnel",
    "pnl_by_strategy_daily",
    "fills_hourly",
    "equity_hourly",
    "decisions_hourly",
    "denial_reasons",
    "latency_by_hop",
    "bars_1h",
    "features_named",
    "models_serving",
    "model_spans",
    "model_scores",
    "model_weights",
    "opinion_mix",
    "regime_history",
)


def of_type(messages, kind):
    return [each for each in messages if isinstance(each, kind)]


@pytest.fixture
def write(client, as_record):
    return lambda messages: ArchiveWriter(client).write(batches_of(messages, as_record))


@pytest.mark.acceptance("S-028", criterion="every fill joins to decision and outcome; 0 orphans")
def test_every_fill_joins_to_its_whole_chain(client, write, measured):
    legs = [closed_leg(OPEN_NS + day * DAY_NS) for day in range(50)]
    write([each for leg in legs for each in leg] + DENIED)
    rows = query_rows(client, "SELECT * FROM why ORDER BY fill_time_ns")
    fills = [each for leg in legs for each in of_type(leg, OrderFilled)]
    assert [row["fill_id"] for row in rows] == [each.id for each in fills]
    closed = [each for leg in legs for each in of_type(leg, OutcomeClosed) * 2]
    for row, filled, leg_closed in zip(rows, fills, closed, strict=True):
        assert row["order_id"] == filled.order_id
        assert row["decision_id"] == filled.decision_id
        assert row["outcome_id"] == leg_closed.id
        assert row["signal_id"] and row["features_id"] and row["bar_id"]  # noqa: PT018
    orphans = query_rows(client, "SELECT * FROM orphans")
    measured(f"{len(fills)} fills, {len(orphans)} orphans")
    assert orphans == []


def test_why_holds_the_numbers_of_the_chain(client, write):
    write(LEG)
    row = query_rows(client, "SELECT * FROM why ORDER BY fill_time_ns LIMIT 1")[0]
    decision, signal = of_type(LEG, DecisionMade)[0], of_type(LEG, SignalEmitted)[0]
    closed = of_type(LEG, BarClosed)[0]
    assert [check["check"] for check in row["checks"]] == ["HALTED", "POSITION_NOTIONAL"]
    assert row["checks"][1]["measured"] == decision.checks[1].measured
    assert [vote["content_hash"] for vote in row["votes"]] == ["a" * 64, "b" * 64]
    assert row["feature_vector"][:3] == [None, 0.5, 1.0]
    assert (row["tick_partition"], row["tick_first_offset"], row["tick_last_line"]) == (2, 10, 3)
    assert (row["bar_close"], row["signal_reason"]) == (closed.close, signal.reason)
    assert [update[:2] for update in map(tuple_of, row["order_updates"])] == [
        (0, "submitted"),
        (1, "filled"),
    ]
    assert (row["config_hash"], row["epoch"]) == ("cfg1", 3)


def tuple_of(value):
    return tuple(value.values()) if isinstance(value, dict) else tuple(value)


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (DecisionMade, "decision"),
        (SignalEmitted, "signal"),
        (BarClosed, "bar"),
        (OrderUpdated, "order"),
        (OutcomeClosed, "outcome"),
    ],
)
def test_a_broken_link_makes_an_orphan(client, write, kind, link):
    write([each for each in LEG if not isinstance(each, kind)])
    rows = query_rows(client, "SELECT fill_id, missing FROM orphans")
    assert {row["fill_id"] for row in rows} == {each.id for each in of_type(LEG, OrderFilled)}
    assert all(link in row["missing"] for row in rows)


def test_fills_of_an_open_leg_await_their_outcome(client, write):
    entry = LEG[: next(n for n, each in enumerate(LEG) if isinstance(each, PositionChanged)) + 1]
    assert len(of_type(entry, OrderFilled)) == 1
    write(entry)
    assert query_rows(client, "SELECT outcome_id FROM why") == [{"outcome_id": ""}]
    assert query_rows(client, "SELECT * FROM orphans") == []


def test_a_leg_closed_by_its_stop_joins_through_the_entry_decision(client, write):
    made, (entry, closing) = of_type(LEG, DecisionMade)[0], of_type(LEG, OrderFilled)
    updates = order(made, OrderPurpose.PROTECTIVE_STOP, [OrderStatus.SUBMITTED, OrderStatus.FILLED])
    at = closing.event_time_ns
    stopped = msgspec.structs.replace(fill(updates[-1]), event_time_ns=at)
    closed = msgspec.structs.replace(outcome(entry, stopped), exit_decision_id="")
    opening = LEG[: LEG.index(entry) + 2]
    write([*opening, *updates, stopped, closed])
    rows = query_rows(
        client, "SELECT fill_id, decision_id, outcome_id, purpose FROM why ORDER BY fill_time_ns"
    )
    assert [tuple_of(row) for row in rows] == [
        (entry.id, made.id, closed.id, "entry"),
        (stopped.id, made.id, closed.id, "protective_stop"),
    ]
    assert query_rows(client, "SELECT * FROM orphans") == []


def test_an_exit_that_the_stop_completed_still_joins_to_the_outcome(client, write):
    closed = msgspec.structs.replace(of_type(LEG, OutcomeClosed)[0], exit_decision_id="")
    write([each for each in LEG if not isinstance(each, OutcomeClosed)] + [closed])
    assert query_rows(client, "SELECT outcome_id FROM why") == [{"outcome_id": closed.id}] * 2
    exit_id = of_type(LEG, OrderFilled)[1].id
    assert explain(client, exit_id).outcome == closed


def test_a_later_leg_is_not_mistaken_for_a_missing_outcome(client, write):
    lost = [each for each in LEG if not isinstance(each, OutcomeClosed)]
    write(lost + closed_leg(OPEN_NS + DAY_NS))
    rows = query_rows(client, "SELECT fill_id, missing FROM orphans")
    assert {row["fill_id"] for row in rows} == {each.id for each in of_type(LEG, OrderFilled)}
    assert all(row["missing"] == ["outcome"] for row in rows)


def test_roll_ups_do_not_change_when_everything_is_written_again(client, write):
    (opinion,) = of_type(samples(), OpinionPooled)
    kinds = enumerate(("activated", "scored", "weights"))
    models = [model_event(number, kind, "a", OPEN_NS) for number, kind in kinds]
    session = [*LEG, *DENIED, *models, observed(Regime.CRISIS, 5, 5, 0), opinion]
    write(session)
    before = {view: query_rows(client, f"SELECT * FROM {view}") for view in VIEWS}
    write(session)
    write(LEG[3:9])
    after = {view: query_rows(client, f"SELECT * FROM {view}") for view in VIEWS}
    assert after == before
    assert all(rows for view, rows in before.items() if view not in {"orphans", "bars_1h"})


def test_profit_is_the_sum_of_the_outcomes(client, write):
    later = closed_leg(OPEN_NS + 3 * HOUR_NS)
    winner = msgspec.structs.replace(
        of_type(later, OutcomeClosed)[0], net_pnl=Decimal("100.000000000001")
    )
    write([*LEG, winner])
    (row,) = query_rows(client, "SELECT * FROM pnl_by_strategy_daily")
    loser = of_type(LEG, OutcomeClosed)[0]
    assert row["net_pnl"] == winner.net_pnl + loser.net_pnl
    assert (row["legs"], row["winning_legs"]) == (2, 1)
    assert row["fees"] == winner.fees + loser.fees


def test_equity_of_an_hour_is_its_last_with_its_extremes(client, as_record):
    first = of_type(LEG, PositionChanged)[0]
    told = [(0, 100), (1, 90), (2, 120), (2, 110)]
    records = [
        as_record(
            msgspec.structs.replace(
                first, id=str(offset), event_time_ns=OPEN_NS + late_ns, equity=Decimal(equity)
            ),
            offset,
        )
        for offset, (late_ns, equity) in enumerate(told)
    ]
    writer = ArchiveWriter(client)
    for part in (records[3:], records[:2], records[1:]):
        writer.write([RecordBatch("trade.positions", 0, part)])
    (row,) = query_rows(client, "SELECT equity, equity_min, equity_max FROM equity_hourly")
    assert row == {"equity": 110, "equity_min": 90, "equity_max": 120}


def test_funnel_counts_every_stage_by_reason(client, write):
    write(LEG + DENIED)
    rows = query_rows(client, "SELECT stage, reason, records FROM funnel")
    assert [(row["stage"], row["reason"], row["records"]) for row in rows] == [
        ("signal", "enter", 2),
        ("signal", "exit", 1),
        ("vote", "enter, no model voted", 2),
        ("vote", "exit, no model voted", 1),
        ("decision", "denied POSITION_NOTIONAL", 1),
        ("decision", "resized", 2),
        ("order", "entry filled", 1),
        ("order", "exit filled", 1),
        ("fill", "entry", 1),
        ("fill", "exit", 1),
        ("outcome", "exit", 1),
    ]
    (denied,) = query_rows(client, "SELECT denial, decisions FROM denial_reasons")
    assert denied == {"denial": "POSITION_NOTIONAL", "decisions": 1}


def test_latency_is_measured_from_reading_to_writing(client, write):
    write(LEG)
    rows = query_rows(client, "SELECT topic, records, p50_ms, max_ms FROM latency_by_hop")
    found = {row["topic"]: (row["records"], row["p50_ms"], row["max_ms"]) for row in rows}
    assert found["trade.fills"] == (2, 5.0, 5.0)
    assert set(found) == {
        "market.bars", "market.features", "trade.signals", "trade.decisions", "trade.orders", "trade.fills",
    }  # fmt: skip


def test_hours_are_rolled_up_from_five_minute_bars(client, write):
    five = 5 * 60 * 1_000_000_000
    bars = [
        msgspec.structs.replace(
            bar(OPEN_NS + n * five),
            timeframe="5m",
            open_time_ns=OPEN_NS + (n - 1) * five,
            open=100.0 + n,
            high=200.0 + n,
            low=50.0 - n,
            close=150.0 + n,
            volume=1.5,
        )
        for n in range(1, 14)
    ]
    write(bars)
    rows = query_rows(client, "SELECT * EXCEPT (hour, venue, symbol) FROM bars_1h")
    assert rows[0] == {
        "open": 101.0, "high": 212.0, "low": 38.0, "close": 162.0, "volume": 18.0, "trades": 48, "bars": 12,
    }  # fmt: skip
    assert rows[1]["bars"] == 1


def test_features_have_their_names(client, write):
    write(LEG)
    row = query_rows(client, "SELECT features FROM features_named LIMIT 1")[0]
    assert row["features"]["returns"] is None
    assert row["features"]["log_returns"] is not None
    assert len(row["features"]) == 34


def model_event(offset, kind, version, from_ns, partition=0, model="lightgbm"):
    return ModelEventRecorded(
        id=f"{partition}/{model}/{offset}",
        cause="",
        model=model,
        kind=kind,
        version=version,
        content_hash=version * 2,
        previous_version="",
        partition=partition,
        effective_from_ns=from_ns,
        reason="drill",
        event_time_ns=from_ns,
    )


def test_the_funnel_begins_with_every_bar_that_models_judged(client, write):
    (one,) = of_type(samples(), OpinionPooled)
    silent = {"pooled_sell": None, "pooled_buy": None}
    changes = [
        {},
        {"decided_stance": "sell"},
        {"decided_stance": "hold"},
        {"decided_stance": "hold", "edge_bps": None},
        {"decided_stance": "abstain", "edge_bps": None, **silent},
    ]
    write(
        [
            msgspec.structs.replace(one, id=f"{number:032d}", **fields)
            for number, fields in enumerate(changes)
        ]
    )
    rows = query_rows(client, "SELECT stage, strategy, reason, records FROM funnel")
    assert [tuple(row.values()) for row in rows] == [
        ("opinion", "models", "every model abstained", 1),
        ("opinion", "models", "expects less than it costs", 1),
        ("opinion", "models", "expects more than it costs to buy", 1),
        ("opinion", "models", "expects more than it costs to sell", 1),
        ("opinion", "models", "no volatility to expect a move from", 1),
    ]


@pytest.mark.acceptance("S-035", criterion="the mix of every stage is one table")
def test_the_mix_counts_every_stance_at_every_stage(client, write, measured):
    (one,) = of_type(samples(), OpinionPooled)
    lean = {"stances": ["hold", "abstain"], "decided_stance": "hold"}
    said = {"raw_stances": ["sell", "abstain"], "tilts": [-0.2, None]}
    records = [one, msgspec.structs.replace(one, id="4" * 32, **lean, **said)]
    write(records)
    write(records)
    found = [tuple(row.values()) for row in query_rows(client, "SELECT * FROM opinion_mix")]
    measured(found)
    assert found == [
        ("after threshold", "buy", 1),
        ("after threshold", "hold", 1),
        ("lightgbm", "buy", 1),
        ("lightgbm", "sell", 1),
        ("lightgbm less its tilt", "buy", 1),
        ("lightgbm less its tilt", "hold", 1),
        ("pooled", "buy", 2),
        ("river_logistic", "abstain", 2),
        ("river_logistic less its tilt", "abstain", 2),
    ]


@pytest.mark.acceptance("S-089", criterion="active versions are readable from one table")
def test_the_version_that_serves_is_the_one_whose_event_counts_last(write, client, measured):
    write(
        [
            model_event(0, "activated", "a", 0),
            model_event(1, "activated", "b", OPEN_NS),
            model_event(2, "refused", "c", OPEN_NS + 1),
            model_event(3, "rolled_back", "a", OPEN_NS + 2),
            model_event(4, "weights", "a", OPEN_NS + 3),
            model_event(5, "activated", "b", OPEN_NS, partition=1),
            model_event(6, "activated", "x", 0, model="nhits"),
            model_event(7, "retired", "x", OPEN_NS, model="nhits"),
        ]
    )
    sql = "SELECT model, partition, version, content_hash FROM models_serving"
    found = [tuple(row.values()) for row in query_rows(client, sql)]
    measured(found)
    assert found == [
        ("lightgbm", 0, "a", "aa"),
        ("lightgbm", 1, "b", "bb"),
        ("nhits", 0, "", ""),
    ]


def test_spans_of_a_version_end_where_the_next_begins(write, client):
    events = [
        model_event(0, "activated", "a", 0),
        model_event(1, "activated", "b", OPEN_NS),
        model_event(2, "rolled_back", "a", OPEN_NS + 2),
    ]
    write(events)
    write(events)
    sql = (
        "SELECT version, toUnixTimestamp64Nano(effective_from_ns) AS a, "
        "toUnixTimestamp64Nano(until_ns) AS b FROM model_spans"
    )
    found = [tuple(row.values()) for row in query_rows(client, sql)]
    assert len(found) == 3
    assert found[:2] == [("a", 0, OPEN_NS), ("b", OPEN_NS, OPEN_NS + 2)]
    assert found[2][:2] == ("a", OPEN_NS + 2)
    assert found[2][2] > 9 * 10**18


def observed(regime, hour, since, transitions, confidence=None):
    return ContextObserved(
        id=f"{hour:032d}",
        cause="c" * 32,
        venue="binance_spot",
        symbol="BTCUSDT",
        event_time_ns=OPEN_NS + hour * HOUR_NS,
        kind="regime",
        regime=regime,
        confidence=confidence,
        regime_since_ns=OPEN_NS + since * HOUR_NS,
        transitions=transitions,
        source="rule",
        version="1",
        content_hash="a" * 64,
        reason=f"at hour {hour}",
    )


@pytest.mark.acceptance("S-149", criterion="history table queryable")
def test_the_history_of_regimes_has_a_row_per_span(client, write, measured):
    write(
        [
            observed(Regime.UNKNOWN, 0, 0, 0),
            observed(Regime.BULL_TRENDING, 5, 5, 0, 0.5),
            observed(Regime.BULL_TRENDING, 24, 5, 0, 0.7),
            observed(Regime.CRISIS, 30, 30, 1),
            observed(Regime.BULL_TRENDING, 40, 40, 2, 0.4),
            observed(Regime.BULL_TRENDING, 48, 40, 2, 0.6),
        ]
    )
    rows = query_rows(client, "SELECT * FROM regime_history")
    assert [(row["regime"], row["hours"], row["transition"]) for row in rows] == [
        ("unknown", 5.0, 0),
        ("bull_trending", 25.0, 0),
        ("crisis", 10.0, 1),
        ("bull_trending", 8.0, 2),
    ]
    assert [row["confidence_at_change"] for row in rows] == [None, 0.5, None, 0.4]
    assert [row["cause"] for row in rows][1:3] == ["at hour 5", "at hour 30"]
    measured(f"{len(rows)} spans, {rows[1]['hours']:g} h in {rows[1]['regime']}")
