"""48 hours of event time at 100 names: what the flow keeps is bounded, and does not grow."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.chaos.figures import Figures

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]

WARM_HOURS, SOAK_HOURS = 48, 48
"""Windows, buffers and learners fill for two days of event time, then two more are measured."""
END_HOUR = WARM_HOURS + SOAK_HOURS - 1
"""In the last hour the input runs dry and its buffers are given back: that is no growth."""
RSS_MIB_MAX = 2048.0
GROWTH_MIB_PER_DAY_MAX = 15.0
"""What still counts as flat: within 1 % of the limit."""


@pytest.fixture(scope="module")
def soak(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("soak")
    command = [sys.executable, "-m", "tests.chaos.soak", str(folder), str(WARM_HOURS + SOAK_HOURS)]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, timeout=1700
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.acceptance(
    "S-105",
    criterion="48 h of event time (accelerated, not of wall time): RSS < 2 GB, slope about 0",
)
def test_two_days_of_a_hundred_names_leave_the_memory_as_it_was(
    soak: dict[str, Any], figures: Figures, measured: Any
) -> None:
    hours, rss_mib = np.array(soak["samples"]).T
    assert soak["names"] == 100
    assert hours[-1] > END_HOUR
    signals, four = (soak["records"][name] for name in ("trade.signals", "with four votes"))
    # Ten hours of bars come before the first vote of a network.
    assert four > 0.5 * signals
    inside = (hours >= WARM_HOURS) & (hours < END_HOUR)
    slope = 24.0 * float(np.polyfit(hours[inside], rss_mib[inside], 1)[0])
    places = (12, 24, 36, 48, 60, 72, 84, END_HOUR)
    shown = ", ".join(f"{one:.0f}" for one in np.interp(places, hours, rss_mib))
    text = (
        f"{soak['ticks']:,} ticks in {soak['seconds']:.0f} s, {signals:,} signals, {four:,} of them "
        f"with four ONNX votes; RSS at most {rss_mib.max():.0f} MiB, every 12 h of event time "
        f"{shown} MiB; {slope:+.1f} MiB a day over hours {WARM_HOURS} to {END_HOUR}"
    )
    result = f"growth below {GROWTH_MIB_PER_DAY_MAX:.0f} MiB a day"
    figures.add(
        "none: two days of event time at 100 names, after two to warm up", "-", result, text
    )
    measured(text)
    assert rss_mib.max() < RSS_MIB_MAX
    assert slope < GROWTH_MIB_PER_DAY_MAX
