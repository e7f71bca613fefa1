"""Own the processes of a stack through supervisord: start in order, restart what dies, stop all.

supervisord restarts a process that dies at once. One that dies within `START_SECONDS` of its start waits
for a second longer each time: else a flow that fails on its first record would burn the machine.
"""

import configparser
import contextlib
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct
from supervisor.xmlrpc import SupervisorTransport

from infra.private_folder import make_private

START_SECONDS = 10
"""A process that ends sooner counts as not started: the pause before its next start grows."""
STOP_SECONDS = 25


class ManagedProcess(Struct, frozen=True, kw_only=True):
    """One process that the supervisor owns."""

    name: str
    arguments: tuple[str, ...]
    """Arguments of the Python interpreter, as `("-m", "infra.stack.store", …)`."""
    priority: int = 500


class ProcessStatus(Struct, frozen=True, kw_only=True):
    """What the supervisor says about a process."""

    name: str
    state: str
    pid: int
    restarts: int
    description: str


class NotRunningError(RuntimeError):
    """No supervisor runs for this state folder; `quantstream up` starts one."""


class Supervisor:
    """The supervisor of one state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir.resolve() / "supervisor"
        if "%" in str(self._folder):
            # supervisord expands `%(name)s` in every path, some twice: no escape survives both.
            msg = f"state folder must not hold a per cent sign; found {str(state_dir)!r}; rename it"
            raise ValueError(msg)
        digest = sha256(str(self._folder).encode()).hexdigest()[:16]
        # A Unix socket path holds about 100 characters; a state folder may be deeper than that.
        self._fresh_socket = Path(tempfile.gettempdir()) / f"quantstream-{digest}.sock"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def _socket(self) -> Path:
        """Where the running supervisor listens: its settings say so, whatever TMPDIR is by now."""
        config = configparser.ConfigParser(interpolation=None)
        config.read(self._folder / "supervisord.conf")
        return Path(config.get("unix_http_server", "file", fallback=str(self._fresh_socket)))

    @property
    def log_folder(self) -> Path:
        """Where each process writes its log."""
        return self._folder / "logs"

    def start(
        self,
        processes: Sequence[ManagedProcess],
        *,
        environment: Mapping[str, str],
        foreground: bool,
    ) -> None:
        """Start the supervisor with `processes`, which all see `environment`.

        In the foreground it stays a child of this process; otherwise it detaches.

        Raises:
            RuntimeError: One already runs for this state folder, or it does not come up.
        """
        self.require_stopped()
        make_private(self.log_folder)
        config = self._write_config(processes)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)]
        if foreground:
            with (self._folder / "start.log").open("wb") as log:
                self._child = subprocess.Popen(
                    [*command, "-n"],
                    env=dict(environment),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        else:
            subprocess.run(
                command, check=True, env=dict(environment), capture_output=True, timeout=30
            )
        deadline = time.monotonic() + 20
        while not self.is_running():
            if time.monotonic() > deadline:
                msg = f"supervisor must answer within 20 s; see {str(self._folder / 'supervisord.log')!r}"
                raise RuntimeError(msg)
            time.sleep(0.05)

    def require_stopped(self) -> None:
        """Raise RuntimeError if a supervisor runs for this state folder."""
        if self.is_running():
            msg = (
                f"stack in {str(self._folder.parent)!r} already runs; stop it with quantstream down"
            )
            raise RuntimeError(msg)

    def add(self, process: ManagedProcess) -> None:
        """Start one more process in a running supervisor."""
        config = configparser.ConfigParser(interpolation=None)
        config.read(self._folder / "supervisord.conf")
        self._describe(config, process)
        with (self._folder / "supervisord.conf").open("w") as file:
            config.write(file)
        self._call("reloadConfig")
        self._call("addProcessGroup", process.name)

    def is_running(self) -> bool:
        """Tell whether the supervisor answers."""
        try:
            self._call("getState")
        except NotRunningError:
            return False
        return True

    def statuses(self) -> list[ProcessStatus]:
        """Return the state of every process, in start order; raises NotRunningError."""
        rows: list[dict[str, Any]] = self._call("getAllProcessInfo")
        return [
            ProcessStatus(
                name=row["name"],
                state=row["statename"].lower(),
                pid=row["pid"],
                restarts=self._restarts(row["name"]),
                description=row["description"],
            )
            for row in rows
        ]

    def pid_of(self, name: str) -> int:
        """Return the pid of a process, 0 if it is down."""
        return int(self._call("getProcessInfo", name)["pid"])

    def restart(self, name: str) -> None:
        """Stop and start one process."""
        self._call("stopProcess", name, True)  # noqa: FBT003  # XML-RPC has no keywords
        self._call("startProcess", name, True)  # noqa: FBT003

    def stop_process(self, name: str) -> None:
        """Stop one process and wait for its end."""
        self._call("stopProcess", name, True)  # noqa: FBT003

    def stop(self) -> None:
        """Stop every process, then the supervisor; does nothing if none runs."""
        try:
            pid = int(self._call("getPID"))
            self._call("shutdown")
        except NotRunningError:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(timeout=STOP_SECONDS * 2)
        if self._child is not None:
            self._child.wait(timeout=5)
        self._socket.unlink(missing_ok=True)

    def _restarts(self, name: str) -> int:
        log = self._folder / "supervisord.log"
        if not log.exists():
            return 0
        return max(0, log.read_text(errors="replace").count(f"spawned: '{name}'") - 1)

    def _call(self, method: str, *arguments: object) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(proxy.supervisor, method)(*arguments)
        except (OSError, xmlrpc.client.ProtocolError) as error:
            msg = f"no supervisor answers for {str(self._folder.parent)!r}; start it with quantstream up"
            raise NotRunningError(msg) from error

    def _write_config(self, processes: Sequence[ManagedProcess]) -> Path:
        config = configparser.ConfigParser(interpolation=None)
        config["unix_http_server"] = {"file": str(self._fresh_socket), "chmod": "0700"}
        config["supervisord"] = {
            "logfile": str(self._folder / "supervisord.log"),
            "pidfile": str(self._folder / "supervisord.pid"),
            "childlogdir": str(self.log_folder),
            "loglevel": "info",
        }
        config["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        for process in processes:
            self._describe(config, process)
        (self._folder / "supervisord.log").unlink(missing_ok=True)
        path = self._folder / "supervisord.conf"
        with path.open("w") as file:
            config.write(file)
        return path

    def _describe(self, config: configparser.ConfigParser, process: ManagedProcess) -> None:
        quoted = " ".join(_quote(part) for part in (sys.executable, *process.arguments))
        config[f"program:{process.name}"] = {
            "command": quoted,
            "priority": str(process.priority),
            "autorestart": "true",
            "startsecs": str(START_SECONDS),
            "startretries": "1000",
            "stopwaitsecs": str(STOP_SECONDS),
            "stopasgroup": "false",
            "killasgroup": "true",
            "stdout_logfile": str(self.log_folder / f"{process.name}.log"),
            "redirect_stderr": "true",
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": "2",
        }


def _quote(part: str) -> str:
    escaped = part.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
