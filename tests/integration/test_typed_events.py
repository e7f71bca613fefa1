"""The event interface between steps is checked statically: a misuse does not pass mypy."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

RIGHT = """
from bytewax.operators import KeyedStream
from dataflows.machines import run_machine

class Machine:
    def on_batch(self, values: list[int]) -> list[int]:
        return values

    def snapshot(self) -> object:
        return None

def wire(up: KeyedStream[int]) -> None:
    run_machine("step", up, lambda state: Machine())
"""

MISUSES = {
    "asynchronous where it must be synchronous": RIGHT.replace(
        "def on_batch", "async def on_batch"
    ),
    "one item where a batch is due": RIGHT.replace("list[int]) -> list[int]", "int) -> int"),
    "no snapshot": RIGHT.replace("def snapshot", "def remember"),
    "a message where records are due": """
from schemas.batches import Outgoing
from schemas.topics import FOREVER_MS

Outgoing(topic="trade.fills", messages=FOREVER_MS)
""",
    "a float where money is due": """
from schemas.operations import ControlApplied, Command

ControlApplied(id="1", cause="", account="A", command=Command.HALT, event_time_ns=1.5, reason="")
""",
}


def check(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    file = folder / "snippet.py"
    file.write_text(text)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--config-file",
        str(ROOT / "pyproject.toml"),
        str(file),
    ]
    return subprocess.run(
        [*command, "--strict"], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_the_right_use_passes(tmp_path):
    found = check(tmp_path, RIGHT)
    assert found.returncode == 0, found.stdout


@pytest.mark.acceptance("S-080", criterion="misuse of the event interface fails the static check")
@pytest.mark.parametrize("misuse", MISUSES)
def test_a_misuse_is_refused_by_the_type_checker(tmp_path, misuse, measured):
    found = check(tmp_path, MISUSES[misuse])
    measured(f"{misuse}: {found.stdout.splitlines()[0].partition('error: ')[2]}")
    assert found.returncode == 1
    assert "error:" in found.stdout
