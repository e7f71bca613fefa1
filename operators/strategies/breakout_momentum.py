"""Buy a close above the prior high on heavy volume and let a trailing stop take it out."""

from collections.abc import Mapping
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


class BreakoutMomentumParameters(StrategyParameters):
    """Windows count the bars before the current one, which would otherwise veto its own break."""

    horizon_bars: int = Field(default=20, ge=1)
    high_bars: int = Field(default=20, ge=1, le=300)
    """Bars whose highest high must be exceeded by the close."""
    low_bars: int = Field(default=10, ge=1, le=300)
    """Bars below whose lowest low a close exits."""
    volume_bars: int = Field(default=20, ge=1, le=300)
    """Bars of the volume average."""
    volume_ratio_min: float = Field(default=1.5, gt=0.0)
    """Enter strictly above this multiple of the average volume."""
    trail_atr: float = Field(default=1.5, gt=0.0)
    """Distance of the trailing stop from the best price since entry, in ATR of the entry bar."""
    reward_ratio: float = Field(default=3.0, gt=0.0)
    """Distance of the target from the close, in distances of the initial stop."""


class BreakoutMomentum(Strategy[BreakoutMomentumParameters]):
    """Enter on a close above the prior 20-day high with volume above 1.5 averages.

    The stop starts 1.5 ATR below the close and trails by that distance, the target is three of
    them above; a close below the prior 10-day low exits.
    """

    name: ClassVar[str] = "breakout_momentum"
    version: ClassVar[str] = "1"
    default_timeframe: ClassVar[Timeframe] = "1d"
    parameters_type = BreakoutMomentumParameters

    @property
    def _high(self) -> str:
        return f"prior_high_{self.parameters.high_bars}"

    @property
    def _low(self) -> str:
        return f"prior_low_{self.parameters.low_bars}"

    @property
    def _volume_mean(self) -> str:
        return f"prior_volume_mean_{self.parameters.volume_bars}"

    def entry(self, bars: Bars) -> BoolArray:
        """Return where the close breaks the prior high on enough volume."""
        volume_min = self.parameters.volume_ratio_min * bars[self._volume_mean]
        return (bars["close"] > bars[self._high]) & (bars["volume"] > volume_min)

    def exit(self, bars: Bars) -> BoolArray:
        """Return where the close is below the lowest low of the bars before it."""
        return bars["close"] < bars[self._low]

    def trail_distance(self, bars: Bars) -> FloatArray:
        """Return 1.5 ATR."""
        return self.parameters.trail_atr * bars["atr_14"]

    def stop_price(self, bars: Bars) -> FloatArray:
        """Return close - 1.5 ATR: where the trailing stop starts."""
        return bars["close"] - self.trail_distance(bars)

    def target_price(self, bars: Bars) -> FloatArray:
        """Return close + 3 x 1.5 ATR."""
        return bars["close"] + self.parameters.reward_ratio * self.trail_distance(bars)

    def reason_entry(self, row: Mapping[str, float]) -> str:
        """Return close against the high, volume against its average, and stop and target."""
        rule = self.parameters
        return (
            f"close {number(row['close'])} above {rule.high_bars}-bar high "
            f"{number(row[self._high])}; volume {number(row['volume'])} above "
            f"{number(rule.volume_ratio_min)} x average {number(row[self._volume_mean])}; "
            f"stop trails by {number(rule.trail_atr)} x ATR {number(row['atr_14'])} from "
            f"{number(row['stop_price'])}; target {number(rule.reward_ratio)} x stop distance = "
            f"{number(row['target_price'])}"
        )

    def reason_exit(self, row: Mapping[str, float]) -> str:
        """Return close against the low."""
        return (
            f"close {number(row['close'])} below {self.parameters.low_bars}-bar low "
            f"{number(row[self._low])}"
        )
