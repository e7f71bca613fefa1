import numpy as np
import pytest

from operators.bar_columns import BarColumns
from operators.voters import OnnxVoter, build_voters
from schemas.fields import Stance
from schemas.settings import ModelSettings, default_models
from tests.operators.voters.voter_rows import SCHEMA, rows


class Answers:
    """A scorer that gives the answers it was made with."""

    version, content_hash, timeframe = "7", "abc", "1h"
    feature_schema_hash = SCHEMA.schema_hash

    def __init__(self, *answers) -> None:
        self.answers = np.array(answers, dtype=np.float64)
        self.seen: list[np.ndarray] = []

    def score(self, matrix):
        self.seen.append(matrix)
        return self.answers


def votes(scorer, chosen, inputs=None):
    frame, recorded = rows(200)
    voter = OnnxVoter("lightgbm", scorer, SCHEMA, "1h", weight=2.0)
    return voter.advance(BarColumns.of(frame), recorded if inputs is None else inputs, chosen)


def test_all_rows_of_a_call_are_scored_in_one_batch_of_float32():
    scorer = Answers([0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1])
    found = votes(scorer, [100, 105, 199])
    assert [found[row].stance for row in (100, 105, 199)] == [
        Stance.BUY,
        Stance.SELL,
        Stance.HOLD,
    ]
    (seen,) = scorer.seen
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen, rows(200)[1][[100, 105, 199]].astype(np.float32))


def test_a_vote_carries_probabilities_version_hash_and_weight():
    vote = votes(Answers([0.2, 0.3, 0.5]), [100])[100]
    probabilities = (vote.probability_sell, vote.probability_hold, vote.probability_buy)
    assert probabilities == (0.2, 0.3, 0.5)
    assert (vote.kind, vote.version, vote.content_hash, vote.weight) == ("onnx", "7", "abc", 2.0)
    assert vote.reason == "sell 0.2000, hold 0.3000, buy 0.5000"


def test_a_draw_is_no_direction():
    assert votes(Answers([0.4, 0.2, 0.4]), [100])[100].stance is Stance.HOLD


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_wild_input_never_reaches_the_model(value):
    inputs = rows(200)[1].copy()
    inputs[105, 2] = value
    scorer = Answers([0.2, 0.3, 0.5])
    found = votes(scorer, [100, 105], inputs)
    assert found[100].stance is Stance.BUY
    assert found[105].stance is Stance.ABSTAIN
    assert found[105].reason == f"missing inputs: {SCHEMA.names[2]}"
    assert scorer.seen[0].shape == (1, len(SCHEMA))


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
    vote = votes(Answers(answer), [100])[100]
    assert (vote.stance, vote.weight, vote.probability_buy) == (Stance.ABSTAIN, 0.0, None)
    assert vote.reason.startswith("output is no distribution")


@pytest.mark.parametrize("answers", [[[0.5, 0.5]], [[0.2, 0.3, 0.5]] * 3])
def test_an_answer_of_another_shape_abstains(answers):
    found = votes(Answers(*answers), [100, 101])
    assert {vote.stance for vote in found.values()} == {Stance.ABSTAIN}
    assert found[100].reason.startswith("model answered with shape")


@pytest.mark.parametrize(
    ("scorers", "reason"),
    [({}, "no model is loaded"), ({"lightgbm": "card is missing"}, "card is missing")],
)
def test_nothing_votes_in_place_of_a_model_that_is_missing(scorers, reason):
    (voter,) = build_voters({"lightgbm": ModelSettings(kind="onnx")}, scorers)
    vote = voter.advance(BarColumns.of(rows(200)[0]), rows(200)[1], [100])[100]
    assert (vote.stance, vote.weight, vote.reason) == (Stance.ABSTAIN, 0.0, reason)


def test_no_rows_ask_nothing_of_the_model():
    scorer = Answers()
    assert votes(scorer, []) == {}
    assert scorer.seen == []


@pytest.mark.parametrize(
    ("attribute", "value", "subject"),
    [("feature_schema_hash", "0000", "feature schema hash"), ("timeframe", "5m", "timeframe")],
)
def test_a_model_of_another_schema_or_timeframe_is_refused(attribute, value, subject):
    scorer = Answers()
    setattr(scorer, attribute, value)
    with pytest.raises(ValueError, match=f"{subject} of model 'lightgbm' must be .*{value}"):
        OnnxVoter("lightgbm", scorer, SCHEMA, "1h")


def test_voters_are_built_from_settings_and_disabled_ones_are_not():
    built = build_voters(default_models(), {"lightgbm": Answers()})
    assert [(voter.name, voter.kind) for voter in built] == [
        ("lightgbm", "onnx"),
        ("river_logistic", "river"),
    ]
    off = {
        name: one.model_copy(update={"enabled": False}) for name, one in default_models().items()
    }
    assert build_voters(off, {}) == []
