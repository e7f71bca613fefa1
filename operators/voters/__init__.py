"""Voters that are not rules: models whose opinion is recorded beside the rules' on the same bar."""

from operators.voters.base import Voter, abstain
from operators.voters.build import build_voters
from operators.voters.onnx_vote import OnnxVoter, Scorer
from operators.voters.river_logistic import RiverLogisticVoter

__all__ = ["OnnxVoter", "RiverLogisticVoter", "Scorer", "Voter", "abstain", "build_voters"]
