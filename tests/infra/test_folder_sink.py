"""A folder sink writes every row in order, however rows come, and keeps a bounded part of them."""

import gc

import polars as pl
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

import infra.folder_sink as sink_module
from infra.folder_sink import FolderSink, topic_file
from schemas.batches import Outgoing
from schemas.frames import to_frame
from schemas.market import BarClosed
from schemas.topics import message_topics
from tests.contracts import samples

CALLS = 40
BARS_PER_CALL = 25
MESSAGES_MAX = 60
ROWS_MAX = 400
"""More than `GROUP_BYTES` of these bars."""
GROUP_BYTES = 100_000


@pytest.fixture
def part(tmp_path, monkeypatch):
    """A sink that lays out and writes early."""
    monkeypatch.setattr(sink_module, "MESSAGES_PER_FRAME", MESSAGES_MAX)
    monkeypatch.setattr(sink_module, "BYTES_PER_GROUP", GROUP_BYTES)
    return FolderSink(tmp_path).build_part("out", "folder", None)


def made(call):
    """Return the bars of one call; their ids count on from call to call."""
    of = samples.bar(samples.OPEN_NS)
    return [replace(of, id=str(call * BARS_PER_CALL + row)) for row in range(BARS_PER_CALL)]


def outgoing(call, form):
    if form == "messages":
        return Outgoing(topic=BarClosed.topic, messages=made(call))
    return Outgoing(topic=BarClosed.topic, rows=to_frame(BarClosed, made(call)))


@pytest.mark.parametrize("form", ["messages", "rows"])
def test_rows_are_written_in_order_while_they_come(tmp_path, part, form):
    for call in range(CALLS):
        part.write_batch([[outgoing(call, form)]])
    part.close()
    path = topic_file(tmp_path, BarClosed.topic)
    found = pl.read_parquet(path)
    assert found["id"].to_list() == [str(number) for number in range(CALLS * BARS_PER_CALL)]
    groups = pq.ParquetFile(path).metadata
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) < ROWS_MAX


def test_few_messages_wait_as_objects(part):
    def count():
        return sum(type(one) is BarClosed for one in gc.get_objects())

    before = count()
    for call in range(CALLS):
        part.write_batch([[outgoing(call, "messages")]])
        assert count() - before < MESSAGES_MAX + BARS_PER_CALL
    part.close()


def test_every_topic_has_a_file_and_nothing_of_an_earlier_run(tmp_path):
    old = topic_file(tmp_path, BarClosed.topic)
    to_frame(BarClosed, made(0)).write_parquet(old)
    part = FolderSink(tmp_path).build_part("out", "folder", None)
    assert not old.exists()
    part.close()
    assert pl.read_parquet(old).is_empty()
    assert all(topic_file(tmp_path, topic.name).is_file() for topic in message_topics())
