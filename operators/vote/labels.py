"""What became of a bar: settled on the stream as the data sets settle it offline.

A label is the first close within the horizon that leaves the band `costs + factor * volatility *
sqrt(horizon)`: buy above it, sell below it, hold if none does. It counts as known when the bar closes
that ends the horizon, never before (triple barrier after M. Lopez de Prado, *Advances in Financial
Machine Learning*, 2018, ch. 3, with closes that touch).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from msgspec import Struct

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SELL, HOLD, BUY = 0, 1, 2
UNKNOWN = -1


class LabelRule(Struct, frozen=True, kw_only=True):
    """The numbers of a label."""

    horizon_bars: int = 4
    cost_bps: float = 22.0
    """Cost of a round trip."""
    volatility_factor: float = 0.5
    """Share of the horizon's expected deviation that is called noise."""

    def band(self, volatility: FloatArray) -> FloatArray:
        """Return the move, as a fraction, that a close must exceed; `volatility` is per bar."""
        noise = self.volatility_factor * volatility * self.horizon_bars**0.5
        return np.asarray(self.cost_bps / 1e4 + noise, dtype=np.float64)


class Settled(Struct, frozen=True):
    """Labels that one close settled, one per series."""

    rows: IntArray
    """Rows of the call whose close ended a horizon."""
    codes: IntArray
    """Their series."""
    slots: IntArray
    """Where the bar that is settled was put when it closed."""
    labels: IntArray
    """0 sell, 1 hold, 2 buy; `UNKNOWN` where there was no band."""
    returns: FloatArray
    """Close at the horizon's end over the close of the settled bar, less 1."""
    bands: FloatArray
    """The band of the settled bar, as a fraction."""


class OpenLabels(Struct):
    """Bars whose horizon is open, `horizon_bars` slots per series; picklable."""

    rule: LabelRule
    seen: IntArray
    """Bars of each series so far."""
    closes: FloatArray
    """(series, slots); NaN in a slot that was never used."""
    bands: FloatArray
    touched: IntArray
    """The label so far, by slot."""

    @classmethod
    def none(cls, rule: LabelRule) -> "OpenLabels":
        """Return the state before the first bar."""
        slots = rule.horizon_bars
        return cls(
            rule,
            np.zeros(0, dtype=np.int64),
            np.zeros((0, slots)),
            np.zeros((0, slots)),
            np.zeros((0, slots), dtype=np.int64),
        )

    def advance(
        self, codes: IntArray, closes: FloatArray, volatilities: FloatArray
    ) -> tuple[Settled, IntArray]:
        """Take one bar each of the series `codes`; return what it settled, and the slot it took.

        The slots that were settled are the ones taken, so what a caller keeps by slot is to be read
        before it is written. A bar counts as a bar of the horizon whether it has a band or not.
        """
        self._make_room(int(codes.max(initial=-1)) + 1)
        slots = self.seen[codes] % self.rule.horizon_bars
        with np.errstate(invalid="ignore"):
            moves = closes[:, None] / self.closes[codes] - 1.0
            bands, touched = self.bands[codes], self.touched[codes]
            free = touched == HOLD
            touched[free & (moves > bands)] = BUY
            touched[free & (moves < -bands)] = SELL
        self.touched[codes] = touched
        rows = np.flatnonzero(self.seen[codes] >= self.rule.horizon_bars)
        ended = slots[rows]
        band = bands[rows, ended]
        settled = Settled(
            rows,
            codes[rows],
            ended,
            np.where(np.isfinite(band), touched[rows, ended], UNKNOWN),
            moves[rows, ended],
            band,
        )
        self.closes[codes, slots] = closes
        self.bands[codes, slots] = self.rule.band(volatilities)
        self.touched[codes, slots] = HOLD
        self.seen[codes] += 1
        return settled, slots

    def _make_room(self, count: int) -> None:
        added = count - len(self.seen)
        if added <= 0:
            return
        missing = np.full((added, self.rule.horizon_bars), np.nan)
        self.seen = np.concatenate([self.seen, np.zeros(added, dtype=np.int64)])
        self.closes = np.concatenate([self.closes, missing])
        self.bands = np.concatenate([self.bands, missing])
        held = np.full(missing.shape, HOLD, dtype=np.int64)
        self.touched = np.concatenate([self.touched, held])


def find_bounds(times_ns: IntArray) -> list[int]:
    """Return where each close begins among the bars of some closes, and the end."""
    changes = (np.flatnonzero(times_ns[1:] != times_ns[:-1]) + 1).tolist()
    return [0, *changes, len(times_ns)] if len(times_ns) else [0]


def order_rows(codes: IntArray, names: Sequence[tuple[str, str]]) -> IntArray:
    """Return the rows in order of venue and symbol, however they came in; `names` is by code."""
    listed = codes.tolist()
    order = sorted(range(len(listed)), key=lambda row: names[listed[row]])
    return np.array(order, dtype=np.int64)
