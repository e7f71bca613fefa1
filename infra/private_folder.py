"""Folders of the state are for their owner alone: snapshots are pickles, and keys lie beside them."""

from pathlib import Path

OWNER_ONLY = 0o700


def make_private(folder: Path) -> Path:
    """Create `folder` and each missing folder above it with mode 0700; return it.

    `Path.mkdir(parents=True, mode=…)` gives the mode to the last one only. What exists is left alone:
    it may be shared on purpose.
    """
    missing = []
    at = folder
    while not at.exists():
        missing.append(at)
        at = at.parent
    for one in reversed(missing):
        one.mkdir(mode=OWNER_ONLY, exist_ok=True)
    return folder
