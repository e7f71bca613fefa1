"""Every check finds the one fact that was made wrong, and names its row."""

from decimal import Decimal

import msgspec
import pytest
from msgspec.structs import replace

from infra.audit.audit import Audit
from schemas.fields import Action
from schemas.market import BarClosed, FeaturesComputed, TickLate
from schemas.operations import ControlApplied, ControlCommanded, DeadLetterRecorded
from schemas.signals import SignalEmitted
from schemas.trading import (
    CheckVerdict,
    DecisionMade,
    OrderFilled,
    OrderPurpose,
    OrderStatus,
    OrderUpdated,
    OutcomeClosed,
    PositionChanged,
    Verdict,
)
from tests.infra.audit.world import SETTINGS, ListedLog, at, session, tick_line, tick_record, write


def audited(records):
    return Audit("t", ListedLog(records), None, SETTINGS).run()


def index_of(records, kind, number=0, **fields):
    """Return where the `number`-th message of `kind` with these fields stands."""
    found = [
        index
        for index, record in enumerate(records)
        if isinstance(record.message, kind)
        and all(getattr(record.message, name) == value for name, value in fields.items())
    ]
    return found[number]


def changed(kind, number=0, where=None, **fields):
    """Return the session with fields of one message replaced."""
    records = session()
    index = index_of(records, kind, number, **(where or {}))
    records[index] = write(replace(records[index].message, **fields))
    return records


def without(kind, number=0, **where):
    records = session()
    del records[index_of(records, kind, number, **where)]
    return records


def without_all(kind, **where):
    records = session()
    while True:
        try:
            del records[index_of(records, kind, **where)]
        except IndexError:
            return records


def assert_found(records, check, rule, topic, offset, key=""):
    """The check names the first wrong row: rule, topic, offset and key."""
    report = audited(records)
    assert not report.clean
    result = report.check(check)
    assert result.violations
    found = [each for each in result.first if rule in each.rule]
    assert found, result.first
    assert (found[0].topic, found[0].offset) == (topic, offset), found
    assert key in found[0].key
    return found[0]


def test_a_true_session_is_clean():
    report = audited(session())
    assert report.first is None
    assert report.clean
    assert all(check.rows for check in report.checks if check.name != "tables")
    assert {check.name for check in report.checks if check.skipped} == {"conservation", "tables"}


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
    "a market order pays less than the trade": (
        lambda: changed(OrderFilled, 0, price=Decimal("101.99")),
        ("orders and fills", "at least the price", "trade.fills", 0, ""),
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
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_check_names_the_wrong_row(name):
    build, expected = MUTATIONS[name]
    assert_found(build(), *expected)


def test_a_passed_check_beyond_its_limit_is_found():
    made = session()[index_of(session(), DecisionMade)].message
    checks = [
        replace(each, measured="61") if each.check == "ORDER_RATE" else each for each in made.checks
    ]
    assert_found(
        changed(DecisionMade, 0, checks=checks),
        *("limits", "within its limit", "trade.decisions", 0, "ORDER_RATE"),
    )


def test_a_second_leg_in_the_same_symbol_is_found():
    records = session()
    made = records[index_of(records, DecisionMade, 0)].message
    again = replace(made, event_time_ns=at(60.5), id="1" * 32)
    records.insert(index_of(records, DecisionMade, 1), write(again))
    assert_found(records, "limits", "one leg at a time", "trade.decisions", 1)


def test_limits_come_from_the_settings_of_the_record():
    tight = SETTINGS.model_copy(
        update={
            "portfolio": SETTINGS.portfolio.model_copy(
                update={
                    "position_notional_max_pct": Decimal(5),
                    "gross_notional_max_pct": Decimal(5),
                }
            )
        }
    )
    from infra.settings import settings_hash, settings_json
    from schemas.operations import SettingsPublished

    records = session()
    published = SettingsPublished(id=settings_hash(tight), settings_json=settings_json(tight))
    records.insert(0, write(published))
    index = index_of(records, DecisionMade)
    headers = [
        (name, published.id.encode() if name == "config" else value)
        for name, value in records[index].headers
    ]
    records[index] = records[index]._replace(headers=headers)
    assert_found(records, "limits", "position notional", "trade.decisions", 0)
    assert_found(records, "limits", "gross notional", "trade.decisions", 0)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("id", b"other", "header 'id'"),
        ("cause", b"other", "header 'cause'"),
        ("schema", b"DecisionMade;1;000000000000", "header 'schema'"),
        ("provenance", b"live", "header 'provenance'"),
        ("epoch", b"0", "epochs of a writer"),
    ],
)
def test_a_false_header_is_found(name, value, rule):
    records = session()
    index = index_of(records, DecisionMade, 1)
    headers = [(key, value if key == name else old) for key, old in records[index].headers]
    records[index] = records[index]._replace(headers=headers)
    assert_found(records, "headers", rule, "trade.decisions", 1)


def test_unpublished_settings_are_found():
    records = session()
    index = index_of(records, DecisionMade, 1)
    headers = [(key, b"0" * 16 if key == "config" else old) for key, old in records[index].headers]
    records[index] = records[index]._replace(headers=headers)
    assert_found(records, "headers", "published settings", "trade.decisions", 1, "0" * 16)


def test_a_false_key_is_found():
    records = session()
    index = index_of(records, DecisionMade, 1)
    records[index] = records[index]._replace(key=b"someone")
    assert_found(records, "headers", "the key follows", "trade.decisions", 1)


def test_a_bar_in_a_foreign_partition_is_found():
    records = session()
    index = index_of(records, BarClosed, 1)
    records[index] = records[index]._replace(partition=1)
    assert_found(records, "headers", "in the partition of its ticks", "market.bars", 0)


def test_a_record_that_is_no_message_is_found():
    records = session()
    index = index_of(records, DecisionMade, 2)
    records[index] = records[index]._replace(value=b"{}")
    assert_found(records, "headers", "a message of its topic", "trade.decisions", 2)


def test_an_unreadable_command_is_allowed_only_with_its_dead_letter():
    from schemas.operations import build_dead_letter

    junk = session()[index_of(session(), ControlCommanded)]._replace(value=b"junk")
    records = [*session(), junk]
    assert_found(records, "headers", "a message of its topic", "ops.control", 1)
    letter = build_dead_letter("ops.control", 0, 1, -1, "UNDECODABLE", "no JSON", b"junk")
    assert audited([*records, write(letter)]).clean


def test_a_compacted_topic_may_repeat_a_record_but_not_change_it():
    records = session()
    listing = next(each for each in records if each.topic == "market.instruments")
    assert audited([*records, listing]).clean
    other = write(replace(listing.message, sector="x"))
    assert_found([*records, other], "unique ids", "once in a topic", "market.instruments", 1)


def test_updates_after_a_terminal_state_are_found():
    records = session()
    first = records[index_of(records, OrderUpdated, 1)].message
    again = replace(
        first, sequence=2, status=OrderStatus.CANCELLED, id="2" * 32, event_time_ns=at(90)
    )
    records.append(write(again))
    assert_found(records, "orders and fills", "a terminal state stays", "trade.orders", 6)


def test_reordered_updates_are_found():
    records = session()
    first, second = (index_of(records, OrderUpdated, number) for number in (0, 1))
    records[first], records[second] = records[second], records[first]
    assert_found(records, "orders and fills", "begins submitted", "trade.orders", 0)


def test_an_undecided_signal_after_the_watermark_is_no_violation():
    """The account waits for every partition; partition 1 has said nothing after 100 s."""
    from tests.infra.audit.world import heartbeat

    records = without(DecisionMade, 2)
    records = [each for each in records if not (each.topic == "market.ticks" and each.partition)]
    assert audited([*records, heartbeat(150, 1)]).clean
    assert not audited([*records, heartbeat(183, 1)]).clean


def test_a_check_that_was_denied_must_deny_the_decision():
    made = session()[index_of(session(), DecisionMade)].message
    checks = [replace(made.checks[0], verdict=CheckVerdict.DENIED), *made.checks[1:]]
    assert_found(
        changed(DecisionMade, 0, checks=checks),
        *("decision checks", "verdict follows", "trade.decisions", 0),
    )


def test_the_report_is_plain_data():
    report = audited(changed(BarClosed, 1, close=99.51))
    plain = msgspec.to_builtins(report)
    (found,) = plain["checks"][2]["first"]
    assert found["topic"] == "market.bars"
    assert found["expected"] == "99.5"
    assert found["found"] == "99.51"


def test_an_exit_belongs_to_an_exit_decision():
    records = changed(DecisionMade, 1, action=Action.ENTER)
    assert_found(records, "causal chain", "action is that of the cause", "trade.decisions", 1)
