"""Training reads the windows that are served."""

import numpy as np
import polars as pl

from operators.features import SequenceWindows
from tests.onnx_models.networks.small import SQ120


def test_windows_of_the_data_set_and_of_the_live_operator_are_the_same_bits(hours):
    names = [hours.symbols[code].split(":") for code in hours.symbol_codes]
    frame = pl.DataFrame(names, schema=["venue", "symbol"], orient="row")
    rows = np.arange(len(frame))

    live = SequenceWindows(SQ120).advance(frame, hours.channels(SQ120).astype(np.float64))

    assert live.take(rows).tobytes() == hours.reader(SQ120).take(rows).tobytes()
    assert len(frame) > 1500
    assert 0.5 < live.complete.mean() < 1.0
