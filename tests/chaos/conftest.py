"""The seed of a chaos run, printed so that the run can be repeated."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.figures import Figures


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-seed", type=int, default=None, help="seed of the random kills")
    parser.addoption("--chaos-table", default=None, help="file that gets the table of the run")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The seed given, or one from the clock."""
    given = request.config.getoption("--chaos-seed")
    return int(time.time()) if given is None else given


@pytest.fixture(scope="session")
def figures(request: pytest.FixtureRequest, seed: int) -> Iterator[Figures]:
    """Collects what each fault did; printed at the end, and written where --chaos-table says."""
    found = Figures(seed=seed)
    yield found
    table = found.table()
    print(f"\n{table}")
    if path := request.config.getoption("--chaos-table"):
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(table)


@pytest.fixture
def chance(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """A generator of its own for each test, whatever runs before it."""
    return random.Random(f"{seed}/{request.node.name}")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print while a test of minutes runs."""

    def printed(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    return printed
