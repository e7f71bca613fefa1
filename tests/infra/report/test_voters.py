import json
from math import log

import pytest
from msgspec.structs import replace

from infra.report.session import build_session
from infra.report.voters import read_training_periods, summarise_voters
from schemas.fields import Stance
from tests.infra.report.ledger_of_two import BTC, HOUR_NS, RSI, START_NS, bars, signal


def with_vote(of, **changes):
    """Return the signal with its model's vote alone, changed."""
    return replace(of, votes=[replace(of.votes[1], **changes)])


def voted(*, sell, buy, copies=15, content_hash="b" * 64):
    """Return a session of signals on a rise (hour 1) and a fall (hour 3), `copies` of each."""
    records = []
    for hour in (1, 3):
        vote = with_vote(
            signal(RSI, BTC, hour),
            probability_sell=sell,
            probability_buy=buy,
            probability_hold=1.0 - sell - buy,
            content_hash=content_hash,
        )
        records += [replace(vote, id=f"{hour}/{copy}") for copy in range(copies)]
    return build_session("votes", [*bars(), *records])


def test_score_of_a_known_probability_is_the_textbook_one():
    (found,) = summarise_voters(voted(sell=0.2, buy=0.6))
    score = found["score"]
    assert score["n"] == 30
    assert score["brier"] == pytest.approx((0.25**2 + 0.75**2) / 2)
    assert score["brier_prior"] == pytest.approx(0.25)
    assert score["log_loss"] == pytest.approx(-(log(0.75) + log(0.25)) / 2)
    assert score["log_loss_prior"] == pytest.approx(log(2))
    assert score["right_pct"] == 50.0


def test_certain_votes_have_no_log_loss_and_say_why():
    (found,) = summarise_voters(voted(sell=0.0, buy=1.0))
    assert found["score"]["brier"] == pytest.approx(0.5)
    assert found["score"]["log_loss"] is None
    assert "infinite" in found["score"]["why_null"]["log_loss"]


def test_few_votes_are_not_scored():
    (found,) = summarise_voters(voted(sell=0.2, buy=0.6, copies=5))
    assert found["score"]["brier"] is None
    assert "fewer than 30" in found["score"]["why_null"]["brier"]


def test_signal_whose_horizon_has_not_closed_is_not_scored():
    session = build_session("open", [*bars(), signal(RSI, BTC, 6)])
    assert all(row["score"]["n"] == 0 for row in summarise_voters(session))


def test_shares_of_stances_sum_to_all_votes():
    of = signal(RSI, BTC, 1)
    silent = with_vote(of, stance=Stance.ABSTAIN, probability_buy=None, weight=0.0)
    session = build_session("shares", [of, replace(silent, id="silent")])
    model = next(row for row in summarise_voters(session) if row["kind"] == "onnx")
    assert model["stance_share_pct"] == {"buy": 0.0, "hold": 50.0, "sell": 0.0, "abstain": 50.0}
    assert model["abstain_share_pct"] == 50.0
    assert model["weight_mean"] == 0.5


def test_votes_inside_the_training_period_are_called_in_sample(tmp_path):
    period = {"first_open_ns": START_NS, "last_close_ns": START_NS + 2 * HOUR_NS}
    card = {"files": {"model.onnx": "c" * 64}, "training": {"data": period}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    session = voted(sell=0.2, buy=0.6, content_hash="c" * 64)
    periods = read_training_periods([tmp_path, tmp_path / "absent"])
    (found,) = summarise_voters(session, periods)
    assert found["sample"].startswith("IN SAMPLE for 15 of 30 votes")


def test_votes_of_a_model_without_a_card_are_of_unknown_sample():
    (found,) = summarise_voters(voted(sell=0.2, buy=0.6))
    assert found["sample"].startswith("unknown")
