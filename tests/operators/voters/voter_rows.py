"""Recorded hourly bars of two symbols and their model inputs."""

from functools import cache

import numpy as np
import polars as pl

from operators.features import to_model_inputs, vector_matrix
from schemas.features import FEATURE_SCHEMAS
from tests.operators.recorded_bars import recorded_frame

SCHEMA = FEATURE_SCHEMAS["fs34"]


@cache
def rows(count: int = 600) -> tuple[pl.DataFrame, np.ndarray]:
    own = (pl.col("timeframe") == "1h") & pl.col("symbol").is_in(["BTCUSDT", "ETHUSDT"])
    frame = recorded_frame().filter(own).slice(200, count)
    matrix = vector_matrix(frame, SCHEMA)
    return frame, to_model_inputs(matrix, frame["close"].to_numpy(), SCHEMA)
