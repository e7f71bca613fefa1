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
    """Loopback port of the embedded broker."""
    client: Literal["confluent", "kafka-python"] = "confluent"
    """Which client reads the hot topics and writes records."""
    partitions: int = Field(default=4, ge=1, le=1024)
    """Partitions of `market.ticks` and of every topic keyed by symbol; fixed once an environment exists."""
    replication_factor: int = Field(default=1, ge=1)
    """Copies of each topic; an external cluster wants 3."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How an external cluster is spoken to."""
    sasl_mechanism: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    """How a user proves itself; needed with the SASL protocols."""
    username: str = ""
    """User of an external cluster."""
    password: SecretStr = SecretStr("")
    """Password of an external cluster."""
    ca_file: str = ""
    """Certificates that an external cluster is trusted by; empty: those of the system."""
    fetch_records_max: int = Field(default=10_000, ge=1)
    """Most records that one fetch hands on."""
    fetch_bytes_max: int = Field(default=8 * 1024 * 1024, ge=1024)
    """Most bytes that one fetch asks for."""


class StoreSettings(Section):
    """Where the tables live: ClickHouse over HTTP."""

    url: str = ""
    """`http[s]://host:port` of an external server; empty starts the embedded store."""
    embedded_port: int = Field(default=18123, ge=1, le=65535)
    """Loopback port of the embedded store."""
    user: str = "quantstream"
    """User of the store."""
    password: SecretStr = SecretStr("")
    """Empty with the embedded store means: a random one, kept in the state folder."""
    ca_file: str = ""
    """Certificates that an external server is trusted by; empty: those of the system."""
    database: str = Field(default="quantstream", pattern=r"^[a-z][a-z0-9_]{0,62}$")
    """Prefix of the databases; an environment has `<database>_<environment>`."""


class BarSettings(Section):
    """How ticks become bars."""

    timeframes: tuple[Timeframe, ...] = ("5m", "1h", "1d")
    """Bars that are published, beside those that a strategy or model declares."""
    lateness_ms: int = Field(default=2_000, ge=0, le=3_600_000)
    """A tick this much older than the newest of its partition is late."""


class FeatureSettings(Section):
    """Which feature schema is published."""

    schema_name: Literal["fs34", "fs64"] = "fs34"
    """Feature list behind `market.features`."""


class StrategySettings(Section):
    """One rule strategy."""

    enabled: bool = True
    """Whether it runs."""
    timeframe: Timeframe | None = None
    """Overrides the timeframe that the strategy declares."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Overrides of the strategy's own parameters; unknown names stop the start."""


class ModelSettings(Section):
    """One voter that is not a rule."""

    enabled: bool = True
    """Whether it votes."""
    kind: Literal["onnx", "river"]
    """`onnx` scores a file, `river` learns online."""
    artefact: str = Field(default="", pattern=r"^([a-z][a-z0-9_]{0,47})?$")
    """Name of the model in the registry, whose active version votes; empty: the voter's own name."""
    timeframe: Timeframe = "1h"
    """Bars on which it votes."""
    learner: Literal["logistic", "hoeffding", "forest"] = "logistic"
    """What a `river` voter is: a softmax regression, an adaptive tree or a forest of them."""
    warm_up_events: int = Field(default=100, ge=0)
    """Events that an online learner must have learnt before it votes."""
    weight: float = Field(default=1.0, ge=0.0)
    """Weight of its vote before governance, relative to the others'."""


def default_models() -> dict[str, ModelSettings]:
    """Return the voters that are on by default."""
    return {
        "lightgbm": ModelSettings(kind="onnx", artefact="lightgbm_1h"),
        "nhits": ModelSettings(kind="onnx", artefact="nhits_1h"),
        "patchtst": ModelSettings(kind="onnx", artefact="patchtst_1h"),
        "river_forest": ModelSettings(kind="river", learner="forest"),
        "river_hoeffding": ModelSettings(kind="river", learner="hoeffding"),
        "river_logistic": ModelSettings(kind="river", learner="logistic"),
        "xgboost": ModelSettings(kind="onnx", artefact="xgboost_1h"),
    }


def default_strategies() -> dict[str, StrategySettings]:
    """Return the rule strategies that are on by default."""
    return {
        "ensemble": StrategySettings(),
        "rsi_mean_reversion": StrategySettings(),
        "breakout_momentum": StrategySettings(),
        "bollinger_bounce": StrategySettings(),
        "ma_crossover": StrategySettings(),
    }


class VoteSettings(Section):
    """How votes become a score."""

    score_min: float = Field(default=0.0, ge=-1.0, le=1.0)
    """An entry whose score is below this is denied (VOTE_AGAINST)."""
    opinion_required: bool = True
    """Whether an entry on which every enabled model is silent is denied too; without models it never is."""
    horizon_bars: int = Field(default=4, ge=1)
    """Bars after which the label of a vote closes; models of another horizon do not vote."""
    volatility_factor: float = Field(default=0.5, ge=0.0)
    """Share of the horizon's deviation that a label calls noise, on top of the costs."""
    fee_bps: float = Field(default=10.0, ge=0.0)
    """Fee of one side of a trade, for labels and expected edges."""
    half_spread_bps: float = Field(default=1.0, ge=0.0)
    """Half of the spread, paid on either side."""
    slippage_bps: float = Field(default=0.0, ge=0.0)
    """What else one side costs against the price of the decision."""
    edge_margin: float = Field(default=0.1, ge=0.0)
    """Share of the round trip's cost by which an expected edge must exceed zero."""
    lean_min: float = Field(default=0.02, ge=0.0, lt=1.0)
    """Least difference of buy and sell with which a model agrees with a direction."""
    tilt_half_life_bars: float = Field(default=168.0, ge=0.0)
    """Closes after which an opinion counts half in what a model says always, which is taken off; 0: nothing is."""
    weight_floor: float = Field(default=0.05, ge=0.0, le=0.5)
    """Least weight of a model that votes."""
    weight_cap: float = Field(default=0.60, gt=0.0, le=1.0)
    """Greatest weight of a model."""
    hedge_rate: float = Field(default=1.0, ge=0.0)
    """How fast weights follow the merit of the models; 0 leaves them as configured."""
    half_life_bars: float = Field(default=336.0, gt=0.0)
    """Closes after which a model's score counts half."""
    scored_min: int = Field(default=300, ge=1)
    """Votes that must have settled before a model is judged by its score."""


class PortfolioSettings(Section):
    """Capital, sizing and limits of the account. All caps hold together: the tightest wins."""

    starting_cash_usd: Decimal = Field(default=Decimal(100_000), gt=0)
    """Cash of the account before its first fill."""
    risk_per_trade_pct: Decimal = Field(default=Decimal("1.0"), gt=0, le=10)
    """Share of equity lost if the protective stop is hit."""
    position_notional_max_pct: Decimal = Field(default=Decimal(2), gt=0, le=100)
    """Largest entry, as a share of equity."""
    gross_notional_max_pct: Decimal = Field(default=Decimal(100), gt=0, le=100)
    """Largest sum of open positions and pending entries, as a share of equity."""
    positions_max: int = Field(default=20, ge=1)
    """Most open and pending positions."""
    orders_per_minute_max: int = Field(default=60, ge=1)
    """Most orders within 60 s of event time."""
    daily_loss_max_pct: Decimal = Field(default=Decimal(5), gt=0, le=100)
    """Loss since the day's start that stops entries, as a share of that equity."""
    drawdown_max_pct: Decimal = Field(default=Decimal(15), gt=0, le=100)
    """Fall from peak equity that stops entries, as a share of the peak."""
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
    """Address to listen on; anything but loopback is a decision of yours."""
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
    lease_seconds: int = Field(default=15, ge=6, le=300)
    """For how long the broker believes a silent run; another host starts no sooner."""


PROJECT_KEYS = {"project": "eVfP4UNxsHh1aBjNLsetKwxQLc6c4kJL2XS8k6Jlp04="}
"""Signer of the models that come with the release; its private half is in no repository."""


class RegistrySettings(Section):
    """Where models come from, and whose word counts."""

    root: str = ""
    """Folder of the registry; empty: `models` in the state folder, or the shipped one until that exists."""
    public_keys: dict[str, str] = Field(default_factory=PROJECT_KEYS.copy)
    """Ed25519 public keys by signer, base64; the key of the state folder counts beside them."""
    versions_kept: int = Field(default=10, ge=2)
    """Versions per model that are kept; what serves and what served before it always is."""


class ControlSettings(Section):
    """Who may command."""

    public_keys: dict[str, str] = Field(default_factory=dict)
    """Ed25519 public keys by signer, base64; empty means the key that the state folder holds."""
