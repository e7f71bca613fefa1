"""Opinions as records of the log: one per bar, small, rounded to what can be meant."""

from collections.abc import Sequence
from math import isfinite

import numpy as np
import numpy.typing as npt

from operators.vote.agreement import CLASSES, find_stances
from operators.vote.panel import Opinion
from schemas.fields import Provenance
from schemas.ids import bar_id, derive_id, features_id
from schemas.opinions import OpinionPooled

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_WORDS = ("sell", "hold", "buy", "abstain")
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
) -> list[OpinionPooled]:
    """Return one record per bar.

    `probabilities` (rows, voters, 3) is what the panel was given to form `opinion`.
    """
    said = np.where(opinion.present[..., None], probabilities, np.nan)
    stances = find_stances(said, opinion.priors[:, None, :])
    pooled_stances = find_stances(opinion.probabilities, opinion.priors)
    edges = np.fmax(opinion.edges_bps[:, 0], opinion.edges_bps[:, 1])
    times = times_ns.tolist()
    found = []
    for row, (venue, symbol) in enumerate(keys):
        time_ns, code = times[row], int(opinion.agreements[row])
        found.append(
            OpinionPooled(
                id=derive_id(OpinionPooled.topic, f"{venue}:{symbol}", time_ns, 0, timeframe),
                cause=features_id(venue, symbol, timeframe, time_ns),
                venue=venue,
                symbol=symbol,
                event_time_ns=time_ns,
                timeframe=timeframe,
                voters=list(voters),
                sell=_round(said[row, :, 0]),
                buy=_round(said[row, :, 2]),
                stances=[_WORDS[stance] for stance in stances[row].tolist()],
                weights=np.round(opinion.weights[row], _DECIMALS).tolist(),
                pooled_sell=_round(opinion.probabilities[row, :1])[0],
                pooled_buy=_round(opinion.probabilities[row, 2:])[0],
                pooled_stance=_WORDS[pooled_stances[row]],
                agreement=CLASSES[code].value if code >= 0 else "",
                agreeing=int(opinion.agreeing[row]),
                multiplier=round(float(opinion.multipliers[row]), _DECIMALS),
                edge_bps=_round(edges[row : row + 1])[0],
                threshold_bps=threshold_bps,
                decided_stance=_WORDS[opinion.stances[row]],
                bar_id=bar_id(venue, symbol, timeframe, time_ns),
                provenance=Provenance(provenances[row]),
            )
        )
    return found


def _round(values: FloatArray) -> list[float | None]:
    rounded = np.round(values, _DECIMALS).tolist()
    # A NaN is no JSON: what was not said is null.
    return [value if isfinite(value) else None for value in rounded]
