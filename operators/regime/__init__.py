"""Regimes: eleven inputs, a rule or a model that calls one per bar, and what confirms it."""

from operators.regime.inputs import INDICATORS, WARM_UP_BARS, regime_inputs
from operators.regime.machine import Hysteresis, RegimeMachine, RegimeState
from operators.regime.sources import (
    NO_CALL,
    Calls,
    RegimeRule,
    RegimeSource,
    RuleNumbers,
    call_by_lift,
)

__all__ = [
    "INDICATORS",
    "NO_CALL",
    "WARM_UP_BARS",
    "Calls",
    "Hysteresis",
    "RegimeMachine",
    "RegimeRule",
    "RegimeSource",
    "RegimeState",
    "RuleNumbers",
    "call_by_lift",
    "regime_inputs",
]
