"""The whole path, Kafka → bars → features → votes → decisions → fills → Kafka; and the archive."""

from statistics import median

from dataflows.archive import build_flow as build_archive
from dataflows.features import build_flow as build_features
from dataflows.trading import build_flow as build_trading
from schemas.settings import BarSettings, Timeframe
from tests.benchmarks.bench_stack import publish, records_written, run_bounded
from tests.benchmarks.context import Bench
from tests.benchmarks.figures import Figure, Found, Skipped, Target
from tests.benchmarks.loads import SHIPPED_BARS, Load
from tests.benchmarks.voters import Chosen, describe_voters, voters_at

TICKS_PER_SECOND = 300_000.0
BATCH = 700


def measure_trading(bench: Bench) -> list[Found]:
    """Return ticks/s of `trading` from Kafka to Kafka: the pair of models at 5m, the ensemble at its own."""
    trades = bench.loads.trades()
    name = "Kafka → fills → Kafka"
    found: list[Found] = []
    if trades is None:
        reason = "the trade recording is not here"
        found.append(Skipped(benchmark="trading", name=f"{name}, recorded trades", reason=reason))
    else:
        found += [_trade(bench, trades, f"{name}, recorded trades", e) for e in ("ndjson", "arrow")]
    bars, name = bench.loads.shipped_bars(), f"{name}, reconstructed bars"
    return [
        *found,
        _trade(bench, bars, name, "ndjson"),
        _trade(bench, bars, name, "ndjson", "ensemble", None),
    ]


def _trade(
    bench: Bench,
    load: Load,
    name: str,
    encoding: str,
    models: Chosen = "pair",
    timeframe: Timeframe | None = "5m",
) -> Figure:
    chosen = voters_at(timeframe, models=models, folder=bench.folder)
    settings = bench.stack.settings(f"trading-{models}", **chosen)
    bench.say(f"trading: publishing {load.name} as {encoding}")
    ticks = publish(settings, load.open(), encoding, BATCH)  # type: ignore[arg-type]
    rates: list[float] = []
    made: dict[str, int] = {}
    # Learners take a minute for the months of bars: once, behind a run that warms up.
    runs = 1 if load.files[0].path == SHIPPED_BARS else min(bench.runs, 3)
    for run in range(runs + 1):
        bench.say(f"trading: {name}, {encoding}, run {run}")
        bench.stack.clear_outputs(settings)
        before = records_written(settings)
        seconds = run_bounded(settings, "trading", build_trading)
        after = records_written(settings)
        made = {topic: after[topic] - before[topic] for topic in after}
        if run:
            rates.append(ticks / seconds)
    return Figure(
        benchmark="trading",
        name=f"{name}, {BATCH}-tick {encoding} records, {describe_voters(models)}",
        unit="ticks/s",
        runs=rates,
        targets=[Target(limit=TICKS_PER_SECOND)] if models == "pair" else [],
        note=(
            f"{ticks:,} ticks of {load.name}; {timeframe or 'default timeframes'}; "
            f"{made['market.bars']:,} bars, {made['trade.signals']:,} signals, "
            f"{made['trade.decisions']:,} decisions, {made['trade.fills']:,} fills; recovery on"
        ),
    )


def measure_archive(bench: Bench) -> list[Found]:
    """Return rows/s of the `archive` flow into the store: ticks, bars and features."""
    ticks = bench.loads.trades() or bench.loads.long_bars()
    found = _archive(bench, ticks, ("market.ticks",))
    return found + _archive(bench, bench.loads.shipped_bars(), ("market.bars", "market.features"))


def _archive(bench: Bench, load: Load, topics: tuple[str, ...]) -> list[Found]:
    settings = bench.stack.settings(
        "archive",
        bars=BarSettings(timeframes=("1m", "5m", "1h", "1d")),
        **voters_at("5m", models="none", folder=bench.folder),
    )
    bench.say(f"archive: publishing {load.name}")
    rows = {"market.ticks": publish(settings, load.open(), "arrow", BATCH)}
    if topics != ("market.ticks",):
        run_bounded(settings, "features", build_features)
        rows |= records_written(settings)
    found: list[Found] = []
    for topic in topics:
        bench.say(f"archive: {topic}")
        rates, starts = [], []
        for run in range(min(bench.runs, 3) + 1):
            bench.stack.forget_recovery(settings)
            # The flow opens every partition of every topic: that is paid once a start, not once a row.
            start = run_bounded(settings, "archive", build_archive, ())
            bench.stack.forget_recovery(settings)
            seconds = run_bounded(settings, "archive", build_archive, (topic,)) - start
            if run:
                rates.append(rows[topic] / seconds)
                starts.append(start)
        note = (
            f"{rows[topic]:,} rows of {load.name}; natural keys, so a run again replaces rows; without "
            f"the start of the flow, measured on an empty range each time ({median(starts):.2f} s)"
        )
        name = f"{topic} into the store"
        found.append(Figure(benchmark="archive", name=name, unit="rows/s", runs=rates, note=note))
    return found
