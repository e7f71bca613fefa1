"""From recorded bars to rows for regime models: inputs of the live operator, labels of the future."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from onnx_models.dataset import DataManifest, describe_data, read_hourly
from onnx_models.regimes.labels import UNKNOWN, RegimeLabelling, label_regimes
from operators.bar_columns import BarColumns
from operators.features import FeatureMachine
from operators.regime import INDICATORS, regime_inputs
from schemas.features import FEATURE_SCHEMAS
from schemas.regime import RG11

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class RegimeRows(Struct, frozen=True, kw_only=True):
    """Every hourly bar in the order (close time, venue, symbol); a row is an index into it."""

    labelling: RegimeLabelling
    inputs: FloatArray
    """(bars, 11) inputs of `RG11`; NaN: missing."""
    labels: IntArray
    ends_ns: IntArray
    close_times_ns: IntArray
    manifest: DataManifest

    @property
    def usable(self) -> IntArray:
        """Return the rows with complete inputs and a known label, in time order."""
        complete = np.isfinite(self.inputs).all(axis=1)
        return np.flatnonzero(complete & (self.labels != UNKNOWN))


def load_regime_rows(
    paths: Sequence[Path], labelling: RegimeLabelling | None = None, symbols: Sequence[str] = ()
) -> RegimeRows:
    """Return the rows of the recordings at `paths`, of `symbols` alone if any are named.

    Raises what `onnx_models.dataset.load_data_set` raises for what is no recording, or not recorded.
    """
    chosen = RegimeLabelling() if labelling is None else labelling
    hourly = read_hourly(paths, symbols)
    features = FeatureMachine(FEATURE_SCHEMAS["fs34"], INDICATORS).extend(BarColumns.of(hourly))
    inputs = regime_inputs(features)
    target = label_regimes(hourly, chosen)
    usable = int((np.isfinite(inputs).all(axis=1) & (target.labels != UNKNOWN)).sum())
    definitions = {chosen.horizon_bars: chosen.definition}
    return RegimeRows(
        labelling=chosen,
        inputs=inputs,
        labels=target.labels,
        ends_ns=target.ends_ns,
        close_times_ns=hourly["close_time_ns"].to_numpy(),
        manifest=describe_data(paths, hourly, RG11, definitions, usable, "recorded"),
    )
