"""One vote from many models: pooling, agreement, edge, and the governance of the weights."""

from operators.vote.agreement import CLASSES, Agreement
from operators.vote.ballots import ActionMix, count_mix, find_biased_stage
from operators.vote.build import build_rule
from operators.vote.edge import TradingCosts
from operators.vote.facts import VoterFact, build_event
from operators.vote.governance import Candidate, GovernanceRule, WeightGovernor
from operators.vote.labels import LabelRule
from operators.vote.panel import Opinion, PanelRule, PanelState, VotePanel

__all__ = [
    "CLASSES",
    "ActionMix",
    "Agreement",
    "Candidate",
    "GovernanceRule",
    "LabelRule",
    "Opinion",
    "PanelRule",
    "PanelState",
    "TradingCosts",
    "VotePanel",
    "VoterFact",
    "WeightGovernor",
    "build_event",
    "build_rule",
    "count_mix",
    "find_biased_stage",
]
