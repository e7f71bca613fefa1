"""From settings to the numbers of the vote."""

from operators.vote.edge import TradingCosts
from operators.vote.governance import GovernanceRule
from operators.vote.labels import LabelRule
from operators.vote.panel import PanelRule
from schemas.settings import VoteSettings


def build_rule(settings: VoteSettings) -> PanelRule:
    """Return the rule of `settings`; raises ValueError if the floor exceeds the cap."""
    if settings.weight_floor > settings.weight_cap:
        msg = (
            f"`vote.weight_floor` must not exceed `vote.weight_cap` {settings.weight_cap!r}; found "
            f"{settings.weight_floor!r}; lower it"
        )
        raise ValueError(msg)
    costs = TradingCosts(
        fee_bps=settings.fee_bps,
        half_spread_bps=settings.half_spread_bps,
        slippage_bps=settings.slippage_bps,
        margin=settings.edge_margin,
    )
    return PanelRule(
        label=LabelRule(
            horizon_bars=settings.horizon_bars,
            cost_bps=costs.round_trip_bps,
            volatility_factor=settings.volatility_factor,
        ),
        costs=costs,
        governance=GovernanceRule(
            floor=settings.weight_floor,
            cap=settings.weight_cap,
            rate=settings.hedge_rate,
            half_life_closes=settings.half_life_bars,
            scored_min=settings.scored_min,
            horizon_closes=settings.horizon_bars,
        ),
        lean_min=settings.lean_min,
        tilt_half_life_closes=settings.tilt_half_life_bars,
    )
