"""`docs/benchmarks.md`, rendered from the JSON of a run."""

from pathlib import Path
from typing import Any

TITLES = {
    "decode": "Source and decoder through Kafka",
    "bars": "Ticks to 1-minute bars through Kafka",
    "features": "Features",
    "trading": "The whole path",
    "backtest": "Backtests",
    "archive": "Archive",
    "latency": "Latency at speed 1",
    "memory": "Memory",
    "models": "Models at one bar close",
}
HEAD = """# Benchmarks

Written by `make bench` from `bench.json`; do not edit. Every figure is wall time of this machine, the
median of its runs with the smallest and the largest beside it. A ratio compares two medians of the same
run. Broker, store and client share the machine's cores with what is measured.
"""


def render_page(document: dict[str, Any]) -> str:
    """Return the page of one run's document."""
    machine, versions = document["machine"], document["versions"]
    size = "quick: too small to judge targets by" if document["quick"] else "full"
    lines = [
        HEAD,
        (
            f"- Machine: {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['cpu']}, "
            f"{machine['system']}; load before the run {machine['load_before'][0]:g}"
        ),
        f"- Versions: {', '.join(f'{name} {number}' for name, number in versions.items())}",
        f"- Commit: {document['commit']}; run: {size}",
    ]
    measured = {figure["benchmark"] for figure in document["figures"]}
    left_out = [title for benchmark, title in TITLES.items() if benchmark not in measured]
    if left_out:
        lines.append(f"- Not measured in this run: {'; '.join(left_out)}")
    for benchmark, title in TITLES.items():
        figures = [figure for figure in document["figures"] if figure["benchmark"] == benchmark]
        if figures:
            lines += ["", f"## {title}", "", *_table(figures)]
    return "\n".join(lines) + "\n"


def _table(figures: list[dict[str, Any]]) -> list[str]:
    rows = [
        "| What | Median | Min to max | Runs | Ratio | Target |",
        "| --- | ---: | ---: | ---: | --- | --- |",
    ]
    notes: dict[str, int] = {}
    for figure in figures:
        if "skipped" in figure:
            rows.append(f"| {figure['name']} | skipped |  |  | {figure['skipped']} |  |")
            continue
        mark = ""
        if figure["note"]:
            mark = f" [{notes.setdefault(figure['note'], len(notes) + 1)}]"
        ratio = "" if figure["ratio"] is None else f"{figure['ratio']:.2f}× {figure['baseline']}"
        targets = "; ".join(
            f"{target['text']} {'met' if target['met'] else '**missed**'}"
            for target in figure["targets"]
        )
        rows.append(
            f"| {figure['name']}{mark} | {figure['median']:,} {figure['unit']} "
            f"| {figure['min']:,} to {figure['max']:,} | {len(figure['runs'])} | {ratio} | {targets} |"
        )
    return [*rows, "", *(f"{number}. {note}" for note, number in notes.items())]


def write_page(document: dict[str, Any], path: Path) -> None:
    """Write the page of `document` to `path`."""
    path.write_text(render_page(document))
