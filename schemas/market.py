"""Messages of the market side: instruments, bars, features, late ticks."""

from typing import ClassVar

from msgspec import Struct

from schemas.fields import DurationNs, Identity, Money, Name, Provenance, TimeNs


class InstrumentListed(Struct, frozen=True, kw_only=True):
    """Trading rules of one instrument from a moment on (compacted by `venue:symbol`)."""

    topic: ClassVar[str] = "market.instruments"
    natural_key: ClassVar[tuple[str, ...]] = ("venue", "symbol", "valid_from_ns")

    id: Identity
    cause: Identity = ""
    venue: Name
    symbol: Name
    valid_from_ns: TimeNs
    price_decimals: int
    size_decimals: int
    tick_size: Money
    lot_size: Money
    notional_min: Money
    maker_fee_bps: float
    taker_fee_bps: float
    calendar: Name = "24/7"
    sector: Name = ""
    quote_currency: Name = "USD"


class BarClosed(Struct, frozen=True, kw_only=True):
    """Open, high, low, close and volume over `[open_time_ns, close_time_ns)`.

    Prices and volume are floats whose shortest text is the exact decimal.
    """

    topic: ClassVar[str] = "market.bars"
    natural_key: ClassVar[tuple[str, ...]] = ("venue", "symbol", "timeframe", "close_time_ns")

    id: Identity
    cause: Identity
    venue: Name
    symbol: Name
    timeframe: Name
    open_time_ns: TimeNs
    close_time_ns: TimeNs
    open: float
    high: float
    low: float
    close: float
    volume: float
    buy_volume: float | None
    """Volume in which the buyer took; null unless every trade states its side."""
    trades: int
    spread_bps_mean: float | None
    """Mean quoted spread over the bar's quotes; null without quotes."""
    gap_bars: int
    """Intervals without a trade since the symbol's previous bar."""
    duplicates: int
    """Ticks of this interval that were dropped as already seen."""
    partition: int
    first_offset: int
    first_line: int
    last_offset: int
    last_line: int
    provenance: Provenance


class FeaturesComputed(Struct, frozen=True, kw_only=True):
    """Feature vector of one closed bar."""

    topic: ClassVar[str] = "market.features"
    natural_key: ClassVar[tuple[str, ...]] = (
        "venue",
        "symbol",
        "timeframe",
        "close_time_ns",
        "schema_name",
    )

    id: Identity
    cause: Identity
    venue: Name
    symbol: Name
    timeframe: Name
    close_time_ns: TimeNs
    schema_name: Name
    schema_hash: Name
    vector: list[float | None]
    """Values in the order of the schema; null where missing."""
    missing_mask: int
    """Bit i is set where feature i is missing."""
    partition: int
    first_offset: int
    last_offset: int
    provenance: Provenance


class TickLate(Struct, frozen=True, kw_only=True):
    """A tick that came after its watermark: counted, kept, in no bar."""

    topic: ClassVar[str] = "market.late"
    natural_key: ClassVar[tuple[str, ...]] = ("partition", "offset", "line")

    id: Identity
    cause: Identity
    venue: Name
    symbol: Name
    event_time_ns: TimeNs
    late_by_ns: DurationNs
    partition: int
    offset: int
    line: int
    price: float | None
    size: float | None
    provenance: Provenance
