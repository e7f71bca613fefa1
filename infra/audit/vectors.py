"""Feature vectors, a part of them computed again from the bars (I15).

Which ones is a function of their ids, so that two audits look at the same: the first vectors of each
series, where windows fill, and of the others those whose id falls into the sample.
"""

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

import numpy as np

from infra.audit.formulas import FORMULAS, Floats, Rows, Series
from infra.audit.report import Check, Place
from schemas.features import FEATURE_SCHEMAS, FEATURES, FeatureKind
from schemas.ids import features_id
from schemas.market import BarClosed, FeaturesComputed

FIRST_OF_SERIES = 256
"""So many vectors of each series are all computed again: longer than any warm-up."""

SAMPLED_ONE_IN = 16
TOLERANCE = 1e-9
"""Of the close for prices, of the value itself for volumes, absolute for what has no scale."""

SeriesKey = tuple[str, str, str]
"""Venue, symbol, timeframe."""

_PRICED = frozenset({FeatureKind.LEVEL, FeatureKind.DIFFERENCE})


@dataclass
class _Bars:
    closes_ns: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))
    """High, low, close and volume of each bar in turn."""


@dataclass
class _Kept:
    places: list[Place] = field(default_factory=list)
    closes_ns: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))


class _Wrong(NamedTuple):
    place: Place
    key: str
    feature: str
    expected: float
    found: float


class VectorAudit:
    """Holds vectors against their schema, and the sampled ones against the bars."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._bars: dict[SeriesKey, _Bars] = defaultdict(_Bars)
        self._kept: dict[tuple[SeriesKey, str], _Kept] = defaultdict(_Kept)
        self._seen: Counter[SeriesKey] = Counter()
        self._wrong: list[_Wrong] = []

    def see_bar(self, bar: BarClosed) -> None:
        """Remember a bar."""
        series = self._bars[bar.venue, bar.symbol, bar.timeframe]
        series.closes_ns.append(bar.close_time_ns)
        series.values.extend((bar.high, bar.low, bar.close, bar.volume))

    def see_vector(self, place: Place, message: FeaturesComputed) -> None:
        """Check form and mask of a vector, and keep it if it is in the sample."""
        check = self._check
        check.rows += 1
        schema = FEATURE_SCHEMAS.get(message.schema_name)
        found = (message.schema_hash, len(message.vector))
        expected = ("a known schema", 0) if schema is None else (schema.schema_hash, len(schema))
        check.require("the vector fits its schema", place, message.id, expected, found)
        mask = sum(1 << i for i, value in enumerate(message.vector) if value is None)
        rule = "the mask says which features are missing"
        check.require(rule, place, message.id, mask, message.missing_mask)
        key = (message.venue, message.symbol, message.timeframe)
        self._seen[key] += 1
        sampled = self._seen[key] <= FIRST_OF_SERIES or not (
            crc32(message.id.encode()) % SAMPLED_ONE_IN
        )
        if expected == found and sampled:
            kept = self._kept[key, message.schema_name]
            kept.places.append(place)
            kept.closes_ns.append(message.close_time_ns)
            kept.values.extend(np.nan if value is None else value for value in message.vector)

    def compare(self) -> None:
        """Compute what was kept again and record every value that differs, in log order."""
        names: set[str] = set()
        for (key, schema_name), kept in sorted(self._kept.items()):
            names.update(FEATURE_SCHEMAS[schema_name].names)
            self._compare_series(key, schema_name, kept)
        for wrong in sorted(self._wrong):
            rule = f"{wrong.feature} follows from the bars"
            expected, found = _said(wrong.expected), _said(wrong.found)
            self._check.violate(rule, wrong.place, wrong.key, expected, found)
        sampled = sum(len(kept.places) for kept in self._kept.values())
        if sampled < self._seen.total():
            self._check.skip(
                f"{sampled:,} of {self._seen.total():,} vectors were computed again: the first "
                f"{FIRST_OF_SERIES} of a series, then one in {SAMPLED_ONE_IN}"
            )
        left = sorted(names - FORMULAS.keys())
        if left:
            self._check.skip(f"not computed again: {', '.join(left)}")

    def _compare_series(self, key: SeriesKey, schema_name: str, kept: _Kept) -> None:
        schema, bars = FEATURE_SCHEMAS[schema_name], self._bars.get(key, _Bars())
        times = np.frombuffer(bars.closes_ns, dtype=np.int64)
        order = np.argsort(times, kind="stable")
        times, columns = times[order], np.frombuffer(bars.values).reshape(-1, 4)[order].T
        wanted = np.frombuffer(kept.closes_ns, dtype=np.int64)
        vectors = np.frombuffer(kept.values).reshape(len(wanted), len(schema))
        places = np.searchsorted(times, wanted)
        # A vector without its bar is an orphan, which the causal chain names.
        known = np.flatnonzero(np.isin(wanted, times))
        if not len(known):
            return
        rows = places[known].astype(np.int64)
        series = Series(*map(np.ascontiguousarray, columns))
        for position, name in enumerate(schema.names):
            if name in FORMULAS:
                found = vectors[known, position]
                for i, expected in _differing(name, series, rows, found):
                    place = kept.places[known[i]]
                    vector = features_id(*key, int(wanted[known[i]]))
                    value = float(found[i])
                    self._wrong.append(_Wrong(place, vector, name, expected, value))


def _differing(name: str, series: Series, rows: Rows, found: Floats) -> list[tuple[int, float]]:
    """Return which of `found` differ from the feature at `rows`, each with the value expected."""
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = FORMULAS[name](series, rows)
    kind = FEATURES[name].kind
    scale: Floats = np.ones(len(rows))
    if kind in _PRICED:
        scale = series.close[rows]
    elif kind is FeatureKind.VOLUME:
        scale = np.abs(expected)
    missing = np.isnan(expected)
    differs = ~missing & ~(np.abs(found - expected) <= TOLERANCE * scale)
    wrong = np.flatnonzero(differs | (missing != np.isnan(found)))
    return [(int(i), float(expected[i])) for i in wrong]


def _said(value: float) -> str:
    return "missing" if np.isnan(value) else repr(value)
