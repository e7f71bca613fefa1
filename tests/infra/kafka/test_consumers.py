"""One contract for both clients: every record once, in order, and never a skip."""

import time

import pytest
from kafka import KafkaProducer, TopicPartition

from infra.kafka.consumers import open_consumer
from infra.kafka.errors import (
    BrokerAwayError,
    OffsetGoneError,
    OffsetRegressionError,
    TopicMissingError,
)

WAIT_SECONDS = 20.0


@pytest.fixture
def consume(either, topic):
    """Open the topic with either client; closed at the end."""
    opened = []

    def start(offset=None, partition=0, group_id=None, **settings):
        chosen = either.model_copy(update=settings)
        opened.append(open_consumer(chosen, topic, partition, offset, group_id))
        return opened[-1]

    yield start
    for consumer in opened:
        consumer.close()


def read(consumer, count):
    records, deadline = [], time.monotonic() + WAIT_SECONDS
    while len(records) < count and time.monotonic() < deadline:
        records += consumer.fetch(10_000, 0.1)
    return records


def wait_for(consumer, position):
    deadline = time.monotonic() + WAIT_SECONDS
    while consumer.position < position and time.monotonic() < deadline:
        assert consumer.fetch(10_000, 0.05) == []
    return consumer.position


def test_records_come_whole_and_in_order(consume, topic, write):
    before_ms = time.time_ns() // 1_000_000
    write(topic, [b"a"], key=b"k", headers=[("id", b"1"), ("id", b"2"), ("none", b"")])
    write(topic, [None], key=b"gone")
    write(topic, [b"", b"z"])
    records = read(consume(), 4)
    assert [record.offset for record in records] == [0, 1, 2, 3]
    assert [record.value for record in records] == [b"a", None, b"", b"z"]
    assert [record.key for record in records] == [b"k", b"gone", None, None]
    assert records[0].headers == [("id", b"1"), ("id", b"2"), ("none", b"")]
    assert records[3].headers is None
    assert all(before_ms <= record.timestamp_ms <= before_ms + 60_000 for record in records)


def test_only_the_assigned_partition_is_read(consume, topic, write):
    write(topic, [b"zero"], partition=0)
    write(topic, [b"one"], partition=1)
    assert [record.value for record in read(consume(partition=1), 1)] == [b"one"]


def test_reading_starts_where_it_is_told(consume, topic, write):
    write(topic, [b"%d" % i for i in range(10)])
    consumer = consume(7)
    assert consumer.position == 7
    assert [record.offset for record in read(consumer, 3)] == [7, 8, 9]
    assert consumer.position == 10


def test_without_a_position_reading_starts_at_the_earliest_record(
    consume, topic, write, delete_before
):
    write(topic, [b"%d" % i for i in range(10)])
    delete_before(topic, 0, 4)
    assert read(consume(), 6)[0].offset == 4


def test_a_fetch_never_gives_more_than_asked(consume, topic, write):
    write(topic, [b"%d" % i for i in range(100)])
    consumer = consume()
    sizes, seen = [], 0
    while seen < 100:
        sizes.append(len(consumer.fetch(7, 0.1)))
        seen += sizes[-1]
    assert max(sizes) <= 7


def test_a_long_fetch_tells_the_headers_of_each_record(consume, topic, write):
    expected = []
    # Changes in the middle of what is read at a time, and where one such lot ends.
    for said, count in ((b"a", 1_000), (b"b", 1_700), (b"", 1), (b"a", 799), (None, 500)):
        headers = None if said is None else [("said", said)]
        values = [b"%d" % (len(expected) + i) for i in range(count)]
        write(topic, values, key=said, headers=headers)
        expected += [(value, said, headers) for value in values]
    consumer = consume()
    # What is here already comes in few fetches, of several lots each.
    time.sleep(0.5)
    records = []
    while len(records) < len(expected):
        records += consumer.fetch(10_000, 0.1)
        assert consumer.position == len(records)
    assert [record.offset for record in records] == list(range(len(expected)))
    assert [(record.value, record.key, record.headers) for record in records] == expected


def test_a_record_written_after_opening_is_read(consume, topic, write):
    consumer = consume()
    assert consumer.fetch(10) == []
    assert consumer.end_offset() == 0
    write(topic, [b"late"])
    assert read(consumer, 1)[0].value == b"late"
    assert consumer.end_offset() == 1


def test_the_end_is_known_before_the_first_fetch(consume, topic, write):
    write(topic, [b"a", b"b", b"c"])
    assert consume(1).end_offset() == 3


def test_bytes_of_a_fetch_are_bounded(consume, topic, write):
    write(topic, [bytes(100_000)] * 200)
    consumer = consume(fetch_bytes_max=1024 * 1024)
    sizes = []
    while sum(sizes) < 20_000_000:
        sizes.append(sum(len(record.value) for record in consumer.fetch(10_000, 0.1)))
        time.sleep(0.005)
    assert max(sizes) < 4 * 1024 * 1024


def test_a_record_larger_than_the_bound_is_read(consume, topic, write):
    write(topic, [bytes(5_000_000), b"next"])
    records = read(consume(fetch_bytes_max=1024), 2)
    assert [len(record.value) for record in records] == [5_000_000, 4]


def test_aborted_records_are_not_read_and_markers_count(consume, topic, kafka):
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"kept", partition=0)
    producer.commit_transaction()
    producer.begin_transaction()
    producer.send(topic, b"aborted", partition=0)
    producer.flush()
    producer.abort_transaction()
    producer.close()
    consumer = consume()
    assert [record.value for record in read(consumer, 1)] == [b"kept"]
    assert wait_for(consumer, 4) == consumer.end_offset() == 4


def test_a_deleted_position_is_an_error(consume, topic, write, delete_before):
    write(topic, [b"%d" % i for i in range(10)])
    delete_before(topic, 0, 6)
    with pytest.raises(OffsetGoneError, match=r"position 5; found offsets 6 to 10"):
        consume(5)
    assert read(consume(6), 4)[0].offset == 6


def test_a_position_past_the_end_is_an_error(consume, topic, write):
    write(topic, [b"a"])
    with pytest.raises(OffsetRegressionError, match=r"position 2; found offsets 0 to 1"):
        consume(2)
    assert consume(1).position == 1


def test_records_deleted_while_reading_are_an_error(consume, topic, write, delete_before):
    write(topic, [bytes(200_000)] * 60)
    consumer = consume(fetch_bytes_max=1024 * 1024)
    assert len(read(consumer, 1)) < 60
    delete_before(topic, 0, 60)
    with pytest.raises(OffsetGoneError, match="records were deleted before they were read"):
        read(consumer, 60)


def test_a_missing_partition_or_topic_is_an_error(consume, either, topic):
    with pytest.raises(TopicMissingError, match=f"partition 5 of topic {topic!r} must exist"):
        consume(partition=5)
    with pytest.raises(TopicMissingError, match="'no-such-topic' must exist"):
        open_consumer(either, "no-such-topic", 0, None)


def test_a_broker_that_is_away_is_named_before_the_deadline(either):
    away = either.model_copy(update={"bootstrap": "127.0.0.1:1"})
    started = time.monotonic()
    with pytest.raises(BrokerAwayError, match=r"must answer within 0\.5 s"):
        open_consumer(away, "t", 0, None, deadline_seconds=0.5)
    assert time.monotonic() - started < 10


def test_a_commit_moves_the_position_of_the_group(consume, topic, write, admin):
    write(topic, [b"a", b"b", b"c"])
    consumer = consume(group_id=f"g-{topic}")
    read(consumer, 3)
    consumer.commit(2)
    deadline = time.monotonic() + WAIT_SECONDS
    found = {}
    while not found and time.monotonic() < deadline:
        consumer.fetch(1, 0.05)
        found = admin.list_group_offsets(f"g-{topic}").get(f"g-{topic}", {})
    assert found[TopicPartition(topic, 0)].offset == 2


def test_a_commit_without_a_group_does_nothing(consume, topic, write):
    write(topic, [b"a"])
    consumer = consume()
    read(consumer, 1)
    consumer.commit(1)
    assert consumer.fetch(1, 0.05) == []
