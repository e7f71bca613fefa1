"""The embedded store process: owns chDB and serves ClickHouse's HTTP interface.

`python -m infra.stack.store --state-dir DIR --port PORT` runs in the foreground. SIGTERM finishes
running requests and exits 0; a kill loses no insert that was answered.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import msgspec

from infra.stack.process import LOOPBACK, check_port, read_secret, stop_with_parent

POLL_SECONDS = 0.05


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the store keeps its data and where it listens.

    `password_file` holds the password of `user`; without one, `user` has no password.
    """

    state_dir: Path
    port: int
    host: str = LOOPBACK
    user: str = "default"
    password_file: Path | None = None
    threads: int = 8
    body_bytes_max: int = 256 * 1024 * 1024
    drain_seconds: int = 30

    def __post_init__(self) -> None:
        check_port("port", self.port)
        if self.threads < 1:
            msg = f"`threads` must be at least 1; found {self.threads!r}; leave it unset for 8"
            raise ValueError(msg)


def build_store_command(config: StoreConfig, *, stop_with_parent: bool = False) -> list[str]:
    """Return the command line that runs this store, for a supervisor to start."""
    command = [sys.executable, "-m", "infra.stack.store"]
    command += ["--state-dir", str(config.state_dir), "--port", str(config.port)]
    command += ["--host", config.host, "--user", config.user]
    command += ["--threads", str(config.threads), "--body-bytes-max", str(config.body_bytes_max)]
    command += ["--drain-seconds", str(config.drain_seconds)]
    if config.password_file is not None:
        command += ["--password-file", str(config.password_file)]
    if stop_with_parent:
        command.append("--stop-with-parent")
    return command


def wait_until_store_ready(url: str, timeout_seconds: float) -> None:
    """Wait until the store at `url` answers `/ping`.

    Raises:
        TimeoutError: it did not within `timeout_seconds`.
    """
    parts = urlsplit(url)
    deadline = time.monotonic() + timeout_seconds
    while not _answers_ping(parts.hostname or LOOPBACK, parts.port or 8123):
        if time.monotonic() > deadline:
            msg = (
                f"store at {url!r} must answer /ping within {timeout_seconds} s; found no answer; "
                "read the log of the store process"
            )
            raise TimeoutError(msg)
        time.sleep(POLL_SECONDS)


def _answers_ping(host: str, port: int) -> bool:
    connection = HTTPConnection(host, port, timeout=1.0)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().read() == b"Ok.\n"
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def serve_store(config: StoreConfig) -> None:
    """Run the store until SIGTERM or SIGINT, then finish running requests and close the engine.

    Raises:
        StoreError: the directory does not open, for instance because another process holds it.
        ValueError: the password file is missing or empty.
    """
    # Times without a zone are UTC here, whatever the machine's zone; the engine reads TZ once.
    os.environ["TZ"] = "UTC"
    import uvicorn  # noqa: PLC0415 - importers of this module need no server.

    from infra.stack.store_engine import StoreEngine  # noqa: PLC0415 - loads the 0.5 GB engine.
    from infra.stack.store_http import HttpLimits, StoreHttp  # noqa: PLC0415

    password = "" if config.password_file is None else read_secret(config.password_file)
    engine = StoreEngine(config.state_dir / "clickhouse", config.state_dir / "incoming")
    limits = HttpLimits(threads=config.threads, body_bytes_max=config.body_bytes_max)
    http = StoreHttp(engine, (config.user, password), limits)

    class Server(uvicorn.Server):
        """Exit 0 after a signal: uvicorn itself raises the signal again when it is done."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            def stop(_signal: int, _frame: FrameType | None) -> None:
                self.should_exit = True

            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, stop)
            yield

    server = Server(
        uvicorn.Config(
            http.build_app(),
            host=config.host,
            port=config.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            # Clients keep pooled connections; closing them early would break a late insert.
            timeout_keep_alive=120,
            timeout_graceful_shutdown=config.drain_seconds,
            h11_max_incomplete_event_size=1024 * 1024,
        )
    )
    try:
        server.run()
    finally:
        http.close()
        engine.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the store from the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m infra.stack.store", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True, help="directory of the data")
    parser.add_argument("--port", type=int, required=True, help="TCP port of the HTTP interface")
    parser.add_argument("--host", default=LOOPBACK, help="address to listen on")
    parser.add_argument("--user", default="default", help="the one user")
    parser.add_argument("--password-file", type=Path, help="file with the user's password")
    parser.add_argument("--threads", type=int, default=8, help="queries run at once")
    parser.add_argument("--body-bytes-max", type=int, default=256 * 1024 * 1024)
    parser.add_argument("--drain-seconds", type=int, default=30, help="patience after SIGTERM")
    parser.add_argument("--stop-with-parent", action="store_true", help="end when the parent ends")
    options = vars(parser.parse_args(arguments))
    if options.pop("stop_with_parent"):
        stop_with_parent()
    try:
        serve_store(StoreConfig(**options))
    except Exception as e:  # noqa: BLE001 - the last line of a process is its reason.
        sys.stderr.write(f"store stopped; {type(e).__name__}: {e}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
