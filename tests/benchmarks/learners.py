"""The three online learners for 100 symbols at one bar close: what a prediction and an event cost."""

import time

import numpy as np
import polars as pl

from onnx_models.dataset import DataSet, load_data_set
from operators.bar_columns import BarColumns
from operators.vote import LabelRule
from operators.voters import build_learners
from operators.voters.base import Learner
from schemas.settings import default_models
from tests.benchmarks.context import Bench
from tests.benchmarks.figures import Figure, Found
from tests.benchmarks.models import RECORDING, SYMBOLS

WARM_UP_CLOSES = 40
CLOSES_EACH_RUN = 5
FIRST_ROW = 300
"""Bars of a series before it is used: none of its inputs is missing by then."""


def measure_learners(bench: Bench) -> list[Found]:
    """Return µs per symbol to predict and to learn, once every learner has learnt 3,600 events."""
    data = load_data_set([RECORDING])
    found: list[Found] = []
    for learner in build_learners(default_models(), LabelRule()):
        bench.say(f"models: {learner.name}")
        found += _measure(bench, learner, data)
    return found


def _measure(bench: Bench, learner: Learner, data: DataSet) -> list[Figure]:
    for number in range(WARM_UP_CLOSES):
        learner.answer(*_close(data, number))
        learner.settle()
    predict, learn = [], []
    for run in range(bench.runs):
        times = np.zeros(2)
        for number in range(CLOSES_EACH_RUN):
            close = _close(data, WARM_UP_CLOSES + run * CLOSES_EACH_RUN + number)
            started = time.perf_counter()
            learner.answer(*close)
            answered = time.perf_counter()
            learner.settle()
            times += answered - started, time.perf_counter() - answered
        for runs, seconds in zip((predict, learn), times.tolist(), strict=True):
            runs.append(seconds / CLOSES_EACH_RUN / SYMBOLS * 1e6)
    return [
        Figure(
            benchmark="models",
            name=f"{learner.name}, {SYMBOLS} symbols at once, {what}",
            unit="µs/symbol",
            runs=runs,
            note=f"River, one event a symbol; {note}",
        )
        for what, runs, note in (
            ("predict", predict, "before the signals go out"),
            ("learn", learn, "after they have gone out"),
        )
    ]


def _close(data: DataSet, number: int) -> tuple[BarColumns, np.ndarray]:
    """Return one close of `SYMBOLS` names, cut from recorded series at places far apart."""
    series = [
        data.by_series[data.symbol_codes[data.by_series] == code]
        for code in range(len(data.symbols))
    ]
    rows = np.array(
        [
            own[(FIRST_ROW + (place // len(series)) * 150 + number) % len(own)]
            for place in range(SYMBOLS)
            for own in (series[place % len(series)],)
        ]
    )
    bars = pl.DataFrame(
        {
            "venue": ["load"] * SYMBOLS,
            "symbol": [f"LOAD{place:03d}USDT" for place in range(SYMBOLS)],
            "timeframe": ["1h"] * SYMBOLS,
            "close_time_ns": [(number + 1) * 3_600_000_000_000] * SYMBOLS,
            "close": data.closes[rows],
        }
    )
    return BarColumns.of(bars), data.inputs[rows].astype(np.float64)
