"""Buy a touch of the lower Bollinger band while RSI is weak, sell a touch of the upper one."""

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


class BollingerBounceParameters(StrategyParameters):
    """The band itself (20 bars, 2 population deviations) is that of the feature schema."""

    rsi_entry_max: float = Field(default=45.0, gt=0.0, lt=100.0)
    """Enter strictly below (percent)."""
    stop_atr: float = Field(default=1.5, gt=0.0)
    """Distance of the stop below the lower band, in ATR."""


class BollingerBounce(Strategy[BollingerBounceParameters]):
    """Enter if the low touches the lower band and RSI(14) is below 45, exit at the upper band.

    The stop lies 1.5 ATR below the lower band. A bar that closes at or below that stop is no entry:
    the position would have to be closed before it is opened.
    """

    name: ClassVar[str] = "bollinger_bounce"
    version: ClassVar[str] = "1"
    default_timeframe: ClassVar[Timeframe] = "1h"
    parameters_type = BollingerBounceParameters

    def entry(self, bars: Bars) -> BoolArray:
        """Return where the low is at or below the lower band and RSI below its level."""
        weak = bars["rsi_14"] < self.parameters.rsi_entry_max
        return (bars["low"] <= bars["bb_lower"]) & weak

    def exit(self, bars: Bars) -> BoolArray:
        """Return where the high is at or above the upper band."""
        return bars["high"] >= bars["bb_upper"]

    def stop_price(self, bars: Bars) -> FloatArray:
        """Return lower band - 1.5 ATR."""
        return bars["bb_lower"] - self.parameters.stop_atr * bars["atr_14"]

    def reason_entry(self, row: Mapping[str, float]) -> str:
        """Return low against the band, RSI against its level, and how the stop came about."""
        rule = self.parameters
        return (
            f"low {number(row['low'])} at or below lower band {number(row['bb_lower'])}; "
            f"RSI {number(row['rsi_14'])} below {number(rule.rsi_entry_max)}; "
            f"stop band - {number(rule.stop_atr)} x ATR {number(row['atr_14'])} = "
            f"{number(row['stop_price'])}"
        )

    def reason_exit(self, row: Mapping[str, float]) -> str:
        """Return high against the band."""
        return f"high {number(row['high'])} at or above upper band {number(row['bb_upper'])}"
