"""Suite-wide fixtures and the acceptance report (`pytest --acceptance`)."""

from collections.abc import Callable, Generator
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says something of the machine and nothing of the code.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

pytest_plugins = ["tests.stack_fixtures"]

EXCERPTS = Path(__file__).parent / "excerpts"
_ROWS = pytest.StashKey[list[tuple[str, str, str, str]]]()
_MEASURED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--acceptance",
        action="store_true",
        help="run the acceptance tests only and print row, criterion and measured value",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_ROWS] = []


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    if config.getoption("--acceptance"):
        items[:] = [item for item in items if item.get_closest_marker("acceptance")]
    yield
    # Files that start processes take longest: first, so that no worker waits for them at the end.
    started = {"broker", "store"}
    first = {item.path for item in items if started & set(getattr(item, "fixturenames", ()))}
    items.sort(key=lambda item: item.path not in first)


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[object], None]:
    """Record what an acceptance test measured, for the report."""
    values = request.node.stash.setdefault(_MEASURED, [])
    return lambda value: values.append(str(value))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # type: ignore[no-untyped-def]
    report = yield
    if call.when == "call" or report.outcome != "passed":
        for marker in item.iter_markers("acceptance"):
            item.config.stash[_ROWS].append(
                (
                    marker.args[0],
                    marker.kwargs.get("criterion", item.name),
                    "; ".join(item.stash.get(_MEASURED, [])),
                    "not met, as expected" if hasattr(report, "wasxfail") else report.outcome,
                )
            )
    return report


def pytest_terminal_summary(terminalreporter, exitstatus: int, config: pytest.Config) -> None:  # type: ignore[no-untyped-def]
    if config.getoption("--acceptance"):
        terminalreporter.section("acceptance")
        for row, criterion, value, outcome in sorted(config.stash[_ROWS]):
            terminalreporter.write_line(
                f"{row} {outcome}: {criterion}; measured: {value or 'see test'}"
            )
