import pickle
import subprocess
import sys
from collections import defaultdict
from functools import cache
from hashlib import sha256
from itertools import pairwise
from math import isfinite

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from river.drift import ADWIN
from river.forest import ARFClassifier
from river.tree import HoeffdingAdaptiveTreeClassifier

from infra.learner_files import LearnerFiles
from onnx_models.labels import Labelling, label_rows
from operators.bar_columns import BarColumns
from operators.features import Mirror, to_model_inputs, vector_matrix
from operators.vote import LabelRule
from operators.voters.river_base import RiverVoter
from operators.voters.river_forest import RiverForestVoter
from operators.voters.river_hoeffding import RiverHoeffdingVoter, SilentSplitter
from operators.voters.river_softmax import RiverSoftmaxVoter
from schemas.fields import Stance
from tests.operators.recorded_bars import recorded_frame
from tests.operators.voters.rivers_own import ask_river
from tests.operators.voters.voter_rows import SCHEMA


class EagerHoeffdingVoter(RiverHoeffdingVoter):
    """The same with a tree that grows and is cut back within a few hundred events."""

    parameters = "eager tree"

    def build_model(self):
        return HoeffdingAdaptiveTreeClassifier(
            grace_period=20,
            delta=0.5,
            tau=0.5,
            max_depth=3,
            leaf_prediction="mc",
            drift_detector=ADWIN(delta=0.5),
            drift_window_threshold=20,
            seed=7,
        )


class EagerForestVoter(RiverForestVoter):
    """The same with trees that grow and are replaced within a few hundred events."""

    parameters = "eager forest"

    def build_model(self):
        return ARFClassifier(
            n_models=3,
            grace_period=20,
            delta=0.5,
            tau=0.5,
            max_depth=3,
            lambda_value=1,
            leaf_prediction="mc",
            drift_detector=ADWIN(delta=0.3),
            warning_detector=ADWIN(delta=0.5),
            seed=7,
        )


KINDS = [RiverSoftmaxVoter, EagerHoeffdingVoter, EagerForestVoter]
SHIPPED = [RiverSoftmaxVoter, RiverHoeffdingVoter, RiverForestVoter]
WARM_UP = 40
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
VOLATILITY = SCHEMA.names.index("volatility_30")

every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@cache
def rows(count: int = 300):
    own = (pl.col("timeframe") == "1h") & pl.col("symbol").is_in(SYMBOLS)
    frame = recorded_frame().filter(own).sort("close_time_ns", "symbol").slice(600, count)
    inputs = to_model_inputs(vector_matrix(frame, SCHEMA), frame["close"].to_numpy(), SCHEMA)
    return frame, inputs


def build(kind, **changes) -> RiverVoter:
    chosen = {"label": LabelRule(), "warm_up_events": WARM_UP} | changes
    return kind("river", SCHEMA, "1h", **chosen)


def small(kind, per_base: int):
    """Return the same learner that makes a base more often, so that a short test sees many."""
    return type(kind.__name__, (kind,), {"events_per_base": per_base})


def opine(voter, frame, inputs):
    return voter.answer(BarColumns.of(frame), inputs).probabilities


def votes_on_all(voter, frame, inputs):
    found = voter.answer(BarColumns.of(frame), inputs)
    return [found.vote(row) for row in range(frame.height)]


def learn_late(kind, frame, inputs):
    """Return the predictions of the plainest loop that learns late."""
    target = label_rows(
        frame.with_columns(volatility=pl.Series(inputs[:, VOLATILITY])), Labelling()
    )
    times = frame["close_time_ns"].to_numpy()
    symbols = frame["symbol"].to_list()
    usable = (np.abs(inputs) <= 1e6).all(axis=1)
    ended = defaultdict(list)
    for row in range(frame.height):
        if target.labels[row] >= 0 and usable[row]:
            ended[int(target.ends_ns[row])].append((symbols[row], row))
    model, learnt, counts = kind.build_model(None), 0, np.ones(3)
    predicted = np.full((frame.height, 3), np.nan)
    closes = sorted(set(times.tolist()))
    for i, time_ns in enumerate(closes):
        # What was settled before the last close is known to the learner, nothing newer.
        for _, row in sorted(ended[closes[i - 2]]) if i >= 2 else []:
            sample = dict(zip(SCHEMA.names, inputs[row].tolist(), strict=True))
            label = int(target.labels[row])
            model.learn_one(sample, label)
            image = Mirror.of(SCHEMA).reflect(inputs[row : row + 1])[0].tolist()
            model.learn_one(dict(zip(SCHEMA.names, image, strict=True)), 2 - label)
            learnt, counts = learnt + 1, counts + np.eye(3)[label] + np.eye(3)[2 - label]
        for row in np.flatnonzero(times == time_ns):
            if learnt >= WARM_UP and usable[row]:
                sample = dict(zip(SCHEMA.names, inputs[row].tolist(), strict=True))
                raw = np.array(ask_river(model, sample))
                prior = counts / counts.sum()
                predicted[row] = (1 - kind.shrinkage) * raw / raw.sum() + kind.shrinkage * prior
    return predicted


def score(frame, inputs, predicted):
    """Return the mean log-loss of predictions, that of the class shares known then, and the count."""
    volatility = pl.Series(inputs[:, VOLATILITY])
    target = label_rows(frame.with_columns(volatility=volatility), Labelling())
    closes, places = np.unique(frame["close_time_ns"].to_numpy(), return_inverse=True)
    known = (target.labels >= 0) & (np.abs(inputs) <= 1e6).all(axis=1)
    learnt = np.zeros((len(closes) + 2, 3))
    # What a close settles is known to the learner two closes later.
    ended = np.searchsorted(closes, target.ends_ns[known]) + 2
    np.add.at(learnt, (ended, target.labels[known]), 1)
    counts = 1 + learnt.cumsum(axis=0)[places]
    priors = counts / counts.sum(axis=1, keepdims=True)
    rows = np.flatnonzero(known & np.isfinite(predicted[:, 0]))
    at = (rows, target.labels[rows])
    return -np.log(predicted[at]).mean(), -np.log(priors[at]).mean(), len(rows)


@every_kind
def test_learner_equals_a_plain_loop_that_learns_late(kind):
    frame, inputs = rows()
    found = opine(build(kind), frame, inputs)
    expected = learn_late(kind, frame, inputs)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.isfinite(expected).all(axis=1).sum() > 200


@every_kind
def test_learner_equals_the_plain_loop_with_missing_inputs_too(kind):
    frame, inputs = rows()
    holed = inputs.copy()
    for row, value in ((50, np.nan), (51, np.inf), (90, 1e300), (120, -np.inf), (121, 1e7)):
        holed[row, row % len(SCHEMA)] = value
    found = opine(build(kind), frame, holed)
    expected = learn_late(kind, frame, holed)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_trees_of_these_tests_grow():
    frame, inputs = rows()
    tree, forest = build(EagerHoeffdingVoter), build(EagerForestVoter)
    opine(tree, frame, inputs)
    opine(forest, frame, inputs)
    assert tree._model.n_branches > 1
    assert sum(one.n_branches for one in forest._model) > 3


@pytest.mark.acceptance(
    "S-205", criterion="River prequential learners: snapshot and restore bit-identical"
)
@every_kind
@settings(max_examples=5)
@given(
    cuts=st.lists(st.integers(0, 300), max_size=8),
    restart=st.booleans(),
    settled=st.lists(st.booleans(), min_size=9, max_size=9),
)
def test_any_cut_restart_and_settling_gives_the_same_bits(kind, cuts, restart, settled):
    frame, inputs = rows()
    often = small(kind, 20)
    whole = build(often)
    expected = opine(whole, frame, inputs)
    voter, found = build(often), []
    for i, (start, end) in enumerate(pairwise([0, *sorted(cuts), 300])):
        found.append(opine(voter, frame[start:end], inputs[start:end]))
        if settled[i]:
            voter.settle()
        if restart:
            remembered = pickle.loads(pickle.dumps(voter.state))
            voter = build(often)
            voter.state = remembered
    assert b"".join(one.tobytes() for one in found) == expected.tobytes()
    whole.settle()
    voter.settle()
    assert voter.state.chain == whole.state.chain


@every_kind
def test_a_close_that_is_cut_after_settling_sees_one_learner(kind):
    frame, inputs = rows()
    expected = opine(build(kind), frame[:180], inputs[:180])
    voter, found = build(kind), []
    # Each learner is rebuilt whenever a close goes on after it has learnt.
    for row in range(180):
        found.append(opine(voter, frame[row : row + 1], inputs[row : row + 1]))
        voter.settle()
    assert b"".join(one.tobytes() for one in found) == expected.tobytes()


@every_kind
def test_symbols_of_one_close_may_come_in_any_order(kind):
    frame, inputs = rows()
    order = np.arange(300).reshape(100, 3)[:, [2, 0, 1]].ravel()
    expected = opine(build(kind), frame, inputs)
    found = opine(build(kind), frame[order.tolist()], inputs[order])
    assert found.tobytes() == expected[order].tobytes()


def test_a_restart_from_files_learns_what_came_since(tmp_path):
    frame, inputs = rows()
    often = small(EagerForestVoter, 40)
    expected = opine(build(often), frame, inputs)
    files = LearnerFiles(tmp_path)
    voter = build(often, archive=files)
    first = opine(voter, frame[:200], inputs[:200])
    voter.settle()
    remembered = pickle.dumps(voter.state)
    restored = build(often, archive=files)
    restored.state = pickle.loads(remembered)
    second = opine(restored, frame[200:], inputs[200:])
    assert first.tobytes() + second.tobytes() == expected.tobytes()
    # The forest itself stays out of the snapshot.
    assert isinstance(voter.state.base, str)
    assert len(remembered) < 150_000


def test_a_base_that_is_gone_is_refused(tmp_path):
    frame, inputs = rows()
    often = small(EagerForestVoter, 40)
    voter = build(often, archive=LearnerFiles(tmp_path / "here"))
    opine(voter, frame, inputs)
    restored = build(often, archive=LearnerFiles(tmp_path / "elsewhere"))
    with pytest.raises(ValueError, match="must be in its folder"):
        restored.state = voter.state


@every_kind
def test_a_label_is_learnt_after_its_horizon_and_not_before(kind):
    frame, inputs = rows()
    volatility = pl.Series(inputs[:, VOLATILITY])
    labels = label_rows(frame.with_columns(volatility=volatility), Labelling()).labels
    # The close of one bar ends the horizon of the bar four before: make a move of what was none.
    bar = 12 + next(row for row in range(138, 280, 3) if labels[row] == 1)
    closes = frame["close"].to_numpy().copy()
    closes[bar] *= 1.2
    shifted = frame.with_columns(close=pl.Series(closes))
    plain, turned = (
        votes_on_all(build(kind), frame, inputs),
        votes_on_all(build(kind), shifted, inputs),
    )
    same = [a.content_hash == b.content_hash for a, b in zip(plain, turned, strict=True)]
    # Settled at once, it is learnt before the second close after, each of three symbols.
    assert same == [True] * (bar + 6) + [False] * (300 - bar - 6)


@every_kind
def test_warm_up_abstains_with_its_progress(kind):
    frame, inputs = rows()
    votes = votes_on_all(build(kind), frame, inputs)
    warm = [i for i, vote in enumerate(votes) if vote.stance is not Stance.ABSTAIN]
    # Four bars until a label is settled, two closes until it is learnt, three symbols a close.
    assert votes[warm[0] - 1].reason == "warming up: 39 of 40 events learnt"
    assert warm[0] == 3 * (4 + 2 + 14 - 1)
    assert votes[0].reason == "warming up: 0 of 40 events learnt"
    assert votes[warm[0]].reason.endswith("after 42 events learnt")


@every_kind
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, 1e7])
def test_a_wild_input_makes_one_bar_abstain_and_poisons_nothing(kind, value):
    frame, inputs = rows()
    holed = inputs.copy()
    holed[180, 3] = value
    votes = votes_on_all(build(kind), frame, holed)
    assert votes[180].stance is Stance.ABSTAIN
    assert votes[180].reason == f"missing inputs: {SCHEMA.names[3]}"
    assert all(isfinite(vote.probability_buy) for vote in votes[181:])


@every_kind
def test_votes_are_distributions_with_the_learners_hash(kind):
    frame, inputs = rows()
    votes = votes_on_all(build(kind, weight=2.0), frame, inputs)
    cast = [vote for vote in votes if vote.stance is not Stance.ABSTAIN]
    assert len(cast) > 200
    for vote in cast:
        total = vote.probability_sell + vote.probability_hold + vote.probability_buy
        assert total == pytest.approx(1.0)
        assert vote.weight == 0.0
        assert len(vote.content_hash) == 64
    assert len({vote.content_hash for vote in votes}) > 50


@every_kind
def test_fingerprint_tells_states_apart_that_mean_something_else(kind):
    assert build(kind, label=LabelRule(horizon_bars=1)).fingerprint != build(kind).fingerprint
    assert build(kind, weight=2.0).fingerprint == build(kind).fingerprint
    assert len({build(one).fingerprint for one in KINDS}) == len(KINDS)


@every_kind
def test_a_learner_of_other_images_is_another_one(kind):
    known = build(kind)._mirror
    for changed in (replace(known, offsets=known.offsets + 1.0), replace(known, curved=())):
        other = build(kind)
        other._mirror = changed
        assert other.fingerprint != build(kind).fingerprint


@every_kind
def test_a_learner_of_other_curves_is_another_one(kind, monkeypatch):
    known = build(kind).fingerprint
    monkeypatch.setattr("operators.features.mirror.FALL_MAX", 0.4)
    assert build(kind).fingerprint != known


def test_a_splitter_that_is_silent_grows_the_same_tree():
    frame, inputs = rows()
    silent, spoken = build(EagerHoeffdingVoter), build(EagerHoeffdingVoter)
    silent._model.splitter = SilentSplitter()
    assert opine(silent, frame, inputs).tobytes() == opine(spoken, frame, inputs).tobytes()
    assert silent._model.n_branches > 0
    assert isinstance(RiverHoeffdingVoter.build_model(silent).splitter, SilentSplitter)


SCRIPT = """
from hashlib import sha256
from tests.operators.voters.test_river_learners import KINDS, build, opine, rows
frame, inputs = rows()
for kind in KINDS:
    print(sha256(opine(build(kind), frame, inputs).tobytes()).hexdigest())
"""


def test_no_hash_seed_reaches_a_prediction():
    frame, inputs = rows()
    expected = [sha256(opine(build(kind), frame, inputs).tobytes()).hexdigest() for kind in KINDS]
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        check=True,
        # Pytest's own process has the seed that is given to it, or a random one.
        env={"PYTHONHASHSEED": "4321", "PYTHONPATH": ":".join(sys.path)},
    )
    assert found.stdout.split() == expected


@pytest.mark.acceptance("S-205", criterion="Prequential log-loss of each learner beside the prior")
@pytest.mark.parametrize("kind", SHIPPED, ids=lambda kind: kind.__name__)
def test_learners_are_no_worse_than_chance_on_recorded_bars(kind, measured):
    frame, inputs = rows(10_000)
    voter = build(kind, warm_up_events=1000)
    loss, prior_loss, count = score(frame, inputs, opine(voter, frame, inputs))
    measured(f"{kind.__name__}: {loss:.4f} nats, prior {prior_loss:.4f}, {count} events")
    assert count > 8000
    # Whether they beat the prior is the market's answer; that they do not drift from it is ours.
    assert loss < prior_loss + 0.005


def test_bases_between_two_snapshots_leave_no_file(tmp_path):
    frame, inputs = rows()
    often = small(EagerForestVoter, 40)
    files = LearnerFiles(tmp_path, kept=2)
    voter = build(often, archive=files)
    opine(voter, frame[:100], inputs[:100])
    before = pickle.dumps(voter.state)
    opine(voter, frame[100:], inputs[100:])
    assert len(list(tmp_path.glob("*.learner"))) <= 1
    after = pickle.dumps(voter.state)
    for snapshot in (before, after):
        build(often, archive=files).state = pickle.loads(snapshot)
