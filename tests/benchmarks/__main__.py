"""`python -m tests.benchmarks [--quick] [--out FILE] [name …]`."""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dataflows.interpreter import tune_interpreter
from tests.benchmarks import bars_through_kafka, learners, live, models, offline, whole_path
from tests.benchmarks.bench_stack import bench_stack
from tests.benchmarks.context import Bench
from tests.benchmarks.figures import (
    REPOSITORY,
    Found,
    describe_commit,
    describe_machine,
    describe_versions,
)
from tests.benchmarks.loads import Loads
from tests.benchmarks.page import write_page

BENCHMARKS: dict[str, Callable[[Bench], list[Found]]] = {
    "bars": bars_through_kafka.measure,
    "features": offline.measure_features,
    "trading": whole_path.measure_trading,
    "backtest": offline.measure_backtest,
    "archive": whole_path.measure_archive,
    "latency": live.measure_latency,
    "memory": live.measure_memory,
    "models": models.measure_models,
    "learners": learners.measure_learners,
}
PAGE = REPOSITORY / "docs" / "benchmarks.md"


def main() -> int:
    """Run the chosen benchmarks; return 1 if one of them failed."""
    chosen = _arguments()
    console = Console(stderr=True)
    document: dict[str, Any] = {
        "machine": describe_machine(),
        "versions": describe_versions(),
        "commit": describe_commit(),
        "quick": chosen.quick,
        "figures": [],
        "failures": {},
    }
    tune_interpreter()
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        loads = Loads(chosen.data, folder, quick=chosen.quick)
        with bench_stack(folder) as stack:
            bench = Bench(folder, loads, stack, quick=chosen.quick, console=console)
            bench.runs = chosen.runs or bench.runs
            for name in chosen.names or BENCHMARKS:
                _run_one(name, bench, document, console)
                if chosen.out:
                    chosen.out.write_text(json.dumps(document, indent=2) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    console.print(_screen_table(document))
    if not chosen.out:
        print(json.dumps(document, indent=2))
    if chosen.page:
        write_page(document, chosen.page)
    return 1 if document["failures"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small sizes, one run of each")
    parser.add_argument("--runs", type=int, help="runs of each figure")
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: standard output")
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--page", type=Path, help="where the page goes; a full run writes docs/")
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"benchmarks must be some of {', '.join(BENCHMARKS)}; found {unknown!r}")
    if chosen.page is None and not chosen.quick and not chosen.names:
        chosen.page = PAGE
    return chosen


def _run_one(name: str, bench: Bench, document: dict[str, Any], console: Console) -> None:
    console.rule(name)
    try:
        found = BENCHMARKS[name](bench)
    except Exception as error:  # noqa: BLE001  # one failure must not lose the figures of the others
        console.print_exception()
        document["failures"][name] = f"{type(error).__name__}: {error}"
        return
    document["figures"] += [figure.to_plain() for figure in found]


def _screen_table(document: dict[str, Any]) -> Table:
    table = Table("benchmark", "what", "median", "ratio", "target", show_lines=False)
    for figure in document["figures"]:
        if "skipped" in figure:
            table.add_row(figure["benchmark"], figure["name"], "skipped", "", figure["skipped"])
            continue
        targets = "; ".join(
            f"{target['text']} {'met' if target['met'] else 'MISSED'}"
            for target in figure["targets"]
        )
        ratio = "" if figure["ratio"] is None else f"{figure['ratio']:.2f}×"
        median = f"{figure['median']:,} {figure['unit']}"
        table.add_row(figure["benchmark"], figure["name"], median, ratio, targets)
    for name, error in document["failures"].items():
        table.add_row(name, "", "FAILED", "", error)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
