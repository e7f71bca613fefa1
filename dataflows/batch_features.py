"""Features of recorded data by the operators that run live."""

import polars as pl

from dataflows.parts import SessionLibrary
from dataflows.recorded_session import PARTITION, RecordedSession
from dataflows.signal_steps import join_features, vector_columns
from infra.settings import Settings
from operators.bars import BarMachine
from operators.features import FeatureMachine
from operators.screen import TickScreen
from schemas.features import FEATURE_SCHEMAS
from schemas.instruments import InstrumentBook

BAR_COLUMNS = (
    "id", "venue", "symbol", "timeframe", "open_time_ns", "close_time_ns",
    "open", "high", "low", "close", "volume",
)  # fmt: skip


def compute_features(
    settings: Settings, session: RecordedSession, timeframe: str, schema_name: str
) -> pl.DataFrame:
    """Return one row per closed bar of `timeframe`: the bar, its features and the missing mask.

    Raises:
        ValueError: The schema is unknown or the session holds a tick that the log would refuse.
    """
    if schema_name not in FEATURE_SCHEMAS:
        msg = f"schema must be one of {', '.join(FEATURE_SCHEMAS)}; found {schema_name!r}"
        raise ValueError(msg)
    book = InstrumentBook(session.instruments())
    lateness_ns = settings.bars.lateness_ms * 1_000_000
    screen = TickScreen(PARTITION, lateness_ns)
    bars = BarMachine(PARTITION, [timeframe], SessionLibrary())
    features = FeatureMachine(FEATURE_SCHEMAS[schema_name])
    parts = []
    for batch in session.batches(book, lateness_ns):
        screened = screen.on_ticks(batch.ticks, book)
        closed = bars.on_ticks(screened.accepted, screened.duplicates, screened.watermark_ns, book)
        if closed.height:
            parts.append(join_features(features, closed))
    joined = pl.concat(parts) if parts else join_features(features, bars.open_bars_frame().clear())
    vector = vector_columns(FEATURE_SCHEMAS[schema_name], joined)
    return joined.select(*BAR_COLUMNS, *vector, "missing_mask")
