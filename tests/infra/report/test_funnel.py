from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from infra.report.funnel import MEANINGS, count_denials, summarise_funnel
from infra.report.session import build_session
from schemas.trading import DenialReason, Verdict
from tests.infra.report.ledger_of_two import BTC, RSI, decision, session_records, signal


def test_every_stage_is_counted_and_adds_up(summary):
    funnel = summary["funnel"]
    counts = {stage["stage"]: stage["records"] for stage in funnel["stages"]}
    assert counts == {
        "signals": 7,
        "approved decisions": 4,
        "their orders": 4,
        "of these filled": 4,
        "legs closed": 3,
    }
    assert funnel["protective_orders"] == 2
    assert sum(row["records"] for row in funnel["decisions"]) == 7
    assert sum(row["records"] for row in funnel["orders"]) == 6
    assert sum(row["records"] for row in funnel["fills"]) == summary["counts"]["fills"] == 6
    assert funnel["reconciles"]
    assert funnel["orders_open"] == 0


def test_signals_are_counted_by_what_the_models_said_on_their_bar():
    pooled = {"probability_sell": 0.2, "probability_hold": 0.3, "probability_buy": 0.5}
    silent = signal(RSI, BTC, 1)
    said = [
        replace(silent, id=f"{number}", score=score, agreement=agreement, **pooled)
        for number, (score, agreement) in enumerate(
            [(0.3, "strong"), (0.2, "strong"), (-0.1, "weak"), (0.0, "")]
        )
    ]
    votes = summarise_funnel(build_session("votes", [silent, *said]))["votes"]
    assert [tuple(row.values()) for row in votes] == [
        ("enter", "models for buying", "strong", 2),
        ("enter", "models for selling", "weak", 1),
        ("enter", "models undecided", "", 1),
        ("enter", "no model voted", "", 1),
    ]


def test_denials_are_sorted_by_count(summary):
    found = [(row["reason"], row["records"], row["by_action"]) for row in summary["not_traded"]]
    assert found == [
        ("CASH", 2, {"enter": 2, "exit": 0}),
        ("WARMING_UP", 1, {"enter": 1, "exit": 0}),
    ]


def test_signal_without_a_decision_breaks_the_reconciliation():
    records = [*session_records(), signal(RSI, BTC, 6)]
    funnel = summarise_funnel(build_session("gap", records))
    assert funnel["signals_undecided"] == 1
    assert not funnel["reconciles"]


def test_fill_without_its_order_breaks_the_reconciliation():
    records = [row for row in session_records() if type(row).__name__ != "OrderUpdated"]
    funnel = summarise_funnel(build_session("gap", records))
    assert funnel["fills_without_order"] == 6
    assert not funnel["reconciles"]


def test_every_reason_has_words():
    assert set(MEANINGS) == set(DenialReason)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(list(DenialReason)), max_size=30))
def test_denials_by_reason_strategy_and_action_sum_to_all_denials(reasons):
    of = signal(RSI, BTC, 1)
    records = [decision(of, Verdict.DENIED, reason.value) for reason in reasons]
    rows = count_denials(build_session("denials", records))
    assert sum(row["records"] for row in rows) == len(reasons)
    assert all(sum(row["by_strategy"].values()) == row["records"] for row in rows)
    assert all(sum(row["by_action"].values()) == row["records"] for row in rows)
    assert [row["records"] for row in rows] == sorted(
        (row["records"] for row in rows), reverse=True
    )
