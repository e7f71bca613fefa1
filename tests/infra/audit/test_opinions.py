"""What the vote writes is clean to the auditor, and each number of it that was changed is found."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from infra.audit.evidence import Evidence
from infra.audit.opinions import OpinionAudit
from infra.audit.pooling import allowed_agreements, project_weights
from infra.audit.report import Check, Place
from operators.vote import pooling
from operators.vote.build import build_rule
from operators.vote.facts import build_event
from operators.vote.governance import Candidate
from operators.vote.panel import VotePanel
from operators.vote.records import build_opinions
from schemas.features import FEATURE_SCHEMAS
from schemas.fields import Action
from schemas.ids import features_id
from schemas.opinions import OpinionPooled
from schemas.settings import VoteSettings
from schemas.signals import SignalEmitted
from tests.infra.audit.facts import SETTINGS, VENUE, at, bars, features
from tests.infra.audit.leg import model_events, opinion, signal

VOTERS = ["model", "other", "silent"]
TILTED = SETTINGS.model_copy(update={"vote": VoteSettings()})
"""With tilts; the opinions that are written by hand have none."""
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
VOLATILITY = 0.01
ABOVE = {"edge_bps": 68.13, "decided_stance": "buy"}
"""The edge of |0.625 - 0.125| on a volatility of a hundredth: 0.5 * (22 + 158.26) bps less 22."""


def vector_of(bar, volatility):
    made = features(bar)
    names = FEATURE_SCHEMAS["fs34"].names
    known = [volatility if name == "volatility_30" else 1.0 for name in names]
    return replace(made, vector=known)


VECTORS = [vector_of(bar, VOLATILITY) for bar in bars()]
OPINIONS = [replace(opinion(of), **ABOVE) for of in VECTORS]


def audited(vectors, opinions, signals=(), events=(), *, whole=True, own=SETTINGS):
    check = Check("opinions", "")
    audit = OpinionAudit(check, Evidence(own))
    if not whole:
        audit.begin_late()
    for event in events or model_events():
        audit.see_event(event)
    for vector in vectors:
        audit.see_vector(vector, "")
    for offset, one in enumerate(opinions):
        audit.see(Place(OpinionPooled.topic, 0, offset), one, "")
    for offset, one in enumerate(signals):
        audit.see_signal(Place(SignalEmitted.topic, 0, offset), one, "")
    audit.compare()
    return check.result()


def rules(*args, **kwargs):
    return [found.rule for found in audited(*args, **kwargs).first]


def with_edges(of, action):
    """A signal that carries the edge of its opinion; an exit has that of selling."""
    edge_bps = 68.13 if action is Action.ENTER else -68.13 - 44.0
    return replace(signal(of, action, 100.0), expected_edge_bps=edge_bps)


def test_an_opinion_above_its_threshold_is_clean_and_so_are_its_signals():
    signals = [with_edges(VECTORS[0], Action.ENTER), with_edges(VECTORS[1], Action.EXIT)]
    assert rules(VECTORS, OPINIONS, signals) == []


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"decided_stance": "sell"}, "what is decided"),
        ({"decided_stance": "hold"}, "what is decided"),
        ({"edge_bps": 9_999.0}, "an edge follows"),
        ({"edge_bps": 68.2}, "an edge follows"),
        ({"edge_bps": None, "decided_stance": "hold"}, "an edge follows"),
        ({"multiplier": 1.4}, "an edge follows"),
        ({"pooled_stance": "sell"}, "a stance is the greater"),
    ],
)
def test_a_changed_opinion_above_its_threshold_is_found(change, rule):
    changed = [replace(OPINIONS[0], **change), *OPINIONS[1:]]
    found = rules(VECTORS, changed)
    assert any(rule in each for each in found), found


def test_an_exit_with_the_edge_of_an_entry_is_found():
    wrong = replace(with_edges(VECTORS[0], Action.EXIT), expected_edge_bps=68.13)
    (found,) = rules(VECTORS, OPINIONS, [wrong])
    assert "edge and threshold" in found


@pytest.mark.parametrize("edge_bps", [-21.99, -22.01])
def test_a_pool_without_a_known_direction_leaves_both_edges_open(edge_bps):
    even = replace(
        OPINIONS[0], sell=[0.3, 0.3, None], buy=[0.3, 0.3, None], stances=["hold", "hold", "abstain"],
        pooled_sell=0.3, pooled_buy=0.3, pooled_stance="hold", agreement="weak", agreeing=0,
        edge_bps=-21.99, decided_stance="hold",
    )  # fmt: skip
    pooled = {"probability_sell": 0.3, "probability_hold": 0.4, "probability_buy": 0.30001}
    carried = with_edges(VECTORS[0], Action.ENTER)
    votes = [each if each.weight == 0 else replace(each, **pooled) for each in carried.votes]
    one = replace(
        carried, **pooled, votes=votes, agreement="weak", expected_edge_bps=edge_bps, score=0.0
    )
    assert rules(VECTORS[:1], [even], [one]) == []
    other = replace(one, expected_edge_bps=-20.0)
    assert "edge and threshold" in rules(VECTORS[:1], [even], [other])[0]


def test_a_schema_without_volatility_is_said_to_be_left_out():
    schema = FEATURE_SCHEMAS["fs64"]
    plain = [
        replace(one, schema_name="fs64", schema_hash=schema.schema_hash, vector=[1.0] * len(schema))
        for one in VECTORS
    ]
    result = audited(plain, OPINIONS)
    assert not result.violations
    assert "without volatility_30" in result.skipped


def later(message, seconds, **changes):
    """A signal of a longer timeframe on the close so much after its own bar."""
    return replace(message, timeframe="1h", event_time_ns=at(seconds), **changes)


def test_a_longer_timeframe_carries_the_newest_opinion_before_its_close():
    own = replace(OPINIONS[1], pooled_buy=0.62)  # Of the same close: it is not looked at.
    carried = later(with_edges(VECTORS[0], Action.ENTER), 120)
    assert rules(VECTORS[:1], OPINIONS[:1], [carried]) == []
    found = rules(VECTORS, [OPINIONS[0], own, OPINIONS[2]], [carried])
    assert not [each for each in found if "carries" in each], found


def test_a_longer_timeframe_is_silent_when_the_newest_opinion_is_older_than_one_bar():
    stale = later(with_edges(VECTORS[0], Action.ENTER), 121)
    (found,) = rules(VECTORS[:1], OPINIONS[:1], [stale])[:1]
    assert "carries the pooled opinion" in found
    nothing = dict.fromkeys(("probability_sell", "probability_hold", "probability_buy"))
    silent = replace(
        stale, **nothing, multiplier=None, agreement="", expected_edge_bps=None, votes=[]
    )
    assert rules(VECTORS[:1], OPINIONS[:1], [silent]) == []


def test_opinions_that_expired_are_asked_of_nobody():
    signals = [with_edges(each, Action.ENTER) for each in VECTORS]
    assert len(rules(VECTORS, OPINIONS[1:], signals)) == 2
    result = audited(VECTORS, OPINIONS[1:], signals, whole=False)
    assert not result.violations
    assert "first opinions are gone" in result.skipped
    assert len(rules(VECTORS, OPINIONS[:2], signals, whole=False)) == 2


def test_a_gap_in_the_middle_is_found_where_the_first_opinions_expired():
    (found,) = rules(VECTORS, OPINIONS[:1] + OPINIONS[2:], whole=False)
    assert "one opinion on each bar" in found


def test_without_models_no_bar_needs_an_opinion_and_no_signal_may_carry_one():
    none = SETTINGS.model_copy(update={"models": {}})
    assert rules(VECTORS, [], own=none) == []
    carried = with_edges(VECTORS[0], Action.ENTER)
    assert "carries the pooled opinion" in rules(VECTORS, [], [carried], own=none)[0]


def test_a_retired_model_votes_with_no_version():
    retired = replace(model_events()[0], id="retired", kind="retired", effective_from_ns=at(100))
    events = [*model_events(), retired]
    signals = [with_edges(VECTORS[0], Action.ENTER), with_edges(VECTORS[1], Action.ENTER)]
    result = audited(VECTORS, OPINIONS, signals, events)
    (found,) = result.first
    assert (found.rule, found.offset) == ("a model votes with the version that served then", 1)


@pytest.mark.parametrize(
    ("leaning", "weights", "allowed"),
    [
        ([True, True, False], [0.6, 0.4, 0.0], {"unanimous"}),
        ([True, True, False], [0.6, 0.3999, 0.0001], {"strong"}),
        ([True, False, False], [0.75, 0.2, 0.05], {"strong", "split"}),
        ([True, False, False], [0.6, 0.2, 0.2], {"split"}),
        ([True, None, False], [0.4, 0.2, 0.4], {"split", "weak"}),
        ([False, False, False], [0.6, 0.2, 0.2], {"weak"}),
        ([True, None, True], [0.4, 0.05, 0.55], {"unanimous", "strong"}),
    ],
)
def test_the_agreement_is_known_as_far_as_rounding_allows(leaning, weights, allowed):
    assert allowed_agreements(leaning, weights) == allowed


@given(
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=9),
    st.floats(0.0, 0.3),
    st.floats(0.05, 1.0),
)
def test_weights_are_projected_as_the_vote_projects_them(raw, floor, cap):
    expected = pooling.project_weights(np.array(raw), min(floor, cap), cap)
    assert project_weights(raw, min(floor, cap), cap) == pytest.approx(expected, abs=1e-9)


def random_answers(draw):
    said = draw.dirichlet([draw.uniform(0.3, 30)] * 3, (len(SYMBOLS), len(VOTERS)))
    said[draw.random(said.shape[:2]) < 0.25] = np.nan
    return said


def impossible_answers(draw):
    """Answers that give one side no chance at all, as a tree that is not calibrated does."""
    one = (0.0, 0.2, 0.8) if draw.random() < 0.8 else (0.02, 0.98, 0.0)
    return np.tile(one, (len(SYMBOLS), len(VOTERS), 1))


def play(seed, closes=40, answers=random_answers):
    """Return vectors, opinions and events of a panel that was told made-up answers."""
    draw, schema = np.random.default_rng(seed), FEATURE_SCHEMAS["fs34"]
    rule = build_rule(TILTED.vote)
    panel = VotePanel([Candidate(name=one, trusted=one != "other") for one in VOTERS], rule)
    place = schema.names.index("volatility_30")
    prices = np.full(len(SYMBOLS), 100.0)
    events, opinions, vectors = [], [], []
    keys = [(VENUE, one) for one in SYMBOLS]
    for minute in range(1, closes + 1):
        times = np.full(len(SYMBOLS), at(60 * minute), dtype=np.int64)
        said = answers(draw)
        volatilities = draw.uniform(0.001, 0.03, len(SYMBOLS))
        volatilities[draw.random(len(SYMBOLS)) < 0.1] = np.nan
        prices = prices * np.exp(draw.normal(0.0, 0.02, len(SYMBOLS)))
        if minute == closes // 2:
            panel.begin_anew("model", trusted=bool(seed % 2), time_ns=at(60 * minute))
            change = {"effective_from_ns": at(60 * minute), "event_time_ns": at(60 * minute)}
            events.append(replace(model_events()[0], version="2", **change))
        formed = panel.advance(keys, times, prices, volatilities, said)
        events += [build_event(fact, 0, "1", "a" * 64) for fact in panel.take_facts()]
        threshold_bps = rule.costs.threshold_bps
        frame = build_opinions(
            keys, "1m", times, ["recorded"] * 3, VOTERS, said, formed, threshold_bps
        )
        opinions += [OpinionPooled(**row) for row in frame.to_dicts()]
        for (venue, symbol), volatility in zip(keys, volatilities.tolist(), strict=True):
            vector = [0.0] * len(schema)
            vector[place] = None if np.isnan(volatility) else volatility
            time_ns = at(60 * minute)
            made = replace(
                VECTORS[0],
                id=features_id(venue, symbol, "1m", time_ns),
                symbol=symbol,
                close_time_ns=time_ns,
                vector=vector,
            )
            vectors.append(made)
    return SimpleNamespace(vectors=vectors, opinions=opinions, events=events)


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_whatever_the_vote_writes_is_clean(seed):
    played = play(seed)
    result = audited(played.vectors, played.opinions, (), played.events, own=TILTED)
    assert not result.violations, result.first[0]
    assert result.rows == len(played.opinions)


def test_answers_that_rule_a_side_out_are_clean():
    played = play(3, closes=150, answers=impossible_answers)
    result = audited(played.vectors, played.opinions, (), played.events, own=TILTED)
    assert not result.violations, result.first[0]


def test_opinions_from_before_tilts_are_read_and_it_is_said():
    older = [replace(one, tilts=[], raw_stances=[]) for one in OPINIONS]
    result = audited(VECTORS, older)
    assert not result.violations
    assert "without tilts" in result.skipped


@pytest.mark.parametrize("row", [30, 60, 100])
def test_a_tilt_that_was_moved_a_little_is_found(row):
    played = play(1)
    one = played.opinions[row]
    voter = next(i for i, tilt in enumerate(one.tilts) if tilt is not None)
    tilts = [tilt if i != voter else tilt + 0.01 for i, tilt in enumerate(one.tilts)]
    changed = [*played.opinions[:row], replace(one, tilts=tilts), *played.opinions[row + 1 :]]
    found = audited(played.vectors, changed, (), played.events, own=TILTED).first[0]
    assert found.rule == "what is taken off a voter follows from what it said before"
    assert found.key == f"{one.id}/{one.voters[voter]}"


def test_the_played_votes_decide_and_disagree():
    """Else the test before this would prove little."""
    played = [one for seed in range(5) for one in play(seed).opinions]
    assert {one.decided_stance for one in played} == {"sell", "hold", "buy", "abstain"}
    assert {one.agreement for one in played} >= {"unanimous", "strong", "split", "weak"}
    assert len({one.multiplier for one in played}) > 10
    assert max(abs(tilt) for one in played for tilt in one.tilts if tilt is not None) > 0.05
    assert {one.agreeing for one in played} >= {0, 1, 2}
