-- Models as events, the regime around a symbol, and what the vote of the ensemble says about itself.

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

ALTER TABLE trade_signals
    ADD COLUMN IF NOT EXISTS agreement LowCardinality(String) AFTER provenance,
    ADD COLUMN IF NOT EXISTS confidence Nullable(Float64) AFTER agreement,
    ADD COLUMN IF NOT EXISTS multiplier Nullable(Float64) AFTER confidence,
    ADD COLUMN IF NOT EXISTS expected_edge_bps Nullable(Float64) AFTER multiplier,
    ADD COLUMN IF NOT EXISTS edge_threshold_bps Nullable(Float64) AFTER expected_edge_bps,
    ADD COLUMN IF NOT EXISTS probability_sell Nullable(Float64) AFTER edge_threshold_bps,
    ADD COLUMN IF NOT EXISTS probability_hold Nullable(Float64) AFTER probability_sell,
    ADD COLUMN IF NOT EXISTS probability_buy Nullable(Float64) AFTER probability_hold;

-- A vote that was archived before has no configured weight and an empty role, which is `active`.
ALTER TABLE trade_signals
    MODIFY COLUMN votes Array(Tuple(voter LowCardinality(String), kind LowCardinality(String), version String, content_hash String, stance LowCardinality(String), probability_sell Nullable(Float64), probability_hold Nullable(Float64), probability_buy Nullable(Float64), weight Float64, reason String, weight_configured Nullable(Float64), role LowCardinality(String)));

ALTER TABLE ops_control
    ADD COLUMN IF NOT EXISTS model LowCardinality(String) AFTER signature,
    ADD COLUMN IF NOT EXISTS version String AFTER model;

ALTER TABLE ops_applied
    ADD COLUMN IF NOT EXISTS model LowCardinality(String) AFTER reason,
    ADD COLUMN IF NOT EXISTS version String AFTER model;

-- What serves now: of each partition and model the event that counts last.
CREATE OR REPLACE VIEW models_serving AS
SELECT
    partition,
    model,
    if(last_kind = 'retired', '', last_version) AS version,
    if(last_kind = 'retired', '', last_hash) AS content_hash,
    last_kind AS kind,
    last_previous AS previous_version,
    last_from_ns AS effective_from_ns,
    last_cause AS cause,
    last_reason AS reason
FROM
(
    SELECT
        partition,
        model,
        argMax(version, (effective_from_ns, _offset)) AS last_version,
        argMax(content_hash, (effective_from_ns, _offset)) AS last_hash,
        argMax(kind, (effective_from_ns, _offset)) AS last_kind,
        argMax(previous_version, (effective_from_ns, _offset)) AS last_previous,
        argMax(effective_from_ns, (effective_from_ns, _offset)) AS last_from_ns,
        argMax(cause, (effective_from_ns, _offset)) AS last_cause,
        argMax(reason, (effective_from_ns, _offset)) AS last_reason
    FROM model_events FINAL
    WHERE kind IN ('activated', 'rolled_back', 'retired')
    GROUP BY partition, model
)
ORDER BY model, partition;

-- Every version that ever served, and over which event times in which partition. `until_ns` is
-- nobody's time but the next event's; the newest span is open and ends at the greatest time there is.
CREATE OR REPLACE VIEW model_spans AS
SELECT
    partition,
    model,
    version,
    content_hash,
    kind,
    cause,
    effective_from_ns,
    leadInFrame(effective_from_ns, 1, toDateTime64('2262-01-01 00:00:00', 9, 'UTC')) OVER
    (
        PARTITION BY partition, model ORDER BY effective_from_ns, _offset
        ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
    ) AS until_ns
FROM model_events FINAL
WHERE kind IN ('activated', 'rolled_back', 'retired')
ORDER BY model, partition, effective_from_ns;

-- Every regime that a symbol was in, from its confirmation on; the newest span is open and ends with
-- the last record that confirms it. Spans of `unknown` are the warm-up.
CREATE OR REPLACE VIEW regime_history AS
SELECT
    venue,
    symbol,
    regime,
    since_ns,
    last_seen_ns,
    leadInFrame(since_ns, 1, last_seen_ns) OVER
    (
        PARTITION BY venue, symbol ORDER BY transition, since_ns
        ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
    ) AS until_ns,
    toFloat64(dateDiff('second', since_ns, until_ns)) / 3600 AS hours,
    transition,
    confidence_at_change,
    source,
    version,
    cause
FROM
(
    SELECT
        venue,
        symbol,
        regime,
        regime_since_ns AS since_ns,
        max(event_time_ns) AS last_seen_ns,
        any(transitions) AS transition,
        argMin(tuple(confidence), event_time_ns).1 AS confidence_at_change,
        argMin(source, event_time_ns) AS source,
        argMin(version, event_time_ns) AS version,
        argMin(reason, event_time_ns) AS cause
    FROM market_context FINAL
    WHERE kind = 'regime'
    GROUP BY venue, symbol, regime, regime_since_ns
)
ORDER BY venue, symbol, transition, since_ns;
