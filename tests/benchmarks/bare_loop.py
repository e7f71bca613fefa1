"""The upper bound: one consumer, one vectorised parse and one group-by per fetch; no checks, no state."""

import time
from collections.abc import Mapping

import polars as pl
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from msgspec import Struct

from schemas.ticks import TICK_WIRE

RECORDS_MAX = 10_000
_MINUTE_NS = 60_000_000_000


class LoopResult(Struct, frozen=True, kw_only=True):
    """What a bare loop found."""

    seconds: float
    ticks: int
    bars: int


def run_bare_loop(bootstrap: str, topic: str, ends: Mapping[int, int]) -> LoopResult:
    """Read every partition of `topic` to its end as 1-minute bars."""
    started = time.perf_counter()
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bare",
            "enable.auto.commit": False,
            "queued.min.messages": 1_000_000,
            "fetch.queue.backoff.ms": 2,
            "fetch.wait.max.ms": 50,
        }
    )
    left = {partition: end for partition, end in ends.items() if end}
    consumer.assign([TopicPartition(topic, partition, 0) for partition in left])
    ticks, parts = 0, []
    while left:
        messages = consumer.consume(RECORDS_MAX, 0.02)
        if not messages:
            continue
        for message in messages:
            if message.offset() + 1 >= left.get(message.partition(), -1) > 0:
                del left[message.partition()]
        frame = _parse([message.value() for message in messages])
        trades = frame.filter(pl.col("kind") == "trade")
        ticks += trades.height
        parts.append(_group(trades))
    consumer.close()
    bars = _join(parts)
    return LoopResult(seconds=time.perf_counter() - started, ticks=ticks, bars=bars.height)


def _parse(values: list[bytes]) -> pl.DataFrame:
    texts = [value for value in values if value[:1] == b"{"]
    streams = [value for value in values if value[:1] != b"{"]
    frames = []
    if texts:
        frames.append(pl.read_ndjson(b"\n".join(texts), schema=TICK_WIRE))
    if streams:
        tables = [pa.ipc.open_stream(value).read_all() for value in streams]
        frames.append(pl.from_arrow(pa.concat_tables(tables)))  # type: ignore[arg-type]
    return pl.concat(frames) if len(frames) > 1 else frames[0]


def _group(trades: pl.DataFrame) -> pl.DataFrame:
    return trades.group_by(
        "venue", "symbol", minute=pl.col("event_time_ns") // _MINUTE_NS, maintain_order=True
    ).agg(
        open=pl.col("price").first(),
        high=pl.col("price").max(),
        low=pl.col("price").min(),
        close=pl.col("price").last(),
        volume=pl.col("size").sum(),
    )


def _join(parts: list[pl.DataFrame]) -> pl.DataFrame:
    return (
        pl.concat(parts)
        .group_by("venue", "symbol", "minute", maintain_order=True)
        .agg(
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("volume").sum(),
        )
    )
