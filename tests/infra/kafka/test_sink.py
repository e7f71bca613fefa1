"""The sink writes in order, once per id, and its epoch closes only when everything is durable."""

import random
from collections import Counter

import msgspec
import polars as pl
import pytest

from infra.kafka.consumers import open_consumer
from infra.kafka.errors import (
    DeliveryError,
    OffsetGoneError,
    OffsetRegressionError,
    SnapshotVersionError,
)
from infra.kafka.sink import KafkaSink, Target
from schemas.batches import Outgoing, ProgressMarked
from schemas.codec import Origin, contract_hash, decode
from schemas.frames import to_frame
from schemas.market import TickLate
from schemas.operations import AlertRaised
from schemas.topics import full_name

ORIGIN = Origin(config_hash="c0ffee", epoch=7)
ALL = [Target(topic="market.late", partition=p) for p in (0, 1)] + [Target(topic="ops.alerts")]


def alert(number, text=""):
    return AlertRaised(
        id=f"a{number}", cause=f"c{number}", kind="lag", resolved=False, event_time_ns=1, text=text
    )


def late(number, partition=0):
    return TickLate(
        id=f"l{number}",
        cause=f"tick/{partition}/{number}/0",
        venue="binance",
        symbol=f"S{number % 3}/USDT",
        event_time_ns=number,
        late_by_ns=5,
        partition=partition,
        offset=number,
        line=0,
        price=1.5,
        size=None,
        provenance="recorded",
    )


def alerts(*numbers, **options):
    return Outgoing(topic="ops.alerts", messages=[alert(number) for number in numbers], **options)


def lates(numbers, partition=0, **options):
    frame = to_frame(TickLate, [late(number, partition) for number in numbers])
    return Outgoing(topic="market.late", rows=frame, partition=partition, **options)


@pytest.fixture
def open_sink(kafka, environment):
    """Build the part of a sink; closed at the end."""
    opened = []

    def build(state=None, targets=ALL, **options):
        sink = KafkaSink(kafka, environment, ORIGIN, targets, **options)
        opened.append(sink.build_part("out", "out", state))
        return opened[-1]

    yield build
    for part in opened:
        part.close()


@pytest.fixture
def records(kafka, environment):
    """Read everything that a topic holds."""

    def read(topic, partition=0):
        consumer = open_consumer(kafka, full_name(environment, topic), partition, None)
        found = []
        while consumer.position < consumer.end_offset():
            found += consumer.fetch(10_000, 0.1)
        consumer.close()
        return found

    return read


def ids(found):
    return [dict(record.headers).get("id", b"").decode() for record in found]


def test_a_message_is_written_with_its_key_and_headers(open_sink, records):
    part = open_sink(writer="trading/0")
    item = alerts(1, ingest_time_ns=12, origin_id="tick/0/1/2")
    part.write_batch([[item]])
    part.snapshot()
    [record] = records("ops.alerts")
    headers = dict(record.headers)
    assert record.key == b"lag"
    assert decode(AlertRaised, record.value) == alert(1)
    assert int(headers.pop("emit-ns")) > 1_600_000_000_000_000_000
    assert headers == {
        "schema": f"AlertRaised;1;{contract_hash(AlertRaised)}".encode(),
        "id": b"a1",
        "cause": b"c1",
        "config": b"c0ffee",
        "epoch": b"7",
        "provenance": b"",
        "writer": b"trading/0",
        "ingest-ns": b"12",
        "origin": b"tick/0/1/2",
    }


def test_a_frame_and_its_messages_give_the_same_records(open_sink, records):
    part = open_sink()
    messages = [late(number, 1) for number in range(5)]
    part.write_batch([[lates(range(5), partition=1)]])
    part.write_batch([[Outgoing(topic="market.late", messages=messages[:1], partition=1)]])
    part.snapshot()
    found = records("market.late", 1)
    assert [decode(TickLate, record.value) for record in found[:5]] == messages
    assert [record.key.decode() for record in found[:5]] == [
        f"binance:{message.symbol}" for message in messages
    ]
    same = [[h for h in found[i].headers if h[0] != "emit-ns"] for i in (0, 5)]
    assert same[0] == same[1]
    assert dict(found[0].headers)["provenance"] == b"recorded"
    assert msgspec.json.decode(found[0].value) == msgspec.json.decode(found[5].value)


def test_progress_follows_the_records_and_has_no_id(open_sink, records):
    part = open_sink()
    part.write_batch([[lates([1, 2], partition=1, progress_ns=99)]])
    part.write_batch([[Outgoing(topic="market.late", partition=0, progress_ns=98)]])
    part.snapshot()
    mark = records("market.late", 1)[-1]
    assert decode(ProgressMarked, mark.value) == ProgressMarked(partition=1, complete_through_ns=99)
    headers = dict(mark.headers)
    assert headers["schema"].startswith(b"ProgressMarked;")
    assert not {"id", "cause", "provenance"} & set(headers)
    assert len(records("market.late", 0)) == 1


def test_records_keep_the_order_of_the_items(open_sink, records):
    part = open_sink()
    part.write_batch([[alerts(3), alerts(1, 2)], [alerts(9)]])
    part.write_batch([[alerts(4)]])
    part.snapshot()
    assert ids(records("ops.alerts")) == ["a3", "a1", "a2", "a9", "a4"]


def test_flushed_items_are_in_the_log_before_anything_later(open_sink, records):
    part = open_sink(linger_ms=5_000)
    part.write_batch([[alerts(1, flush=True)]])
    assert ids(records("ops.alerts")) == ["a1"]


def test_a_snapshot_waits_until_everything_is_durable(open_sink, records, environment):
    part = open_sink(linger_ms=200)
    part.write_batch([[lates(range(500), partition=p) for p in (0, 1)]])
    assert part.snapshot() == (
        1,
        {
            f"{environment}.market.late/0": 500,
            f"{environment}.market.late/1": 500,
            f"{environment}.ops.alerts/0": 0,
        },
    )
    assert len(records("market.late", 1)) == 500


def test_what_was_written_after_the_snapshot_is_not_written_again(open_sink, records):
    first = open_sink()
    first.write_batch([[alerts(1, 2)]])
    state = first.snapshot()
    first.write_batch([[alerts(3, 4), lates([1, 2, 3], partition=1)]])
    first.snapshot()  # Durable, but the process dies before its recovery state is.
    resumed = open_sink(state)
    assert resumed.awaited == 5
    resumed.write_batch([[alerts(3, 4, 5), lates([1, 2, 3, 4], partition=1)]])
    resumed.snapshot()
    assert ids(records("ops.alerts")) == ["a1", "a2", "a3", "a4", "a5"]
    assert ids(records("market.late", 1)) == ["l1", "l2", "l3", "l4"]
    assert resumed.awaited == 0


def test_an_id_is_dropped_once_only(open_sink, records):
    first = open_sink()
    first.write_batch([[alerts(1)]])
    first.snapshot()
    resumed = open_sink()
    resumed.write_batch([[alerts(1)]])
    resumed.write_batch([[alerts(1)]])
    resumed.snapshot()
    assert ids(records("ops.alerts")) == ["a1", "a1"]


def test_a_second_crash_in_another_place_still_doubles_nothing(open_sink, records):
    first = open_sink()
    state = first.snapshot()
    first.write_batch([[alerts(1, 2, 3)]])
    first.snapshot()
    second = open_sink(state)
    second.write_batch([[alerts(1)]])
    state = second.snapshot()  # Its epoch ends earlier than the one that died.
    second.write_batch([[alerts(2)]])
    third = open_sink(state)
    third.write_batch([[alerts(2, 3, 4)]])
    third.snapshot()
    assert ids(records("ops.alerts")) == ["a1", "a2", "a3", "a4"]


def test_random_crashes_lose_and_double_nothing(open_sink, records):
    chance = random.Random(5)
    done, state = 0, None
    while done < 60:
        part, at = open_sink(state), done
        for _ in range(chance.randint(1, 6)):
            step = chance.randint(1, 5)
            part.write_batch([[alerts(*range(at, at + step)), lates(range(at, at + step))]])
            at += step
            if chance.random() < 0.4:
                state, done = part.snapshot(), at
        part.snapshot()  # What was sent reaches the log, and no recovery state says so.
    final = open_sink(state)
    final.write_batch([[alerts(*range(done, 100)), lates(range(done, 100))]])
    final.snapshot()
    for topic, letter in [("ops.alerts", "a"), ("market.late", "l")]:
        counts = Counter(ids(records(topic)))
        assert set(counts.values()) == {1}
        assert set(counts) >= {f"{letter}{number}" for number in range(100)}


def test_without_recovery_state_the_whole_topic_counts(open_sink, records):
    first = open_sink()
    first.write_batch([[alerts(1, 2)]])
    first.snapshot()
    again = open_sink()
    again.write_batch([[alerts(1, 2, 3)]])
    again.snapshot()
    assert ids(records("ops.alerts")) == ["a1", "a2", "a3"]


def test_records_of_another_writer_do_not_count(open_sink, records):
    first = open_sink(writer="features/0")
    first.write_batch([[alerts(1)]])
    first.snapshot()
    other = open_sink(writer="portfolio/0")
    assert other.awaited == 0
    other.write_batch([[alerts(1)]])
    other.snapshot()
    assert ids(records("ops.alerts")) == ["a1", "a1"]
    assert open_sink(writer="features/0").awaited == 1


def test_progress_marks_are_written_again(open_sink, records):
    first = open_sink()
    first.write_batch([[lates([1], progress_ns=5)]])
    first.snapshot()
    resumed = open_sink()
    resumed.write_batch([[lates([1], progress_ns=5)]])
    resumed.snapshot()
    assert ids(records("market.late")) == ["l1", "", ""]


def test_a_record_that_the_broker_refuses_keeps_the_epoch_open(open_sink):
    part = open_sink(deadline_seconds=20)
    text = random.Random(1).randbytes(2 * 1024 * 1024).hex()
    part.write_batch([[Outgoing(topic="ops.alerts", messages=[alert(1, text)])]])
    with pytest.raises(DeliveryError, match="found 1 failures"):
        part.snapshot()
    with pytest.raises(DeliveryError):
        part.write_batch([[alerts(2)]])


def test_a_partition_that_is_no_target_is_refused(open_sink):
    part = open_sink(targets=ALL[:1])
    with pytest.raises(ValueError, match=r"must go to a target of this sink; found partition 1"):
        part.write_batch([[lates([1], partition=1)]])
    with pytest.raises(ValueError, match="found partition None"):
        part.write_batch([[lates([1], partition=None)]])
    with pytest.raises(ValueError, match=r"ops\.alerts' must go to a target"):
        part.write_batch([[alerts(1)]])


def test_a_confirmed_position_that_is_gone_is_an_error(open_sink, environment, delete_before):
    first = open_sink()
    first.write_batch([[alerts(1, 2)]])
    state = first.snapshot()
    first.write_batch([[alerts(3, 4)]])
    first.snapshot()
    delete_before(f"{environment}.ops.alerts", 0, 3)
    with pytest.raises(OffsetGoneError):
        open_sink(state)


def test_a_topic_that_lost_its_tail_is_an_error(open_sink, environment):
    with pytest.raises(OffsetRegressionError):
        open_sink((1, {f"{environment}.ops.alerts/0": 5}))


def test_state_of_another_layout_is_refused(open_sink):
    with pytest.raises(SnapshotVersionError, match="must have version 1; found 2"):
        open_sink((2, {}))


def test_what_was_written_is_counted(open_sink):
    counts = Counter()
    part = open_sink(on_written=lambda topic, count: counts.update({topic: count}))
    part.write_batch([[alerts(1, 2), lates(range(5)), Outgoing(topic="ops.alerts")]])
    part.write_batch([[Outgoing(topic="market.late", rows=pl.DataFrame(), partition=0)]])
    assert counts == {"ops.alerts": 2, "market.late": 5}
