"""A flow that fails says why, and a crash while its first snapshot folder is made costs nothing."""

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource

from dataflows.engine import FlowFailedError, told_plainly
from dataflows.log_flow import run_recoverable
from infra.settings import Settings


def flow_of(items, out, step=lambda item: item):
    flow = Dataflow("sample")
    items = op.input("in", flow, TestingSource(items))
    op.output("out", op.map("step", items, step), TestingSink(out))
    return flow


def refuse(item):
    msg = f"item must be kept; found {item!r}; keep it"
    raise ValueError(msg)


def test_a_failing_step_is_told_with_its_own_words(tmp_path):
    with pytest.raises(FlowFailedError) as found:
        run_recoverable(flow_of([1], [], refuse), Settings(state_dir=tmp_path), tmp_path)
    assert (
        str(found.value) == "flow 'sample' failed; ValueError: item must be kept; found 1; keep it"
    )


def test_an_error_without_a_cause_is_left_alone():
    error = RuntimeError("as it is")
    with pytest.raises(RuntimeError) as found, told_plainly("sample"):
        raise error
    assert found.value is error


def test_a_snapshot_folder_that_was_left_half_made_is_made_again(tmp_path):
    half = tmp_path / "snapshots.new"
    half.mkdir()
    (half / "part-0.sqlite3").write_bytes(b"half")
    out = []
    run_recoverable(flow_of([1, 2], out), Settings(state_dir=tmp_path), tmp_path)
    assert out == [1, 2]
    assert not half.exists()
    run_recoverable(flow_of([1, 2], out), Settings(state_dir=tmp_path), tmp_path)
    assert out == [1, 2]
