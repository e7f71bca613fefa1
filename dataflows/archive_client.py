"""A client of the environment's tables."""

from clickhouse_connect.driver.client import Client

from dataflows.stack import store_settings
from infra.clickhouse.client import connect, database_name
from infra.settings import Settings


def open_archive(settings: Settings) -> Client:
    """Return a client bound to the database of the environment.

    Raises:
        StoreUnavailableError: Nothing answers; `quantstream up` starts the store.
    """
    store = store_settings(settings)
    return connect(store, database=database_name(store, settings.environment))
