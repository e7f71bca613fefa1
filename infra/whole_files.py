"""Files that are there whole or not at all, also after a crash or on a full disk."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

READ_ONLY = 0o444


def write_new(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a new file and make it durable; raises OSError and leaves none if that fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of `path` at once; raises OSError and changes nothing if it fails."""
    fresh = path.with_name(f".{path.name}.new")
    # Left by a process that died: of a file that several may write the caller holds the lock.
    fresh.unlink(missing_ok=True)
    write_new(fresh, content)
    try:
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def place_folder(target: Path, files: Mapping[str, bytes], staging: Path) -> None:
    """Make the folder `target` of read-only `files` at once, by way of `staging`.

    Raises OSError and leaves neither folder if it fails.
    """
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        for name, content in files.items():
            write_new(staging / name, content, mode=READ_ONLY)
        sync_folder(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        staging.replace(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    sync_folder(target.parent)
    sync_folder(target.parent.parent)


def sync_folder(folder: Path) -> None:
    """Make the entries of `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
