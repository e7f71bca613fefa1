"""Messages about the models that serve, and about the market regime that they stand in."""

from enum import StrEnum
from typing import ClassVar

from msgspec import Struct

from schemas.fields import Identity, Name, TimeNs
from schemas.regime import Regime


class ModelEventKind(StrEnum):
    """What happened to a model in one partition."""

    ACTIVATED = "activated"
    """The version serves from `effective_from_ns` on."""
    ROLLED_BACK = "rolled_back"
    """An earlier version serves again from `effective_from_ns` on."""
    RETIRED = "retired"
    """The model serves no more from `effective_from_ns` on."""
    REFUSED = "refused"
    """The version was not adopted; what served before goes on."""
    WEIGHTS = "weights"
    """The weight of the model's vote changed."""
    DRIFT = "drift"
    """The model's losses changed more than chance explains."""
    SCORED = "scored"
    """How good the model's probabilities were."""


VERSION_KINDS = frozenset(
    {ModelEventKind.ACTIVATED, ModelEventKind.ROLLED_BACK, ModelEventKind.RETIRED}
)
"""Events that change which version serves."""
BAR_KINDS = frozenset({ModelEventKind.WEIGHTS, ModelEventKind.DRIFT, ModelEventKind.SCORED})
"""Events that follow from bars, and from what the version of that time said: a replay makes them again."""


class ModelEventRecorded(Struct, frozen=True, kw_only=True):
    """A change of a model that serves in one partition, written before anything that depends on it.

    Each lane writes the events of its own partition, so a rebuild uses exactly what was live there.
    """

    topic: ClassVar[str] = "model.events"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    """Id of the command; empty if no command asked for it."""
    model: Name
    """Name of the model in the registry, or of the voter whose weight it is."""
    kind: ModelEventKind
    version: str
    """Version that the event is about."""
    content_hash: str
    """SHA-256 of the bytes that score; empty if they were not loaded."""
    previous_version: str
    """Version that served before; empty if none did."""
    partition: int
    """Partition of `market.ticks` whose lane wrote the event."""
    effective_from_ns: TimeNs
    """Bars that close at or after this time see the change."""
    weight_configured: float | None = None
    """Weight that the settings ask for."""
    weight_effective: float | None = None
    """Weight that counts after governance."""
    scored_events: int | None = None
    """Votes that had settled by then."""
    log_loss: float | None = None
    """Log-loss of those votes in nats, as the reason says discounted or not."""
    reason: str
    event_time_ns: TimeNs
    """Close of the newest bar that the lane had seen; `effective_from_ns` if it had seen none."""


class ContextObserved(Struct, frozen=True, kw_only=True):
    """What is known about the market around a symbol at the close of a bar."""

    topic: ClassVar[str] = "market.context"
    natural_key: ClassVar[tuple[str, ...]] = ("id",)

    id: Identity
    cause: Identity
    """Id of the feature vector."""
    venue: Name
    symbol: Name
    event_time_ns: TimeNs
    """Close of the bar."""
    kind: Name
    """What was observed: `regime`."""
    regime: Regime
    """Confirmed regime."""
    confidence: float | None
    """Probability of that regime; null if a rule found it."""
    regime_since_ns: TimeNs
    """Close of the bar from which on this regime holds."""
    transitions: int
    """Changes of the confirmed regime so far."""
    source: Name
    """Model or rule that found it."""
    version: str
    """Version of the source."""
    content_hash: str
    """SHA-256 of the artefact, or of the rule's parameters."""
    reason: str
