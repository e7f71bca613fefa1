"""Sources that are read as one keep their partitions, positions and epochs."""

from datetime import timedelta

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from bytewax.testing import TestingSink

from dataflows.inputs import read_together
from infra.kafka.joined_source import JoinedSource


class Counted(FixedPartitionedSource):
    """Partitions that count up from their position and note when they were opened and closed."""

    def __init__(self, parts, end, fail_at=None):
        self.parts, self.end, self.fail_at = parts, end, fail_at
        self.opened, self.closed = {}, []

    def list_parts(self):
        return self.parts

    def build_part(self, step_id, for_part, resume_state):
        self.opened[for_part] = resume_state
        return CountedPartition(self, for_part, resume_state or 0)


class CountedPartition(StatefulSourcePartition):
    def __init__(self, source, part, at):
        self.source, self.part, self.at = source, part, at

    def next_batch(self):
        if self.at == self.source.end:
            raise StopIteration
        if self.at == self.source.fail_at:
            msg = "position must be readable; found none"
            raise RuntimeError(msg)
        self.at += 1
        return [(self.part, self.at)]

    def snapshot(self):
        return self.at

    def close(self):
        self.source.closed.append(self.part)


def run(sources, folder):
    out = []
    flow = Dataflow("joined")
    read = read_together(flow, sources)
    merged = op.merge(
        "merged", *(op.map(f"mark_{n}", s, lambda i, n=n: (n, i)) for n, s in read.items())
    )
    op.output("out", merged, TestingSink(out))
    if not folder.exists():
        folder.mkdir()
        init_db_dir(folder, 1)
    try:
        cli_main(
            flow,
            workers_per_process=1,
            process_id=None,
            addresses=None,
            epoch_interval=timedelta(0),
            recovery_config=RecoveryConfig(str(folder), timedelta(0)),
        )
    except Exception as error:  # noqa: BLE001  # the engine wraps what a partition raised
        return out, error
    return out, None


def test_every_source_keeps_its_own_items_partitions_and_order(tmp_path):
    ticks, commands = Counted(["0", "1"], 3), Counted(["0"], 2)
    out, error = run({"ticks": ticks, "controls": commands}, tmp_path / "r")
    assert error is None
    assert [i for n, (p, i) in out if (n, p) == ("ticks", "0")] == [1, 2, 3]
    assert [i for n, (p, i) in out if (n, p) == ("ticks", "1")] == [1, 2, 3]
    assert [i for n, (p, i) in out if (n, p) == ("controls", "0")] == [1, 2]
    assert sorted(ticks.closed) == ["0", "1"]
    assert commands.closed == ["0"]


def test_partitions_of_one_name_in_two_sources_resume_each_at_its_own_position(tmp_path):
    sources = {"ticks": Counted(["0"], 50, fail_at=40), "controls": Counted(["0"], 5)}
    _, error = run(sources, tmp_path / "r")
    assert error is not None
    again = {"ticks": Counted(["0"], 50), "controls": Counted(["0"], 5)}
    out, error = run(again, tmp_path / "r")
    assert error is None
    assert again["ticks"].opened["0"] > 5
    assert [i for n, (_, i) in out if n == "ticks"] == list(
        range(again["ticks"].opened["0"] + 1, 51)
    )


def test_an_error_of_a_partition_is_not_hidden():
    partition = JoinedSource({"ticks": Counted(["0"], 3, fail_at=0)}).build_part(
        "log", "ticks/0", None
    )
    with pytest.raises(RuntimeError, match="must be readable"):
        partition.next_batch()


def test_a_partition_says_when_it_wants_to_be_asked_again():
    source = Counted(["0"], 3)
    moment = object()
    part = JoinedSource({"ticks": source}).build_part("log", "ticks/0", None)
    part._partition.next_awake = lambda: moment
    assert part.next_awake() is moment
