"""Run a flow as a process: leases, recovery, metrics, and a graceful end."""

import logging
from importlib import import_module

from dataflows.fencing import log_lease
from dataflows.interpreter import tune_interpreter
from dataflows.log_flow import LogFlow, open_log_flow, recovery_folder, run_lanes, run_recoverable
from dataflows.log_sources import Watch
from dataflows.prepare import publish_settings
from dataflows.stack import kafka_settings, port_of, wait_for_stack
from infra.kafka.lease import MEETING_TOPIC
from infra.kafka.probe import BrokerProbe
from infra.kafka.stop_flag import StopFlag
from infra.lease import LeaseLostError
from infra.serve import Workload, start_server
from infra.settings import Settings
from schemas.topics import full_name

logger = logging.getLogger(__name__)

PROBES_UNTIL_STALE = 6
"""How often the broker is asked before its silence is a fault."""
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
        LeaseHeldError: Another run, here or on another host, writes what this one would.
        LeaseLostError: The lease ran out or went to another run meanwhile.
        OSError: The metrics port is taken.
    """
    tune_interpreter()
    stop = StopFlag()
    workload = Workload(name, settings.environment, settings.serve.stale_after_seconds)
    workload.expect_broker()
    watch = Watch(stop=stop, workload=workload)
    # Taken before anything slow: a second process must be refused at once.
    lanes = [[number] for number in partitions] if name in _BY_LANE else [partitions]
    logs = {lane[0]: open_log_flow(settings, name, lane, watch) for lane in lanes}
    port = port_of(settings, name, worker)
    close_server = start_server(workload, settings.serve.host, port)
    probe = BrokerProbe(
        kafka_settings(settings),
        full_name(settings.environment, MEETING_TOPIC),
        settings.serve.stale_after_seconds / PROBES_UNTIL_STALE,
        workload.broker_answered,
    )
    probe.start()
    wait_for_stack(settings)
    publish_settings(settings)
    fence = log_lease(settings, name, partitions, stop)
    try:
        fence.acquire()
        # Until here a signal ends the process at once: there is no state to save yet.
        stop.listen()
        logger.info("running %s on partitions %s, metrics on port %s", name, partitions, port)
        for log in logs.values():
            log.fence = fence
        if name in _BY_LANE:
            run_lanes(lambda number: _run(logs[number]), partitions, stop)
        else:
            _run(logs[partitions[0]])
    finally:
        # A lost lease explains whatever the flow failed of; it is the error that is told.
        fault = fence.fault
        fence.release()
        probe.stop()
        close_server()
        for log in logs.values():
            log.release()
        if fault:
            raise LeaseLostError(fault)


def _run(log: LogFlow) -> None:
    # Only the chosen flow is loaded: the archive needs no models, trading no ClickHouse client.
    build_flow = import_module(f"dataflows.{log.name}").build_flow
    folder = recovery_folder(log.settings, log.name, log.partitions)
    run_recoverable(build_flow(log), log.settings, folder)
