"""Folders of the state are for their owner alone: snapshots are pickles, and keys lie beside them."""

import os
import secrets
from pathlib import Path

from infra.whole_files import write_new

OWNER_ONLY = 0o700
_OWNER_READS_AND_WRITES = 0o600


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


def create_private(path: Path, content: bytes) -> None:
    """Write a new file with mode 0600 into a private folder; a file that is there is kept.

    It appears whole or not at all, and of processes that create it at the same moment one wins: the
    flows of an environment start together, and each of them may be the first to need a key.
    """
    make_private(path.parent)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_new(fresh, content, mode=_OWNER_READS_AND_WRITES)
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
