import re

import numpy as np
import pytest

from operators.bar_columns import BarColumns
from operators.features import SequenceWindows, select_channels
from operators.vote import LabelRule
from operators.voters import ModelInputs, OnnxVoter, build_learners, build_served
from schemas.features import SEQUENCE_SCHEMAS
from schemas.fields import Stance
from schemas.settings import ModelSettings, default_models
from tests.operators.voters.voter_rows import SCHEMA, rows

SQ120 = SEQUENCE_SCHEMAS["sq120"]


class Answers:
    """A scorer that gives the answers it was made with, one per row."""

    version, content_hash, timeframe, horizon_bars, trusted = "7", "abc", "1h", 4, True

    def __init__(self, *answers, schema=SCHEMA) -> None:
        self.answers = iter(answers)
        self.feature_schema_hash = schema.schema_hash
        self.seen: list[np.ndarray] = []

    def score(self, matrix):
        self.seen.append(matrix)
        return np.array([next(self.answers) for _ in matrix], dtype=np.float64)


def read(count, vectors=None):
    """Return the inputs of recorded bars; the last `count` of 200 are asked about."""
    frame, recorded = rows(200)
    vectors = recorded if vectors is None else vectors
    channels = select_channels(vectors, SCHEMA, SQ120)
    windows = SequenceWindows(SQ120).advance(BarColumns.of(frame), channels)
    return ModelInputs(SCHEMA, vectors, SQ120, windows), slice(200 - count, 200)


def ask(scorer, count, vectors=None, reason=""):
    return OnnxVoter("lightgbm", "lightgbm_1h", "1h", 4).answer(
        scorer, reason, *read(count, vectors)
    )


def test_all_usable_rows_are_scored_at_once_as_float32():
    scorer = Answers([0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1])
    found = ask(scorer, 3)
    stances = [found.vote(row).stance for row in range(3)]
    assert stances == [Stance.BUY, Stance.SELL, Stance.HOLD]
    (seen,) = scorer.seen
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen, rows(200)[1][-3:].astype(np.float32))
    np.testing.assert_array_equal(found.probabilities[1], [0.6, 0.3, 0.1])


def test_a_model_of_windows_reads_the_last_bars_of_the_symbol():
    scorer = Answers([0.2, 0.3, 0.5], schema=SQ120)
    frame, vectors = rows(600)
    own = np.flatnonzero((frame["symbol"] == frame["symbol"][-1]).to_numpy())[-120:]
    channels = select_channels(vectors, SCHEMA, SQ120)
    windows = SequenceWindows(SQ120).advance(BarColumns.of(frame), channels)
    inputs = ModelInputs(SCHEMA, vectors, SQ120, windows)
    voter = OnnxVoter("patchtst", "patchtst_1h", "1h", 4)
    assert voter.answer(scorer, "", inputs, slice(599, 600)).vote(0).stance is Stance.BUY
    np.testing.assert_array_equal(scorer.seen[0][0], channels[own].astype(np.float32))


def test_a_model_of_windows_abstains_while_bars_are_missing():
    scorer = Answers(schema=SQ120)
    found = ask(scorer, 1)
    assert found.vote(0).reason == "missing inputs: fewer than 120 bars with all channels"
    assert scorer.seen == []


def test_a_vote_carries_probabilities_version_and_hash():
    vote = ask(Answers([0.2, 0.3, 0.5]), 1).vote(0)
    probabilities = (vote.probability_sell, vote.probability_hold, vote.probability_buy)
    assert probabilities == (0.2, 0.3, 0.5)
    assert (vote.kind, vote.version, vote.content_hash, vote.weight) == ("onnx", "7", "abc", 0.0)
    assert vote.reason == "sell 0.2000, hold 0.3000, buy 0.5000"


def test_a_draw_is_no_direction():
    assert ask(Answers([0.4, 0.2, 0.4]), 1).vote(0).stance is Stance.HOLD


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_wild_input_never_reaches_the_model(value):
    vectors = rows(200)[1].copy()
    vectors[199, 2] = value
    scorer = Answers([0.2, 0.3, 0.5])
    found = ask(scorer, 2, vectors)
    assert found.vote(0).stance is Stance.BUY
    assert found.vote(1).stance is Stance.ABSTAIN
    assert found.vote(1).reason == f"missing inputs: {SCHEMA.names[2]}"
    assert np.isnan(found.probabilities[1]).all()
    assert len(scorer.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        [np.nan, 0.5, 0.5],
        [np.inf, 0.0, 0.0],
        [-0.1, 0.6, 0.5],
        [1.1, 0.0, -0.1],
        [0.3, 0.3, 0.3],
        [0.4, 0.4, 0.4],
    ],
)
def test_an_answer_that_is_no_distribution_abstains(answer):
    found = ask(Answers(answer), 1)
    vote = found.vote(0)
    assert (vote.stance, vote.probability_buy) == (Stance.ABSTAIN, None)
    assert np.isnan(found.probabilities).all()
    assert vote.reason.startswith("output is no distribution")


def test_an_answer_of_another_shape_abstains():
    found = ask(Answers([0.5, 0.5]), 1)
    assert found.vote(0).stance is Stance.ABSTAIN
    assert found.vote(0).reason == "model answered with shape (1, 2)"
    assert np.isnan(found.probabilities).all()


def test_nothing_votes_in_place_of_a_model_that_is_missing():
    vote = ask(None, 1, reason="card is missing").vote(0)
    assert (vote.stance, vote.weight, vote.reason) == (Stance.ABSTAIN, 0.0, "card is missing")


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [
        ("feature_schema_hash", "0000", "feature schema hash of the model must be .*; found 0000"),
        ("timeframe", "5m", "timeframe of the model must be 1h; found 5m"),
        ("horizon_bars", 12, "horizon in bars of the model must be 4; found 12"),
    ],
)
def test_a_model_of_another_schema_timeframe_or_horizon_abstains(attribute, value, reason):
    scorer = Answers()
    setattr(scorer, attribute, value)
    vote = ask(scorer, 1).vote(0)
    assert vote.stance is Stance.ABSTAIN
    assert re.fullmatch(reason, vote.reason)
    assert scorer.seen == []


def test_voters_are_built_from_settings_and_disabled_ones_are_not():
    served = build_served(default_models(), 4)
    assert [(one.name, one.model) for one in served] == [
        (name, f"{name}_1h") for name in ("lightgbm", "nhits", "patchtst", "xgboost")
    ]
    learners = build_learners(default_models(), LabelRule())
    assert [one.name for one in learners] == ["river_forest", "river_hoeffding", "river_logistic"]
    off = {
        name: one.model_copy(update={"enabled": False}) for name, one in default_models().items()
    }
    assert (build_served(off, 4), build_learners(off, LabelRule())) == ([], [])


def test_a_voter_without_an_artefact_serves_the_model_of_its_own_name():
    (voter,) = build_served({"lightgbm": ModelSettings(kind="onnx")}, 4)
    assert voter.model == "lightgbm"
