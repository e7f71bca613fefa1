-- Rendered from the contracts in schemas/; do not edit.

CREATE TABLE IF NOT EXISTS market_ticks
(
    partition Int32,
    offset Int64,
    line Int32,
    kind LowCardinality(String),
    venue LowCardinality(String),
    symbol LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    price Nullable(Float64),
    size Nullable(Float64),
    side LowCardinality(String),
    trade_id Nullable(Int64),
    bid Nullable(Float64),
    ask Nullable(Float64),
    provenance LowCardinality(String),
    _ingest_ns DateTime64(9, 'UTC')
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (venue, symbol, event_time_ns, partition, offset, line)
TTL toDateTime(_ingest_ns) + INTERVAL 30 DAY;

CREATE TABLE IF NOT EXISTS market_bars
(
    id String,
    cause String,
    venue LowCardinality(String),
    symbol LowCardinality(String),
    timeframe LowCardinality(String),
    open_time_ns DateTime64(9, 'UTC'),
    close_time_ns DateTime64(9, 'UTC'),
    open Float64,
    high Float64,
    low Float64,
    close Float64,
    volume Float64,
    buy_volume Nullable(Float64),
    trades Int64,
    spread_bps_mean Nullable(Float64),
    gap_bars Int64,
    duplicates Int64,
    partition Int64,
    first_offset Int64,
    first_line Int64,
    last_offset Int64,
    last_line Int64,
    provenance LowCardinality(String),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(close_time_ns)
ORDER BY (venue, symbol, timeframe, close_time_ns);

CREATE TABLE IF NOT EXISTS market_features
(
    id String,
    cause String,
    venue LowCardinality(String),
    symbol LowCardinality(String),
    timeframe LowCardinality(String),
    close_time_ns DateTime64(9, 'UTC'),
    schema_name LowCardinality(String),
    schema_hash LowCardinality(String),
    vector Array(Nullable(Float64)),
    missing_mask UInt64,
    partition Int64,
    first_offset Int64,
    last_offset Int64,
    provenance LowCardinality(String),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(close_time_ns)
ORDER BY (venue, symbol, timeframe, close_time_ns, schema_name);

CREATE TABLE IF NOT EXISTS market_instruments
(
    id String,
    cause String,
    venue LowCardinality(String),
    symbol LowCardinality(String),
    valid_from_ns DateTime64(9, 'UTC'),
    price_decimals Int64,
    size_decimals Int64,
    tick_size Decimal(38, 12),
    lot_size Decimal(38, 12),
    notional_min Decimal(38, 12),
    maker_fee_bps Float64,
    taker_fee_bps Float64,
    calendar LowCardinality(String),
    sector LowCardinality(String),
    quote_currency LowCardinality(String),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(valid_from_ns)
ORDER BY (venue, symbol, valid_from_ns);

CREATE TABLE IF NOT EXISTS market_late
(
    id String,
    cause String,
    venue LowCardinality(String),
    symbol LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    late_by_ns Int64,
    partition Int64,
    offset Int64,
    line Int64,
    price Nullable(Float64),
    size Nullable(Float64),
    provenance LowCardinality(String),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (partition, offset, line);

CREATE TABLE IF NOT EXISTS market_context
(
    id String,
    cause String,
    venue LowCardinality(String),
    symbol LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    kind LowCardinality(String),
    regime LowCardinality(String),
    confidence Nullable(Float64),
    regime_since_ns DateTime64(9, 'UTC'),
    transitions Int64,
    source LowCardinality(String),
    version String,
    content_hash String,
    reason String,
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS model_opinions
(
    id String,
    cause String,
    venue LowCardinality(String),
    symbol LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    timeframe LowCardinality(String),
    voters Array(String),
    sell Array(Nullable(Float64)),
    buy Array(Nullable(Float64)),
    stances Array(String),
    weights Array(Float64),
    pooled_sell Nullable(Float64),
    pooled_buy Nullable(Float64),
    pooled_stance LowCardinality(String),
    agreement LowCardinality(String),
    agreeing Int64,
    multiplier Float64,
    edge_bps Nullable(Float64),
    threshold_bps Float64,
    decided_stance LowCardinality(String),
    bar_id String,
    provenance LowCardinality(String),
    raw_stances Array(String),
    tilts Array(Nullable(Float64)),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS trade_signals
(
    id String,
    cause String,
    venue LowCardinality(String),
    symbol LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    strategy LowCardinality(String),
    timeframe LowCardinality(String),
    action LowCardinality(String),
    stance LowCardinality(String),
    close Float64,
    stop_price Nullable(Float64),
    target_price Nullable(Float64),
    trail_distance Nullable(Float64),
    horizon_bars Int64,
    score Float64,
    votes Array(Tuple(voter LowCardinality(String), kind LowCardinality(String), version String, content_hash String, stance LowCardinality(String), probability_sell Nullable(Float64), probability_hold Nullable(Float64), probability_buy Nullable(Float64), weight Float64, reason String, weight_configured Nullable(Float64), role LowCardinality(String))),
    reason String,
    bar_id String,
    provenance LowCardinality(String),
    agreement LowCardinality(String),
    confidence Nullable(Float64),
    multiplier Nullable(Float64),
    expected_edge_bps Nullable(Float64),
    edge_threshold_bps Nullable(Float64),
    probability_sell Nullable(Float64),
    probability_hold Nullable(Float64),
    probability_buy Nullable(Float64),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS model_events
(
    id String,
    cause String,
    model LowCardinality(String),
    kind LowCardinality(String),
    version String,
    content_hash String,
    previous_version String,
    partition Int64,
    effective_from_ns DateTime64(9, 'UTC'),
    weight_configured Nullable(Float64),
    weight_effective Nullable(Float64),
    scored_events Nullable(Int64),
    log_loss Nullable(Float64),
    reason String,
    event_time_ns DateTime64(9, 'UTC'),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS trade_decisions
(
    id String,
    cause String,
    account LowCardinality(String),
    strategy LowCardinality(String),
    venue LowCardinality(String),
    symbol LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    action LowCardinality(String),
    verdict LowCardinality(String),
    denial LowCardinality(String),
    justification String,
    quantity Decimal(38, 12),
    reference_price Decimal(38, 12),
    equity Decimal(38, 12),
    checks Array(Tuple(check LowCardinality(String), measured String, limit String, verdict LowCardinality(String), reason String)),
    provenance LowCardinality(String),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS trade_orders
(
    id String,
    cause String,
    order_id String,
    client_order_id String,
    decision_id String,
    account LowCardinality(String),
    strategy LowCardinality(String),
    venue LowCardinality(String),
    symbol LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    sequence Int64,
    side LowCardinality(String),
    kind LowCardinality(String),
    purpose LowCardinality(String),
    status LowCardinality(String),
    quantity Decimal(38, 12),
    filled_quantity Decimal(38, 12),
    limit_price Nullable(Decimal(38, 12)),
    stop_price Nullable(Decimal(38, 12)),
    reduce_only Bool,
    reason String,
    provenance LowCardinality(String),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS trade_fills
(
    id String,
    cause String,
    order_id String,
    decision_id String,
    account LowCardinality(String),
    strategy LowCardinality(String),
    venue LowCardinality(String),
    symbol LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    side LowCardinality(String),
    purpose LowCardinality(String),
    quantity Decimal(38, 12),
    price Decimal(38, 12),
    fee Decimal(38, 12),
    fee_currency LowCardinality(String),
    liquidity LowCardinality(String),
    tick_price Decimal(38, 12),
    slippage_bps Float64,
    provenance LowCardinality(String),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS trade_positions
(
    id String,
    cause String,
    account LowCardinality(String),
    strategy LowCardinality(String),
    venue LowCardinality(String),
    symbol LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    quantity Decimal(38, 12),
    average_price Decimal(38, 12),
    stop_price Nullable(Decimal(38, 12)),
    target_price Nullable(Decimal(38, 12)),
    protected_quantity Decimal(38, 12),
    realised_pnl Decimal(38, 12),
    cash Decimal(38, 12),
    equity Decimal(38, 12),
    exposure Decimal(38, 12),
    peak_equity Decimal(38, 12),
    drawdown_pct Float64,
    provenance LowCardinality(String),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS trade_outcomes
(
    id String,
    cause String,
    account LowCardinality(String),
    strategy LowCardinality(String),
    venue LowCardinality(String),
    symbol LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    entry_decision_id String,
    exit_decision_id String,
    entry_time_ns DateTime64(9, 'UTC'),
    holding_ns Int64,
    quantity Decimal(38, 12),
    entry_price Decimal(38, 12),
    exit_price Decimal(38, 12),
    gross_pnl Decimal(38, 12),
    fees Decimal(38, 12),
    net_pnl Decimal(38, 12),
    return_pct Float64,
    exit_reason LowCardinality(String),
    entry_fills Int64,
    exit_fills Int64,
    provenance LowCardinality(String),
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS ops_control
(
    id String,
    cause String,
    account LowCardinality(String),
    command LowCardinality(String),
    reason String,
    issued_at_ns DateTime64(9, 'UTC'),
    signer LowCardinality(String),
    signature String,
    model LowCardinality(String),
    version String,
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(issued_at_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS ops_applied
(
    id String,
    cause String,
    account LowCardinality(String),
    command LowCardinality(String),
    event_time_ns DateTime64(9, 'UTC'),
    reason String,
    model LowCardinality(String),
    version String,
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS ops_settings
(
    id String,
    cause String,
    settings_json String,
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS ops_alerts
(
    id String,
    cause String,
    kind LowCardinality(String),
    resolved Bool,
    event_time_ns DateTime64(9, 'UTC'),
    text String,
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
PARTITION BY toYYYYMM(event_time_ns)
ORDER BY (id);

CREATE TABLE IF NOT EXISTS ops_dead_letters
(
    id String,
    cause String,
    source_topic LowCardinality(String),
    partition Int64,
    offset Int64,
    line Int64,
    reason LowCardinality(String),
    detail String,
    payload_base64 String,
    payload_bytes Int64,
    payload_sha256 String,
    _topic_partition Int32,
    _offset Int64,
    _version UInt64,
    _config LowCardinality(String),
    _epoch Int64,
    _ingest_ns Nullable(DateTime64(9, 'UTC')),
    _emit_ns Nullable(DateTime64(9, 'UTC'))
)
ENGINE = ReplacingMergeTree(_version)
ORDER BY (source_topic, partition, offset, line);
