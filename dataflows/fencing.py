"""Who may write what: every run is alone with its account and with the lanes that it writes."""

from collections.abc import Iterable, Sequence

from dataflows.stack import kafka_settings
from infra.kafka.lease import Claim, LogLease
from infra.kafka.stop_flag import StopFlag
from infra.lease import LeaseHeldError, RunLease, holder_identity
from infra.settings import Settings

ACCOUNT = "account"
LEASES: dict[str, tuple[str, ...]] = {
    "features": ("features",),
    "signals": ("signals",),
    "portfolio": (ACCOUNT,),
    "trading": (ACCOUNT, "features", "signals"),
    "archive": ("archive",),
}
"""What each flow wants to be alone with; `trading` does the work of the three split flows."""


def refuse_overlap(flows: Iterable[str]) -> None:
    """Check that `flows` may run beside each other.

    Raises:
        LeaseHeldError: two of them would write the same.
    """
    holders: dict[str, str] = {}
    for flow in flows:
        for lease in LEASES[flow]:
            if holders.setdefault(lease, flow) != flow:
                msg = (
                    f"flows must not write the same; found {holders[lease]!r} and {flow!r}, which "
                    f"both hold the lease {lease!r}; run trading, or features, signals and portfolio"
                )
                raise LeaseHeldError(msg)


def file_leases(settings: Settings, name: str, partitions: Sequence[int]) -> list[RunLease]:
    """Return the locks of the state folder that `name` takes for `partitions`; none is held yet."""
    files = []
    for lease in LEASES[name]:
        if lease == ACCOUNT:
            files.append(settings.account)
        else:
            files += [f"{lease}-{number:04d}" for number in partitions]
    folder = settings.state_dir / "leases"
    return [RunLease(folder / f"{settings.environment}-{file}") for file in files]


def log_lease(settings: Settings, name: str, partitions: Sequence[int], stop: StopFlag) -> LogLease:
    """Return the lease of the log that `name` takes for `partitions`; it is not held yet.

    Its loss requests `stop`. The caller holds the file leases already.
    """
    claims = [
        Claim(name=f"{ACCOUNT}-{settings.account}")
        if lease == ACCOUNT
        else Claim(name=lease, partitions=tuple(partitions))
        for lease in LEASES[name]
    ]
    return LogLease(
        kafka_settings(settings),
        settings.environment,
        holder_identity(settings.state_dir / "leases"),
        claims,
        settings.run.lease_seconds,
        stop.request,
    )
