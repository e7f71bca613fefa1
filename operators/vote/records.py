"""Opinions as records of the log: one per bar, small, rounded to what can be meant."""

from collections.abc import Sequence
from functools import partial
from itertools import repeat

import numpy as np
import numpy.typing as npt
import polars as pl

from operators.vote.agreement import CLASSES, find_stances
from operators.vote.panel import Opinion
from schemas.frames import nest, polars_schema
from schemas.ids import bar_id, derive_id, features_id
from schemas.opinions import OpinionPooled

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Column = pl.Series | Sequence[object] | FloatArray | IntArray

# Both are read from the end too: -1 is a voter that abstained, or a pool without a direction.
_STANCES = ("sell", "hold", "buy", "abstain")
_CLASSES = (*(one.value for one in CLASSES), "")
_DECIMALS = 4


def build_opinions(
    keys: Sequence[tuple[str, str]],
    timeframe: str,
    times_ns: IntArray,
    provenances: Sequence[str],
    voters: Sequence[str],
    probabilities: FloatArray,
    opinion: Opinion,
    threshold_bps: float,
) -> pl.DataFrame:
    """Return one row of `OpinionPooled` per bar.

    `probabilities` (rows, voters, 3) is what the panel was given to form `opinion`.
    """
    said, counted = np.where(opinion.present[..., None], probabilities, np.nan), opinion.counted
    raw, stances = (find_stances(each, opinion.priors[:, None]) for each in (said, counted))
    pooled = opinion.probabilities
    columns: dict[str, Column] = {
        **_identify(keys, timeframe, times_ns.tolist()),
        "timeframe": [timeframe] * len(keys),
        "voters": pl.Series([list(voters)], dtype=pl.List(pl.String)).new_from_index(0, len(keys)),
        "sell": _lists(_numbers(counted[..., 0]), len(voters)),
        "buy": _lists(_numbers(counted[..., 2]), len(voters)),
        "stances": _lists(pl.Series(_words(_STANCES, stances), dtype=pl.String), len(voters)),
        "raw_stances": _lists(pl.Series(_words(_STANCES, raw), dtype=pl.String), len(voters)),
        "tilts": _lists(_numbers(np.where(opinion.present, opinion.tilts, np.nan)), len(voters)),
        "weights": _lists(_numbers(opinion.weights), len(voters)),
        "pooled_sell": _numbers(pooled[:, 0]),
        "pooled_buy": _numbers(pooled[:, 2]),
        "pooled_stance": _words(_STANCES, find_stances(pooled, opinion.priors)),
        "agreement": _words(_CLASSES, opinion.agreements),
        "agreeing": opinion.agreeing,
        "multiplier": _numbers(opinion.multipliers),
        "edge_bps": _numbers(np.fmax(opinion.edges_bps[:, 0], opinion.edges_bps[:, 1])),
        "threshold_bps": np.full(len(keys), threshold_bps),
        "decided_stance": _words(_STANCES, opinion.stances),
        "provenance": provenances,
    }
    # A list of typed series is taken as it is; a dictionary would be inspected value by value.
    return pl.DataFrame(
        [
            _column(name, columns[name], dtype)
            for name, dtype in polars_schema(OpinionPooled).items()
        ]
    )


def _column(name: str, values: Column, dtype: pl.DataType) -> pl.Series:
    if isinstance(values, pl.Series):
        assert values.dtype == dtype, (name, values.dtype)
        return values.alias(name)
    return pl.Series(name, values, dtype)


def _identify(
    keys: Sequence[tuple[str, str]], timeframe: str, times_ns: list[int]
) -> dict[str, Column]:
    venues, symbols = [venue for venue, _ in keys], [symbol for _, symbol in keys]
    places = partial(zip, venues, symbols, repeat(timeframe), times_ns)
    causes = [features_id(*place) for place in places()]
    topic = OpinionPooled.topic
    return {
        "id": [
            derive_id(topic, f"{venue}:{symbol}", time_ns, 0, cause)
            for venue, symbol, time_ns, cause in zip(venues, symbols, times_ns, causes, strict=True)
        ],
        "cause": causes,
        "bar_id": [bar_id(*place) for place in places()],
        "venue": venues,
        "symbol": symbols,
        "event_time_ns": times_ns,
    }


def _numbers(values: FloatArray) -> pl.Series:
    """Return the values row by row; a NaN is no JSON: what was not said is null."""
    flat = np.round(values, _DECIMALS).ravel()
    return pl.Series(flat, nan_to_null=True)


def _words(words: Sequence[str], codes: IntArray) -> list[str]:
    return [words[code] for code in codes.ravel().tolist()]


def _lists(flat: pl.Series, width: int) -> pl.Series:
    """Return lists of `width` values each."""
    return nest("", flat, range(0, len(flat) + 1, width))
