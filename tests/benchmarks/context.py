"""What every benchmark of a run shares."""

from pathlib import Path

from rich.console import Console

from tests.benchmarks.bench_stack import BenchStack
from tests.benchmarks.loads import Loads


class Bench:
    """The stack, the loads, the number of runs and the screen."""

    def __init__(
        self, folder: Path, loads: Loads, stack: BenchStack, *, quick: bool, console: Console
    ) -> None:
        self.folder, self.loads, self.stack, self.quick = folder, loads, stack, quick
        self.runs = 1 if quick else 5
        self.plain_runs = 1 if quick else 2
        """Plain Bytewax takes many times as long: it is run less often."""
        self.skipped_encodings: set[str] = set()
        self._console = console

    def say(self, text: str) -> None:
        """Show what is going on."""
        self._console.print(f"[dim]{text}[/dim]", highlight=False)
