"""Typed settings, one section per part; `infra.settings` loads them from TOML and the environment."""

from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Timeframe = Literal["1m", "5m", "1h", "1d"]

TIMEFRAME_NS: dict[str, int] = {
    "1m": 60_000_000_000,
    "5m": 300_000_000_000,
    "1h": 3_600_000_000_000,
    "1d": 86_400_000_000_000,
}
"""Length of each timeframe; a session-aware day may be shorter."""


class Section(BaseModel):
    """Base of every section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    """Where the log lives."""

    bootstrap: str = ""
    """`host:port[,host:port]` of an external cluster; empty starts the embedded broker."""
    embedded_port: int = Field(default=19092, ge=1, le=65535)
    client: Literal["confluent", "kafka-python"] = "confluent"
    """Which client reads the hot topics."""
    partitions: int = Field(default=4, ge=1, le=1024)
    replication_factor: int = Field(default=1, ge=1)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    username: str = ""
    password: SecretStr = SecretStr("")
    ca_file: str = ""
    fetch_records_max: int = Field(default=10_000, ge=1)
    fetch_bytes_max: int = Field(default=8 * 1024 * 1024, ge=1024)


class StoreSettings(Section):
    """Where the tables live: ClickHouse over HTTP."""

    url: str = ""
    """`http[s]://host:port` of an external server; empty starts the embedded store."""
    embedded_port: int = Field(default=18123, ge=1, le=65535)
    user: str = "quantstream"
    password: SecretStr = SecretStr("")
    """Empty with the embedded store means: a random one, kept in the state folder."""
    ca_file: str = ""
    database: str = Field(default="quantstream", pattern=r"^[a-z][a-z0-9_]{0,62}$")


class BarSettings(Section):
    """How ticks become bars."""

    timeframes: tuple[Timeframe, ...] = ("5m", "1h", "1d")
    lateness_ms: int = Field(default=2_000, ge=0, le=3_600_000)
    """A tick this much older than the newest of its partition is late."""


class FeatureSettings(Section):
    """Which feature schema is published."""

    schema_name: Literal["fs34", "fs64"] = "fs34"


class StrategySettings(Section):
    """One rule strategy."""

    enabled: bool = True
    timeframe: Timeframe | None = None
    """Overrides the timeframe that the strategy declares."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the strategy's own parameters; unknown names stop the start."""


class ModelSettings(Section):
    """One voter that is not a rule."""

    enabled: bool = True
    kind: Literal["onnx", "river"]
    artefact: str = ""
    """Folder of the ONNX file and its card, relative to `onnx_models/` or absolute."""
    timeframe: Timeframe = "1h"
    horizon_bars: int = Field(default=4, ge=1)
    warm_up_events: int = Field(default=100, ge=0)
    """Events that an online learner must have learnt before it votes."""
    weight: float = Field(default=1.0, ge=0.0)


def default_models() -> dict[str, ModelSettings]:
    """Return the voters that are on by default."""
    return {
        "lightgbm": ModelSettings(kind="onnx", artefact="artefacts/lightgbm_1h"),
        "river_logistic": ModelSettings(kind="river"),
    }


def default_strategies() -> dict[str, StrategySettings]:
    """Return the rule strategies that are on by default."""
    return {
        "rsi_mean_reversion": StrategySettings(),
        "breakout_momentum": StrategySettings(),
        "bollinger_bounce": StrategySettings(),
        "ma_crossover": StrategySettings(),
    }


class VoteSettings(Section):
    """How votes become a score."""

    rule_weight: float = Field(default=1.0, gt=0.0)
    score_min: float = Field(default=0.0, ge=-1.0, le=1.0)
    """An entry whose score is below this is denied (VOTE_AGAINST)."""


class PortfolioSettings(Section):
    """Capital, sizing and limits of the account. All caps hold together: the tightest wins."""

    starting_cash_usd: Decimal = Field(default=Decimal(100_000), gt=0)
    risk_per_trade_pct: Decimal = Field(default=Decimal("1.0"), gt=0, le=10)
    """Share of equity lost if the protective stop is hit."""
    position_notional_max_pct: Decimal = Field(default=Decimal(5), gt=0, le=100)
    gross_notional_max_pct: Decimal = Field(default=Decimal(100), gt=0, le=100)
    positions_max: int = Field(default=20, ge=1)
    orders_per_minute_max: int = Field(default=60, ge=1)
    daily_loss_max_pct: Decimal = Field(default=Decimal(5), gt=0, le=100)
    drawdown_max_pct: Decimal = Field(default=Decimal(15), gt=0, le=100)
    stale_after_ms: int = Field(default=900_000, ge=1)
    """An entry is denied if the symbol's newest tick is older than this at decision time."""
    trade_from: str = ""
    """ISO time before which entries are denied (WARMING_UP); empty: no limit."""
    provenances: tuple[Literal["recorded", "live", "reconstructed"], ...] = (
        "recorded",
        "live",
        "reconstructed",
    )
    """Kinds of market data that may open a position; synthetic never may."""


class PaperSettings(Section):
    """How the paper venue fills."""

    latency_ms: int = Field(default=250, ge=0)
    """From decision to the venue; an order fills only on later ticks."""
    half_spread_bps: Decimal = Field(default=Decimal("1.0"), ge=0)
    """Used when the feed has no quotes."""
    participation_max: Decimal = Field(default=Decimal("0.25"), gt=0, le=1)
    """Largest share of a tick's size that one of our orders takes."""
    order_lifetime_ms: int = Field(default=60_000 * 15, ge=1)
    """Event time after which what is left of a market entry is cancelled."""


class ServeSettings(Section):
    """Metrics and health over HTTP, loopback only."""

    host: str = "127.0.0.1"
    base_port: int = Field(default=19200, ge=1, le=65000)
    """Each process of the stack takes `base_port` plus its own offset; 0 offset is `trading`."""
    stale_after_seconds: int = Field(default=30, ge=1)
    """Without useful work for this long while there is work to do, health is not ok."""


class RunSettings(Section):
    """How a dataflow runs."""

    epoch_ms: int = Field(default=500, ge=1, le=60_000)
    """Interval of recovery snapshots."""
    skew_ms_max: int = Field(default=3_600_000, ge=1)
    """How far one partition may run ahead of another in event time."""


class ControlSettings(Section):
    """Who may command."""

    public_keys: dict[str, str] = Field(default_factory=dict)
    """Ed25519 public keys by signer, base64; empty means the key that the state folder holds."""
