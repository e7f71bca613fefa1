"""A type that several threads meet at once is learned once: msgspec alone crashes the process."""

import re
import subprocess
import sys

import pytest

from tests.documents import ROOT

MEET = """
import sys, threading
import msgspec
from schemas import checked
sys.setswitchinterval(1e-6)

def meet(number):
    inner = msgspec.defstruct(f"Inner{number}", [("value", int), ("name", str, "")])
    outer = msgspec.defstruct(f"Outer{number}", [("one", inner), ("many", dict[str, inner])])
    body = {"one": {"value": 1}, "many": {"a": {"value": 2}}}
    text, found, gate = msgspec.json.encode(body), [], threading.Barrier(4)

    def read():
        gate.wait()
        found.append(USE)

    threads = [threading.Thread(target=read) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(found) == 4 and all(one.many["a"].value == 2 for one in found), found

for number in range(1500):
    meet(number)
"""


@pytest.mark.parametrize(
    "use", ["checked.decoder(outer).decode(text)", "checked.convert(body, outer)"]
)
def test_threads_that_meet_a_type_together_all_read_it(use):
    done = subprocess.run(
        [sys.executable, "-c", MEET.replace("USE", use)],
        cwd=ROOT, timeout=120, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr[-2000:]) == (0, "")


def test_values_are_checked_through_one_module():
    unsafe = re.compile(r"msgspec\.(convert\(|(json|msgpack)\.(Decoder\(|decode\(.*type=))")
    users = {
        str(path.relative_to(ROOT))
        for folder in ("schemas", "operators", "infra", "onnx_models", "dataflows")
        for path in (ROOT / folder).rglob("*.py")
        if unsafe.search(path.read_text())
    }
    assert users == {"schemas/checked.py"}
