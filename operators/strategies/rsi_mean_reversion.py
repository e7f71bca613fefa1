"""Buy what fell too fast, sell when it has risen too fast: RSI 35 / 65."""

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import Field, model_validator

from operators.strategies.base import (
    Bars,
    BoolArray,
    FloatArray,
    Strategy,
    StrategyParameters,
    number,
)
from schemas.settings import Timeframe


class RsiMeanReversionParameters(StrategyParameters):
    """Equity profile; the crypto profile is `rsi_entry_max = 25`, `rsi_exit_min = 75`."""

    rsi_entry_max: float = Field(default=35.0, gt=0.0, lt=100.0)
    """Enter strictly below (percent)."""
    rsi_exit_min: float = Field(default=65.0, gt=0.0, lt=100.0)
    """Exit strictly above (percent)."""
    stop_atr: float = Field(default=2.0, gt=0.0)
    """Distance of the stop below the close, in ATR."""
    target_atr: float = Field(default=3.0, gt=0.0)
    """Distance of the target above the close, in ATR."""

    @model_validator(mode="after")
    def _entry_lies_below_exit(self) -> Self:
        if self.rsi_entry_max >= self.rsi_exit_min:
            msg = f"rsi_entry_max must lie below rsi_exit_min {self.rsi_exit_min!r}"
            raise ValueError(msg)
        return self


class RsiMeanReversion(Strategy[RsiMeanReversionParameters]):
    """Enter at RSI(14) below 35, exit above 65; stop 2 ATR below, target 3 ATR above the close."""

    name: ClassVar[str] = "rsi_mean_reversion"
    version: ClassVar[str] = "1"
    default_timeframe: ClassVar[Timeframe] = "1h"
    parameters_type = RsiMeanReversionParameters

    def entry(self, bars: Bars) -> BoolArray:
        """Return where RSI is below the entry level."""
        return bars["rsi_14"] < self.parameters.rsi_entry_max

    def exit(self, bars: Bars) -> BoolArray:
        """Return where RSI is above the exit level."""
        return bars["rsi_14"] > self.parameters.rsi_exit_min

    def stop_price(self, bars: Bars) -> FloatArray:
        """Return close - 2 ATR."""
        return bars["close"] - self.parameters.stop_atr * bars["atr_14"]

    def target_price(self, bars: Bars) -> FloatArray:
        """Return close + 3 ATR."""
        return bars["close"] + self.parameters.target_atr * bars["atr_14"]

    def reason_entry(self, row: Mapping[str, float]) -> str:
        """Return RSI against its level, and how stop and target came about."""
        rule = self.parameters
        atr = number(row["atr_14"])
        return (
            f"RSI {number(row['rsi_14'])} below {number(rule.rsi_entry_max)}; "
            f"stop {number(rule.stop_atr)} x ATR {atr} = {number(row['stop_price'])}; "
            f"target {number(rule.target_atr)} x ATR {atr} = {number(row['target_price'])}"
        )

    def reason_exit(self, row: Mapping[str, float]) -> str:
        """Return RSI against its level."""
        return f"RSI {number(row['rsi_14'])} above {number(self.parameters.rsi_exit_min)}"
