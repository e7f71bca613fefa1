"""A small dataflow to be killed: `market.ticks` to one late tick and one alert per record.

Arguments: bootstrap, environment, state folder, client, bound of each partition or `none`, deadline.
"""

import sys
import time
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from infra.kafka.sink import KafkaSink, Target
from infra.kafka.source import KafkaSource, Reading
from infra.kafka.stop_flag import StopFlag
from infra.lease import RunLease
from schemas.batches import Outgoing
from schemas.codec import Origin
from schemas.frames import to_frame
from schemas.market import TickLate
from schemas.operations import AlertRaised
from schemas.settings import KafkaSettings
from schemas.topics import full_name

PARTITIONS = (0, 1)
PAUSE_SECONDS = 0.004


def copies(partition, records):
    """Return what one fetch becomes; the pause leaves time to be killed in the middle."""
    time.sleep(PAUSE_SECONDS)
    late, alerts = [], []
    for record in records:
        number = int(record.value)
        name = f"{partition}-{number}"
        late.append(
            TickLate(
                id=f"late/{name}",
                cause=f"tick/{partition}/{record.offset}/0",
                venue="binance",
                symbol="BTC/USDT",
                event_time_ns=number,
                late_by_ns=1,
                partition=partition,
                offset=record.offset,
                line=0,
                price=1.0,
                size=1.0,
                provenance="recorded",
            )
        )
        alerts.append(
            AlertRaised(
                id=f"alert/{name}",
                cause=f"late/{name}",
                kind="late",
                resolved=False,
                event_time_ns=number,
                text="",
            )
        )
    frame = to_frame(TickLate, late)
    return [
        Outgoing(topic="market.late", rows=frame, partition=partition, progress_ns=number),
        Outgoing(topic="ops.alerts", messages=alerts),
    ]


def main():
    """Run until the bound or SIGTERM, resuming where the last run was confirmed."""
    bootstrap, environment, folder, client, bound, deadline_seconds = sys.argv[1:]
    state = Path(folder)
    settings = KafkaSettings(bootstrap=bootstrap, partitions=len(PARTITIONS), client=client)
    epoch = RunLease(state / "copy.lease").acquire()
    recovery = state / "recovery"
    if not recovery.exists():
        fresh = state / "fresh"
        fresh.mkdir(exist_ok=True)
        init_db_dir(fresh, 1)
        fresh.rename(recovery)
    stop = StopFlag()
    stop.listen()
    reading = Reading(
        decode=copies,
        stop=stop,
        until=None if bound == "none" else dict.fromkeys(PARTITIONS, int(bound)),
        records_max=7,
    )
    targets = [Target(topic="market.late", partition=partition) for partition in PARTITIONS]
    flow = Dataflow("copy")
    topic = full_name(environment, "market.ticks")
    source = KafkaSource(settings, topic, PARTITIONS, f"copy-{environment}", reading)
    sink = KafkaSink(
        settings,
        environment,
        Origin(config_hash="c0ffee", epoch=epoch),
        [*targets, Target(topic="ops.alerts")],
        writer="copy",
        deadline_seconds=float(deadline_seconds),
    )
    op.output("out", op.input("in", flow, source), sink)
    cli_main(
        flow,
        epoch_interval=timedelta(milliseconds=60),
        recovery_config=RecoveryConfig(str(recovery)),
    )


if __name__ == "__main__":
    main()
