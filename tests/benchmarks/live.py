"""`trading` as a process of its own: how fast a proven close is decided, and what memory it keeps."""

import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import polars as pl
import psutil
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from dataflows.replay import publish_instruments, replay
from dataflows.stack import kafka_settings
from dataflows.status import read_health
from infra.kafka.producer import BatchProducer
from infra.kafka.reading import read_to_end
from infra.settings import Settings
from infra.tick_encoder import encode_heartbeats, encode_records
from schemas.codec import decode, find_header
from schemas.settings import TIMEFRAME_NS, BarSettings, Timeframe
from schemas.topics import full_name
from schemas.trading import DecisionMade
from tests.benchmarks.bench_stack import traded_to_the_end
from tests.benchmarks.context import Bench
from tests.benchmarks.figures import Figure, Found, Skipped, Target, percentiles
from tests.benchmarks.voters import Chosen, describe_voters, voters_at
from tests.integration.session_run import RunningFlow, running, wait_until

NAMES = 100
HEARTBEAT_MS = 100
LATENESS_MS = 2_000
HISTORY_MINUTES = 400
"""Bars that every name has before the clock counts, so that every voter votes."""
CLOSES = 8
ENSEMBLE_CLOSES = 2
"""The same with every model; the limit of the requirements is for one ONNX model and one learner."""
QUICK_CLOSES = 1
P50_MS, P99_MS = 5.0, 15.0
WAIT_SECONDS = 450.0
SAMPLE_SECONDS = 0.25
PASSES = 10
"""How often the recorded trades are played: 10 million ticks, with as many to a bar as a real feed has."""
ENSEMBLE_PASSES = 40
"""With learners on hourly bars: their trees have their depth after some 400 closes, twelve passes."""
MILLION = 1_000_000
RSS_MIB = 1024.0
SETTLED_SHARE = 0.3
SAMPLES_MIN = 10
RSS_GROWTH_MIB = 1.0
"""Growth for each million ticks that still counts as flat."""


def measure_latency(bench: Bench) -> list[Found]:
    """Return the latencies with one ONNX model and one learner, and with the whole ensemble."""
    return [
        *_measure_latency(bench, "pair", QUICK_CLOSES if bench.quick else CLOSES),
        *_measure_latency(bench, "ensemble", QUICK_CLOSES if bench.quick else ENSEMBLE_CLOSES),
    ]


def _measure_latency(bench: Bench, models: Chosen, closes: int) -> list[Found]:
    """Return milliseconds from the record that proves a close to the decision's append.

    The account acts in one event-time order over all partitions, so a close is proven for it by the
    last record needed: the one with which the slowest partition's watermark reaches the close.
    Symbols of every partition close at that moment; signals of all of them are decided in one go.
    """
    name = f"proof of close to decision, {describe_voters(models)}"
    load = bench.loads.load_shape(NAMES, HISTORY_MINUTES + closes, 1, "1m")
    if load is None:
        reason = "the recording of 1-minute bars is not here"
        return [Skipped(benchmark="latency", name=name, reason=reason)]
    settings = bench.stack.settings(
        f"latency-{models}",
        bars=BarSettings(timeframes=("1m",), lateness_ms=LATENESS_MS),
        **voters_at("1m", models=models, folder=bench.folder),
    )
    _stamp_on_append(settings)
    session = load.open()
    live_from_ns = session.start_ns + HISTORY_MINUTES * TIMEFRAME_NS["1m"]
    with running(settings, {"trading": 1}) as flows:
        bench.say("latency: history")
        producer = BatchProducer(kafka_settings(settings), linger_ms=0)
        publish_instruments(settings, producer, session.instruments())
        ticks = pl.concat(list(session.chunks())).sort("event_time_ns", maintain_order=True)
        history = ticks.filter(pl.col("event_time_ns") < live_from_ns)
        _send(producer, settings, history, live_from_ns - 1)
        wait_until(lambda: traded_to_the_end(settings), "history", flows, WAIT_SECONDS)
        bench.say(f"latency: {closes} closes at speed 1")
        live = ticks.filter(pl.col("event_time_ns") >= live_from_ns)
        _play(producer, settings, live, live_from_ns, closes)
        wait_until(lambda: traded_to_the_end(settings), "live part", flows, WAIT_SECONDS)
        producer.close()
    note = (
        f"{load.name}; {closes} closes at speed 1, all at 1m; lateness {LATENESS_MS} ms, "
        f"heartbeat every {HEARTBEAT_MS} ms; broker's append times, 1 ms resolution"
    )
    targets = {"p50": P50_MS, "p99": P99_MS} if models == "pair" else {}
    return _latencies(settings, live_from_ns, name, targets, note)


def _stamp_on_append(settings: Settings) -> None:
    """Let the broker stamp ticks and decisions when it appends them: one clock for both."""
    admin = AdminClient({"bootstrap.servers": kafka_settings(settings).bootstrap})
    for topic in ("market.ticks", "trade.decisions", "trade.signals"):
        entry = ConfigEntry(
            "message.timestamp.type",
            "LogAppendTime",
            incremental_operation=AlterConfigOpType.SET,
        )
        resource = ConfigResource(
            ResourceType.TOPIC,
            full_name(settings.environment, topic),
            incremental_configs=[entry],
        )
        for future in admin.incremental_alter_configs([resource]).values():
            future.result()


def _send(
    producer: BatchProducer, settings: Settings, ticks: pl.DataFrame, heartbeat_ns: int
) -> None:
    topic = full_name(settings.environment, "market.ticks")
    partitions = settings.kafka.partitions
    records = encode_records(ticks, partitions, "ndjson", 700) if ticks.height else []
    for record in [*records, *encode_heartbeats(heartbeat_ns, partitions, "reconstructed")]:
        producer.send(topic, record.partition, record.key, record.value, record.headers)
    producer.flush()


def _play(
    producer: BatchProducer, settings: Settings, ticks: pl.DataFrame, start_ns: int, closes: int
) -> None:
    """Publish in real time: what fell due since the last heartbeat, then a heartbeat."""
    end_ns = start_ns + closes * TIMEFRAME_NS["1m"] + (LATENESS_MS + 2 * HEARTBEAT_MS) * MILLION
    times = ticks["event_time_ns"].to_numpy()
    beats = range(start_ns, end_ns, HEARTBEAT_MS * MILLION)
    edges = np.searchsorted(times, [*beats, end_ns], side="right")
    started = time.monotonic()
    for beat_ns, (first, last) in zip(beats, pairwise([0, *edges.tolist()]), strict=False):
        time.sleep(max(0.0, (beat_ns - start_ns) / 1e9 - (time.monotonic() - started)))
        _send(producer, settings, ticks[first:last], beat_ns)


def _latencies(
    settings: Settings, live_from_ns: int, name: str, targets: dict[str, float], note: str
) -> list[Found]:
    proofs = [
        np.array(list(_proof_times(settings, number)), dtype=np.int64).reshape(-1, 2)
        for number in range(settings.kafka.partitions)
    ]
    kafka, waits = kafka_settings(settings), []
    records, _ = read_to_end(kafka, full_name(settings.environment, DecisionMade.topic))
    for record in records:
        decision = decode(DecisionMade, record.value or b"")
        # Exits that a tick sets off are no matter of a bar's close.
        if decision.event_time_ns <= live_from_ns or decision.event_time_ns % TIMEFRAME_NS["1m"]:
            continue
        reached_ns = decision.event_time_ns + LATENESS_MS * MILLION
        proven_ms = max(int(one[np.searchsorted(one[:, 0], reached_ns), 1]) for one in proofs)
        waits.append(float(record.timestamp_ms - proven_ms))
    if not waits:
        reason = "no decision fell into the part at speed 1"
        return [Skipped(benchmark="latency", name=name, reason=reason)]
    return [
        Figure(
            benchmark="latency",
            name=f"{name}, {percentile}",
            unit="ms",
            runs=[value],
            targets=[Target(limit=targets[percentile], at_most=True)]
            if percentile in targets
            else [],
            note=f"{len(waits):,} decisions; {note}",
        )
        for percentile, value in percentiles(waits).items()
    ]


def _proof_times(settings: Settings, partition: int) -> Iterator[tuple[int, int]]:
    """Yield the newest event time after each record of a partition, and the record's append time in ms."""
    topic = full_name(settings.environment, "market.ticks")
    newest_ns = -1
    records, _ = read_to_end(kafka_settings(settings), topic, partition)
    for record in records:
        assert find_header(record.headers, "content-type") is not None
        last_line = (record.value or b"").splitlines()[-1]
        found = pl.read_ndjson(last_line, schema={"event_time_ns": pl.Int64()})
        newest_ns = max(newest_ns, int(found["event_time_ns"][0]))
        yield newest_ns, record.timestamp_ms


def measure_memory(bench: Bench) -> list[Found]:
    """Return memory with one ONNX model and one learner at 5m, and with the ensemble as it comes."""
    return [
        *_measure_memory(bench, "pair", "5m", PASSES),
        *_measure_memory(bench, "ensemble", None, ENSEMBLE_PASSES),
    ]


def _measure_memory(
    bench: Bench, models: Chosen, timeframe: Timeframe | None, passes: int
) -> list[Found]:
    """Return the peak resident size of `trading` at 100 names, and its growth over the ticks."""
    peak = f"peak RSS of `trading`, {NAMES} names, {describe_voters(models)}"
    load = bench.loads.trade_shape(NAMES, 1 if bench.quick else passes)
    if load is None:
        reason = "the trade recording is not here"
        return [Skipped(benchmark="memory", name=peak, reason=reason)]
    chosen = voters_at(timeframe, models=models, folder=bench.folder)
    settings = bench.stack.settings(f"memory-{models}", **chosen)
    session = load.open()
    with running(settings, {"trading": 1}) as flows:
        bench.say(f"memory: {load.name}")
        publisher = threading.Thread(
            target=replay, args=(settings, session), kwargs={"encoding": "arrow"}, daemon=True
        )
        publisher.start()
        samples = _watch(settings, flows["trading"], publisher)
    ticks, rss_mib = np.array(samples).T
    # Growth is judged once every name has its history and every buffer its size.
    settled = ticks >= ticks[-1] * SETTLED_SHARE
    where = f"all at {timeframe}" if timeframe else "default timeframes"
    note = f"{int(ticks[-1]):,} ticks of {load.name}; {where}; {len(samples)} samples"
    found: list[Found] = [
        Figure(
            benchmark="memory",
            name=peak,
            unit="MiB",
            runs=[float(rss_mib.max())],
            targets=[Target(limit=RSS_MIB, at_most=True)],
            note=note,
        )
    ]
    growth = f"growth of RSS once settled, {describe_voters(models)}"
    if len(set(ticks[settled])) < SAMPLES_MIN:
        reason = "too few samples: the run is too short"
        return [*found, Skipped(benchmark="memory", name=growth, reason=reason)]
    slope = float(np.polyfit((ticks[settled] - ticks[0]) / MILLION, rss_mib[settled], 1)[0])
    growing = Figure(
        benchmark="memory",
        name=growth,
        unit="MiB per million ticks",
        runs=[slope],
        targets=[] if bench.quick else [Target(limit=RSS_GROWTH_MIB, at_most=True)],
        note=note,
    )
    return [*found, growing]


def _watch(
    settings: Settings, flow: RunningFlow, publisher: threading.Thread
) -> list[tuple[int, float]]:
    process = psutil.Process(flow.process.pid)
    samples: list[tuple[int, float]] = []
    deadline = time.monotonic() + WAIT_SECONDS
    while publisher.is_alive() or not traded_to_the_end(settings):
        assert flow.process.poll() is None, flow.log.read_text()[-3000:]
        assert time.monotonic() < deadline, f"memory run took more than {WAIT_SECONDS:g} s"
        ticks = read_health(settings, "trading").get("records", {}).get("ticks", 0)
        if ticks:
            rss = process.memory_info().rss + sum(
                child.memory_info().rss for child in process.children(recursive=True)
            )
            samples.append((ticks, rss / 2**20))
        time.sleep(SAMPLE_SECONDS)
    return samples
