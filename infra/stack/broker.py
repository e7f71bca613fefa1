"""The embedded broker process: a real single-node Apache Kafka (KRaft) on the loopback interface.

`python -m infra.stack.broker --state-dir DIR --port PORT` prepares and then *becomes* the Java
process, so that the pid a supervisor started is the broker itself. SIGTERM stops it cleanly; Java
then exits with 143, its way to say so.
"""

import argparse
import base64
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from infra.private_folder import make_private
from infra.stack.broker_jars import find_java, resolve_jars
from infra.stack.process import (
    LOOPBACK,
    accepts_connections,
    check_port,
    find_free_port,
    stop_with_parent,
)

POLL_SECONDS = 0.05
MESSAGE_BYTES_MAX = 8 * 1024 * 1024


class BrokerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker keeps its log and where it listens (loopback only).

    `controller_port` is its private KRaft port; None takes a free one at each start.
    """

    state_dir: Path
    port: int
    controller_port: int | None = None
    heap_mib: int = 512
    message_bytes_max: int = MESSAGE_BYTES_MAX
    jar_cache_dir: Path | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        check_port("port", self.port)
        if self.controller_port is not None:
            check_port("controller_port", self.controller_port)
            if self.controller_port == self.port:
                msg = f"`controller_port` must differ from `port`; found {self.port!r} for both"
                raise ValueError(msg)
        if self.heap_mib < 256:
            msg = (
                f"`heap_mib` must be at least 256; found {self.heap_mib!r}; leave it unset for 512"
            )
            raise ValueError(msg)

    @property
    def bootstrap(self) -> str:
        """The address clients connect to."""
        return f"{LOOPBACK}:{self.port}"


def build_broker_command(config: BrokerConfig, *, stop_with_parent: bool = False) -> list[str]:
    """Return the command line that runs this broker, for a supervisor to start."""
    command = [sys.executable, "-m", "infra.stack.broker"]
    command += ["--state-dir", str(config.state_dir), "--port", str(config.port)]
    command += ["--heap-mib", str(config.heap_mib)]
    command += ["--message-bytes-max", str(config.message_bytes_max)]
    if config.controller_port is not None:
        command += ["--controller-port", str(config.controller_port)]
    if config.jar_cache_dir is not None:
        command += ["--jar-cache-dir", str(config.jar_cache_dir)]
    if config.verbose:
        command.append("--verbose")
    if stop_with_parent:
        command.append("--stop-with-parent")
    return command


def prepare_broker(
    state_dir: Path, *, jar_cache_dir: Path | None = None, verbose: bool = False
) -> list[str]:
    """Create the state directory, fetch and check the jars; return the class path's entries.

    The first call on a machine takes about 20 s and the network; later ones about 0.1 s.

    Raises:
        RuntimeError: the jars cannot be fetched or are not those of the lock.
    """
    make_private(state_dir)
    return [str(jar) for jar in resolve_jars(jar_cache_dir, verbose=verbose)]


def read_cluster_id(state_dir: Path) -> str:
    """Return the cluster's id (22 characters), made once and kept in the state directory."""
    path = state_dir / "cluster.id"
    if path.exists():
        return path.read_text().strip()
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    # Kafka's own ids never begin with a dash: its command line would read one as an option.
    cluster_id = "A" + cluster_id[1:]
    path.write_text(cluster_id + "\n")
    return cluster_id


def render_server_properties(config: BrokerConfig, controller_port: int) -> str:
    """Return the text of `server.properties` for one broker that is its own controller."""
    properties = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{config.bootstrap},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{config.bootstrap}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "log.dirs": str((config.state_dir / "log").resolve()),
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
        "num.network.threads": "1",
        "num.io.threads": "2",
        # After a kill the broker's own earlier session must run out before it may serve again; with
        # Kafka's 9 s that is most of a restart.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "4000",
        "log.cleaner.dedupe.buffer.size": "16777216",
        "log.segment.bytes": "67108864",
        "message.max.bytes": str(config.message_bytes_max),
        # A replayed record carries a time long past: retention by age would delete it at once.
        # Topics that want retention say so themselves.
        "log.retention.ms": "-1",
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def format_storage(java: str, class_path: str, properties_path: Path, cluster_id: str) -> None:
    """Write the KRaft metadata into a new log directory; an existing one stays as it is.

    Raises:
        RuntimeError: Kafka refused, with its own words.
    """
    tool = [java, "-cp", class_path, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
    done = subprocess.run(
        [*tool, "-t", cluster_id, "-c", str(properties_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).split())
        msg = f"broker storage must be formatted; found {words!r}; check the state directory"
        raise RuntimeError(msg)


def build_java_command(config: BrokerConfig) -> list[str]:
    """Prepare everything on disk and return the Java command that is the broker.

    Raises:
        RuntimeError: no Java, no jars, wrong jars, or storage that does not format.
    """
    entries = prepare_broker(
        config.state_dir, jar_cache_dir=config.jar_cache_dir, verbose=config.verbose
    )
    java, class_path = find_java(), os.pathsep.join(entries)
    properties_path = config.state_dir / "server.properties"
    controller_port = config.controller_port or find_free_port()
    properties_path.write_text(render_server_properties(config, controller_port))
    if not (config.state_dir / "log" / "meta.properties").exists():
        format_storage(java, class_path, properties_path, read_cluster_id(config.state_dir))
    level = "info" if config.verbose else "warn"
    return [
        java,
        "-Xms256m",
        f"-Xmx{config.heap_mib}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Djava.awt.headless=true",
        f"-Dorg.slf4j.simpleLogger.defaultLogLevel={level}",
        "-cp",
        class_path,
        "kafka.Kafka",
        str(properties_path),
    ]


def wait_until_ready(bootstrap: str, timeout_seconds: float) -> None:
    """Wait until the broker at `bootstrap` (`host:port`) answers a metadata request.

    Raises:
        TimeoutError: it did not within `timeout_seconds`.
    """
    host, _, port = bootstrap.rpartition(":")
    deadline = time.monotonic() + timeout_seconds
    while not (accepts_connections(host, int(port)) and _answers_metadata(bootstrap)):
        if time.monotonic() > deadline:
            msg = (
                f"broker at {bootstrap!r} must answer within {timeout_seconds} s; "
                "found no answer; read the log of the broker process"
            )
            raise TimeoutError(msg)
        time.sleep(POLL_SECONDS)


def _answers_metadata(bootstrap: str) -> bool:
    from kafka import KafkaAdminClient  # noqa: PLC0415 - the broker process needs no client.
    from kafka.errors import KafkaError  # noqa: PLC0415

    try:
        client = KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=2_000)
    except KafkaError:
        return False
    try:
        return bool(client.describe_cluster()["brokers"])
    except KafkaError:
        return False
    finally:
        client.close()


def _become(command: list[str]) -> NoReturn:
    """Replace this process: a child would outlive a supervisor's kill of its parent."""
    sys.stderr.flush()
    os.execv(command[0], command)  # noqa: S606


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the broker from the command line; returns only when it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m infra.stack.broker", description=__doc__)
    parser.add_argument("--state-dir", type=Path, required=True, help="directory of the log")
    parser.add_argument("--port", type=int, required=True, help="TCP port for clients")
    parser.add_argument(
        "--controller-port", type=int, help="private TCP port (default: a free one)"
    )
    parser.add_argument("--heap-mib", type=int, default=512, help="largest Java heap")
    parser.add_argument("--message-bytes-max", type=int, default=MESSAGE_BYTES_MAX)
    parser.add_argument("--jar-cache-dir", type=Path, help="where jars are kept (default: home)")
    parser.add_argument("--verbose", action="store_true", help="log progress and Kafka's own lines")
    parser.add_argument("--stop-with-parent", action="store_true", help="end when the parent ends")
    options = vars(parser.parse_args(arguments))
    if options.pop("stop_with_parent"):
        stop_with_parent()
    try:
        command = build_java_command(BrokerConfig(**options))
    except (RuntimeError, ValueError, OSError) as e:
        sys.stderr.write(f"broker stopped; {type(e).__name__}: {e}\n")
        return 1
    _become(command)


if __name__ == "__main__":
    sys.exit(main())
