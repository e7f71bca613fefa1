"""Messages of the vote: what every model said about a bar, signal or not."""

from typing import ClassVar

from msgspec import Struct

from schemas.fields import Identity, Name, Provenance, TimeNs


class OpinionPooled(Struct, frozen=True, kw_only=True):
    """What each voter said about one bar, and what became of it stage by stage."""

    topic: ClassVar[str] = "model.opinions"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    """Id of the feature vector."""
    venue: Name
    symbol: Name
    event_time_ns: TimeNs
    """Close of the bar."""
    timeframe: Name
    voters: list[str]
    """Names, in the order of the lists below."""
    sell: list[float | None]
    """Probability of SELL by voter, its tilt taken off, to four decimals; null where it abstained."""
    buy: list[float | None]
    """Probability of BUY by voter; HOLD is what is left."""
    stances: list[str]
    """What each voter lifts most above its base rate: `sell`, `hold`, `buy` or `abstain`."""
    weights: list[float]
    """Effective weight by voter; 0 where it abstained."""
    pooled_sell: float | None
    """Pooled probability of SELL; null where every voter abstained."""
    pooled_buy: float | None
    """Pooled probability of BUY."""
    pooled_stance: Name
    """Stance of the pool, measured like those of the voters."""
    agreement: Name
    """`unanimous`, `strong`, `split` or `weak`; empty without a direction."""
    agreeing: int
    """Voters off the floor that lean in the pooled direction."""
    multiplier: float
    """Learned multiplier of the agreement class."""
    edge_bps: float | None
    """Expected edge after costs of the better direction; null without a volatility."""
    threshold_bps: float
    """What the edge must exceed."""
    decided_stance: Name
    """What is left above the threshold."""
    bar_id: Identity
    provenance: Provenance
    raw_stances: list[str] = []
    """What each voter lifted most before its tilt was taken off."""
    tilts: list[float | None] = []
    """What a voter says always, in nats, by voter; null where it abstained.

    Log-odds of the discounted mean of its probability of a rise, given a move, over the bars before. It
    is taken off the log-odds of BUY against SELL on this bar; added to those of `buy` and `sell` it
    gives what was said.
    """
