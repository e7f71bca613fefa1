"""Messages of the opinion side: votes and signals."""

from typing import ClassVar

from msgspec import Struct

from schemas.fields import Action, Identity, Name, Provenance, Stance, TimeNs


class Vote(Struct, frozen=True, kw_only=True):
    """What one voter says about a bar, with the exact bytes that said it."""

    voter: Name
    kind: Name
    """`rule`, `onnx` or `river`."""
    version: str
    content_hash: str
    """SHA-256 of the artefact (onnx), of the parameters (rule) or of the learner's state (river)."""
    stance: Stance
    probability_sell: float | None
    probability_hold: float | None
    probability_buy: float | None
    weight: float
    """Effective weight in the score; 0 when abstaining or excluded."""
    reason: str


class SignalEmitted(Struct, frozen=True, kw_only=True):
    """An opinion of one strategy about one symbol, with every vote on the same bar; no size."""

    topic: ClassVar[str] = "trade.signals"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    """Id of the feature vector."""
    venue: Name
    symbol: Name
    event_time_ns: TimeNs
    """Close time of the bar."""
    strategy: Name
    timeframe: Name
    action: Action
    stance: Stance
    close: float
    stop_price: float | None
    """Proposed protective stop (entries)."""
    target_price: float | None
    trail_distance: float | None
    """Distance of a trailing stop from the best price since entry, in price."""
    horizon_bars: int
    score: float
    """Weighted mean of `probability_buy - probability_sell` over the voters that did not abstain."""
    votes: list[Vote]
    reason: str
    """The rule with its numbers, in words."""
    bar_id: Identity
    provenance: Provenance
