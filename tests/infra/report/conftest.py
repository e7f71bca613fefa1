"""The session that every test of the report adds up."""

import pytest

from infra.report.session import build_session
from infra.report.summary import summarise
from tests.infra.report.ledger_of_two import CASH, session_records


@pytest.fixture(scope="session")
def session():
    """The hand-computed session."""
    return build_session("by-hand", session_records())


@pytest.fixture(scope="session")
def summary(session):
    """Its summary."""
    return summarise(session, CASH)


@pytest.fixture(scope="session")
def empty():
    """A session in which nothing happened."""
    return build_session("nothing", [])
