"""The bars that an environment saw, as a data set that models are judged on."""

from collections.abc import Sequence

import polars as pl
from msgspec import Struct

from dataflows.stack import store_settings
from infra.clickhouse.bars import read_bars
from infra.clickhouse.client import connect, database_name
from infra.settings import Settings
from onnx_models.dataset import (
    PARTS_PER_HOUR,
    DataSet,
    ProvenanceError,
    build_data_set,
    choose_symbols,
    to_hourly,
)
from schemas.fields import Provenance, worst_provenance

JUDGED = frozenset({Provenance.LIVE, Provenance.RECORDED, Provenance.RECONSTRUCTED})
"""Bars that a model may be judged on. It is not made from them: a bar of trades that were rebuilt
from a recorded bar is that very bar, so its figures are as true as of the recording. Synthetic bars
would tell nothing of a market, and could still talk somebody into letting a version serve."""


class SeenBars(Struct, frozen=True, kw_only=True):
    """Bars of an environment and what they are."""

    data: DataSet
    timeframe: str
    """Of the bars; hours are made of shorter ones."""
    bars: dict[str, int]
    """Number of bars by provenance."""


def load_seen_bars(settings: Settings, symbols: Sequence[str] = ()) -> SeenBars:
    """Return the bars of the environment of `settings`, of `symbols` alone if any are named.

    The hours themselves if there are any, as the lanes voted on them, else those made of the longest
    bars up to an hour. All of them from the first on, so that features are what the lanes computed.

    Raises:
        LookupError: The archive holds no such environment, or no bars of these timeframes.
        ProvenanceError: A bar was made of synthetic ticks.
        StoreUnavailableError, StoreRefusedError: as `connect` says.
        ValueError: A symbol is not among the bars, or a feature has no value at all.
    """
    store = store_settings(settings)
    client = connect(store)
    try:
        database = database_name(store, settings.environment)
        bars = read_bars(client, database, list(PARTS_PER_HOUR)[::-1])
    finally:
        client.close()
    if not bars.height:
        msg = (
            f"environment {settings.environment!r} must have archived bars of "
            f"{', '.join(PARTS_PER_HOUR)}; found none; wait until one has closed and the archive "
            f"flow has written it"
        )
        raise LookupError(msg)
    bars = choose_symbols(bars, symbols)
    counts = count_provenances(bars)
    # Asked again, as a symbol may lack a whole hour.
    hourly = choose_symbols(to_hourly(bars), symbols)
    data = build_data_set(hourly, worst_provenance({*map(Provenance, counts)}))
    return SeenBars(data=data, timeframe=bars["timeframe"][0], bars=counts)


def count_provenances(bars: pl.DataFrame) -> dict[str, int]:
    """Return the number of `bars` by provenance; raises ProvenanceError for what may not judge."""
    counts = dict(bars["provenance"].value_counts().sort("provenance").iter_rows())
    if refused := sorted(set(counts) - JUDGED):
        msg = (
            f"models must be judged on bars of a market; found {refused!r} among the bars of the "
            f"environment; choose another environment"
        )
        raise ProvenanceError(msg)
    return counts
