"""Source and decoder alone, and the bar job through Kafka, beside a bare loop and plain Bytewax."""

import time
from statistics import median

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main

from dataflows.lanes import BarsStep
from dataflows.log_flow import LogFlow
from dataflows.log_sources import Watch, tick_source
from dataflows.machines import run_machine
from dataflows.parts import build_lane
from dataflows.stack import kafka_settings
from infra.kafka.stop_flag import StopFlag
from infra.serve import Workload
from infra.settings import Settings
from infra.tick_encoder import Encoding
from schemas.instruments import InstrumentBook
from schemas.settings import BarSettings
from schemas.topics import full_name
from tests.benchmarks.bare_loop import run_bare_loop
from tests.benchmarks.bench_stack import (
    BenchStack,
    end_offsets,
    publish,
    records_written,
    run_bounded,
)
from tests.benchmarks.context import Bench
from tests.benchmarks.figures import Figure, Found, Skipped, Target, compare
from tests.benchmarks.loads import Load
from tests.benchmarks.plain_bytewax import build_plain_flow
from tests.benchmarks.same_bars import compare_bars

ENCODINGS: tuple[tuple[str, Encoding, int], ...] = (
    ("one tick a record", "ndjson", 1),
    ("700-tick NDJSON", "ndjson", 700),
    ("700-tick Arrow", "arrow", 700),
)
TIMES_PLAIN = {"one tick a record": 3.0, "700-tick NDJSON": 4.0}
ARROW_TICKS_PER_SECOND = 1_500_000.0
SHARE_OF_BARE_LOOP = 0.6
PLAIN_SINK = "market.features"
"""A topic that nothing else of this environment writes or reads."""


def bar_settings(stack: BenchStack, name: str) -> Settings:
    """Return an environment in which only 1-minute bars are built."""
    base = Settings()
    return stack.settings(
        name,
        bars=BarSettings(timeframes=("1m",)),
        strategies={
            key: chosen.model_copy(update={"enabled": False})
            for key, chosen in base.strategies.items()
        },
        models={
            key: chosen.model_copy(update={"enabled": False}) for key, chosen in base.models.items()
        },
    )


def measure(bench: Bench) -> list[Found]:
    """Return the figures of every encoding."""
    load = bench.loads.trades() or bench.loads.long_bars()
    found: list[Found] = []
    for label, encoding, batch in ENCODINGS:
        if label in bench.skipped_encodings:
            continue
        found += _measure_encoding(bench, load, label, encoding, batch)
    if not found:
        found.append(Skipped(benchmark="bars", name="all", reason="every encoding was left out"))
    return found


def _measure_encoding(
    bench: Bench, load: Load, label: str, encoding: Encoding, batch: int
) -> list[Found]:
    settings = bar_settings(bench.stack, "bars")
    bench.say(f"bars: publishing, {label}")
    ticks = publish(settings, load.open(), encoding, batch)
    kafka = kafka_settings(settings)
    topic = full_name(settings.environment, "market.ticks")
    ends = end_offsets(settings, ("market.ticks",))["market.ticks"]

    def figure(name: str, benchmark: str = "bars") -> Figure:
        return Figure(
            benchmark=benchmark, name=f"{name}, {label}", unit="ticks/s", runs=[], note=load.name
        )

    bare = figure("bare decode-and-group loop")
    ours, plain = figure("ticks → 1m bars through Kafka"), figure("the same in plain Bytewax")
    decoding = {
        client: figure(f"source + decode with {client}", "decode")
        for client in ("confluent", "kafka-python")
    }
    start_seconds: list[float] = []
    compared = ""
    # One of each in turn: a change of the machine's mood hits all of them.
    for run in range(bench.runs + 1):
        bench.say(f"bars: {label}, run {run} of {bench.runs}")
        loop = run_bare_loop(kafka.bootstrap, topic, ends)
        assert loop.ticks == ticks, (loop, ticks)
        rates = [(bare, loop.seconds)]
        for client, decoded in decoding.items():
            rates.append((decoded, drain_source(_with_client(settings, client), ends, ticks)))
        bench.stack.clear_outputs(settings)
        before = records_written(settings)["market.bars"]
        start = run_bounded(settings, "features", build_bar_flow, ())
        bench.stack.forget_recovery(settings)
        rates.append((ours, run_bounded(settings, "features", build_bar_flow) - start))
        bars = records_written(settings)["market.bars"] - before
        if run == 0:
            continue  # Warms caches: the broker's pages, compiled kernels.
        start_seconds.append(start)
        if run <= bench.plain_runs:
            empty = full_name(settings.environment, "market.late")
            idle = _run_plain(settings, kafka.bootstrap, empty)
            rates.append((plain, _run_plain(settings, kafka.bootstrap, topic) - idle))
            compared = compare_bars(settings, PLAIN_SINK)
        for measured, seconds in rates:
            measured.runs.append(ticks / seconds)
    ours.note += (
        f"; {bars:,} bars, bare loop {loop.bars:,}; recovery on, epoch 0.5 s; without the start of the "
        f"flow, measured on an empty range each time ({median(start_seconds):.2f} s)"
    )
    plain.note += f"; {compared}; without its start, measured on an empty topic each time"
    for chosen in (ours, *decoding.values()):
        compare(chosen, bare)
    decoding["confluent"].targets.append(Target(limit=SHARE_OF_BARE_LOOP, of="ratio"))
    against_plain = figure("our bars against plain Bytewax")
    against_plain.runs = list(ours.runs)
    compare(against_plain, plain)
    if label in TIMES_PLAIN:
        against_plain.targets.append(Target(limit=TIMES_PLAIN[label], of="ratio"))
    else:
        ours.targets.append(Target(limit=ARROW_TICKS_PER_SECOND))
    if batch > 1:
        ours.targets.append(Target(limit=SHARE_OF_BARE_LOOP, of="ratio"))
    return [bare, *decoding.values(), ours, plain, against_plain]


def _with_client(settings: Settings, client: str) -> Settings:
    kafka = settings.kafka.model_copy(update={"client": client})
    return settings.model_copy(update={"kafka": kafka})


def drain_source(settings: Settings, ends: dict[int, int], ticks: int) -> float:
    """Read and decode every partition to its end without a dataflow; return the seconds."""
    workload = Workload("features", settings.environment, 30)
    watch = Watch(stop=StopFlag(), workload=workload, until={"market.ticks": ends})
    partitions = sorted(ends)
    started = time.perf_counter()
    source = tick_source(settings, partitions, "decode", InstrumentBook(), watch)
    parts = [source.build_part("ticks", str(number), None) for number in partitions]
    seen, heartbeats = 0, 0
    while parts:
        for part in list(parts):
            try:
                fetched = list(part.next_batch())
            except StopIteration:
                part.close()
                parts.remove(part)
                continue
            for _, batch in fetched:
                assert not batch.dead_letters, batch.dead_letters[:1]
                seen += batch.ticks.height
                heartbeats += int((batch.ticks["instrument"] < 0).sum())
    seconds = time.perf_counter() - started
    assert seen - heartbeats == ticks, (seen, heartbeats, ticks)
    return seconds


def build_bar_flow(log: LogFlow) -> Dataflow:
    """Return ticks → bars → Kafka, made of the parts of the `features` flow."""
    flow = Dataflow("bars")
    lane = build_lane(log.settings, log.book, log.workload.observe)
    fetched = op.input(
        "ticks", flow, tick_source(log.settings, log.partitions, log.name, log.book, log.watch)
    )
    items = run_machine("bars", fetched, lambda state: BarsStep(lane, state))
    op.output("records", op.map_value("outgoing", items, lambda item: item.outgoing), log.sink())
    return flow


def _run_plain(settings: Settings, bootstrap: str, topic: str) -> float:
    sink = full_name(settings.environment, PLAIN_SINK)
    flow = build_plain_flow(bootstrap, topic, sink, 1, settings.bars.lateness_ms)
    started = time.perf_counter()
    run_main(flow)
    return time.perf_counter() - started
