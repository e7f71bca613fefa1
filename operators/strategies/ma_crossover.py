"""Buy when the fast average crosses above the slow one, with three filters; sell on the way down."""

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


class MaCrossoverParameters(StrategyParameters):
    """20/50 by default; `fast_bars = 5`, `slow_bars = 20` is the other profile in use."""

    horizon_bars: int = Field(default=48, ge=1)
    fast_bars: int = Field(default=20, ge=1, le=300)
    slow_bars: int = Field(default=50, ge=2, le=300)
    volume_bars: int = Field(default=20, ge=1, le=300)
    """Bars before the current one over which volume is averaged."""
    trend_bars: int = Field(default=100, ge=1, le=300)
    """Bars of the average that the close must exceed."""
    resistance_bars: int = Field(default=50, ge=1, le=300)
    """Bars before the current one whose highest high is the resistance."""
    resistance_gap_pct: float = Field(default=1.0, ge=0.0, lt=100.0)
    """The close must lie at least this far below the resistance (percent of it)."""
    stop_atr: float = Field(default=2.0, gt=0.0)
    """Distance of the stop below the close, in ATR."""
    reward_ratio: float = Field(default=2.0, gt=0.0)
    """Distance of the target from the close, in distances of the stop."""

    @model_validator(mode="after")
    def _fast_is_shorter_than_slow(self) -> Self:
        if self.fast_bars >= self.slow_bars:
            msg = f"fast_bars must be less than slow_bars {self.slow_bars!r}"
            raise ValueError(msg)
        return self


class MaCrossover(Strategy[MaCrossoverParameters]):
    """Enter when SMA 20 crosses above SMA 50, exit when it crosses below.

    Filters of the entry: volume above its average, close above SMA 100, close at least 1 % below
    the highest high of the 50 bars before. Stop 2 ATR below, target 2 x that distance above.
    """

    name: ClassVar[str] = "ma_crossover"
    version: ClassVar[str] = "1"
    default_timeframe: ClassVar[Timeframe] = "1h"
    parameters_type = MaCrossoverParameters

    @property
    def _fast(self) -> str:
        return f"sma_{self.parameters.fast_bars}"

    @property
    def _slow(self) -> str:
        return f"sma_{self.parameters.slow_bars}"

    @property
    def _volume_mean(self) -> str:
        return f"prior_volume_mean_{self.parameters.volume_bars}"

    @property
    def _trend(self) -> str:
        return f"sma_{self.parameters.trend_bars}"

    @property
    def _resistance(self) -> str:
        return f"resistance_{self.parameters.resistance_bars}"

    def entry(self, bars: Bars) -> BoolArray:
        """Return where the averages cross upwards on this bar and the three filters pass."""
        crossed = bars[self._fast] > bars[self._slow]
        was_not_above = bars[f"prior_{self._fast}"] <= bars[f"prior_{self._slow}"]
        close_max = bars[self._resistance] * (1.0 - self.parameters.resistance_gap_pct / 100.0)
        return (
            crossed
            & was_not_above
            & (bars["volume"] > bars[self._volume_mean])
            & (bars["close"] > bars[self._trend])
            & (bars["close"] <= close_max)
        )

    def exit(self, bars: Bars) -> BoolArray:
        """Return where the averages cross downwards on this bar."""
        crossed = bars[self._fast] < bars[self._slow]
        return crossed & (bars[f"prior_{self._fast}"] >= bars[f"prior_{self._slow}"])

    def stop_price(self, bars: Bars) -> FloatArray:
        """Return close - 2 ATR."""
        return bars["close"] - self._stop_distance(bars)

    def target_price(self, bars: Bars) -> FloatArray:
        """Return close + 2 x 2 ATR."""
        return bars["close"] + self.parameters.reward_ratio * self._stop_distance(bars)

    def _stop_distance(self, bars: Bars) -> FloatArray:
        return self.parameters.stop_atr * bars["atr_14"]

    def reason_entry(self, row: Mapping[str, float]) -> str:
        """Return the cross, each filter with its numbers, and how stop and target came about."""
        rule = self.parameters
        return (
            f"{self._averages('above', row)}; volume {number(row['volume'])} above average "
            f"{number(row[self._volume_mean])}; close {number(row['close'])} above SMA "
            f"{rule.trend_bars} {number(row[self._trend])} and at least "
            f"{number(rule.resistance_gap_pct)} % below resistance "
            f"{number(row[self._resistance])}; stop {number(rule.stop_atr)} x ATR "
            f"{number(row['atr_14'])} = {number(row['stop_price'])}; target "
            f"{number(rule.reward_ratio)} x stop distance = {number(row['target_price'])}"
        )

    def reason_exit(self, row: Mapping[str, float]) -> str:
        """Return the cross with its numbers."""
        return self._averages("below", row)

    def _averages(self, direction: str, row: Mapping[str, float]) -> str:
        return (
            f"SMA {self.parameters.fast_bars} {number(row[self._fast])} crossed {direction} SMA "
            f"{self.parameters.slow_bars} {number(row[self._slow])}"
        )
