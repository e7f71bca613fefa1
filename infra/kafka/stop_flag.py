"""Ask a running dataflow to end gracefully: every source ends, state is saved, exit code 0."""

import signal
from types import FrameType


class StopFlag:
    """A flag that signals set and sources read; it never goes back."""

    def __init__(self) -> None:
        self._requested = False

    @property
    def requested(self) -> bool:
        """Whether the process was asked to end."""
        return self._requested

    def request(self) -> None:
        """Ask the process to end."""
        self._requested = True

    def listen(self, *signals: signal.Signals) -> None:
        """Let `signals` (SIGTERM and SIGINT if none is named) set the flag; main thread only."""
        for wanted in signals or (signal.SIGTERM, signal.SIGINT):
            signal.signal(wanted, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._requested = True
