"""Bytewax sink that writes each topic to one Parquet file of a folder; for backtests."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from msgspec import Struct

from schemas.batches import Outgoing
from schemas.frames import polars_schema, to_frame
from schemas.topics import TOPICS, message_topics

ROWS_PER_GROUP = 65_536


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
    """Writes lists of `Outgoing` to files that did not exist before."""

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
        self._folder = folder
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._waiting: dict[str, list[pl.DataFrame]] = {}
        self._messages: dict[str, list[object]] = {}

    def write_batch(self, values: list[list[Outgoing]]) -> None:
        """Keep the rows; write a row group once there are enough."""
        for records in values:
            for outgoing in records:
                topic = outgoing.topic
                if outgoing.messages:
                    waiting = self._messages.setdefault(topic, [])
                    waiting += outgoing.messages
                    if len(waiting) >= ROWS_PER_GROUP:
                        self._keep(topic, self._frame_of(topic))
                frame = outgoing.frame()
                if frame is not None:
                    self._keep(topic, frame)

    def snapshot(self) -> None:
        """Keep no state: a backtest is not resumed."""

    def close(self) -> None:
        """Write what is left; every topic gets a file, also an empty one."""
        for topic in message_topics():
            if self._messages.get(topic.name):
                self._keep(topic.name, self._frame_of(topic.name))
            self._write(topic.name)
        for writer in self._writers.values():
            writer.close()

    def _frame_of(self, topic: str) -> pl.DataFrame:
        message = TOPICS[topic].message
        assert message is not None
        return to_frame(message, self._messages.pop(topic))

    def _keep(self, topic: str, frame: pl.DataFrame) -> None:
        waiting = self._waiting.setdefault(topic, [])
        waiting.append(frame)
        if sum(part.height for part in waiting) >= ROWS_PER_GROUP:
            self._write(topic)

    def _write(self, topic: str) -> None:
        message = TOPICS[topic].message
        assert message is not None
        schema = polars_schema(message)
        parts = self._waiting.pop(topic, [pl.DataFrame(schema=schema)])
        table = (
            pl.concat(parts)
            .select(pl.col(name).cast(dtype) for name, dtype in schema.items())
            .to_arrow(compat_level=pl.CompatLevel.oldest())
        )
        if topic not in self._writers:
            self._writers[topic] = pq.ParquetWriter(
                topic_file(self._folder, topic),
                table.schema,
                compression="zstd",
                compression_level=1,
            )
        self._writers[topic].write_table(table)
