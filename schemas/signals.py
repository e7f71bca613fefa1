"""Messages of the opinion side: votes and signals."""

from typing import ClassVar

from msgspec import Struct

from schemas.fields import Action, Identity, Name, Provenance, Stance, TimeNs


class Vote(Struct, frozen=True, kw_only=True):
    """What counts of what one voter says about a bar, with the exact bytes that said it.

    Of a model the probabilities are those less its tilt (`model.opinions`); `reason` quotes both.
    """

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
    weight_configured: float | None = None
    """Weight that the settings ask for, before governance."""
    role: Name = "active"
    """Standing of the version that votes: `active`; a version in the shadow casts no vote."""


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
    agreement: Name = ""
    """How far the models agree, as a class; empty where no models were pooled."""
    confidence: float | None = None
    """Greatest pooled probability."""
    multiplier: float | None = None
    """Factor that the agreement class has earned."""
    expected_edge_bps: float | None = None
    """Expected move in the direction of the signal after costs."""
    edge_threshold_bps: float | None = None
    """Least expected edge at which the ensemble proposes an entry."""
    probability_sell: float | None = None
    """Pooled probability of a fall."""
    probability_hold: float | None = None
    """Pooled probability of neither."""
    probability_buy: float | None = None
    """Pooled probability of a rise."""
