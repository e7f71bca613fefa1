"""Run a flow as a process: leases, recovery, metrics, and a graceful end."""

import logging
from importlib import import_module

from dataflows.interpreter import tune_interpreter
from dataflows.log_flow import LogFlow, open_log_flow, recovery_folder, run_lanes, run_recoverable
from dataflows.log_sources import Watch
from dataflows.prepare import publish_settings
from dataflows.stack import port_of, wait_for_stack
from infra.kafka.stop_flag import StopFlag
from infra.serve import Workload, start_server
from infra.settings import Settings

logger = logging.getLogger(__name__)

_BY_LANE = frozenset({"features", "signals"})


def shards(partitions: int, workers: int) -> list[list[int]]:
    """Return the partitions of each worker: whole ones, as even as they go.

    Raises:
        ValueError: There are more workers than partitions.
    """
    if workers > partitions:
        msg = f"--workers must be at most the {partitions} partitions; found {workers}"
        raise ValueError(msg)
    return [list(range(number, partitions, workers)) for number in range(workers)]


def run_flow(settings: Settings, name: str, partitions: list[int], worker: int = 0) -> None:
    """Run `name` over `partitions` until SIGTERM, SIGINT or a failure.

    Raises:
        LeaseHeldError: Another process owns the account or a partition of this flow.
        OSError: The metrics port is taken.
    """
    tune_interpreter()
    stop = StopFlag()
    workload = Workload(name, settings.environment, settings.serve.stale_after_seconds)
    watch = Watch(stop=stop, workload=workload)
    # Taken before anything slow: a second process must be refused at once.
    lanes = [[number] for number in partitions] if name in _BY_LANE else [partitions]
    logs = {lane[0]: open_log_flow(settings, name, lane, watch) for lane in lanes}
    port = port_of(settings, name, worker)
    close_server = start_server(workload, settings.serve.host, port)
    wait_for_stack(settings)
    publish_settings(settings)
    # Until here a signal ends the process at once: there is no state to save yet.
    stop.listen()
    logger.info("running %s on partitions %s, metrics on port %s", name, partitions, port)
    try:
        if name in _BY_LANE:
            run_lanes(lambda number: _run(logs[number]), partitions, stop)
        else:
            _run(logs[partitions[0]])
    finally:
        close_server()
        for log in logs.values():
            log.release()


def _run(log: LogFlow) -> None:
    # Only the chosen flow is loaded: the archive needs no models, trading no ClickHouse client.
    build_flow = import_module(f"dataflows.{log.name}").build_flow
    folder = recovery_folder(log.settings, log.name, log.partitions)
    run_recoverable(build_flow(log), log.settings, folder)
