"""The records of one session as frames, from a folder of Parquet files or from the archive."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import polars as pl
from msgspec import Struct

from infra.folder_sink import topic_file
from schemas.frames import polars_schema, to_frame
from schemas.market import BarClosed, FeaturesComputed, InstrumentListed
from schemas.models import ModelEventRecorded
from schemas.operations import SettingsPublished
from schemas.opinions import OpinionPooled
from schemas.settings import TIMEFRAME_NS
from schemas.signals import SignalEmitted
from schemas.topics import TOPICS
from schemas.trading import DecisionMade, OrderFilled, OrderUpdated, OutcomeClosed, PositionChanged

BARS = BarClosed.topic
FEATURES = FeaturesComputed.topic

LOADED: tuple[type[Struct], ...] = (
    InstrumentListed,
    ModelEventRecorded,
    OpinionPooled,
    SignalEmitted,
    DecisionMade,
    OrderUpdated,
    OrderFilled,
    PositionChanged,
    OutcomeClosed,
    SettingsPublished,
)
"""Messages whose every record is loaded; bars are loaded in part, features only counted."""

READ: Mapping[str, tuple[str, ...]] = {
    BARS: ("venue", "symbol", "timeframe", "close_time_ns", "high", "low", "close"),
    OpinionPooled.topic: ("event_time_ns", "pooled_buy", "decided_stance"),
    DecisionMade.topic: (
        "id", "cause", "account", "strategy", "venue", "symbol", "event_time_ns", "action",
        "verdict", "denial", "justification",
    ),
}  # fmt: skip
"""Columns that the figures read, of topics whose other columns are most of their memory."""

VOTE_FIELDS = (
    "voter", "kind", "version", "content_hash", "stance", "probability_sell", "probability_buy",
    "weight",
)  # fmt: skip
"""What the figures read of a vote."""

SETTLING = ("venue", "symbol", "timeframe", "close_time_ns", "close")
"""Columns of the bars at which the horizons of signals closed."""

COUNTED = (BARS, FEATURES, *(message.topic for message in LOADED if hasattr(message, "topic")))

SETTINGS_FILE = "settings.json"
"""What a backtest writes beside its tables: the effective settings and their hash."""

SERIES_POINTS_MAX = 10_000
"""Bars per symbol in the loaded series."""

SERIES_ROWS_MAX = 200_000

SERIES = ("venue", "symbol")

COVERAGE = pl.Schema(
    {
        "venue": pl.String(),
        "symbol": pl.String(),
        "timeframe": pl.String(),
        "provenance": pl.String(),
        "bars": pl.Int64(),
        "trades": pl.Int64(),
        "first_open_ns": pl.Int64(),
        "last_close_ns": pl.Int64(),
    }
)
"""What bars a session has, without the bars."""

LATENCY = pl.Schema(
    {"topic": pl.String(), "records": pl.Int64(), "p50_ms": pl.Float64(), "p99_ms": pl.Float64()}
)


@dataclass(frozen=True, kw_only=True)
class SessionTables:
    """Frames of one session by topic, each with the columns of `loaded_schema`."""

    name: str
    source: Literal["folder", "environment"]
    frames: Mapping[str, pl.DataFrame]
    """By topic; `market.bars` holds only the series that the report draws."""
    settling_bars: pl.DataFrame
    """The bars (`SETTLING`) at which the horizons of the signals closed, as far as they exist."""
    coverage: pl.DataFrame
    """Number and span of all bars, by series, timeframe and provenance (`COVERAGE`)."""
    counts: Mapping[str, int]
    """Records per topic."""
    latency: pl.DataFrame | None = None
    """Milliseconds from reading the newest ticks behind a record to handing it to the log."""
    config_hashes: tuple[str, ...] = ()
    """Settings behind the records, in the order in which they were first used."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The newest effective settings, empty if the session does not hold them."""

    def __getitem__(self, topic: str) -> pl.DataFrame:
        """Return the frame of `topic`, empty if there is none; raises KeyError if it is unknown."""
        found = self.frames.get(topic)
        return empty_frame(topic) if found is None else found

    @property
    def symbols(self) -> list[tuple[str, str]]:
        """Every (venue, symbol) with a bar, in order."""
        return sorted(set(self.coverage.select(SERIES).rows()))

    @property
    def traded(self) -> list[tuple[str, str]]:
        """Every (venue, symbol) with a fill, in order."""
        return sorted(set(self[OrderFilled.topic].select(SERIES).rows()))


def empty_frame(topic: str) -> pl.DataFrame:
    """Return a frame of `topic` without rows; raises KeyError for an unknown topic."""
    message = TOPICS[topic].message
    assert message is not None
    return pl.DataFrame(schema=loaded_schema(message))


def loaded_names(message: type[Struct]) -> list[str]:
    """Return the columns of `message` that are loaded."""
    return list(READ.get(topic_of(message), polars_schema(message)))


def loaded_columns(message: type[Struct]) -> list[pl.Expr]:
    """Return the columns of `message` as they are loaded: of a vote only `VOTE_FIELDS`."""
    vote = pl.struct(pl.element().struct.field(name) for name in VOTE_FIELDS)
    return [
        pl.col(name).list.eval(vote) if name == "votes" else pl.col(name)
        for name in loaded_names(message)
    ]


@cache
def loaded_schema(message: type[Struct]) -> pl.Schema:
    """Return the schema of a frame of `message` as it is loaded."""
    whole = pl.LazyFrame(schema=polars_schema(message))
    return whole.select(loaded_columns(message)).collect_schema()


def load_folder(path: Path) -> SessionTables:
    """Return the session that `path` holds as one Parquet file per topic; a missing file is empty.

    Bars and features are scanned, never held whole, and of the others what a figure reads.

    Raises:
        FileNotFoundError: `path` is no folder.
        ValueError: A file lacks a column of its message, or holds another type.
    """
    if not path.is_dir():
        msg = f"session folder must exist; found {str(path)!r}; run a backtest with --out first"
        raise FileNotFoundError(msg)
    frames = {
        topic_of(message): in_order(
            _scan_file(path, message).select(loaded_columns(message)).collect(engine="streaming")
        )
        for message in LOADED
    }
    features = _scan_file(path, FeaturesComputed).select(pl.len()).collect(engine="streaming")
    found = _assemble(path.resolve().name, frames, _scan_file(path, BarClosed), features.item())
    written = path / SETTINGS_FILE
    if not written.exists():
        return found
    published = msgspec.json.decode(written.read_bytes())
    return replace(found, config_hashes=(published["hash"],), settings=published["settings"])


def build_session(name: str, messages: Iterable[Struct]) -> SessionTables:
    """Return the session of records that are at hand; a message of another topic is left out."""
    rows: dict[str, list[Struct]] = {topic: [] for topic in COUNTED}
    for message in messages:
        rows.get(topic_of(type(message)), []).append(message)
    frames = {
        topic_of(message): in_order(
            to_frame(message, rows[topic_of(message)]).select(loaded_columns(message))
        )
        for message in LOADED
    }
    return _assemble(name, frames, to_frame(BarClosed, rows[BARS]).lazy(), len(rows[FEATURES]))


def _assemble(
    name: str, frames: dict[str, pl.DataFrame], bars: pl.LazyFrame, features: int
) -> SessionTables:
    coverage = (
        bars.group_by("venue", "symbol", "timeframe", "provenance")
        .agg(
            bars=pl.len().cast(pl.Int64),
            trades=pl.col("trades").sum(),
            first_open_ns=pl.col("open_time_ns").min(),
            last_close_ns=pl.col("close_time_ns").max(),
        )
        .select(list(COVERAGE))
        .sort("venue", "symbol", "timeframe", "provenance")
        .collect(engine="streaming")
    )
    wanted = wanted_series(frames[OrderFilled.topic], coverage)
    series = (
        bars.select(loaded_columns(BarClosed))
        .filter(pl.col("timeframe") == choose_timeframe(coverage))
        .join(wanted.lazy(), on=list(SERIES), how="semi")
    )
    settling_at = settling_keys(frames[SignalEmitted.topic])
    settling = (
        bars.select(SETTLING)
        # The join keeps all that it is given until it ends: most bars are of other timeframes.
        .filter(pl.col("timeframe").is_in(settling_at["timeframe"].unique().to_list()))
        .join(settling_at.lazy(), on=settling_at.columns, how="semi")
    )
    counts = {topic: frame.height for topic, frame in frames.items()}
    settings = frames[SettingsPublished.topic]
    return SessionTables(
        name=name,
        source="folder",
        frames=frames | {BARS: in_order(series.collect(engine="streaming"))},
        settling_bars=in_order(settling.collect(engine="streaming")),
        coverage=coverage,
        counts=counts | {BARS: int(coverage["bars"].sum()), FEATURES: features},
        config_hashes=tuple(settings["id"].unique(maintain_order=True)),
        settings=read_settings(settings),
    )


def _scan_file(folder: Path, message: type[Struct]) -> pl.LazyFrame:
    schema = polars_schema(message)
    path = topic_file(folder, topic_of(message))
    if not path.exists():
        return pl.LazyFrame(schema=schema)
    scan = pl.scan_parquet(path)
    found = scan.collect_schema()
    wrong = [name for name, dtype in schema.items() if found.get(name) != dtype]
    if wrong:
        msg = (
            f"file {path.name!r} must have the columns of its message; found {wrong!r} missing or of "
            "another type; write it again with this version"
        )
        raise ValueError(msg)
    return scan.select(list(schema))


def topic_of(message: type[Struct]) -> str:
    """Return the topic of a message class."""
    topic: str = message.topic  # type: ignore[attr-defined]
    return topic


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Return `frame` by its event time, records of one instant as they came."""
    time = next((name for name in ("event_time_ns", "close_time_ns") if name in frame.columns), "")
    return frame.sort(time, maintain_order=True) if time else frame


def wanted_series(fills: pl.DataFrame, coverage: pl.DataFrame) -> pl.DataFrame:
    """Return (venue, symbol) of the series to draw: the traded ones, or all if nothing traded."""
    keys = (coverage if fills.is_empty() else fills).select(SERIES)
    return keys.unique().sort(SERIES)


def choose_timeframe(coverage: pl.DataFrame) -> str:
    """Return the finest timeframe that is light enough to draw, else the coarsest; "" if none."""
    series = coverage.group_by("timeframe", *SERIES).agg(pl.col("bars").sum())
    sizes = series.group_by("timeframe").agg(pl.col("bars").max(), total=pl.col("bars").sum())
    found = sorted(sizes.rows(), key=lambda row: TIMEFRAME_NS[row[0]])
    for timeframe, longest, total in found:
        if longest <= SERIES_POINTS_MAX and total <= SERIES_ROWS_MAX:
            return str(timeframe)
    return str(found[-1][0]) if found else ""


def settling_keys(signals: pl.DataFrame) -> pl.DataFrame:
    """Return the bars at which the horizons of `signals` close if no bar is missing between."""
    length_ns = pl.col("timeframe").replace_strict(TIMEFRAME_NS, return_dtype=pl.Int64)
    return signals.select(
        *SERIES,
        "timeframe",
        close_time_ns=pl.col("event_time_ns") + pl.col("horizon_bars") * length_ns,
    ).unique()


def read_settings(published: pl.DataFrame) -> dict[str, Any]:
    """Return the newest of the published settings; empty if there are none."""
    if published.is_empty():
        return {}
    found: dict[str, Any] = msgspec.json.decode(published["settings_json"][-1])
    return found
