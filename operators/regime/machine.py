"""The confirmed regime of every series, bar by bar, and the records that say so."""

from math import isfinite

import numpy as np
import polars as pl
from msgspec import Struct

from operators.bar_columns import BarColumns, SeriesKey
from operators.regime.inputs import regime_inputs
from operators.regime.sources import NO_CALL, FloatArray, RegimeSource
from schemas.ids import derive_id, features_id
from schemas.models import ContextObserved
from schemas.regime import REGIMES, RG11, Regime

DAY_NS = 86_400_000_000_000
NEVER = -1
KIND = "regime"


class Hysteresis(Struct, frozen=True, kw_only=True):
    """What it takes before a call changes the regime."""

    confirmations: int = 3
    """Equal calls on consecutive bars; a bar without a call, or with a weak one, breaks the row."""
    strength_min: float = 0.3
    """Least strength of a call that confirms; chance is 0.2. A source without strength passes."""


class SeriesRegime(Struct):
    """What is remembered of one series."""

    since_ns: int
    """Close of the bar that confirmed the regime; of the first bar while it is unknown."""
    confirmed: int = NO_CALL
    transitions: int = 0
    candidate: int = NO_CALL
    confirmations: int = 0
    published_day: int = NEVER
    """Day of event time of the last record."""


class RegimeState(Struct):
    """All that a regime machine remembers; it pickles, and continues bit for bit."""

    series: dict[SeriesKey, SeriesRegime]
    source: str
    """Name and hash of who made the calls that are being confirmed."""


class RegimeMachine:
    """Confirms the regime of each series from the calls of one source.

    A regime changes when `confirmations` consecutive bars of the series call the same other regime;
    so two changes are at least as many bars apart. It is UNKNOWN until the first is confirmed, which
    is no transition. A record goes out on every change, and else with the first bar of a series on
    each day of event time. The output depends on the bars alone, never on how they were cut.
    """

    def __init__(
        self, source: RegimeSource, timeframe: str = "1h", hysteresis: Hysteresis | None = None
    ) -> None:
        self.timeframe = timeframe
        self._hysteresis = Hysteresis() if hysteresis is None else hysteresis
        self._source = source
        self._series: dict[SeriesKey, SeriesRegime] = {}

    @property
    def state(self) -> RegimeState:
        """Return what is remembered; pickle it before the next `on_features`, it is not a copy."""
        return RegimeState(series=self._series, source=_identify(self._source))

    @state.setter
    def state(self, state: RegimeState) -> None:
        self._series = state.series
        if state.source != _identify(self._source):
            # Calls of the source before confirm nothing of the new one; what is confirmed stands.
            for known in self._series.values():
                known.candidate, known.confirmations = NO_CALL, 0

    def on_features(self, frame: pl.DataFrame | BarColumns) -> list[ContextObserved]:
        """Return the records of closed bars, sorted by (event time, venue, symbol).

        `frame` has one row per bar: `venue`, `symbol`, `timeframe`, `close_time_ns`, `close` and
        what a `FeatureMachine` with `operators.regime.INDICATORS` added; the bars of one series are
        in time order. Bars of other timeframes are left out.
        """
        bars = BarColumns.of(frame).select({self.timeframe})
        if not bars.height:
            return []
        inputs = regime_inputs(bars)
        calls = self._source.call(inputs)
        codes, strengths = calls.codes.tolist(), calls.strengths.tolist()
        times = bars.integers("close_time_ns").tolist()
        found = []
        for row, key in enumerate(bars.keys()):
            known = self._series.setdefault(key, SeriesRegime(since_ns=times[row]))
            before = known.confirmed
            changed = self._advance(known, codes[row], strengths[row], times[row])
            if changed or known.published_day != times[row] // DAY_NS:
                known.published_day = times[row] // DAY_NS
                reason = self._explain(before, known, codes[row], inputs[row])
                found.append(
                    self._observe(key, times[row], known, calls.probabilities[row], reason)
                )
        return sorted(found, key=lambda one: (one.event_time_ns, one.venue, one.symbol))

    def _advance(self, known: SeriesRegime, code: int, strength: float, time_ns: int) -> bool:
        """Take one call; return whether it changed the regime."""
        if code == NO_CALL or strength < self._hysteresis.strength_min or code == known.confirmed:
            known.candidate, known.confirmations = NO_CALL, 0
            return False
        known.confirmations = known.confirmations + 1 if code == known.candidate else 1
        known.candidate = code
        if known.confirmations < self._hysteresis.confirmations:
            return False
        known.transitions += known.confirmed != NO_CALL
        known.confirmed, known.since_ns = code, time_ns
        known.candidate, known.confirmations = NO_CALL, 0
        return True

    def _explain(self, before: int, known: SeriesRegime, code: int, inputs: FloatArray) -> str:
        numbers = ", ".join(
            f"{name} {value:.6g}"
            for name, value in zip(RG11.names, inputs.tolist(), strict=True)
            if name in {"sma_50_slope", "true_range_ratio"}
        )
        if known.confirmed != before:
            bars = self._hysteresis.confirmations
            return f"{bars} calls in a row, before {_regime(before).value}; {numbers}"
        missing = [
            name
            for name, value in zip(RG11.names, inputs.tolist(), strict=True)
            if not isfinite(value)
        ]
        if missing:
            return f"first bar of the day; missing inputs: {', '.join(missing)}"
        return f"first bar of the day; it calls {_regime(code).value}; {numbers}"

    def _observe(
        self,
        key: SeriesKey,
        time_ns: int,
        known: SeriesRegime,
        probabilities: FloatArray,
        reason: str,
    ) -> ContextObserved:
        venue, symbol, timeframe = key
        cause = features_id(venue, symbol, timeframe, time_ns)
        confidence = float(probabilities[known.confirmed]) if known.confirmed != NO_CALL else np.nan
        return ContextObserved(
            id=derive_id(ContextObserved.topic, f"{venue}:{symbol}", time_ns, 0, cause),
            cause=cause,
            venue=venue,
            symbol=symbol,
            event_time_ns=time_ns,
            kind=KIND,
            regime=_regime(known.confirmed),
            confidence=confidence if isfinite(confidence) else None,
            regime_since_ns=known.since_ns,
            transitions=known.transitions,
            source=self._source.name,
            version=self._source.version,
            content_hash=self._source.content_hash,
            reason=reason,
        )


def _regime(code: int) -> Regime:
    return Regime.UNKNOWN if code == NO_CALL else REGIMES[code]


def _identify(source: RegimeSource) -> str:
    return f"{source.name}/{source.content_hash}"
