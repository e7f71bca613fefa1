"""One recorded session, with invalid records in it, traded and archived by real processes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from dataflows.archive_client import open_archive
from dataflows.replay import publish_instruments, replay
from dataflows.stack import kafka_settings
from infra.kafka.producer import BatchProducer
from infra.settings import Settings
from tests.integration.invalid_records import publish_invalid
from tests.integration.session_run import (
    SYMBOLS,
    Excerpt,
    RunningFlow,
    finished,
    open_session,
    prepare,
    running,
    session_settings,
    wait_until,
)


class Played(Struct, kw_only=True):
    """A session that was played to its end."""

    settings: Settings
    files: list[Path]
    flows: dict[str, RunningFlow]
    client: Any
    expected_reasons: dict[str, str]
    ticks: int
    seconds: float
    """Wall time from the first record to the last commit of `trading`."""


@pytest.fixture(scope="session")
def excerpt_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return Excerpt().cut(tmp_path_factory.mktemp("excerpt"))


@pytest.fixture(scope="session")
def played(
    broker: str, store: Any, tmp_path_factory: pytest.TempPathFactory, excerpt_files: list[Path]
) -> Iterator[Played]:
    """A whole session through `trading` and `archive`, both still running."""
    folder = tmp_path_factory.mktemp("played")
    settings = prepare(session_settings(folder, "played", broker, store))
    session = open_session(excerpt_files)
    producer = BatchProducer(kafka_settings(settings))
    publish_instruments(settings, producer, session.instruments())
    producer.close()
    with running(settings, {"trading": 1, "archive": 1}) as flows:
        expected = publish_invalid(settings, session.start_ns, SYMBOLS[0])
        wait_until(finished(settings, ("trading",)), "start of trading", flows)
        started = time.monotonic()
        done = replay(settings, session)
        wait_until(finished(settings, ("trading",)), "trading", flows)
        seconds = time.monotonic() - started
        wait_until(finished(settings, ("trading", "archive")), "archive", flows)
        client = open_archive(settings)
        yield Played(
            settings=settings,
            files=excerpt_files,
            flows=flows,
            client=client,
            expected_reasons=expected,
            ticks=done.ticks,
            seconds=seconds,
        )
        client.close()
