-- What every model said about each bar, what became of it, and how good the models turned out to be.

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

-- How good the probabilities of each model were, each given before its label was known: discounted
-- log-loss in nats, once a day of event time and partition; the reason says how far the class prior is.
CREATE OR REPLACE VIEW model_scores AS
SELECT model, partition, version, effective_from_ns, scored_events, log_loss, weight_effective, reason
FROM model_events FINAL
WHERE kind = 'scored'
ORDER BY model, partition, effective_from_ns;

-- Every weight that ever counted, and why.
CREATE OR REPLACE VIEW model_weights AS
SELECT
    model, partition, version, effective_from_ns, weight_configured, weight_effective,
    scored_events, log_loss, reason
FROM model_events FINAL
WHERE kind = 'weights'
ORDER BY model, partition, effective_from_ns;

-- How often each model leant to each action, and what the pool and the threshold made of it.
CREATE OR REPLACE VIEW opinion_mix AS
SELECT stage, stance, count() AS opinions
FROM
(
    SELECT voter AS stage, said AS stance
    FROM model_opinions FINAL
    ARRAY JOIN voters AS voter, stances AS said
    UNION ALL
    SELECT 'pooled', pooled_stance FROM model_opinions FINAL
    UNION ALL
    SELECT 'after threshold', decided_stance FROM model_opinions FINAL
)
GROUP BY stage, stance
ORDER BY stage, stance;

-- From what the models said about a bar to a closed leg: how many records passed each stage, and why
-- the others did not. The first stage counts bars; a strategy is named from the signal on.
CREATE OR REPLACE VIEW funnel AS
SELECT stage_number, stage, strategy, reason, records
FROM
(
    SELECT 0 AS stage_number, 'opinion' AS stage, 'models' AS strategy,
        multiIf(
            decided_stance = 'abstain', 'every model abstained',
            decided_stance != 'hold', concat('expects more than it costs to ', decided_stance),
            edge_bps IS NULL, 'no volatility to expect a move from',
            'expects less than it costs'
        ) AS reason,
        count() AS records
    FROM model_opinions FINAL GROUP BY reason
    UNION ALL
    SELECT 1, 'signal', strategy, toString(action) AS reason, count()
    FROM trade_signals FINAL GROUP BY strategy, reason
    UNION ALL
    SELECT 2, 'vote', strategy,
        concat(
            toString(action), ', ',
            multiIf(probability_buy IS NULL, 'no model voted', score > 0, 'models for buying',
                score < 0, 'models for selling', 'models undecided'),
            if(agreement = '', '', concat(', ', agreement))
        ) AS reason,
        count()
    FROM trade_signals FINAL GROUP BY strategy, reason
    UNION ALL
    SELECT 3, 'decision', strategy, if(verdict = 'denied', concat('denied ', denial), verdict)
        AS reason, count()
    FROM trade_decisions FINAL GROUP BY strategy, reason
    UNION ALL
    SELECT 4, 'order', strategy, concat(purpose, ' ', last_status) AS reason, count()
    FROM
    (
        SELECT strategy, purpose, order_id, argMax(status, sequence) AS last_status
        FROM trade_orders FINAL GROUP BY strategy, purpose, order_id
    )
    GROUP BY strategy, reason
    UNION ALL
    SELECT 5, 'fill', strategy, toString(purpose) AS reason, count()
    FROM trade_fills FINAL GROUP BY strategy, reason
    UNION ALL
    SELECT 6, 'outcome', strategy, toString(exit_reason) AS reason, count()
    FROM trade_outcomes FINAL GROUP BY strategy, reason
)
ORDER BY stage_number, strategy, reason;
