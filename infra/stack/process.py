"""What both processes of the embedded stack share: ports, parents, readiness."""

import ctypes
import os
import secrets
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 200
PR_SET_PDEATHSIG = 1  # From Linux's prctl.h.


def find_free_port() -> int:
    """Return a loopback TCP port that nothing listens on at this moment.

    It lies below the ports that systems give to outgoing connections (32768 and up on Linux, 49152
    and up elsewhere): one of those may be gone by the time that a server listens.

    Raises:
        OSError: None of many tried was free.
    """
    for _ in range(_PORT_TRIES):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    msg = f"loopback must have a free port between {_PORTS.start} and {_PORTS.stop}; found none"
    raise OSError(msg)


def check_port(name: str, port: int) -> None:
    """Check that a port number can be listened on.

    Raises:
        ValueError: the number lies outside 1 to 65535.
    """
    if not 0 < port < 65536:
        msg = f"`{name}` must lie between 1 and 65535; found {port!r}; choose a free port"
        raise ValueError(msg)


def accepts_connections(host: str, port: int, timeout_seconds: float = 0.5) -> bool:
    """Return whether something listens on the TCP port."""
    try:
        with socket.create_connection((host, port), timeout_seconds):
            return True
    except OSError:
        return False


def stop_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent ends; it holds across `exec` (Linux only).

    Elsewhere this does nothing: the supervisor's own clean-up remains the only protection.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The parent may have ended before the request: then no signal would ever come.
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def read_secret(path: Path) -> str:
    """Return the first line of a secret's file, without its line break.

    Raises:
        ValueError: the file is missing or empty.
    """
    try:
        secret = path.read_text().partition("\n")[0].strip()
    except OSError as e:
        msg = f"password file must be readable; found {str(path)!r}; create it with mode 600"
        raise ValueError(msg) from e
    if not secret:
        msg = f"password file must hold one line; found an empty {str(path)!r}; write the password"
        raise ValueError(msg)
    return secret
