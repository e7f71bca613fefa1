"""Small recorded data sets and quick families, made once per test process."""

from functools import cache
from pathlib import Path

import polars as pl

from onnx_models.dataset import load_data_set
from onnx_models.trees import LightGBMFamily, RandomForestFamily, XGBoostFamily
from tests.operators.recorded_bars import RECORDINGS

FIVE_MINUTES = RECORDINGS / "bars_5m_binance_spot_train.parquet"
HOURS = RECORDINGS / "bars_1h_binance_spot_train.parquet"
LATER = RECORDINGS / "bars_1h_binance_spot_later.parquet"
ARTEFACTS = Path(__file__).parents[2] / "onnx_models" / "artefacts"
DAY_NS = 86_400_000_000_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
DAYS = 60


def write_days(path, days=DAYS, source=HOURS, symbols=SYMBOLS, first_day=0):
    """Write the bars of some days of a recording to `path` and return it."""
    bars = pl.read_parquet(source).filter(pl.col("symbol").is_in(symbols))
    start = bars["ts_ns"].min() + first_day * DAY_NS
    inside = (pl.col("ts_ns") >= start) & (pl.col("ts_ns") < start + days * DAY_NS)
    bars.filter(inside).write_parquet(path)
    return path


@cache
def hours():
    """Every hour of the shipped training recording."""
    return load_data_set([HOURS])


@cache
def three_symbols():
    """Five months of three symbols."""
    return load_data_set([HOURS], symbols=SYMBOLS)


def quick(family, **changes):
    """A family of `family`'s kind that needs a second."""
    parameters = {
        XGBoostFamily: {"n_estimators": 30, "learning_rate": 0.1, "max_depth": 4},
        LightGBMFamily: {"n_estimators": 30, "learning_rate": 0.1, "max_depth": 4},
        RandomForestFamily: {"n_estimators": 10, "max_depth": 5},
    }[family]
    return family(parameters | changes)


def shipped_artefacts():
    """Folders of the shipped artefacts by the name of their model."""
    from infra.onnx_session import load_card

    folders = [path.parent for path in sorted(ARTEFACTS.rglob("card.json"))]
    return {load_card(folder).name: folder for folder in folders}
