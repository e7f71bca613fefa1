"""Parsed ticks as columns, whatever they were parsed from; a name is told once, not once a tick."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)
Integers = NDArray[np.int64]
Names = list[tuple[str | None, str | None]]
"""Pairs of venue and symbol."""


class ParsedTicks(NamedTuple):
    """Well-formed ticks in log order, one element each; no rule was applied yet.

    `KINDS`, `SIDES`, `FLOATS` and `FIELDS` are those of `infra.tick_scan`.
    """

    present: NDArray[np.int16]
    """Bit `i` is set where field `FIELDS[i]` is there and not null."""
    kinds: NDArray[np.int8]
    """Index into `KINDS`; -1 where absent or of no kind."""
    sides: NDArray[np.int8]
    """Index into `SIDES`, 0 where absent; -1 where it is neither."""
    times_ns: Integers
    """0 where absent."""
    trade_ids: Integers
    """-1 where absent."""
    floats: Sequence[NDArray[np.float64]]
    """One array per name of `FLOATS`; 1.0 where absent."""
    pairs: NDArray[np.int32]
    """Index into `names`."""
    names: Names
    """Venue and symbol of each pair that occurs; a pair may be there twice."""


def join_ticks(first: ParsedTicks, second: ParsedTicks, order: NDArray[np.intp]) -> ParsedTicks:
    """Return the ticks of both, the `second` behind the `first`, rearranged by `order`."""

    def joined(one: NDArray[T], other: NDArray[T]) -> NDArray[T]:
        return np.concatenate([one, other])[order]

    return ParsedTicks(
        joined(first.present, second.present),
        joined(first.kinds, second.kinds),
        joined(first.sides, second.sides),
        joined(first.times_ns, second.times_ns),
        joined(first.trade_ids, second.trade_ids),
        [joined(one, other) for one, other in zip(first.floats, second.floats, strict=True)],
        joined(first.pairs, second.pairs + np.int32(len(first.names))),
        first.names + second.names,
    )
