"""Field types that messages share: units, ranges and how a column is stored."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

TimeNs = Annotated[int, Meta(extra={"time": True}, description="nanoseconds since 1970 UTC")]
"""An instant: int64 nanoseconds since 1970-01-01 UTC."""

DurationNs = Annotated[int, Meta(description="nanoseconds")]
Name = Annotated[str, Meta(extra={"low_cardinality": True})]
"""A name from a small set: venue, symbol, strategy, timeframe, model."""

Identity = Annotated[str, Meta(description="deterministic id of a record")]
Money = Annotated[Decimal, Meta(extra={"decimal": (38, 12)}, description="exact amount")]
"""An exact amount of money, price or quantity (38 digits, 12 after the point)."""


class Side(StrEnum):
    """Direction of an order or a fill."""

    BUY = "buy"
    SELL = "sell"


class Stance(StrEnum):
    """What one voter thinks of a bar."""

    BUY = "buy"
    HOLD = "hold"
    SELL = "sell"
    ABSTAIN = "abstain"


class Action(StrEnum):
    """What a signal proposes to do with a strategy's position."""

    ENTER = "enter"
    EXIT = "exit"


class Provenance(StrEnum):
    """Where the market data behind a record came from."""

    RECORDED = "recorded"
    LIVE = "live"
    RECONSTRUCTED = "reconstructed"
    SYNTHETIC = "synthetic"


def worst_provenance(found: set[Provenance]) -> Provenance:
    """Return the least trustworthy of `found`: synthetic, reconstructed, recorded, live."""
    order = [
        Provenance.SYNTHETIC,
        Provenance.RECONSTRUCTED,
        Provenance.RECORDED,
        Provenance.LIVE,
    ]
    return next((kind for kind in order if kind in found), Provenance.SYNTHETIC)
