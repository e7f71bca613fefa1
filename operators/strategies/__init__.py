"""Rule strategies, one module each; a new module in this folder is found without further wiring."""

from operators.strategies.base import (
    Strategy,
    StrategyParameters,
    build_strategies,
    discover_strategies,
    required_indicators,
)
from operators.strategies.conditions import Conditions

__all__ = [
    "Conditions",
    "Strategy",
    "StrategyParameters",
    "build_strategies",
    "discover_strategies",
    "required_indicators",
]
