import signal
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, ProducerFencedError

from infra.stack.broker import (
    BrokerConfig,
    build_broker_command,
    read_cluster_id,
    render_server_properties,
    wait_until_ready,
)
from infra.stack.process import find_free_port
from tests.stack_fixtures import end, start, start_broker

pytestmark = pytest.mark.stack


def create_topic(bootstrap, name, **configs):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1, "configs": configs}})
    admin.wait_for_topics([name])
    admin.close()
    return TopicPartition(name, 0)


def read_all(bootstrap, partition, **options):
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 << 20,
        **options,
    )
    consumer.assign([partition])
    last = consumer.end_offsets([partition])[partition]
    records = []
    while consumer.position(partition) < last:
        for batch in consumer.poll(timeout_ms=500).values():
            records += batch
    consumer.close()
    return records


@pytest.fixture
def producer(broker):
    opened = KafkaProducer(bootstrap_servers=broker, max_request_size=8 << 20)
    yield opened
    opened.close()


def test_records_come_back_in_order(broker, producer):
    partition = create_topic(broker, "order")
    for number in range(500):
        producer.send("order", str(number).encode(), partition=0)
    producer.flush(20)
    values = [int(record.value) for record in read_all(broker, partition)]
    assert values == list(range(500))


def test_five_megabyte_record_passes(broker, producer):
    partition = create_topic(broker, "large")
    body = bytes(range(256)) * 20_000
    producer.send("large", body, partition=0).get(30)
    assert read_all(broker, partition)[0].value == body


def test_unknown_topics_are_not_made_by_use(broker):
    producer = KafkaProducer(bootstrap_servers=broker, max_block_ms=1_500)
    with pytest.raises(KafkaError):
        producer.send("never-declared", b"x").get(5)
    producer.close()


def test_topics_keep_records_of_the_past_unless_they_say_otherwise(broker):
    admin = KafkaAdminClient(bootstrap_servers=broker)
    answer = admin.create_topics({"past": {"num_partitions": 1, "replication_factor": 1}})
    admin.close()
    configs = answer["topics"][0]["configs"]
    assert configs["retention.ms"]["value"] == "-1"
    assert configs["max.message.bytes"]["value"] == str(8 << 20)


def test_only_committed_records_are_read(broker):
    partition = create_topic(broker, "transactions")
    writer = KafkaProducer(bootstrap_servers=broker, transactional_id="writer-1")
    writer.init_transactions()
    writer.begin_transaction()
    writer.send("transactions", b"aborted", partition=0).get(10)
    writer.abort_transaction()
    writer.begin_transaction()
    writer.send("transactions", b"committed", partition=0).get(10)
    writer.commit_transaction()
    records = read_all(broker, partition, isolation_level="read_committed")
    writer.close()
    assert [record.value for record in records] == [b"committed"]


def test_second_writer_fences_the_first(broker):
    create_topic(broker, "fenced")
    first = KafkaProducer(bootstrap_servers=broker, transactional_id="writer-2")
    first.init_transactions()
    second = KafkaProducer(bootstrap_servers=broker, transactional_id="writer-2")
    second.init_transactions()
    with pytest.raises(ProducerFencedError):  # noqa: PT012 - either call may be the first to know.
        first.begin_transaction()
        first.send("fenced", b"x", partition=0).get(10)
        first.commit_transaction()
    second.close()
    first.close(timeout=1)


def test_process_is_java_itself_and_keeps_its_log_over_stop_and_kill(tmp_path):
    port = find_free_port()
    bootstrap = f"127.0.0.1:{port}"
    running = start_broker(tmp_path, port)
    assert Path(psutil.Process(running.process.pid).exe()).name == "java"
    assert psutil.Process(running.process.pid).children() == []
    partition = create_topic(bootstrap, "kept")
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send("kept", b"before stop", partition=0).get(10)
    assert running.stop() in {0, 128 + signal.SIGTERM}
    producer.close(timeout=1)

    running = start_broker(tmp_path, port)
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send("kept", b"before kill", partition=0).get(10)
    running.process.kill()
    running.process.wait(20)
    producer.close(timeout=1)

    running = start_broker(tmp_path, port)
    try:
        values = [record.value for record in read_all(bootstrap, partition)]
    finally:
        end(running)
    assert values == [b"before stop", b"before kill"]


def test_waiting_for_an_absent_broker_ends_with_a_reason():
    bootstrap = f"127.0.0.1:{find_free_port()}"
    with pytest.raises(TimeoutError, match="read the log of the broker process"):
        wait_until_ready(bootstrap, 0.2)


def test_cluster_id_is_made_once(tmp_path):
    first = read_cluster_id(tmp_path)
    assert len(first) == 22
    assert read_cluster_id(tmp_path) == first


def test_every_listener_is_on_the_loopback_interface(tmp_path):
    text = render_server_properties(BrokerConfig(state_dir=tmp_path, port=9092), 9093)
    listeners = [line for line in text.splitlines() if "listeners=" in line]
    assert all("//127.0.0.1:" in part for line in listeners for part in line.split(","))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"port": 0}, "`port` must lie between 1 and 65535; found 0"),
        ({"port": 9092, "controller_port": 9092}, "must differ from `port`; found 9092"),
        ({"port": 9092, "heap_mib": 64}, "must be at least 256; found 64"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, options, rule):
    with pytest.raises(ValueError, match=rule):
        BrokerConfig(state_dir=tmp_path, **options)


def test_failure_to_start_is_one_line_and_exit_code_one(tmp_path):
    (tmp_path / "state").write_text("a file, where a directory must be")
    config = BrokerConfig(state_dir=tmp_path / "state", port=find_free_port())
    running = start(build_broker_command(config), tmp_path / "broker.log")
    assert running.process.wait(60) == 1
    assert "broker stopped; NotADirectoryError" in running.log.read_text().splitlines()[-1]
