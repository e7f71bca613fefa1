"""Kills supervised processes at random moments, and knows what it hit."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable

from msgspec import Struct, field

from dataflows.status import read_health
from infra.settings import Settings
from infra.stack.supervise import Supervisor

RESTART_SECONDS = 240.0


class Kills(Struct, kw_only=True):
    """What was killed: by process, and how many of them had done work since their start."""

    by_process: Counter[str] = field(default_factory=Counter)
    at_work: Counter[str] = field(default_factory=Counter)


class Killer:
    """SIGKILLs by the pid that the supervisor names."""

    def __init__(self, settings: Settings, supervisor: Supervisor, seed: int) -> None:
        self._settings, self._supervisor, self._seed = settings, supervisor, seed
        self._chances: dict[str, random.Random] = {}
        self.kills = Kills()

    def kill_soon(self, name: str) -> None:
        """Wait until `name` works (a flow) or runs, then a random while, then kill it."""
        flow = name in {"trading", "archive"}
        self._await(name, lambda: not flow or self._works(name))
        # Of its own for each process, so that two threads do not take each other's numbers.
        chance = self._chances.setdefault(name, random.Random(f"{self._seed}/{name}"))
        # Half of the kills hit what a flow does first: catching up from its recovery state.
        early = chance.random() < 0.5
        time.sleep(chance.uniform(0.0, 0.5) if early else chance.uniform(0.5, 3.0))
        worked = flow and self._works(name)
        self.kill_now(name)
        self.kills.at_work[name] += worked

    def kill_now(self, name: str) -> int:
        """Kill `name` whatever it does, once it has a pid; return the pid."""
        self._await(name, lambda: self._supervisor.pid_of(name) > 0)
        pid = self._supervisor.pid_of(name)
        os.kill(pid, signal.SIGKILL)
        self.kills.by_process[name] += 1
        self._await(name, lambda: self._supervisor.pid_of(name) != pid)
        return pid

    def _works(self, name: str) -> bool:
        return bool(read_health(self._settings, name).get("records"))

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + RESTART_SECONDS
        while not ready():
            assert time.monotonic() < deadline, f"{name} must come back; see its log"
            time.sleep(0.05)
