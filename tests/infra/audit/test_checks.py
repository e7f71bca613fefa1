"""Every check finds the one fact that was made wrong, and names its row."""

from decimal import Decimal

import msgspec
import pytest
from msgspec.structs import replace

from infra.audit.audit import Audit
from infra.settings import settings_hash, settings_json
from schemas.fields import Action
from schemas.market import BarClosed
from schemas.operations import ControlCommanded, SettingsPublished
from schemas.settings import default_models
from schemas.signals import SignalEmitted
from schemas.trading import (
    CheckVerdict,
    DecisionMade,
    OrderStatus,
    OrderUpdated,
)
from tests.infra.audit.changes import changed, index_of, without
from tests.infra.audit.facts import SETTINGS, at
from tests.infra.audit.mutations import MUTATIONS
from tests.infra.audit.world import ListedLog, session, write


def audited(records):
    return Audit("t", ListedLog(records), None, SETTINGS).run()


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
    skipped = {check.name for check in report.checks if check.skipped}
    assert skipped == {"conservation", "features", "tables"}
    assert "not computed again: adx_14" in report.check("features").skipped


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


def silent_entry(models, measured):
    """Return the session under settings with `models`, its entry decided on a silent vote."""
    own = SETTINGS.model_copy(update={"models": models})
    published = SettingsPublished(id=settings_hash(own), settings_json=settings_json(own))
    made = session()[index_of(session(), DecisionMade, 0)].message
    checks = [
        replace(each, measured=measured) if each.check == "VOTE_AGAINST" else each
        for each in made.checks
    ]
    records = changed(DecisionMade, 0, checks=checks)
    index = index_of(records, SignalEmitted, 0)
    silent = dict.fromkeys(("probability_sell", "probability_hold", "probability_buy"))
    message = replace(records[index].message, score=0.0, **silent)
    records[index] = records[index]._replace(value=write(message).value, message=message)
    records.insert(0, write(published))
    index = index_of(records, DecisionMade, 0)
    headers = [
        (name, published.id.encode() if name == "config" else value)
        for name, value in records[index].headers
    ]
    records[index] = records[index]._replace(headers=headers)
    return records


def test_an_entry_on_the_silence_of_enabled_models_is_found():
    records = silent_entry(default_models(), "no opinion")
    assert_found(records, "limits", "has an opinion", "trade.decisions", 0)


def test_an_entry_of_a_run_without_models_needs_no_opinion():
    records = silent_entry({}, "no models")
    assert audited(records).check("limits").violations == 0


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
    from tests.infra.audit.facts import heartbeat

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
