"""What has arrived but may not be acted on yet: watermarks, ticks, signals and hours with trades."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from operators.portfolio.rules import TradingRules, build_rules
from operators.portfolio.ticks import IDLE_ROWS_MAX, Block, TickTape
from schemas.batches import NO_PARTITION, AccountInput
from schemas.instruments import InstrumentBook
from schemas.signals import SignalEmitted
from schemas.ticks import KIND_HEARTBEAT, KIND_QUOTE

HOUR_NS = 3_600_000_000_000
LAST_NS = int(np.iinfo(np.int64).max) - 1
"""The latest watermark: one nanosecond later is still an int64."""

Market = tuple[str, str]
"""Venue and symbol."""

SignalKey = tuple[int, str, str, str, str, str]


class Horizon(NamedTuple):
    """How far every partition has come."""

    through_ns: int
    """Controls, marks and signals up to and including this time are complete."""
    ticks_before_ns: int
    """Ticks earlier than this are complete, and no signal that precedes them is missing."""


def signal_key(signal: SignalEmitted) -> SignalKey:
    """Return the place of a signal among all signals."""
    return (
        signal.event_time_ns,
        signal.venue,
        signal.symbol,
        signal.strategy,
        signal.action.value,
        signal.id,
    )


class Timeline:
    """Arrived inputs in event-time order, however they were cut or interleaved."""

    def __init__(self, partitions: Sequence[int]) -> None:
        if not partitions or len(set(partitions)) != len(partitions):
            msg = f"partitions must be distinct and at least one; found {list(partitions)!r}"
            raise ValueError(msg)
        self._tick_marks_ns: dict[int, int | None] = dict.fromkeys(partitions)
        self._signal_marks_ns: dict[int, int | None] = dict.fromkeys(partitions)
        self._passed = Horizon(-1, -1)
        self._rules: dict[Market, list[TradingRules]] = {}
        self._signals: list[tuple[SignalKey, SignalEmitted]] = []
        self._trade_hours: dict[int, int] = {}
        self._learnt: pl.DataFrame | None = None
        """The book's frame whose rules are known; the book makes another one when it changes."""
        self.tapes: dict[Market, TickTape] = {}

    def accept(self, inputs: Iterable[AccountInput], book: InstrumentBook) -> None:
        """Take in what the partitions say.

        Raises:
            ValueError: An input is of an unknown partition, or earlier than a watermark allows.
        """
        signals = len(self._signals)
        for given in inputs:
            if given.partition == NO_PARTITION:
                continue
            if given.partition not in self._tick_marks_ns:
                msg = (
                    f"input of partition {given.partition!r} must belong to the account's "
                    f"partitions; found {sorted(self._tick_marks_ns)!r}; restart with all of them"
                )
                raise ValueError(msg)
            if given.ticks is not None and given.ticks.height:
                self._accept_ticks(given.ticks, book)
            for signal in given.signals:
                self._accept_signal(signal)
            _raise_mark(self._tick_marks_ns, given.partition, given.tick_watermark_ns)
            _raise_mark(self._signal_marks_ns, given.partition, given.signal_watermark_ns)
        self._learn_rules(book)
        if len(self._signals) != signals:
            self._signals.sort(key=lambda entry: entry[0])

    def horizon(self) -> Horizon | None:
        """Return how far the account may act, None while a partition has said nothing."""
        ticks = [mark for mark in self._tick_marks_ns.values() if mark is not None]
        signals = [mark for mark in self._signal_marks_ns.values() if mark is not None]
        partitions = len(self._tick_marks_ns)
        if len(ticks) < partitions or len(signals) < partitions:
            return None
        return Horizon(min(*ticks, *signals), min(*ticks, min(signals) + 1))

    @property
    def passed(self) -> Horizon:
        """How far the account has acted, -1 before the first time."""
        return self._passed

    def rules_at(self, market: Market, time_ns: int) -> TradingRules | None:
        """Return the rules valid at `time_ns` (the oldest known before that), None if not listed."""
        known = self._rules.get(market)
        if not known:
            return None
        return next(
            (rules for rules in reversed(known) if rules.valid_from_ns <= time_ns), known[0]
        )

    def tape(self, market: Market, horizon: Horizon) -> TickTape | None:
        """Return the settled tape of a symbol, None if it never traded."""
        tape = self.tapes.get(market)
        if tape is not None:
            tape.settle(horizon.ticks_before_ns)
        return tape

    def due_signals(self, horizon: Horizon) -> list[tuple[SignalKey, SignalEmitted]]:
        """Remove and return the signals that may be acted on, in order."""
        due = 0
        while due < len(self._signals) and self._signals[due][0][0] <= horizon.through_ns:
            due += 1
        taken, self._signals = self._signals[:due], self._signals[due:]
        return taken

    def due_marks(self, horizon: Horizon) -> list[tuple[int, int]]:
        """Remove and return the hour ends that follow a trade, each with the worst provenance."""
        due = sorted(
            ((hour + 1) * HOUR_NS, code)
            for hour, code in self._trade_hours.items()
            if (hour + 1) * HOUR_NS <= horizon.through_ns
        )
        for time_ns, _ in due:
            del self._trade_hours[time_ns // HOUR_NS - 1]
        return due

    def pass_horizon(self, horizon: Horizon) -> None:
        """Forget everything before `horizon`."""
        self._passed = horizon
        for tape in self.tapes.values():
            if tape.times.size or tape.rows > IDLE_ROWS_MAX:
                tape.settle(horizon.ticks_before_ns)
                tape.consume()

    def trim(self) -> None:
        """Make the state as small as it can be, before it is stored."""
        for tape in self.tapes.values():
            tape.settle(self._passed.ticks_before_ns)
            tape.consume()

    def _accept_signal(self, signal: SignalEmitted) -> None:
        if signal.event_time_ns <= self._passed.through_ns:
            msg = (
                f"signal {signal.id!r} must be later than the watermark {self._passed.through_ns!r}"
                f"; found {signal.event_time_ns!r}; raise the signal watermark after the signals"
            )
            raise ValueError(msg)
        self._signals.append((signal_key(signal), signal))

    def _accept_ticks(self, ticks: pl.DataFrame, book: InstrumentBook) -> None:
        kinds = ticks["kind"].to_numpy()
        if (kinds == KIND_HEARTBEAT).any():
            ticks = ticks.filter(kinds != KIND_HEARTBEAT)
            kinds = ticks["kind"].to_numpy()
        if not ticks.height:
            return
        block = _block_of(ticks, kinds)
        if block[0].min() < self._passed.ticks_before_ns:
            msg = (
                f"ticks must not be earlier than the watermark {self._passed.ticks_before_ns!r}; "
                f"found {int(block[0].min())!r}; raise the tick watermark after the ticks"
            )
            raise ValueError(msg)
        self._note_hours(block)
        instruments = ticks["instrument"].to_numpy()
        if (instruments == instruments[0]).all():
            self._append(book, int(instruments[0]), block)
            return
        order = np.argsort(instruments, kind="stable")
        instruments, block = instruments[order], block[:, order]
        starts = np.flatnonzero(np.diff(instruments, prepend=instruments[0] - 1))
        for start, end in zip(starts, [*starts[1:], instruments.size], strict=True):
            self._append(book, int(instruments[start]), block[:, start:end].copy())

    def _append(self, book: InstrumentBook, instrument: int, block: Block) -> None:
        listing = book[instrument]
        market = (listing.venue, listing.symbol)
        tape = self.tapes.get(market)
        if tape is None:
            tape = self.tapes[market] = TickTape()
        tape.append(block)

    def _note_hours(self, block: Block) -> None:
        trades = block[:, block[1] > 0]
        if not trades.shape[1]:
            return
        hours = trades[0] // HOUR_NS
        starts = np.flatnonzero(np.diff(hours, prepend=hours[0] - 1))
        worst = np.minimum.reduceat(trades[3], starts)
        for hour, code in zip(hours[starts].tolist(), worst.tolist(), strict=True):
            self._trade_hours[hour] = min(code, self._trade_hours.get(hour, code))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_learnt": None}

    def _learn_rules(self, book: InstrumentBook) -> None:
        if book.frame is self._learnt:
            return
        for number in range(len(book)):
            listing = book[number]
            known = self._rules.setdefault((listing.venue, listing.symbol), [])
            if known and known[-1].valid_from_ns >= listing.valid_from_ns:
                continue
            rules = build_rules(listing)
            decimals = (rules.price_decimals, rules.size_decimals)
            if known and decimals != (known[-1].price_decimals, known[-1].size_decimals):
                msg = (
                    f"{listing.venue}:{listing.symbol} must keep its decimals while the account "
                    f"runs; found {decimals!r}; start a fresh environment"
                )
                raise ValueError(msg)
            known.append(rules)
        self._learnt = book.frame


def _raise_mark(marks: dict[int, int | None], partition: int, given_ns: int | None) -> None:
    known = marks[partition]
    if given_ns is not None and (known is None or given_ns > known):
        marks[partition] = min(given_ns, LAST_NS)


def _block_of(ticks: pl.DataFrame, kinds: np.ndarray) -> Block:
    block = np.empty((5, ticks.height), dtype=np.int64)
    block[0] = ticks["event_time_ns"].to_numpy()
    block[1] = ticks["price_units"].to_numpy()
    block[2] = ticks["size_units"].to_numpy()
    block[3] = ticks["provenance"].to_numpy()
    quotes = kinds == KIND_QUOTE
    if quotes.any():
        spreads = ticks["ask_units"].to_numpy() - ticks["bid_units"].to_numpy()
        block[1, quotes] = 0
        block[4] = np.where(quotes, spreads, -1)
    else:
        block[4] = -1
    return block
