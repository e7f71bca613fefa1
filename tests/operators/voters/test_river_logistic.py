import pickle
from collections import defaultdict, deque
from itertools import pairwise
from math import isfinite, log

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.compose import Pipeline
from river.linear_model import LogisticRegression
from river.optim import SGD
from river.preprocessing import StandardScaler

from operators.bar_columns import BarColumns
from operators.voters.river_logistic import LEARNING_RATE, RiverLogisticVoter
from schemas.fields import Stance
from tests.operators.voters.voter_rows import SCHEMA, rows

HORIZON = 4


def build(**changes) -> RiverLogisticVoter:
    chosen = {"horizon_bars": HORIZON, "warm_up_events": 20} | changes
    return RiverLogisticVoter("river_logistic", SCHEMA, "1h", **chosen)


def votes_on_all(voter, frame, inputs):
    found = voter.advance(BarColumns.of(frame), inputs, range(frame.height))
    return [found[row] for row in range(frame.height)]


def learn_late(frame, inputs, warm_up=20):
    """Return (probability per bar, mean log-loss) of the plainest loop that learns late."""
    symbols, closes = frame["symbol"].to_list(), frame["close"].to_list()
    history, models, learnt = defaultdict(list), {}, defaultdict(int)
    predicted, losses = [], []
    for row, symbol in enumerate(symbols):
        model = models.setdefault(
            symbol,
            Pipeline(
                StandardScaler(),
                LogisticRegression(SGD(LEARNING_RATE), intercept_lr=LEARNING_RATE),
            ),
        )
        history[symbol].append(row)
        if len(history[symbol]) > HORIZON:
            settled = history[symbol][-1 - HORIZON]
            sample = dict(zip(SCHEMA.names, inputs[settled].tolist(), strict=True))
            rose = closes[row] > closes[settled]
            if all(abs(value) <= 1e6 for value in sample.values()):
                if predicted[settled] is not None:
                    p = predicted[settled]
                    losses.append(-log(p if rose else 1 - p))
                model.learn_one(sample, rose)
                learnt[symbol] += 1
        sample = dict(zip(SCHEMA.names, inputs[row].tolist(), strict=True))
        usable = all(abs(value) <= 1e6 for value in sample.values())
        ready = usable and learnt[symbol] >= warm_up
        predicted.append(model.predict_proba_one(sample)[True] if ready else None)
    return predicted, sum(losses) / len(losses)


def test_learner_equals_a_plain_loop_that_learns_late():
    frame, inputs = rows()
    voter = build()
    votes = votes_on_all(voter, frame, inputs)
    expected, loss = learn_late(frame, inputs)
    assert [vote.probability_buy for vote in votes] == pytest.approx(expected, abs=1e-12)
    assert voter.log_loss == pytest.approx(loss, abs=1e-12)
    assert sum(one is not None for one in expected) > 400


def test_learner_equals_the_plain_loop_with_missing_inputs_too():
    frame, inputs = rows(200)
    holed = inputs.copy()
    for row, value in ((50, np.nan), (51, np.inf), (90, 1e300), (120, -np.inf)):
        holed[row, row % len(SCHEMA)] = value
    votes = votes_on_all(build(), frame, holed)
    expected, _ = learn_late(frame, holed)
    assert [vote.probability_buy for vote in votes] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 1e7])
def test_a_wild_input_makes_one_bar_abstain_and_poisons_nothing(value):
    frame, inputs = rows(200)
    holed = inputs.copy()
    holed[120, 3] = value
    votes = votes_on_all(build(), frame, holed)
    assert votes[120].stance is Stance.ABSTAIN
    assert votes[120].reason == f"missing inputs: {SCHEMA.names[3]}"
    later = [vote for row, vote in enumerate(votes) if row > 120]
    assert all(isfinite(vote.probability_buy) for vote in later)


def test_warm_up_abstains_with_its_progress():
    frame, inputs = rows(200)
    own = (frame["symbol"] == "BTCUSDT").to_numpy()
    votes = votes_on_all(build(), frame.filter(pl.Series(own)), inputs[own])
    assert [vote.stance for vote in votes[: 20 + HORIZON - 1]] == [Stance.ABSTAIN] * 23
    assert votes[22].reason == "warming up: 19 of 20 events learnt"
    assert votes[23].stance is not Stance.ABSTAIN
    assert votes[23].reason.endswith("after 20 events learnt")


def test_a_label_is_learnt_at_the_bar_that_closes_its_horizon_and_not_before():
    frame, inputs = rows(200)
    own = (frame["symbol"] == "BTCUSDT").to_numpy()
    frame, inputs = frame.filter(pl.Series(own)), inputs[own]
    bar = 60
    closes = frame["close"].to_numpy().copy()
    # The close of one bar settles the label of the bar a horizon earlier: turn that label round.
    before = closes[bar - HORIZON]
    closes[bar] = before * (0.99 if closes[bar] > before else 1.01)
    plain = votes_on_all(build(), frame, inputs)
    turned = votes_on_all(build(), frame.with_columns(close=pl.Series(closes)), inputs)
    same = [a.content_hash == b.content_hash for a, b in zip(plain, turned, strict=True)]
    assert same == [True] * bar + [False] * (len(same) - bar)


def test_nothing_of_a_later_bar_reaches_an_earlier_vote():
    frame, inputs = rows(200)
    changed = inputs.copy()
    changed[150:] *= -3.0
    shifted = frame.with_columns(
        close=pl.when(pl.int_range(pl.len()) < 150).then("close").otherwise(pl.col("close") * 5)
    )
    plain = votes_on_all(build(), frame, inputs)[:150]
    assert votes_on_all(build(), shifted, changed)[:150] == plain


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_any_cut_and_any_pickle_in_between_changes_nothing(cuts, restart):
    frame, inputs = rows(200)
    expected = votes_on_all(build(), frame, inputs)
    voter, found = build(), []
    for start, end in pairwise([0, *sorted(cuts), 200]):
        found += votes_on_all(voter, frame[start:end], inputs[start:end])
        if restart:
            remembered = pickle.loads(pickle.dumps(voter.state))
            voter = build()
            voter.state = remembered
    assert found == expected


def test_bars_without_a_signal_are_learnt_all_the_same():
    frame, inputs = rows(200)
    asked = build().advance(BarColumns.of(frame), inputs, [190])
    assert asked == {190: votes_on_all(build(), frame, inputs)[190]}


def test_symbols_learn_apart():
    frame, inputs = rows(200)
    own = (frame["symbol"] == "BTCUSDT").to_numpy()
    together = votes_on_all(build(), frame, inputs)
    alone = votes_on_all(build(), frame.filter(pl.Series(own)), inputs[own])
    assert [vote for vote, mine in zip(together, own, strict=True) if mine] == alone


def test_probabilities_are_of_buy_and_sell_only():
    frame, inputs = rows(200)
    cast = [vote for vote in votes_on_all(build(), frame, inputs) if vote.weight > 0]
    assert cast
    for vote in cast:
        assert vote.probability_hold == 0.0
        assert vote.probability_buy + vote.probability_sell == pytest.approx(1.0)
        assert vote.stance is (Stance.BUY if vote.probability_buy > 0.5 else Stance.SELL)


def test_memory_is_bounded_by_the_horizon():
    frame, inputs = rows(200)
    voter = build()
    voter.advance(BarColumns.of(frame), inputs, [])
    assert {len(one.pending) for one in voter.state.values()} == {HORIZON}
    assert {type(one.pending) for one in voter.state.values()} == {deque}


@pytest.mark.parametrize("changes", [{"horizon_bars": 5}])
def test_fingerprint_tells_states_apart_that_mean_something_else(changes):
    assert build(**changes).fingerprint != build().fingerprint
    assert build(weight=2.0).fingerprint == build().fingerprint


def test_a_close_that_comes_back_to_where_it_was_is_no_rise():
    frame, inputs = rows(200)
    own = (frame["symbol"] == "BTCUSDT").to_numpy()
    flat = frame.filter(pl.Series(own)).with_columns(close=pl.lit(100.0))
    voter = build()
    voter.advance(BarColumns.of(flat), inputs[own], [])
    (learner,) = voter.state.values()
    assert learner.model.intercept < 0.0
