"""A small data set of recorded bars, and plans that take seconds."""

from pathlib import Path

import numpy as np
import polars as pl
from msgspec.structs import replace

from onnx_models.dataset import DataSet, load_data_set
from onnx_models.families import FitRequest
from schemas.features import SEQUENCE_SCHEMAS
from tests.conftest import EXCERPTS

SQ120 = SEQUENCE_SCHEMAS["sq120"]
HORIZON_BARS = 4


def recorded_hours(folder: Path) -> DataSet:
    """About 830 recorded hours each of BTCUSDT and ETHUSDT."""
    bars = pl.read_parquet(EXCERPTS / "bars_5m_btcusdt.parquet")
    path = folder / "bars.parquet"
    bars.rename({"open_time_ns": "ts_ns"}).write_parquet(path)
    return load_data_set([path])


def request(data: DataSet, seed: int = 7, **changes) -> FitRequest:
    """Learn from the first 60 %, stop by the next 20 %; the rest is later."""
    rows = data.usable_rows(HORIZON_BARS, SQ120)
    ends = data.targets[HORIZON_BARS].ends_ns[rows]
    times = data.close_times_ns[rows]
    first, second = (int(np.quantile(times, share)) for share in (0.6, 0.8))
    return FitRequest(
        data=data,
        horizon_bars=HORIZON_BARS,
        train=rows[ends < first],
        calibration=rows[(times >= first) & (ends < second)],
        seed=seed,
        **changes,
    )


def later_rows(data: DataSet) -> np.ndarray:
    rows = data.usable_rows(HORIZON_BARS, SQ120)
    times = data.close_times_ns[rows]
    return rows[times >= np.quantile(times, 0.8)]


def quick(family, **changes):
    """The family with a plan of a few hundred windows."""
    plan = {"windows_per_epoch": 256, "epochs_max": 3, "learning_rate": 1e-3} | changes
    family.plan = replace(family.plan, **plan)
    return family
