"""Four ONNX models for 100 symbols at one bar close, batched and alone, beside native predict."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort

from onnx_models.dataset import DataSet, load_data_set
from onnx_models.families import FitRequest
from onnx_models.kinds import SERVED, TrainingExtraMissingError, build_family
from onnx_models.walk_forward import plan_data_set
from tests.benchmarks.context import Bench
from tests.benchmarks.figures import REPOSITORY, Figure, Found, Skipped, Target, compare

RECORDING = REPOSITORY / "onnx_models" / "recordings" / "bars_1h_binance_spot_train.parquet"
SYMBOLS = 100
HORIZON_BARS = 4
TREES = ("xgboost", "lightgbm")
TREES_US, ALL_US = 60.0, 250.0
"""Microseconds per symbol on one core that the requirements allow."""
CALLS = 50
NETWORK_FIT_SECONDS = 60.0
"""Budget of a network's fit: what it costs to serve is fixed long before it is a good one."""
QUICK_FIT_SECONDS = 5.0


def measure_models(bench: Bench) -> list[Found]:
    """Return µs per symbol of each model in one batch and alone, ONNX and native, and of all four."""
    data = load_data_set([RECORDING])
    found: list[Found] = []
    together: dict[str, Figure] = {}
    for kind in SERVED:
        bench.say(f"models: {kind}")
        try:
            figures = _measure_kind(bench, kind, data)
        except TrainingExtraMissingError as error:
            found.append(Skipped(benchmark="models", name=kind, reason=str(error)))
            continue
        found += figures
        together[kind] = figures[1]
    found += _add_up(together)
    return found


def _measure_kind(bench: Bench, kind: str, data: DataSet) -> list[Figure]:
    family = build_family(kind)
    rows = data.usable_rows(HORIZON_BARS, family.schema)
    # The periods of the shipped models: how many trees answer depends on the rows that stop a fit.
    periods = plan_data_set(data, family.schema, HORIZON_BARS, folds=0).final
    budget_seconds = None if kind in TREES else NETWORK_FIT_SECONDS
    fitted = family.fit(
        FitRequest(
            data=data,
            horizon_bars=HORIZON_BARS,
            train=periods.train,
            calibration=periods.calibration,
            budget_seconds=QUICK_FIT_SECONDS if bench.quick else budget_seconds,
        )
    )
    inputs = data.reader(family.schema).take(rows[-SYMBOLS:])
    session = _open(fitted.export())

    def score(matrix: np.ndarray) -> Any:
        return session.run(["probabilities"], {"input": matrix})

    figures: list[Figure] = []
    for label, matrix in ((f"{SYMBOLS} symbols at once", inputs), ("one symbol", inputs[:1])):
        native, served = (
            Figure(
                benchmark="models",
                name=f"{kind}, {label}, {how}",
                unit="µs/symbol",
                runs=_time_calls(lambda work=work, matrix=matrix: work(matrix), len(matrix), bench),  # type: ignore[misc]
                note="ONNX on one thread, native as its library does",
            )
            for how, work in (("native", fitted.probabilities), ("ONNX", score))
        )
        figures += [native, compare(served, native)]
    return figures


def _open(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _time_calls(call: Callable[[], object], symbols: int, bench: Bench) -> list[float]:
    """Return µs per symbol of each run of `CALLS` calls, after one that is not counted."""
    call()
    found = []
    for _ in range(bench.runs):
        started = time.perf_counter()
        for _ in range(CALLS):
            call()
        found.append((time.perf_counter() - started) / CALLS / symbols * 1e6)
    return found


def _add_up(together: dict[str, Figure]) -> list[Figure]:
    """Return the sums over the trees and over all models, run by run."""
    found = []
    for label, kinds, limit in (("both trees", TREES, TREES_US), ("all four", SERVED, ALL_US)):
        if not set(kinds) <= set(together):
            continue
        runs = zip(*(together[kind].runs for kind in kinds), strict=True)
        found.append(
            Figure(
                benchmark="models",
                name=f"{label}, {SYMBOLS} symbols at once, ONNX",
                unit="µs/symbol",
                runs=[sum(run) for run in runs],
                targets=[Target(limit=limit, at_most=True)],
                note="sum of the models, run by run",
            )
        )
    return found
