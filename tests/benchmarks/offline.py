"""Features, and backtests from trades and from bars: no Kafka, one process."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from dataflows.backtest import run_backtest
from dataflows.parts import SessionLibrary
from dataflows.recorded_session import PARTITION
from infra.settings import Settings
from operators.bars import BarMachine
from operators.features import FeatureMachine
from operators.screen import TickScreen
from schemas.features import FEATURE_SCHEMAS
from schemas.instruments import InstrumentBook
from schemas.settings import Timeframe
from tests.benchmarks.context import Bench
from tests.benchmarks.figures import Figure, Found, Skipped, Target, compare, time_runs
from tests.benchmarks.loads import Load
from tests.benchmarks.voters import Chosen, describe_voters, voters_at

BARS_AT_ONCE = 12
"""One close of a dozen symbols: how features are asked for when live."""
BARS_PER_SECOND = 60_000.0
TICKS_PER_SECOND = 500_000.0


def measure_features(bench: Bench) -> list[Found]:
    """Return bars/s of `fs34` and `fs64`, for whole chunks and for single closes."""
    load = bench.loads.long_bars()
    bench.say("features: building bars")
    bars = closed_bars(load)
    found: list[Found] = []
    for name in ("fs34", "fs64"):
        for label, rows in (("whole chunks", 50_000), ("closes of 12 symbols", BARS_AT_ONCE)):
            chosen = bars if rows > BARS_AT_ONCE else bars.head(30_000)
            bench.say(f"features: {name}, {label}")
            runs = time_runs(
                lambda chosen=chosen, rows=rows, name=name: _compute(chosen, rows, name),  # type: ignore[misc]
                chosen.height,
                bench.runs + 1,
            )[1:]
            found.append(
                Figure(
                    benchmark="features",
                    name=f"{name}, {label}",
                    unit="bars/s",
                    runs=runs,
                    note=f"{chosen.height:,} bars of {load.name}",
                )
            )
    return found


def closed_bars(load: Load) -> pl.DataFrame:
    """Return the 5-minute bars of `load` as the bar machine closes them."""
    session = load.open()
    book = InstrumentBook(session.instruments())
    screen, machine = TickScreen(PARTITION, 0), BarMachine(PARTITION, ["5m"], SessionLibrary())
    parts = []
    for batch in session.batches(book, 0):
        screened = screen.on_ticks(batch.ticks, book)
        parts.append(
            machine.on_ticks(screened.accepted, screened.duplicates, screened.watermark_ns, book)
        )
    return pl.concat(parts)


def _compute(bars: pl.DataFrame, rows: int, schema: str) -> None:
    machine = FeatureMachine(FEATURE_SCHEMAS[schema])
    for part in bars.iter_slices(rows):
        machine.update(part)


def measure_backtest(bench: Bench) -> list[Found]:
    """Return ticks/s from recorded trades, and bars/s from recorded bars with and without models."""
    return [*_from_trades(bench), *_from_bars(bench)]


def _from_trades(bench: Bench) -> list[Found]:
    load = bench.loads.trades()
    if load is None:
        reason = "the trade recording is not here"
        return [Skipped(benchmark="backtest", name="from recorded trades", reason=reason)]
    found: list[Found] = []
    wanted: list[tuple[Chosen, Timeframe | None]] = [
        ("pair", None), ("pair", "5m"), ("ensemble", None),
    ]  # fmt: skip
    for models, timeframe in wanted:
        figure = _backtest(bench, load, "from recorded trades", "ticks/s", models, timeframe)
        figure.targets = [Target(limit=TICKS_PER_SECOND)]
        found.append(figure)
    return found


def _from_bars(bench: Bench) -> list[Found]:
    long, shipped = bench.loads.long_bars(), bench.loads.shipped_bars()
    found: list[Found] = []
    wanted: list[tuple[Load, Timeframe | None, list[Chosen]]] = [
        (long, None, ["pair", "ensemble"]),
        (long, "5m", []),
        # Learners take their time at every bar: fewer of them.
        (shipped, "5m", ["pair"]),
    ]
    for load, timeframe, beside in wanted:
        source = f"from {'shipped ' if load is shipped else ''}5m bars"
        rules = _backtest(bench, load, source, "bars/s", "none", timeframe)
        rules.targets = [Target(limit=BARS_PER_SECOND)]
        found.append(rules)
        for models in beside:
            figure = _backtest(bench, load, source, "bars/s", models, timeframe)
            found.append(compare(figure, rules))
    return found


def _backtest(
    bench: Bench,
    load: Load,
    source: str,
    unit: str,
    models: Chosen,
    timeframe: Timeframe | None,
) -> Figure:
    where = f"all at {timeframe}" if timeframe else "default timeframes"
    name = f"{source}, {describe_voters(models)}, {where}"
    sections: dict[str, Any] = voters_at(timeframe, models=models, folder=bench.folder)
    settings = Settings(environment="bench", state_dir=bench.folder / "backtest", **sections)
    out = bench.folder / "backtest_out"
    counted: dict[str, int] = {}
    rows = sum(pl.scan_parquet(file.path).select(pl.len()).collect().item() for file in load.files)

    def work() -> None:
        counted.update(run_backtest(settings, load.open(), out))

    bench.say(f"backtest: {name}")
    # The first run compiles kernels and warms caches.
    _run_small(settings, bench, out)
    runs = time_runs(work, 1, 1 if models == "ensemble" else min(bench.runs, 3))
    count = rows if unit == "bars/s" else counted["ticks"]
    note = (
        f"{count:,} {unit.split('/', maxsplit=1)[0]} of {load.name}; {counted.get('signals', 0):,} signals, "
        f"{counted.get('OrderFilled', 0):,} fills; opening the file and writing the results counted"
    )
    shutil.rmtree(out, ignore_errors=True)
    return Figure(
        benchmark="backtest", name=name, unit=unit, runs=[rate * count for rate in runs], note=note
    )


def _run_small(settings: Settings, bench: Bench, out: Path) -> None:
    run_backtest(settings, bench.loads.warm_up().open(), out)
