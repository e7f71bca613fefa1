"""Deterministic ids: a record's id is a function of its inputs, never of time or chance."""

from hashlib import blake2b


def derive_id(stream: str, key: str, event_time_ns: int, sequence: int, parent: str) -> str:
    """Return 32 hex digits that identify a record of `stream`.

    The parts are joined by a separator that none of them may contain, so two different tuples
    never hash the same text.
    """
    text = f"{stream}\x1f{key}\x1f{event_time_ns}\x1f{sequence}\x1f{parent}"
    return blake2b(text.encode(), digest_size=16).hexdigest()


def bar_id(venue: str, symbol: str, timeframe: str, close_time_ns: int) -> str:
    """Return the id of a bar: its natural key, readable on purpose."""
    return f"bar/{venue}/{symbol}/{timeframe}/{close_time_ns}"


def features_id(venue: str, symbol: str, timeframe: str, close_time_ns: int) -> str:
    """Return the id of the feature vector of a bar: its natural key, readable on purpose."""
    return f"features/{venue}/{symbol}/{timeframe}/{close_time_ns}"


def tick_id(partition: int, offset: int, line: int) -> str:
    """Return the identity of a tick in its log."""
    return f"tick/{partition}/{offset}/{line}"


def client_order_id(decision_id: str) -> str:
    """Return the venue's order id for a decision: at most 36 characters, letters and digits."""
    return f"qs{decision_id}"[:36]
