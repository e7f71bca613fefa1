"""Buy when the models together expect more than a round trip costs; sell when they turn round."""

from collections.abc import Mapping
from math import sqrt
from typing import ClassVar

from pydantic import Field

from operators.strategies.base import (
    Bars,
    BoolArray,
    FloatArray,
    Strategy,
    StrategyParameters,
    number,
)
from schemas.settings import Timeframe


class EnsembleParameters(StrategyParameters):
    """When the pooled opinion is enough, and how far it is protected."""

    horizon_bars: int = Field(default=4, ge=1)
    agreeing_min: int = Field(default=2, ge=1)
    """Voters off the floor that must lean to buy: one alone never trades."""
    exit_lean_min: float = Field(default=0.02, ge=0.0, lt=1.0)
    """Exit when sell exceeds buy by at least this; less is noise that would pay costs for nothing."""
    stop_atr: float = Field(default=2.0, gt=0.0)
    """Distance of the stop from the close, in ATR."""
    target_deviations: float = Field(default=2.0, gt=0.0)
    """Distance of the target from the close, in deviations of the horizon."""


class Ensemble(Strategy[EnsembleParameters]):
    """Enter on an expected edge above its threshold that enough voters share.

    What was bought is sold when the pool leans to sell, for then staying is expected to lose. The
    stop is 2 ATR below the close, the target two deviations of the horizon above it.
    """

    name: ClassVar[str] = "ensemble"
    version: ClassVar[str] = "1"
    default_timeframe: ClassVar[Timeframe] = "1h"
    parameters_type = EnsembleParameters

    def entry(self, bars: Bars) -> BoolArray:
        """Return whether the edge is above its threshold and enough voters lean to buy."""
        worth = bars["ensemble_edge_bps"] > bars["ensemble_threshold_bps"]
        leans = bars["ensemble_buy"] > bars["ensemble_sell"]
        return worth & leans & (bars["ensemble_agreeing"] >= self.parameters.agreeing_min)

    def exit(self, bars: Bars) -> BoolArray:
        """Return whether the pool leans to sell."""
        return bars["ensemble_sell"] - bars["ensemble_buy"] >= self.parameters.exit_lean_min

    def stop_price(self, bars: Bars) -> FloatArray:
        """Return close - 2 ATR."""
        return bars["close"] - self.parameters.stop_atr * bars["atr_14"]

    def target_price(self, bars: Bars) -> FloatArray:
        """Return close + 2 deviations of the horizon."""
        deviation = bars["volatility_30"] * sqrt(self.parameters.horizon_bars)
        return bars["close"] * (1.0 + self.parameters.target_deviations * deviation)

    def reason_entry(self, row: Mapping[str, float]) -> str:
        """Return edge against threshold, how many agree, and the stop and target."""
        rule = self.parameters
        return (
            f"edge {number(row['ensemble_edge_bps'])} bps above "
            f"{number(row['ensemble_threshold_bps'])}; "
            f"{row['ensemble_agreeing']:.0f} voters lean to buy, {rule.agreeing_min} needed; pooled "
            f"buy {row['ensemble_buy']:.4f}, sell {row['ensemble_sell']:.4f}; "
            f"stop close - {number(rule.stop_atr)} x ATR {number(row['atr_14'])} = "
            f"{number(row['stop_price'])}; target {number(row['target_price'])}"
        )

    def reason_exit(self, row: Mapping[str, float]) -> str:
        """Return the pooled probabilities against each other."""
        return (
            f"pooled sell {row['ensemble_sell']:.4f} exceeds buy {row['ensemble_buy']:.4f} by at "
            f"least {number(self.parameters.exit_lean_min)}"
        )
