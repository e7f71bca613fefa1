"""Learners of one lane keep what is too large for a snapshot in files: every snapshot finds its own."""

import pickle
from collections import deque

import polars as pl
import pytest

from dataflows.parts import build_lane
from dataflows.signal_steps import SignalsStep
from operators.bar_columns import BarColumns
from schemas.instruments import InstrumentBook
from schemas.settings import default_models
from tests.dataflows.test_backtest import settings
from tests.operators.recorded_bars import hourly_bars

CLOSES = 480
KEPT = 8
SYMBOLS = ("BTCUSDT", "ETHUSDT")
LEARNERS = {name: one for name, one in default_models().items() if one.kind == "river"}


def lane_in(folder):
    return build_lane(
        settings().model_copy(update={"models": LEARNERS}),
        InstrumentBook(),
        lambda _kind, _count: None,
        learners=folder,
    )


def closes():
    bars = hourly_bars().filter(pl.col("symbol").is_in(SYMBOLS))
    keys = ("venue", "symbol", "timeframe", "close_time_ns")
    identity = pl.concat_str(pl.lit("bar"), *keys, separator="/").alias("id")
    own = bars.with_columns(identity, pl.lit("reconstructed").alias("provenance"))
    frames = own.sort("close_time_ns", "venue", "symbol").head(CLOSES * len(SYMBOLS))
    return [one for _, one in frames.group_by("close_time_ns", maintain_order=True)]


@pytest.mark.acceptance(
    "S-205", criterion="A snapshot at every close, three learners: each of the last 8 restores"
)
def test_every_late_snapshot_restores_whatever_the_pace_of_the_learners(tmp_path, measured):
    lane, frames = lane_in(tmp_path), closes()
    step, kept = SignalsStep(lane, None), deque(maxlen=KEPT)
    for frame in frames:
        step.on_bars(0, BarColumns.of(frame))
        step.settle()
        kept.append(pickle.dumps(step.snapshot()))
    for snapshot in kept:
        SignalsStep(lane_in(tmp_path), pickle.loads(snapshot))
    files = sorted(one.parent.name for one in tmp_path.rglob("*.learner"))
    # The trees have a base by now and so a file; the regression is small and stays in the snapshot.
    assert {name.removeprefix("of_") for name in files} == {"river_forest", "river_hoeffding"}
    measured(f"{len(frames)} closes, {len(files)} files, {max(map(len, kept)):,} bytes a snapshot")


def test_no_name_of_a_learner_leads_out_of_its_folder(tmp_path):
    inside = tmp_path / "learners"
    names = ("..", "../../stray", ".")
    models = dict.fromkeys(names, LEARNERS["river_hoeffding"])
    own = settings().model_copy(update={"models": models})
    lane = build_lane(own, InstrumentBook(), lambda _kind, _count: None, learners=inside)
    step = SignalsStep(lane, None)
    for frame in closes():
        step.on_bars(0, BarColumns.of(frame))
    step.snapshot()
    folders = {one.parent for one in tmp_path.rglob("*.learner")}
    assert len(folders) == len(names)
    assert all(one.parent == inside / "0000" for one in folders)
