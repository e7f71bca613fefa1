"""The audit over a real broker and a real store, filled by plain clients."""

from uuid import uuid4

import pytest

from infra.audit.audit import Audit, EnvironmentRunningError
from infra.audit.log import EnvironmentMissingError, KafkaLog
from infra.audit.tables import AuditedStore, StoreUnreadableError
from tests.infra.audit.facts import SETTINGS, heartbeat
from tests.infra.audit.stack_world import append, archive, clickhouse, kafka, publish
from tests.infra.audit.world import session

pytestmark = pytest.mark.stack


class Environment:
    """One environment in the shared broker and store."""

    def __init__(self, broker, store, name):
        self.broker, self.store, self.name = broker, store, name
        self.client = store.connect()
        self.database = f"audited_{name}"

    def fill(self, logged, archived):
        publish(self.broker, self.name, logged)
        archive(self.client, self.database, archived)

    def audit(self, *, meanwhile=None, settle_seconds=0.0, allow_running=False):
        log = KafkaLog(kafka(self.broker), self.name, settle_seconds)
        store = AuditedStore(clickhouse(self.store), self.name)
        if meanwhile is not None:
            meanwhile()
        try:
            return Audit(self.name, log, store, SETTINGS).run(allow_running=allow_running)
        finally:
            log.close()
            store.close()

    def command(self, sql):
        self.client.command(sql, settings={"mutations_sync": 2})


def filled(broker, store):
    found = Environment(broker, store, f"t{uuid4().hex[:10]}")
    found.fill(session(), session())
    yield found
    found.client.command(f"DROP DATABASE {found.database}")
    found.client.close()


@pytest.fixture(scope="module")
def environment(broker, store):
    """One for all tests, which leave it as it was."""
    yield from filled(broker, store)


@pytest.fixture
def growing_environment(broker, store):
    yield from filled(broker, store)


def in_copy(environment, table, change):
    """Run the audit while `table` is changed; put the table back afterwards."""
    client, kept = environment.client, f"{table}_kept"
    client.command(f"CREATE TABLE {kept} AS {table}")
    client.command(f"INSERT INTO {kept} SELECT * FROM {table}")
    try:
        for sql in change:
            environment.command(sql)
        return environment.audit()
    finally:
        client.command(f"EXCHANGE TABLES {kept} AND {table}")
        client.command(f"DROP TABLE {kept}")


def test_a_true_environment_is_clean(environment):
    report = environment.audit()
    assert report.first is None
    assert report.notes == []
    assert all(check.rows for check in report.checks)
    assert {check.name for check in report.checks if check.skipped} == {"features"}


@pytest.mark.parametrize(
    ("change", "check", "rule", "topic", "offset"),
    [
        (
            "DELETE FROM {d}.trade_fills WHERE purpose = 'entry'",
            *("tables", "is a row of the table", "trade.fills", 0),
        ),
        (
            "INSERT INTO {d}.trade_fills SELECT * REPLACE('x' AS id) FROM {d}.trade_fills LIMIT 1",
            *("tables", "is a record of the topic", "trade.fills", 0),
        ),
        (
            (
                "INSERT INTO {d}.trade_fills SELECT * REPLACE(fee + toDecimal128('0.000000000001', 12)"
                " AS fee, _version + 9 AS _version) FROM {d}.trade_fills WHERE purpose = 'exit'"
            ),
            *("tables", "column fee", "trade.fills", 1),
        ),
        (
            (
                "INSERT INTO {d}.trade_decisions SELECT * REPLACE(arrayPopBack(checks) AS checks,"
                " _version + 9 AS _version) FROM {d}.trade_decisions WHERE verdict = 'denied'"
            ),
            *("tables", "column checks", "trade.decisions", 2),
        ),
        (
            (
                "INSERT INTO {d}.market_features SELECT * REPLACE(arrayReverse(vector) AS vector,"
                " _version + 9 AS _version) FROM {d}.market_features LIMIT 1"
            ),
            *("tables", "column vector", "market.features", None),
        ),
        (
            "DELETE FROM {d}.market_ticks WHERE offset = 2 AND line = 1",
            *("conservation", "an accepted line is a row", "market.ticks", 2),
        ),
        (
            (
                "INSERT INTO {d}.market_ticks SELECT * REPLACE(99 AS line) FROM {d}.market_ticks"
                " WHERE offset = 2 AND price = 99.5"
            ),
            *("conservation", "is an accepted line of the log", "market_ticks", 2),
        ),
        (
            (
                "INSERT INTO {d}.market_ticks SELECT * REPLACE(price + 0.01 AS price)"
                " FROM {d}.market_ticks WHERE offset = 2 AND line = 1"
            ),
            *("conservation", "says what the line says", "market.ticks", 2),
        ),
    ],
)
def test_a_false_table_is_found(environment, change, check, rule, topic, offset):
    table = change.split("{d}.")[1].split()[0]
    report = in_copy(environment, table, [change.format(d=environment.database)])
    found = report.check(check).first[0]
    assert rule in found.rule
    assert found.topic == topic
    assert offset in {None, found.offset}
    assert {each.name for each in report.checks if each.violations} == {check}


def test_a_log_that_grows_is_refused_unless_allowed(growing_environment):
    def grow():
        append(growing_environment.broker, growing_environment.name, [heartbeat(185, 1)])

    with pytest.raises(EnvironmentRunningError, match=r"market\.ticks/1"):
        growing_environment.audit(meanwhile=grow)
    report = growing_environment.audit(meanwhile=grow, allow_running=True)
    assert "grew" in report.notes[0]
    lost = report.check("conservation").first[0]
    assert (lost.topic, lost.partition, lost.offset) == ("market.ticks", 1, 1)


def test_an_unknown_environment_is_named(broker, store):
    with pytest.raises(EnvironmentMissingError, match="'nowhere' must have topics"):
        KafkaLog(kafka(broker), "nowhere")
    with pytest.raises(StoreUnreadableError, match="audited_nowhere"):
        AuditedStore(clickhouse(store), "nowhere")
