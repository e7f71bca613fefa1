"""Python's own settings for processes that move many small objects between native libraries."""

import faulthandler
import gc
import sys

SWITCH_SECONDS = 0.0005
COLLECT_AFTER_OBJECTS = 100_000
_COLLECT_OLDER_AFTER = 20


def tune_interpreter() -> None:
    """Let other threads in sooner, look for cycles less often, and say where a crash happened."""
    # A fault in a native library ends the process without a word otherwise.
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)
    # A client's thread must get its turn between two bytecodes of a learner, not 5 ms later.
    sys.setswitchinterval(SWITCH_SECONDS)
    # What a fetch brings holds no cycles; looking for them took longer than decoding it.
    gc.set_threshold(COLLECT_AFTER_OBJECTS, _COLLECT_OLDER_AFTER, _COLLECT_OLDER_AFTER)
    gc.collect()
    gc.freeze()
