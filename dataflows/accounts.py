"""The account's step: lane items and commands in, decisions, orders, fills and positions out."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, cast

import bytewax.operators as op
from bytewax.operators import KeyedStream
from msgspec import Struct

from dataflows.lanes import STATE_VERSION, LaneItem, check_version
from dataflows.log_sources import ControlsRead
from operators.portfolio import Portfolio
from schemas.batches import NO_PARTITION, AccountInput, ControlReceived, Outgoing
from schemas.instruments import InstrumentBook
from schemas.operations import ControlApplied, DeadLetterRecorded

PUT_OFF_ROWS_MAX = 2_000
"""Rows that may be put off: the bars and features of one close of many symbols."""
UNNUMBERED = 0
"""Sequence of an item that cannot be overtaken."""
_TOPIC_ORDER = (
    "ops.applied", "trade.decisions", "trade.orders", "trade.fills", "trade.positions",
    "trade.outcomes",
)  # fmt: skip


class AccountStep:
    """Restore each lane's order, let the portfolio act, and group its messages by topic.

    What the lanes found (bars, features, signals) is put off until there is time: the account
    decides once every lane has said that a bar is over, and writing the first lane's records at
    once would hold up the last one. More than `PUT_OFF_ROWS_MAX` is history that nobody waits for,
    and too much for a snapshot: it is written at once.
    """

    def __init__(
        self,
        build: Callable[[], Portfolio],
        adopt: Callable[[Portfolio], None],
        book: InstrumentBook,
        observe: Callable[[str, int], None],
        known: Sequence[ControlReceived],
        state: object | None,
    ) -> None:
        """Start or resume; `known` are the commands that must be acted on before any tick is."""
        self._book = book
        self._known = list(known)
        self._observe = observe
        self._waiting: dict[int, dict[int, LaneItem]] = {}
        self._next: dict[int, int] = {}
        self._put_off: list[Outgoing] = []
        if state is None:
            self._portfolio = build()
        else:
            version, *parts = cast("tuple[Any, ...]", state)
            check_version("account", version)
            self._portfolio, self._waiting, self._next, self._put_off = parts
            adopt(self._portfolio)

    def snapshot(self) -> object:
        """Return the portfolio and what waits for its turn."""
        return STATE_VERSION, self._portfolio, self._waiting, self._next, self._put_off

    def on_batch(self, values: list[LaneItem | ControlsRead]) -> list[list[Outgoing]]:
        """Return one list of records; what the account decided comes before what led to it."""
        reads = [value for value in values if isinstance(value, ControlsRead)]
        items = self._in_order([value for value in values if isinstance(value, LaneItem)])
        inputs = [item.input for item in items]
        if reads:
            controls = [control for read in reads for control in read.controls]
            inputs.insert(0, AccountInput(partition=NO_PARTITION, controls=controls))
        if not inputs:
            return []
        if self._known:
            inputs.insert(0, AccountInput(partition=NO_PARTITION, controls=self._known))
            self._known = []
        messages = self._portfolio.advance(inputs, self._book)
        for message in messages:
            self._observe(type(message).__name__, 1)
        ingest_ns = max(entry.ingest_time_ns for entry in inputs)
        found = [outgoing for item in items for outgoing in item.outgoing]
        # What serves must be durable before anything that was decided with it.
        records = [outgoing for outgoing in found if outgoing.flush]
        records += group_by_topic(messages, ingest_ns)
        self._put_off += [outgoing for outgoing in found if not outgoing.flush]
        if sum(outgoing.height for outgoing in self._put_off) > PUT_OFF_ROWS_MAX:
            records += self._put_off
            self._put_off = []
        refused: list[Struct] = [letter for read in reads for letter in read.dead_letters]
        if refused:
            records.append(Outgoing(topic=DeadLetterRecorded.topic, messages=refused))
        return [records] if records else []

    def settle(self) -> list[list[Outgoing]]:
        """Return the records that were put off."""
        records, self._put_off = self._put_off, []
        return [records] if records else []

    def _in_order(self, items: list[LaneItem]) -> list[LaneItem]:
        ready = [item for item in items if item.sequence == UNNUMBERED]
        for item in items:
            if item.sequence == UNNUMBERED:
                continue
            self._waiting.setdefault(item.partition, {})[item.sequence] = item
        for partition, waiting in self._waiting.items():
            turn = self._next.get(partition, 1)
            while turn in waiting:
                ready.append(waiting.pop(turn))
                turn += 1
            self._next[partition] = turn
        return ready


def group_by_topic(messages: list[Struct], ingest_time_ns: int) -> list[Outgoing]:
    """Return one `Outgoing` per topic, in causal order; what a command changed is durable first."""

    def rank(message: Struct) -> int:
        return _TOPIC_ORDER.index(message.topic)  # type: ignore[attr-defined]

    return [
        Outgoing(
            topic=_TOPIC_ORDER[number],
            messages=list(group),
            flush=_TOPIC_ORDER[number] == ControlApplied.topic,
            ingest_time_ns=ingest_time_ns,
        )
        for number, group in groupby(sorted(messages, key=rank), key=rank)
    ]


def on_account(step_id: str, up: KeyedStream[Any], account: str) -> KeyedStream[Any]:
    """Key `up` by the account, which has one engine however many partitions feed it."""
    return op.map(step_id, up, lambda keyed: (account, keyed[1]))
