"""What the engine says when a step fails is where; what a reader needs is why."""

from collections.abc import Iterator
from contextlib import contextmanager


class FlowFailedError(RuntimeError):
    """A dataflow ended with an error; the engine's own account of it is chained."""


@contextmanager
def told_plainly(flow: str) -> Iterator[None]:
    """Raise FlowFailedError with the text of the first cause for an error of the engine."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if cause is error:
            raise
        msg = f"flow {flow!r} failed; {type(cause).__name__}: {cause}"
        raise FlowFailedError(msg) from error
