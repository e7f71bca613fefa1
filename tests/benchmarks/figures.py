"""What a benchmark measures, and the machine it was measured on."""

import gc
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

REPOSITORY = Path(__file__).parents[2]
PACKAGES = (
    "bytewax", "chdb", "confluent-kafka", "kafka-python", "msgspec", "numba", "numpy",
    "onnxruntime", "polars", "pyarrow", "river",
)  # fmt: skip
KAFKA_VERSION = "4.3.1"


class Target(Struct, frozen=True, kw_only=True):
    """What a figure should reach: its median, or the median's ratio to the baseline."""

    limit: float
    of: str = "median"
    """`median` or `ratio`."""
    at_most: bool = False

    def is_met(self, median: float, ratio: float | None) -> bool:
        found = ratio if self.of == "ratio" else median
        if found is None:
            return False
        return found <= self.limit if self.at_most else found >= self.limit

    def text(self) -> str:
        sign = "≤" if self.at_most else "≥"
        return f"{sign} {self.limit:,g}" + ("×" if self.of == "ratio" else "")


class Figure(Struct, kw_only=True):
    """One measured quantity over several runs."""

    benchmark: str
    name: str
    unit: str
    runs: list[float]
    note: str = ""
    baseline: str = ""
    """Name of the figure of the same run that `ratio` compares with."""
    ratio: float | None = None
    targets: list[Target] = []

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def to_plain(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "name": self.name,
            "unit": self.unit,
            "median": rounded(self.median),
            "min": rounded(min(self.runs)),
            "max": rounded(max(self.runs)),
            "runs": [rounded(value) for value in self.runs],
            "baseline": self.baseline,
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "targets": [
                {"text": target.text(), "met": target.is_met(self.median, self.ratio)}
                for target in self.targets
            ],
            "note": self.note,
        }


class Skipped(Struct, frozen=True, kw_only=True):
    """A figure that could not be measured here, and why."""

    benchmark: str
    name: str
    reason: str

    def to_plain(self) -> dict[str, Any]:
        return {"benchmark": self.benchmark, "name": self.name, "skipped": self.reason}


Found = Figure | Skipped


def rounded(value: float) -> float:
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")


def compare(figure: Figure, baseline: Figure) -> Figure:
    """Give `figure` its ratio to `baseline`, median to median."""
    figure.baseline, figure.ratio = baseline.name, figure.median / baseline.median
    return figure


def time_runs(work: Callable[[], object], count: int, runs: int) -> list[float]:
    """Return `count` per second of wall time for each of `runs` runs of `work`."""
    rates = []
    for _ in range(runs):
        gc.collect()
        started = time.perf_counter()
        work()
        rates.append(count / (time.perf_counter() - started))
    return rates


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p99, p99.9 (nearest rank) and the maximum."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        name: ordered[min(last, int(len(ordered) * share))]
        for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
    }


def describe_machine() -> dict[str, Any]:
    """Return cores, memory, processor and load; nothing that names the machine."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def describe_versions() -> dict[str, str]:
    """Return the versions that decide the figures."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "kafka": KAFKA_VERSION, **found}


def describe_commit() -> str:
    """Return the commit, with `+changes` when the tree differs from it."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def peak_rss_mib() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
