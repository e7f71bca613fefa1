import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.voters.river_softmax import Regression, ScaledSoftmax
from tests.operators.voters.rivers_own import ask_river

NAMES = tuple(f"input_{number}" for number in range(12))
NEVER_VARIES = NAMES[3]
SCALES = 10.0 ** np.arange(-6, 6)
SEEDS = st.integers(0, 2**32 - 1)


def to_sample(row):
    return dict(zip(NAMES, row.tolist(), strict=True))


def draw_rows(rng, count):
    rows = rng.normal(rng.normal(size=len(NAMES)), 1.0, (count, len(NAMES))) * SCALES
    rows[:, NAMES.index(NEVER_VARIES)] = 2.5
    return rows


def draw_learner(rng, events):
    """Return a learner of so many events, its weights then moved far from what was learnt."""
    learner = ScaledSoftmax()
    for vector in draw_rows(rng, events):
        learner.learn_one(to_sample(vector), int(rng.integers(3)))
    spread = 10.0 ** rng.uniform(-3, 2)
    for weights in learner.model.weights.values():
        for name in weights:
            weights[name] += float(rng.normal(0.0, spread))
    return learner


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, events=st.integers(0, 12), count=st.integers(0, 40))
def test_whole_close_gets_what_river_says_of_each_row(seed, events, count):
    rng = np.random.default_rng(seed)
    learner, rows = draw_learner(rng, events), draw_rows(rng, count) * rng.choice([1.0, 30.0])
    rows[rng.random(rows.shape) < 0.1] = 0.0
    found = Regression.read(learner, NAMES).predict(rows)
    assert found.tolist() == [ask_river(learner, to_sample(row)) for row in rows]


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, cut=st.integers(0, 40))
def test_answers_do_not_depend_on_the_rows_beside(seed, cut):
    rng = np.random.default_rng(seed)
    regression, rows = Regression.read(draw_learner(rng, 8), NAMES), draw_rows(rng, 40)
    parts = [regression.predict(rows[:cut]), regression.predict(rows[cut:])]
    assert np.concatenate(parts).tolist() == regression.predict(rows).tolist()
