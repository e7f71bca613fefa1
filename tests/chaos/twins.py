"""Two environments with the same log: one that is harmed, and a calm one that says what is right."""

import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dataflows.archive_client import open_archive
from dataflows.stack import kafka_settings
from infra.control import load_or_create_key, sign_command
from infra.kafka.producer import BatchProducer
from infra.records import FetchedRecord
from infra.settings import Settings
from schemas.codec import decode, encode
from schemas.models import BAR_KINDS, ModelEventRecorded
from schemas.operations import ControlCommanded
from schemas.topics import full_name
from tests.integration.end_state import (
    DERIVED,
    first_difference,
    messages,
    read_records,
    table_state,
    topic_state,
)

GIVEN = ("market.instruments", "market.ticks")
"""Topics that come from outside."""
COMMANDS = ("ops.control", "ops.applied")
"""Topics that say what an operator did and from when it counted."""

Located = tuple[str, int, FetchedRecord]
"""Topic, partition and record."""


def read_log(settings: Settings, topics: Iterable[str]) -> list[Located]:
    """Return the records of `topics` in the order in which they were appended."""
    found = [
        (topic, partition, record)
        for topic in topics
        for partition, record in read_records(settings, topic)
    ]
    rank = {topic: number for number, topic in enumerate(topics)}
    return sorted(found, key=lambda each: (rank[each[0]], each[2].timestamp_ms))


def read_changes(settings: Settings) -> list[Located]:
    """Return what says from when which version of a model counted, as `read_log` does.

    Like an applied command it is an answer to what an operator did, not to the ticks: a log with the
    answers of the account and without those of the lanes would let the models begin behind both.
    """
    return [
        (topic, partition, _of_first_writer(record))
        for topic, partition, record in read_log(settings, (ModelEventRecorded.topic,))
        if decode(ModelEventRecorded, record.value or b"").kind not in BAR_KINDS
    ]


def _of_first_writer(record: FetchedRecord) -> FetchedRecord:
    """Return `record` as if no writer had died before it: the calm lanes go on behind it."""
    headers = [(name, b"1" if name == "epoch" else value) for name, value in record.headers or ()]
    return record._replace(headers=headers)


def write_log(settings: Settings, records: Iterable[Located], seconds: float = 0.0) -> None:
    """Append `records` as they are, spread over `seconds`."""
    records = list(records)
    producer = BatchProducer(kafka_settings(settings))
    started = time.monotonic()
    for number, (topic, partition, record) in enumerate(records):
        due = started + seconds * number / len(records)
        if due > time.monotonic():
            producer.flush()
            time.sleep(max(0.0, due - time.monotonic()))
        producer.send(
            full_name(settings.environment, topic),
            partition,
            record.key,
            record.value,
            record.headers or [],  # type: ignore[arg-type]
            record.timestamp_ms,
        )
    producer.flush()
    producer.close()


class Drip(threading.Thread):
    """Appends records slowly, beside the test."""

    def __init__(self, settings: Settings, records: list[Located], seconds: float) -> None:
        super().__init__(name="drip", daemon=True)
        self._work = (settings, records, seconds)
        self.start()

    def run(self) -> None:
        """Append."""
        write_log(*self._work)


def sign_again(settings: Settings, records: Iterable[Located]) -> list[Located]:
    """Return `records`, every command signed for the environment of `settings`; its id stays."""
    key = load_or_create_key(settings.state_dir)
    return [
        (topic, partition, _signed_for(settings, key, record) if topic == COMMANDS[0] else record)
        for topic, partition, record in records
    ]


def _signed_for(settings: Settings, key: Ed25519PrivateKey, record: FetchedRecord) -> FetchedRecord:
    given = decode(ControlCommanded, record.value or b"")
    signed = sign_command(
        key,
        environment=settings.environment,
        account=given.account,
        command=given.command,
        reason=given.reason,
        issued_at_ns=given.issued_at_ns,
        signer=given.signer,
        model=given.model,
        version=given.version,
    )
    assert signed.id == given.id
    return record._replace(value=encode(signed))


def copy_keys(origin: Settings, copy: Settings) -> None:
    """Let the operator of `origin` command `copy`."""
    folder = copy.state_dir / "keys"
    shutil.rmtree(folder, ignore_errors=True)
    if (origin.state_dir / "keys").exists():
        shutil.copytree(origin.state_dir / "keys", folder)


def differing_topics(harmed: Settings, calm: Settings) -> list[str]:
    """Return, in words, every topic that is not the same set of records, each of them once."""
    found = []
    for topic in DERIVED:
        left, right = topic_state(harmed, topic), topic_state(calm, topic)
        if left != right or left.doubled:
            found.append(f"{left.doubled} doubled; {first_difference(harmed, calm, topic)}")
    return found


def differing_tables(harmed: Settings, calm: Settings) -> list[str]:
    """Return every table whose rows under FINAL differ."""
    clients: list[Any] = [open_archive(settings) for settings in (harmed, calm)]
    found = []
    for topic in DERIVED:
        left, right = (table_state(client, topic) for client in clients)
        if left != right:
            found.append(f"{topic}: {left} instead of {right}")
    ticks = [
        client.query(
            "SELECT count(), toString(sum(cityHash64(* EXCEPT (_ingest_ns)))) "
            "FROM market_ticks FINAL"
        ).result_rows[0]
        for client in clients
    ]
    if ticks[0] != ticks[1]:
        found.append(f"market_ticks: {ticks[0]} instead of {ticks[1]}")
    for client in clients:
        client.close()
    return found


def last_ledger(settings: Settings) -> dict[str, Any]:
    """Return cash and realised P&L at the end, and every open position."""
    positions: dict[tuple[str, str], Any] = {}
    cash = equity = None
    for change in messages(settings, "trade.positions"):
        positions[change.strategy, change.symbol] = change.quantity
        cash, equity = change.cash, change.equity
    held = {leg: quantity for leg, quantity in positions.items() if quantity}
    return {"cash": cash, "equity": equity, "positions": held}


def state_bytes(folder: Path) -> int:
    """Return how large a recovery folder is."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
