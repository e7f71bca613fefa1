"""One run at a time: a lock that dies with its process, and an epoch that only grows.

The lock is `flock` on a file, so the kernel frees it however the process ends, also by SIGKILL. The
epoch is a fencing number: it is durable before the run starts and rides in every record.
"""

import fcntl
import os
import re
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from infra.private_folder import make_private
from schemas.checked import decoder


class LeaseHeldError(Exception):
    """Another process holds the lease; this one does not start."""


class LeaseLostError(Exception):
    """The lease went to another holder or ran out; this process writes nothing more."""


class LeaseBrokenError(Exception):
    """The epoch file cannot be read; the process does not start rather than reuse an epoch."""


class Holder(Struct, frozen=True, kw_only=True):
    """Who holds a lease."""

    pid: int
    since_ns: int
    epoch: int


class RunLease:
    """The right to run one account or one recovery directory; hold it for the whole run."""

    def __init__(self, path: Path) -> None:
        """Use the lock file `path` and the epoch file beside it; nothing is touched yet."""
        self._path = path
        self._epoch_path = path.with_name(f"{path.name}.epoch")
        self._descriptor: int | None = None

    @property
    def name(self) -> str:
        """Name of the lock file."""
        return self._path.name

    def acquire(self) -> int:
        """Take the lease and return its epoch, greater than every one granted before.

        Raises:
            LeaseHeldError: another run holds the lease; refused at once, without waiting.
            LeaseBrokenError: the epoch file holds no number.
        """
        if self._descriptor is not None:
            msg = (
                f"lease {self._path.name!r} must be acquired once; found it held; release it first"
            )
            raise LeaseHeldError(msg)
        make_private(self._path.parent)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(descriptor)
            epoch = self._read_epoch() + 1
            self._write_epoch(epoch)
            holder = Holder(pid=os.getpid(), since_ns=time.time_ns(), epoch=epoch)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, msgspec.json.encode(holder), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return epoch

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            msg = (
                f"lease {self._path.name!r} must have one holder; found {_found(descriptor)}; "
                "stop that run or use another account and state folder"
            )
            raise LeaseHeldError(msg) from e

    def _read_epoch(self) -> int:
        try:
            text = self._epoch_path.read_text()
        except FileNotFoundError:
            return 0
        if not (text.isascii() and text.strip().isdigit()):
            msg = (
                f"epoch file {self._epoch_path.name!r} must hold one whole number; found {text!r}; "
                "write a number above every epoch header in the log"
            )
            raise LeaseBrokenError(msg)
        return int(text)

    def _write_epoch(self, epoch: int) -> None:
        # A rename over the old file is all or nothing; both syncs make it outlive a power cut.
        fresh = self._epoch_path.with_name(f"{self._epoch_path.name}.new")
        with fresh.open("w") as file:
            file.write(f"{epoch}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._epoch_path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def release(self) -> None:
        """Give the lease back; does nothing without it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def holder_identity(folder: Path) -> str:
    """Return the name under which runs of this state folder on this host are known, made once.

    A restart is told from a second holder by it: the host's name and a number kept in `folder`.
    """
    path = folder / "holder.id"
    if not path.exists():
        make_private(folder)
        fresh = folder / f"holder.id.{os.getpid()}"
        fresh.write_text(secrets.token_hex(8) + "\n")
        # A link is all or nothing and never replaces: of two first runs, both get one number.
        with suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    host = re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())[:63] or "host"
    return f"{host}-{path.read_text().strip()}"


def _found(descriptor: int) -> str:
    try:
        holder: Holder = decoder(Holder).decode(os.pread(descriptor, 4096, 0))
    except (msgspec.DecodeError, OSError):
        return "one that has not written its name yet"
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(holder.since_ns / 1e9))
    return f"process {holder.pid} since {since} with epoch {holder.epoch}"
