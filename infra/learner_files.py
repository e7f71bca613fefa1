"""Online learners on disk: one file per content hash, readable by nobody else."""

import os
from hashlib import sha256
from pathlib import Path
from typing import Final

from infra.whole_files import sync_folder, write_new

SUFFIX: Final = ".learner"
KEPT_MIN: Final = 2
"""The newest file and the one before it: a snapshot may lag one behind."""


class LearnerFiles:
    """Keeps the last `kept` versions of one learner of one lane in a folder, mode 0700, files 0600.

    A file's name is the SHA-256 of its bytes and is checked on every read. A file appears whole or
    not at all; those that were put first go when there are more than `kept`. One snapshot puts at
    most one file here, so the last `kept` snapshots find what they name. Raises ValueError for a
    `kept` that would remove what the newest snapshot names.
    """

    def __init__(self, folder: Path, kept: int = 32) -> None:
        if kept < KEPT_MIN:
            msg = f"number of kept learners; must be at least {KEPT_MIN}; found {kept!r}; raise it"
            raise ValueError(msg)
        self._folder, self._kept = folder, kept

    def put(self, content: bytes) -> str:
        """Keep `content` durably and return its SHA-256 (hex); raises OSError if the disk is full."""
        content_hash = sha256(content).hexdigest()
        path = self._path(content_hash)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        part = path.with_suffix(".part")
        # Left by a process that died; one lane writes here.
        part.unlink(missing_ok=True)
        write_new(part, content, mode=0o600)
        newest_ns = max((time_ns for time_ns, _ in self._files()), default=0)
        part.replace(path)
        # Order of putting: by the clock alone a file would be the oldest after the clock went back.
        later_ns = max(path.stat().st_mtime_ns, newest_ns + 1)
        os.utime(path, ns=(later_ns, later_ns))
        sync_folder(self._folder)
        self._remove_old()
        return content_hash

    def get(self, content_hash: str) -> bytes:
        """Return exactly the bytes of that hash; raises ValueError if they are not there."""
        path = self._path(content_hash)
        remedy = "remove the recovery folder to rebuild it from the log"
        try:
            content = path.read_bytes()
        except OSError as e:
            msg = f"learner {content_hash!r} must be in its folder; found {e.strerror!r}; {remedy}"
            raise ValueError(msg) from e
        found = sha256(content).hexdigest()
        if found != content_hash:
            msg = f"learner {content_hash!r} must hash to its name; found {found!r}; {remedy}"
            raise ValueError(msg)
        return content

    def _path(self, content_hash: str) -> Path:
        if len(content_hash) != 64 or not set(content_hash) <= set("0123456789abcdef"):
            msg = (
                f"name of a learner; must be a SHA-256 in hex; found {content_hash!r}; remove the "
                f"recovery folder to rebuild it from the log"
            )
            raise ValueError(msg)
        return self._folder / f"{content_hash}{SUFFIX}"

    def _files(self) -> list[tuple[int, Path]]:
        """Return all files in the order in which they were put last."""
        found = [(one.stat().st_mtime_ns, one) for one in self._folder.glob(f"*{SUFFIX}")]
        return sorted(found)

    def _remove_old(self) -> None:
        for _, path in self._files()[: -self._kept]:
            path.unlink(missing_ok=True)
