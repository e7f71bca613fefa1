"""The right to write, kept by the log itself: it holds across hosts, where a file lock does not.

A lease is a consumer group `<environment>.lease.<name>`. Its holders are members that read nothing;
the broker counts one as gone when it was silent for `lease_seconds`. A holder first waits until
nobody else claims the same, then joins, then looks again: of two that join at once, each is seen by
the other or came first. A run is known by a stable name (`group.instance.id`), so the next run of the
same state folder takes a dead one's place at once.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove
from kafka.errors import KafkaError as AdminError
from msgspec import Struct

from infra.kafka.errors import BrokerAwayError, ReadFailedError
from infra.kafka.positions import topic_missing
from infra.kafka.security import bootstrap_servers, confluent_options, kafka_python_options
from infra.lease import LeaseHeldError, LeaseLostError
from schemas.settings import KafkaSettings
from schemas.topics import full_name

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
ANSWER_SECONDS = 5.0
DEADLINE_SECONDS = 30.0
"""A broker that has never seen a group needs a while to answer about one."""
MARGIN_SECONDS = 2.0
"""How much longer than the lease a silent member is waited for: the broker checks in steps."""
JOIN_SECONDS = 60.0
RELEASE_SECONDS = 3.0
MEETING_TOPIC = "ops.control"
"""A group needs a topic; this one has one partition, and nothing of it is used."""
WHOLE = "all"
_SETTLING = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
}
_UNKNOWN = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}  # noqa: SLF001

_REFUSED = {
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.INCONSISTENT_GROUP_PROTOCOL,
    KafkaError.INVALID_SESSION_TIMEOUT,
}


class Claim(Struct, frozen=True, kw_only=True):
    """What a run wants to be alone with."""

    name: str
    partitions: tuple[int, ...] = ()
    """Empty: the whole of it."""

    def text(self) -> str:
        """Return the partitions as `0-2-5`, or `all`."""
        return "-".join(map(str, self.partitions)) or WHOLE


class Member(Struct, frozen=True, kw_only=True):
    """A member of a lease's group as the broker describes it."""

    member_id: str
    instance: str
    client: str
    host: str

    def claims(self, wanted: Claim) -> bool:
        """Return whether it claims something of `wanted`; one that says nothing claims all."""
        theirs, mine = self.client.rpartition(":")[2].split("-"), wanted.text().split("-")
        readable = self.client.startswith("quantstream:") and all(map(str.isdigit, theirs))
        return not readable or mine == [WHOLE] or not set(theirs).isdisjoint(mine)


class LogLease:
    """The claims of one run on one environment; hold it for the whole run."""

    def __init__(
        self,
        settings: KafkaSettings,
        environment: str,
        identity: str,
        claims: Sequence[Claim],
        lease_seconds: int,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            settings: how to reach the broker.
            environment: prefix of the groups and topics.
            identity: stable name of host and state folder. The caller holds their file locks, so
                another member of this name is a run that died.
            claims: what this run wants to be alone with, each under another name.
            lease_seconds: for how long the broker believes a member that says nothing.
            on_lost: called once, from another thread, when the lease is lost.
        """
        self._settings, self._identity = settings, identity
        self._claims = {f"{environment}.lease.{claim.name}": claim for claim in claims}
        self._topic = full_name(environment, MEETING_TOPIC)
        self._lease_seconds, self._on_lost = lease_seconds, on_lost
        self._consumers: dict[str, Any] = {}
        self._member_ids: dict[str, str] = {}
        self._admin: Any = None
        self._expired: set[str] = set()
        self._fault = ""
        self._losing = threading.Lock()
        self._kept_at = time.monotonic()
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="log-lease", daemon=True)

    @property
    def fault(self) -> str:
        """How the lease was lost; empty while it was not."""
        return self._fault

    def acquire(self) -> None:
        """Take every claim, or none.

        Raises:
            LeaseHeldError: another host or state folder holds one, and did so for all the time that
                a dead holder would still have been listed.
            TopicMissingError: the environment has no topics.
            BrokerAwayError: the broker did not answer in time.
            ReadFailedError: the broker refused the membership.
        """
        try:
            self._await_free(lambda _mine, _theirs: True)
            self._join()
            # Whoever joined at the same moment sees us as we see it: the lesser name goes first.
            self._await_free(lambda mine, theirs: theirs > mine)
        except BaseException:
            self.release()
            raise
        self._admin = None
        self._kept_at = time.monotonic()
        self._keeper.start()

    def check(self) -> None:
        """Return if the lease is held at this moment; a writer asks before it writes.

        Raises:
            LeaseLostError: it is not, for good.
        """
        silent_seconds = time.monotonic() - self._kept_at
        if not self._fault and silent_seconds > self._lease_seconds:
            # The process was paused: meanwhile the broker may have given the lease away.
            self._lose(f"this process stood still for {silent_seconds:.0f} s")
        if self._fault:
            raise LeaseLostError(self._fault)

    def release(self) -> None:
        """Leave the groups, so that another host need not wait; never raises."""
        self._ending.set()
        if self._keeper.is_alive():
            self._keeper.join(RELEASE_SECONDS)
        if self._consumers and not self._fault:
            self._leave()
        for consumer in self._consumers.values():
            # Closing waits for a broker that may be away; the process ends soon anyway.
            closing = threading.Thread(target=consumer.close, name="close-lease", daemon=True)
            closing.start()
            closing.join(RELEASE_SECONDS / len(self._consumers))
        self._consumers = {}

    def _leave(self) -> None:
        options = kafka_python_options(self._settings)
        with suppress(AdminError):
            admin = KafkaAdminClient(**options, bootstrap_timeout_ms=int(RELEASE_SECONDS * 1000))
            try:
                for group in self._consumers:
                    with suppress(AdminError):
                        # With its number: a successor of our name must not be sent away.
                        gone = MemberToRemove(
                            member_id=self._member_ids.get(group, ""),
                            group_instance_id=self._instance(group),
                        )
                        admin.remove_group_members(group, [gone])
            finally:
                admin.close()

    def _instance(self, group: str) -> str:
        claimed = sha256(self._claims[group].text().encode()).hexdigest()[:8]
        return f"{self._identity}.{claimed}"

    def _await_free(self, waits: Callable[[str, str], bool]) -> None:
        """Return once nobody else claims what we claim; refuse when that takes too long.

        `waits` says, by both names, whether the other one may still go away.
        """
        deadline = time.monotonic() + self._lease_seconds + MARGIN_SECONDS
        while others := self._others():
            group, other = others[0]
            over = time.monotonic() > deadline
            if over or not waits(self._instance(group), other.instance):
                claim = self._claims[group]
                msg = (
                    f"lease {group!r} ({claim.text()}) must have one holder; found member "
                    f"{other.client!r} at {other.host!r}; stop that run or use another environment"
                )
                raise LeaseHeldError(msg)
            self._poll()
            time.sleep(POLL_SECONDS)

    def _others(self) -> list[tuple[str, Member]]:
        own = f"{self._identity}."
        return [
            (group, member)
            for group, members in self._describe().items()
            for member in members
            if not member.instance.startswith(own) and member.claims(self._claims[group])
        ]

    def _describe(self) -> dict[str, list[Member]]:
        if self._admin is None:
            self._admin = AdminClient(confluent_options(self._settings) | {"log_level": 2})
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            asked = self._admin.describe_consumer_groups(
                list(self._claims), request_timeout=ANSWER_SECONDS
            )
            try:
                return {group: _members(answer) for group, answer in asked.items()}
            except KafkaException as e:
                if e.args[0].code() not in _SETTLING or time.monotonic() > deadline:
                    raise self._away(e.args[0]) from e
            time.sleep(POLL_SECONDS)

    def _join(self) -> None:
        for group in self._claims:
            consumer = Consumer(self._options(group))
            self._consumers[group] = consumer
            consumer.subscribe(
                [self._topic], on_lost=lambda _consumer, _lost, name=group: self._expired.add(name)
            )
        deadline = time.monotonic() + JOIN_SECONDS
        while True:
            self._poll()
            ids = {group: one.memberid() or "" for group, one in self._consumers.items()}
            if all(ids.values()) and self._are_listed(ids):
                self._member_ids = ids
                return
            if time.monotonic() > deadline:
                unlisted = sorted(group for group, member_id in ids.items() if not member_id)
                found = f"no membership in {unlisted!r}"
                raise self._away(found)
            time.sleep(POLL_SECONDS / 4)

    def _are_listed(self, ids: dict[str, str]) -> bool:
        listed = self._describe()
        return all(
            ids[group] in {member.member_id for member in listed[group]} for group in self._claims
        )

    def _options(self, group: str) -> dict[str, Any]:
        session_ms = self._lease_seconds * 1000
        claimed = self._claims[group].text()
        return confluent_options(self._settings) | {
            "group.id": group,
            "group.instance.id": self._instance(group),
            "client.id": f"quantstream:{self._identity}:{os.getpid()}:{claimed}",
            "session.timeout.ms": session_ms,
            "heartbeat.interval.ms": session_ms // 5,
            "max.poll.interval.ms": max(60_000, session_ms),
            # Whoever holds keeps: a newcomer's arrival takes nothing away.
            "partition.assignment.strategy": "cooperative-sticky",
            "auto.offset.reset": "latest",
            "enable.auto.commit": False,
            "queued.max.messages.kbytes": 1024,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,
        }

    def _poll(self) -> None:
        """Let each member act on what the broker said.

        Raises:
            TopicMissingError, ReadFailedError: the membership cannot be.
            LeaseLostError: another run of the same name took the place.
        """
        for group, consumer in self._consumers.items():
            # Records of the topic come too; that one is quiet, and they say nothing here.
            while (message := consumer.poll(0)) is not None:
                if message.error() is not None:
                    self._judge(group, message.error())

    def _judge(self, group: str, error: Any) -> None:
        if error.code() in _UNKNOWN:
            raise topic_missing(self._topic, 0)
        if error.code() == KafkaError._FATAL:  # noqa: SLF001
            raise LeaseLostError(error.str())
        if error.code() in _REFUSED:
            msg = (
                f"membership of group {group!r} must be granted; found {error.str()!r}; allow "
                "describe and read on groups with the prefix of the environment"
            )
            raise ReadFailedError(msg)

    def _keep(self) -> None:
        while not self._ending.wait(POLL_SECONDS):
            try:
                self._poll()
                held = [c.memberid() for c in self._consumers.values()]
            except Exception as e:  # noqa: BLE001  # whatever ends the membership ends the run
                self._lose(str(e))
                return
            if self._expired or held != list(self._member_ids.values()):
                self._lose("the broker did not hear of this process in time")
                return
            self._kept_at = time.monotonic()

    def _lose(self, reason: str) -> None:
        with self._losing:
            if self._fault or self._ending.is_set():
                return
            self._fault = (
                f"lease of {sorted(self._claims)!r} must be kept while the run writes; found it "
                f"lost: {reason}; the run ends and may be started again"
            )
        logger.error("%s", self._fault)
        self._on_lost()

    def _away(self, found: object) -> Exception:
        servers = bootstrap_servers(self._settings)
        msg = (
            f"broker at {servers!r} must grant the leases {sorted(self._claims)!r}; "
            f"found {str(found)!r}; start it, or allow these groups to the user"
        )
        return BrokerAwayError(msg)


def _members(answer: Any) -> list[Member]:
    try:
        found = answer.result().members
    except KafkaException as e:
        if e.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return []
        raise
    return [
        Member(
            member_id=one.member_id,
            instance=one.group_instance_id or "",
            client=one.client_id,
            host=one.host,
        )
        for one in found
    ]
