"""Voters that are not rules: models whose opinion is pooled and recorded with every signal."""

from operators.voters.base import Answers, Learner, abstain
from operators.voters.build import build_learners, build_served, model_name
from operators.voters.onnx_vote import ModelInputs, OnnxVoter, Scorer

__all__ = [
    "Answers",
    "Learner",
    "ModelInputs",
    "OnnxVoter",
    "Scorer",
    "abstain",
    "build_learners",
    "build_served",
    "model_name",
]
