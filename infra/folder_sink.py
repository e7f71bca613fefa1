"""Bytewax sink that writes each topic to one Parquet file of a folder; for backtests."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from msgspec import Struct

from schemas.batches import Outgoing
from schemas.frames import polars_schema, to_frame
from schemas.topics import Topic, message_topics

MESSAGES_PER_FRAME = 512
"""Messages of a topic that wait as objects, which take many times the memory of their columns."""

BYTES_PER_GROUP = 2 * 2**20
"""Rows of a topic that wait take about so much at most: then they are written as a row group."""

COLUMN_BYTES = 512
"""What a column of a frame takes beside its values, so that many small frames are not kept long."""


def topic_file(folder: Path, topic: str) -> Path:
    """Return the file of `topic` in `folder`."""
    return folder / f"{topic.replace('.', '_')}.parquet"


def write_topic(folder: Path, message: type[Struct], messages: Sequence[Struct]) -> None:
    """Write all messages of a topic that no flow produces: listings and settings."""
    topic: str = message.topic  # type: ignore[attr-defined]
    to_frame(message, list(messages)).write_parquet(topic_file(folder, topic))


def read_topic(folder: Path, message: type[Struct]) -> pl.DataFrame:
    """Return the columns of a topic's messages; raises FileNotFoundError without its file."""
    topic: str = message.topic  # type: ignore[attr-defined]
    path = topic_file(folder, topic)
    if not path.is_file():
        msg = f"folder {str(folder)!r} must hold a backtest; found no {path.name}; run one into it"
        raise FileNotFoundError(msg)
    return pl.read_parquet(path, columns=list(polars_schema(message)))


class FolderSink(FixedPartitionedSink[list[Outgoing], None]):
    """Writes lists of `Outgoing` to files that did not exist before; keeps a bounded part of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def list_parts(self) -> list[str]:
        """Return the one part."""
        return ["folder"]

    def part_fn(self, item_key: str) -> int:  # noqa: ARG002
        """Return 0: there is one part."""
        return 0

    def build_part(
        self,
        step_id: str,  # noqa: ARG002
        for_part: str,  # noqa: ARG002
        resume_state: None,  # noqa: ARG002
    ) -> "FolderSinkPartition":
        """Remove the files of an earlier run, so that a folder never mixes two."""
        for topic in message_topics():
            topic_file(self._folder, topic.name).unlink(missing_ok=True)
        return FolderSinkPartition(self._folder)


class FolderSinkPartition(StatefulSinkPartition[list[Outgoing], None]):
    """The one part of a `FolderSink`."""

    def __init__(self, folder: Path) -> None:
        self._files = {topic.name: _TopicFile(folder, topic) for topic in message_topics()}

    def write_batch(self, values: list[list[Outgoing]]) -> None:
        """Keep the rows; write a row group once there are enough."""
        for records in values:
            for outgoing in records:
                file = self._files[outgoing.topic]
                file.add_messages(outgoing.messages)
                frame = outgoing.frame()
                if frame is not None:
                    file.add_frame(frame)

    def snapshot(self) -> None:
        """Keep no state: a backtest is not resumed."""

    def close(self) -> None:
        """Write what is left; every topic gets a file, also an empty one."""
        for file in self._files.values():
            file.close()


class _TopicFile:
    """The file of one topic and the rows that wait to be written to it."""

    def __init__(self, folder: Path, topic: Topic) -> None:
        assert topic.message is not None
        self._message = topic.message
        self._schema = polars_schema(topic.message)
        self._path = topic_file(folder, topic.name)
        self._writer: pq.ParquetWriter | None = None
        self._messages: list[Struct] = []
        self._frames: list[pl.DataFrame] = []
        self._bytes = 0

    def add_messages(self, messages: Sequence[Struct]) -> None:
        self._messages += messages
        if len(self._messages) >= MESSAGES_PER_FRAME:
            self._lay_out()

    def add_frame(self, frame: pl.DataFrame) -> None:
        self._frames.append(frame)
        self._bytes += int(frame.estimated_size()) + frame.width * COLUMN_BYTES
        if self._bytes >= BYTES_PER_GROUP:
            self._write()

    def close(self) -> None:
        self._lay_out()
        if self._frames or self._writer is None:
            self._write()
        assert self._writer is not None
        self._writer.close()

    def _lay_out(self) -> None:
        """Make a frame of the messages."""
        if self._messages:
            messages, self._messages = self._messages, []
            self.add_frame(to_frame(self._message, messages))

    def _write(self) -> None:
        frames = self._frames or [pl.DataFrame(schema=self._schema)]
        self._frames, self._bytes = [], 0
        table = (
            pl.concat(frames)
            .select(pl.col(name).cast(dtype) for name, dtype in self._schema.items())
            .to_arrow(compat_level=pl.CompatLevel.oldest())
        )
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path, table.schema, compression="zstd", compression_level=1
            )
        self._writer.write_table(table)
