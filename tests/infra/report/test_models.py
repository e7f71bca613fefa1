"""What the report says about models, from events and opinions written by hand."""

import pytest
from msgspec.structs import replace

from infra.report.models import summarise_models, summarise_opinions
from infra.report.session import build_session
from schemas.models import ModelEventKind, ModelEventRecorded
from schemas.opinions import OpinionPooled
from tests.contracts.samples import HOUR_NS, OPEN_NS, samples


def event(number, kind, model="lightgbm", partition=0, **changes):
    one = next(each for each in samples() if isinstance(each, ModelEventRecorded))
    return replace(
        one,
        id=f"{number:032d}",
        model=model,
        kind=kind,
        partition=partition,
        effective_from_ns=OPEN_NS + number * HOUR_NS,
        event_time_ns=OPEN_NS + number * HOUR_NS,
        **changes,
    )


def opinion(number, **changes):
    one = next(each for each in samples() if isinstance(each, OpinionPooled))
    return replace(one, id=f"{number:032d}", event_time_ns=OPEN_NS + number * HOUR_NS, **changes)


SCORED, WEIGHTS = ModelEventKind.SCORED, ModelEventKind.WEIGHTS


def test_the_newest_score_and_weight_of_each_lane_count():
    session = build_session(
        "hand",
        [
            event(1, SCORED, scored_events=10, log_loss=2.0, weight_effective=0.3),
            event(2, WEIGHTS, weight_effective=0.3, reason="floor: not scored yet"),
            event(3, SCORED, scored_events=30, log_loss=1.0, weight_effective=0.5),
            event(4, WEIGHTS, weight_effective=0.5, reason="better"),
            event(5, SCORED, partition=1, scored_events=10, log_loss=0.6, weight_effective=0.1),
            event(6, WEIGHTS, partition=1, weight_effective=0.1, reason="worse"),
            event(7, ModelEventKind.DRIFT, weight_effective=0.5),
        ],
    )
    (row,) = summarise_models(session)["models"]
    assert (row["model"], row["scored"], row["drift_alarms"]) == ("lightgbm", 40, 1)
    assert row["log_loss"] == pytest.approx((30 * 1.0 + 10 * 0.6) / 40)
    assert (row["weight_mean"], row["weights"]) == (pytest.approx(0.3), [0.5, 0.1])
    assert row["reasons"] == ["better", "worse"]


def test_changes_of_versions_are_counted_by_lane():
    served = [
        event(number, ModelEventKind.ACTIVATED, partition=number, weight_effective=None)
        for number in range(4)
    ]
    found = summarise_models(build_session("hand", served))
    assert found["models"] == []
    assert [(row["kind"], row["version"], row["lanes"]) for row in found["changes"]] == [
        ("activated", "2.bbbbbbbb", 4)
    ]


def test_opinions_pass_stage_by_stage():
    silent = {"pooled_buy": None, "pooled_sell": None, "decided_stance": "abstain"}
    session = build_session(
        "hand",
        [opinion(1), opinion(2, decided_stance="hold"), opinion(3, **silent), opinion(4)],
    )
    assert [row["records"] for row in summarise_opinions(session)] == [4, 3, 2, 2]


def test_a_session_without_models_has_no_rows():
    session = build_session("hand", [])
    assert summarise_models(session)["models"] == []
    assert [row["records"] for row in summarise_opinions(session)] == [0, 0, 0, 0]
