"""Made-up markets with a signal planted in them, and voters that see it, miss it or are broken.

For tests only: what governance does is only known where the truth is known.
"""

import numpy as np
from msgspec import Struct

from operators.vote import ActionMix, Candidate, Opinion, PanelRule, VotePanel, count_mix
from operators.vote.agreement import find_stances
from operators.vote.ballots import DECIDED, POOLED

HOUR_NS = 3_600_000_000_000
START_NS = 1_704_067_200_000_000_000
VOLATILITY = 0.006


class Market(Struct, frozen=True):
    keys: list[tuple[str, str]]
    times_ns: np.ndarray
    closes: np.ndarray
    volatilities: np.ndarray
    drifts: np.ndarray
    """What each row's next bars are pushed by, in deviations of one bar."""

    def cut(self, start: int, end: int) -> tuple:
        rows = slice(start, end)
        return (
            self.keys[rows],
            self.times_ns[rows],
            self.closes[rows],
            self.volatilities[rows],
        )


def make_market(closes: int, symbols: int, seed: int = 1, strength: float = 0.7) -> Market:
    """Return hourly bars of some symbols, each pushed for four bars by a drift known in advance."""
    generator = np.random.default_rng(seed)
    push = np.repeat(generator.choice([-1.0, 0.0, 1.0], (closes // 4 + 2, symbols)), 4, axis=0)
    moves = (generator.normal(size=(closes, symbols)) + strength * push[:closes]) * VOLATILITY
    paths = 100.0 * np.exp(np.cumsum(moves, axis=0))
    # The drift of the four bars that follow: at the row before a block begins it is known whole.
    ahead = np.stack([push[i + 1 : i + 1 + closes] for i in range(4)]).mean(axis=0)
    names = [("binance_spot", f"S{i:02d}") for i in range(symbols)]
    return Market(
        names * closes,
        np.repeat(START_NS + HOUR_NS * np.arange(closes), symbols),
        paths.ravel(),
        np.full(closes * symbols, VOLATILITY),
        ahead.ravel(),
    )


def knowing(market: Market, seed: int = 2, noise: float = 0.3, gain: float = 0.9) -> np.ndarray:
    """Return the probabilities of a voter that sees the planted drift through noise."""
    generator = np.random.default_rng(seed)
    seen = gain * (market.drifts + noise * generator.normal(size=len(market.drifts)))
    return softmax(np.column_stack([-seen, np.full(len(seen), 0.2), seen]))


def ignorant(market: Market, seed: int = 3, noise: float = 0.2) -> np.ndarray:
    """Return the probabilities of a voter that knows the base rates and adds noise."""
    generator = np.random.default_rng(seed)
    seen = noise * generator.normal(size=len(market.drifts))
    return softmax(np.column_stack([-seen, np.full(len(seen), 0.2), seen]))


def inverted(probabilities: np.ndarray) -> np.ndarray:
    return probabilities[:, ::-1].copy()


def constant(market: Market, values=(0.05, 0.05, 0.9)) -> np.ndarray:
    return np.tile(np.array(values), (len(market.drifts), 1))


def silent(market: Market) -> np.ndarray:
    return np.full((len(market.drifts), 3), np.nan)


def softmax(scores: np.ndarray) -> np.ndarray:
    lifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return lifted / lifted.sum(axis=1, keepdims=True)


def build_panel(names, trusted=(), rule: PanelRule | None = None) -> VotePanel:
    candidates = [Candidate(name=name, trusted=name in trusted) for name in names]
    return VotePanel(candidates, PanelRule() if rule is None else rule)


def count_mixes(names, probabilities: np.ndarray, opinion: Opinion, last=1000) -> list[ActionMix]:
    """Return what each voter, the pool and the threshold chose in the last rows of a run."""
    heard = np.where(opinion.present[..., None], probabilities, np.nan)
    said = find_stances(heard, opinion.priors[:, None])
    voters = [count_mix(name, said[-last:, place]) for place, name in enumerate(names)]
    pooled = find_stances(opinion.probabilities, opinion.priors)
    stages = ((POOLED, pooled), (DECIDED, opinion.stances))
    return voters + [count_mix(stage, stances[-last:]) for stage, stances in stages]


def run(panel: VotePanel, market: Market, probabilities: np.ndarray, start=0, end=None):
    stop = len(market.keys) if end is None else end
    return panel.advance(*market.cut(start, stop), probabilities[start:stop])
