"""The rules that a well-formed tick must keep, applied to a whole fetch at once."""

from typing import Final, NamedTuple

import polars as pl

from infra.partitions import partition_of
from schemas.instruments import InstrumentBook
from schemas.ticks import (
    EVENT_TIME_MIN_NS,
    KIND_HEARTBEAT,
    KIND_QUOTE,
    KIND_TRADE,
    TICK_FRAME,
    TICK_WIRE,
    DeadLetterReason,
)

PARSED_ROWS: Final = pl.Schema(
    {
        **TICK_WIRE,
        "offset": pl.Int64(),
        "line": pl.Int32(),
        "provenance": pl.Int8(),
        "latest_ns": pl.Int64(),
    }
)
"""Parsed ticks in log order; `latest_ns` is the last event time that is not in the future."""

KIND_CODES: Final = {
    "heartbeat": KIND_HEARTBEAT,
    "trade": KIND_TRADE,
    "quote": KIND_QUOTE,
}
SIDE_CODES: Final = {"buy": 1, "sell": -1}
_UNITS_MAX: Final = float(2**53)

_FIELDS: Final[dict[DeadLetterReason, tuple[str, ...]]] = {
    DeadLetterReason.WRONG_TYPE: ("kind", "side"),
    DeadLetterReason.TIME_UNIT: ("event_time_ns",),
    DeadLetterReason.TIME_IN_FUTURE: ("event_time_ns", "latest_ns"),
    DeadLetterReason.CROSSED_QUOTE: ("bid", "ask"),
    DeadLetterReason.UNKNOWN_INSTRUMENT: ("venue", "symbol"),
    DeadLetterReason.WRONG_PARTITION: ("venue", "symbol"),
}
_PRICED: Final = ("price", "size", "bid", "ask", "bid_size", "ask_size")


class RefusedRow(NamedTuple):
    """A parsed tick that breaks a rule."""

    offset: int
    line: int
    reason: DeadLetterReason
    detail: str
    tick: dict[str, object]
    """Its fields that are not null."""


class TickRules:
    """Judges parsed ticks of one partition against the instruments that are listed."""

    def __init__(self, partition: int, partitions: int, book: InstrumentBook) -> None:
        self._partition = partition
        self._partitions = partitions
        self._book = book
        self._frame: pl.DataFrame | None = None
        self._listed = pl.DataFrame()

    def names_unlisted(self, rows: pl.DataFrame) -> bool:
        """Return whether a trade or quote in `rows` names an instrument that is not listed."""
        named = rows.lazy().filter(pl.col("kind") != "heartbeat").select("venue", "symbol").unique()
        unlisted = named.join(self._known().lazy(), on=["venue", "symbol"], how="anti")
        return not unlisted.collect(engine="in-memory").is_empty()

    def judge(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[RefusedRow]]:
        """Return the ticks of `rows` (`PARSED_ROWS`) that keep every rule as `TICK_FRAME`, and the rest."""
        judged = rows.join(
            self._known(), on=["venue", "symbol"], how="left", maintain_order="left"
        ).with_columns(
            is_trade=pl.col("kind") == "trade",
            is_quote=pl.col("kind") == "quote",
            is_priced=pl.col("kind") != "heartbeat",
            price_units=_units("price", "price_scale"),
            size_units=_units("size", "size_scale"),
            bid_units=_units("bid", "price_scale"),
            ask_units=_units("ask", "price_scale"),
        )
        judged = judged.with_columns(reason=_reason(self._partition))
        accepted = judged if judged["reason"].null_count() == judged.height else None
        refused: list[RefusedRow] = []
        if accepted is None:
            accepted = judged.filter(pl.col("reason").is_null())
            refused = _refuse(judged.filter(pl.col("reason").is_not_null()))
        return _to_tick_frame(accepted), refused

    def _known(self) -> pl.DataFrame:
        if self._frame is not self._book.frame:
            self._frame = self._book.frame
            homes = [
                partition_of(venue, symbol, self._partitions)
                for venue, symbol in self._frame.select("venue", "symbol").iter_rows()
            ]
            self._listed = self._frame.drop("valid_from_ns").with_columns(
                home=pl.Series(homes, dtype=pl.Int32())
            )
        return self._listed


def _units(value: str, scale: str) -> pl.Expr:
    """Return `value` in units of the last decimal as a float; exact below 2**53."""
    return (pl.col(value) * pl.col(scale)).round(0)


def _on_grid(value: str, units: str, scale: str) -> pl.Expr:
    return (pl.col(units) < _UNITS_MAX) & (pl.col(units) / pl.col(scale) == pl.col(value))


def _reason(partition: int) -> pl.Expr:
    """Return the first rule that a row breaks, or null. `is_finite` of null is null: not broken."""
    trade, quote = pl.col("is_trade"), pl.col("is_quote")
    kinds, sides = list(KIND_CODES), list(SIDE_CODES)
    missing = (
        pl.col("kind").is_null()
        | pl.col("event_time_ns").is_null()
        | (pl.col("is_priced") & (pl.col("venue").is_null() | pl.col("symbol").is_null()))
        | (trade & (pl.col("price").is_null() | pl.col("size").is_null()))
        | (quote & (pl.col("bid").is_null() | pl.col("ask").is_null()))
    )
    judged_fields = {"price": trade, "size": trade} | dict.fromkeys(
        ("bid", "ask", "bid_size", "ask_size"), quote
    )
    not_finite = pl.any_horizontal(
        kind & ~pl.col(name).is_finite() for name, kind in judged_fields.items()
    )
    not_positive = pl.any_horizontal(
        kind & (pl.col(name) <= 0) for name, kind in judged_fields.items()
    )
    off_grid = (
        trade
        & ~(
            _on_grid("price", "price_units", "price_scale")
            & _on_grid("size", "size_units", "size_scale")
        )
    ) | (
        quote
        & ~(
            _on_grid("bid", "bid_units", "price_scale")
            & _on_grid("ask", "ask_units", "price_scale")
        )
    )
    rules = (
        (missing, DeadLetterReason.MISSING_FIELD),
        (
            ~pl.col("kind").is_in(kinds) | ~pl.col("side").is_in(sides),
            DeadLetterReason.WRONG_TYPE,
        ),
        (pl.col("event_time_ns") < EVENT_TIME_MIN_NS, DeadLetterReason.TIME_UNIT),
        (pl.col("event_time_ns") > pl.col("latest_ns"), DeadLetterReason.TIME_IN_FUTURE),
        (not_finite, DeadLetterReason.NOT_FINITE),
        (not_positive, DeadLetterReason.NOT_POSITIVE),
        (quote & (pl.col("bid") > pl.col("ask")), DeadLetterReason.CROSSED_QUOTE),
        (
            pl.col("is_priced") & pl.col("instrument").is_null(),
            DeadLetterReason.UNKNOWN_INSTRUMENT,
        ),
        (
            pl.col("is_priced") & (pl.col("home") != partition),
            DeadLetterReason.WRONG_PARTITION,
        ),
        (off_grid, DeadLetterReason.OFF_GRID),
    )
    return pl.coalesce(
        pl.when(broken).then(pl.lit(reason.value)).otherwise(None) for broken, reason in rules
    )


def _to_tick_frame(accepted: pl.DataFrame) -> pl.DataFrame:
    trade, quote = pl.col("is_trade"), pl.col("is_quote")
    zero = pl.lit(0, dtype=pl.Int64())
    return accepted.select(
        "offset",
        "line",
        pl.when(trade)
        .then(KIND_TRADE)
        .when(quote)
        .then(KIND_QUOTE)
        .otherwise(KIND_HEARTBEAT)
        .cast(TICK_FRAME["kind"])
        .alias("kind"),
        "event_time_ns",
        pl.when(pl.col("is_priced")).then(pl.col("instrument")).otherwise(-1).alias("instrument"),
        *(
            pl.when(kind).then(pl.col(name).cast(pl.Int64, strict=False)).otherwise(zero).alias(name)
            for kind, name in ((trade, "price_units"), (trade, "size_units"))
        ),
        pl.when(trade & (pl.col("side") == "buy"))
        .then(1)
        .when(trade & (pl.col("side") == "sell"))
        .then(-1)
        .otherwise(0)
        .cast(TICK_FRAME["side"])
        .alias("side"),
        pl.when(trade).then(pl.col("trade_id").fill_null(-1)).otherwise(-1).alias("trade_id"),
        *(
            pl.when(kind).then(pl.col(name).cast(pl.Int64, strict=False)).otherwise(zero).alias(name)
            for kind, name in ((quote, "bid_units"), (quote, "ask_units"))
        ),
        "provenance",
    ).cast(dict(TICK_FRAME))


def _refuse(broken: pl.DataFrame) -> list[RefusedRow]:
    refused = []
    for row in broken.iter_rows(named=True):
        reason = DeadLetterReason(row["reason"])
        if reason is DeadLetterReason.MISSING_FIELD:
            detail = "absent: " + ", ".join(name for name in _required(row) if row[name] is None)
        else:
            names = _FIELDS.get(reason, _PRICED)
            detail = " ".join(f"{name}={row[name]!r}" for name in names if row[name] is not None)
        tick = {name: row[name] for name in TICK_WIRE if row[name] is not None}
        refused.append(RefusedRow(row["offset"], row["line"], reason, detail, tick))
    return refused


def _required(row: dict[str, object]) -> tuple[str, ...]:
    always = ("kind", "event_time_ns")
    if row["kind"] == "trade":
        return (*always, "venue", "symbol", "price", "size")
    if row["kind"] == "quote":
        return (*always, "venue", "symbol", "bid", "ask")
    return (*always, "venue", "symbol") if row["kind"] not in {None, "heartbeat"} else always
