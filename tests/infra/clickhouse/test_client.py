import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from infra.clickhouse.client import (
    connect,
    database_name,
    ensure_database,
    query_rows,
    quoted,
    translated,
)
from infra.clickhouse.errors import StoreRefusedError, StoreUnavailableError
from infra.stack.process import find_free_port
from schemas.settings import StoreSettings


def test_each_environment_has_a_database_of_its_own():
    settings = StoreSettings(database="quantstream")
    assert database_name(settings, "paper") == "quantstream_paper"
    assert database_name(settings, "demo-2024-08") == "quantstream_demo_2024_08"


@pytest.mark.parametrize("name", ["", "a b", "a;DROP", "Ä", "a`b", "-a", "a" * 80])
def test_an_environment_that_sql_could_misread_is_refused(name):
    with pytest.raises(ValueError, match="environment must be lower-case"):
        database_name(StoreSettings(), name)


def test_identifiers_are_quoted_or_refused():
    assert quoted("market_ticks") == "`market_ticks`"
    with pytest.raises(ValueError, match="identifier must be"):
        quoted("a` b")


@pytest.mark.parametrize("url", ["127.0.0.1:8123", "ftp://localhost", "http://"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="store address must be http"):
        connect(StoreSettings(url=url))


def test_a_store_that_is_away_is_named_with_the_remedy():
    url = f"http://127.0.0.1:{find_free_port()}"
    with pytest.raises(
        StoreUnavailableError, match=r"must be answered in time; found .*; start the store"
    ):
        connect(StoreSettings(url=url))


@pytest.mark.stack
def test_a_wrong_password_is_refused_without_showing_it(store):
    settings = StoreSettings(url=store.url, user=store.user, password="not-the-one")
    with pytest.raises(StoreRefusedError, match="as user 'quantstream' must be accepted") as caught:
        connect(settings)
    assert "not-the-one" not in str(caught.value)


@pytest.mark.stack
def test_values_are_bound_by_the_server(client):
    hostile = "'; DROP TABLE trade_fills; --"
    assert query_rows(client, "SELECT {a:String} AS a", {"a": hostile}) == [{"a": hostile}]


@pytest.mark.stack
def test_creating_a_database_twice_changes_nothing(client):
    database = client.database
    ensure_database(client, database)
    assert client.command("SELECT currentDatabase()") == database


@pytest.mark.parametrize(
    ("code", "expected"),
    [(None, StoreUnavailableError), (252, StoreUnavailableError), (16, StoreRefusedError)],
)
def test_only_what_a_retry_can_mend_is_called_unavailable(code, expected):
    found = translated(DatabaseError("Code: x", code=code), "insert into 'facts'")
    assert type(found) is expected
    assert str(found).startswith("insert into 'facts' must be")
