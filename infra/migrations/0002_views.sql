-- Views over the facts. A plain view reads its tables with FINAL, so a record that was written twice
-- counts once; sums are only ever taken that way, because an incremental materialised view would add
-- a repeated insert again. The two roll-ups that dashboards ask for most are incremental all the
-- same: they hold nothing but aggregates that a repetition cannot change (latest, least, greatest,
-- number of distinct ids), so they too survive replays, crashes and duplicates.

CREATE TABLE IF NOT EXISTS feature_schemas
(
    schema_name LowCardinality(String),
    schema_hash LowCardinality(String),
    names Array(String),
    units Array(String),
    formulas Array(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (schema_name, schema_hash);

CREATE TABLE IF NOT EXISTS equity_hourly_states
(
    account LowCardinality(String),
    hour DateTime('UTC'),
    equity AggregateFunction(argMax, Decimal(38, 12), Tuple(DateTime64(9, 'UTC'), Int64)),
    cash AggregateFunction(argMax, Decimal(38, 12), Tuple(DateTime64(9, 'UTC'), Int64)),
    exposure AggregateFunction(argMax, Decimal(38, 12), Tuple(DateTime64(9, 'UTC'), Int64)),
    equity_min SimpleAggregateFunction(min, Decimal(38, 12)),
    equity_max SimpleAggregateFunction(max, Decimal(38, 12)),
    drawdown_max_pct SimpleAggregateFunction(max, Float64)
)
ENGINE = AggregatingMergeTree
ORDER BY (account, hour);

CREATE MATERIALIZED VIEW IF NOT EXISTS equity_hourly_feed TO equity_hourly_states AS
SELECT
    account,
    toStartOfHour(toDateTime(event_time_ns, 'UTC')) AS hour,
    argMaxState(position.equity, (event_time_ns, _offset)) AS equity,
    argMaxState(position.cash, (event_time_ns, _offset)) AS cash,
    argMaxState(position.exposure, (event_time_ns, _offset)) AS exposure,
    min(position.equity) AS equity_min,
    max(position.equity) AS equity_max,
    max(position.drawdown_pct) AS drawdown_max_pct
FROM trade_positions AS position
GROUP BY account, hour;

CREATE OR REPLACE VIEW equity_hourly AS
SELECT
    account,
    hour,
    argMaxMerge(state.equity) AS equity,
    argMaxMerge(state.cash) AS cash,
    argMaxMerge(state.exposure) AS exposure,
    min(state.equity_min) AS equity_min,
    max(state.equity_max) AS equity_max,
    max(state.drawdown_max_pct) AS drawdown_max_pct
FROM equity_hourly_states AS state
GROUP BY account, hour
ORDER BY account, hour;

CREATE TABLE IF NOT EXISTS decisions_hourly_states
(
    account LowCardinality(String),
    strategy LowCardinality(String),
    hour DateTime('UTC'),
    action LowCardinality(String),
    verdict LowCardinality(String),
    denial LowCardinality(String),
    decisions AggregateFunction(uniqExact, String)
)
ENGINE = AggregatingMergeTree
ORDER BY (account, strategy, hour, action, verdict, denial);

CREATE MATERIALIZED VIEW IF NOT EXISTS decisions_hourly_feed TO decisions_hourly_states AS
SELECT
    account,
    strategy,
    toStartOfHour(toDateTime(event_time_ns, 'UTC')) AS hour,
    action,
    verdict,
    denial,
    uniqExactState(id) AS decisions
FROM trade_decisions
GROUP BY account, strategy, hour, action, verdict, denial;

CREATE OR REPLACE VIEW decisions_hourly AS
SELECT
    account, strategy, hour, action, verdict, denial,
    uniqExactMerge(state.decisions) AS decisions
FROM decisions_hourly_states AS state
GROUP BY account, strategy, hour, action, verdict, denial
ORDER BY account, strategy, hour, action, verdict, denial;

CREATE OR REPLACE VIEW denial_reasons AS
SELECT account, strategy, denial, uniqExactMerge(state.decisions) AS decisions
FROM decisions_hourly_states AS state
WHERE verdict = 'denied'
GROUP BY account, strategy, denial
ORDER BY decisions DESC, account, strategy, denial;

CREATE OR REPLACE VIEW features_named AS
SELECT
    feature.id AS id,
    feature.venue AS venue,
    feature.symbol AS symbol,
    feature.timeframe AS timeframe,
    feature.close_time_ns AS close_time_ns,
    feature.schema_name AS schema_name,
    mapFromArrays(known.names, feature.vector) AS features
FROM (SELECT * FROM market_features FINAL) AS feature
INNER JOIN (SELECT * FROM feature_schemas FINAL) AS known
    ON known.schema_name = feature.schema_name AND known.schema_hash = feature.schema_hash
WHERE length(known.names) = length(feature.vector);

CREATE OR REPLACE VIEW pnl_by_strategy_daily AS
SELECT
    account,
    strategy,
    toDate(outcome.event_time_ns) AS day,
    count() AS legs,
    countIf(outcome.net_pnl > 0) AS winning_legs,
    sum(outcome.gross_pnl) AS gross_pnl,
    sum(outcome.fees) AS fees,
    sum(outcome.net_pnl) AS net_pnl,
    avg(outcome.return_pct) AS return_pct_mean,
    avg(outcome.holding_ns) / 3600e9 AS holding_hours_mean
FROM (SELECT * FROM trade_outcomes FINAL) AS outcome
GROUP BY account, strategy, day
ORDER BY account, strategy, day;

CREATE OR REPLACE VIEW fills_hourly AS
SELECT
    account,
    strategy,
    venue,
    symbol,
    toStartOfHour(toDateTime(fill.event_time_ns, 'UTC')) AS hour,
    side,
    purpose,
    count() AS fills,
    sum(fill.quantity) AS quantity,
    sum(toFloat64(fill.quantity) * toFloat64(fill.price)) AS notional,
    sum(fill.fee) AS fee,
    avg(fill.slippage_bps) AS slippage_bps_mean
FROM (SELECT * FROM trade_fills FINAL) AS fill
GROUP BY account, strategy, venue, symbol, hour, side, purpose
ORDER BY account, strategy, venue, symbol, hour, side, purpose;

CREATE OR REPLACE VIEW bars_1h AS
SELECT
    venue,
    symbol,
    toStartOfHour(toDateTime(bar.open_time_ns, 'UTC')) AS hour,
    argMin(bar.open, bar.open_time_ns) AS open,
    max(bar.high) AS high,
    min(bar.low) AS low,
    argMax(bar.close, bar.open_time_ns) AS close,
    sum(bar.volume) AS volume,
    sum(bar.trades) AS trades,
    count() AS bars
FROM (SELECT * FROM market_bars FINAL WHERE timeframe = '5m') AS bar
GROUP BY venue, symbol, hour
ORDER BY venue, symbol, hour;

-- From reading the newest ticks behind a record to handing the record to the log.
CREATE OR REPLACE VIEW latency_by_hop AS
SELECT
    topic,
    toStartOfMinute(toDateTime(emitted, 'UTC')) AS minute,
    count() AS records,
    quantile(0.5)(latency_ms) AS p50_ms,
    quantile(0.99)(latency_ms) AS p99_ms,
    quantile(0.999)(latency_ms) AS p999_ms,
    max(latency_ms) AS max_ms
FROM
(
    SELECT
        topic,
        assumeNotNull(_emit_ns) AS emitted,
        (toUnixTimestamp64Nano(assumeNotNull(_emit_ns))
            - toUnixTimestamp64Nano(assumeNotNull(_ingest_ns))) / 1e6 AS latency_ms
    FROM
    (
        SELECT 'market.bars' AS topic, _ingest_ns, _emit_ns FROM market_bars FINAL
        UNION ALL SELECT 'market.features', _ingest_ns, _emit_ns FROM market_features FINAL
        UNION ALL SELECT 'trade.signals', _ingest_ns, _emit_ns FROM trade_signals FINAL
        UNION ALL SELECT 'trade.decisions', _ingest_ns, _emit_ns FROM trade_decisions FINAL
        UNION ALL SELECT 'trade.orders', _ingest_ns, _emit_ns FROM trade_orders FINAL
        UNION ALL SELECT 'trade.fills', _ingest_ns, _emit_ns FROM trade_fills FINAL
    )
    WHERE isNotNull(_ingest_ns) AND isNotNull(_emit_ns)
)
GROUP BY topic, minute
ORDER BY topic, minute;

CREATE OR REPLACE VIEW funnel AS
SELECT stage_number, stage, strategy, reason, records
FROM
(
    SELECT 1 AS stage_number, 'signal' AS stage, strategy, toString(action) AS reason,
        count() AS records
    FROM trade_signals FINAL GROUP BY strategy, reason
    UNION ALL
    SELECT 2, 'decision', strategy, if(verdict = 'denied', concat('denied ', denial), verdict)
        AS reason, count()
    FROM trade_decisions FINAL GROUP BY strategy, reason
    UNION ALL
    SELECT 3, 'order', strategy, concat(purpose, ' ', last_status) AS reason, count()
    FROM
    (
        SELECT strategy, purpose, order_id, argMax(status, sequence) AS last_status
        FROM trade_orders FINAL GROUP BY strategy, purpose, order_id
    )
    GROUP BY strategy, reason
    UNION ALL
    SELECT 4, 'fill', strategy, toString(purpose) AS reason, count()
    FROM trade_fills FINAL GROUP BY strategy, reason
    UNION ALL
    SELECT 5, 'outcome', strategy, toString(exit_reason) AS reason, count()
    FROM trade_outcomes FINAL GROUP BY strategy, reason
)
ORDER BY stage_number, strategy, reason;

-- One row per fill with everything that led to it. An empty id means that a link is missing; the
-- view `orphans` lists those. An outcome is missing while the leg is open.
CREATE OR REPLACE VIEW why AS
SELECT
    fill.id AS fill_id,
    fill.event_time_ns AS fill_time_ns,
    fill.account AS account,
    fill.strategy AS strategy,
    fill.venue AS venue,
    fill.symbol AS symbol,
    fill.side AS side,
    fill.purpose AS purpose,
    fill.quantity AS quantity,
    fill.price AS price,
    fill.fee AS fee,
    fill.liquidity AS liquidity,
    fill.tick_price AS tick_price,
    fill.slippage_bps AS slippage_bps,
    fill.provenance AS provenance,
    orders.order_id AS order_id,
    orders.client_order_id AS client_order_id,
    orders.kind AS order_kind,
    orders.updates AS order_updates,
    decision.id AS decision_id,
    decision.event_time_ns AS decision_time_ns,
    decision.verdict AS verdict,
    decision.justification AS justification,
    decision.equity AS decision_equity,
    decision.checks AS checks,
    signal.id AS signal_id,
    signal.event_time_ns AS signal_time_ns,
    signal.timeframe AS timeframe,
    signal.action AS action,
    signal.score AS score,
    signal.reason AS signal_reason,
    signal.votes AS votes,
    features.id AS features_id,
    features.schema_name AS feature_schema_name,
    features.schema_hash AS feature_schema_hash,
    features.vector AS feature_vector,
    features.missing_mask AS feature_missing_mask,
    bar.id AS bar_id,
    bar.open_time_ns AS bar_open_time_ns,
    bar.close_time_ns AS bar_close_time_ns,
    bar.open AS bar_open,
    bar.high AS bar_high,
    bar.low AS bar_low,
    bar.close AS bar_close,
    bar.volume AS bar_volume,
    bar.partition AS tick_partition,
    bar.first_offset AS tick_first_offset,
    bar.first_line AS tick_first_line,
    bar.last_offset AS tick_last_offset,
    bar.last_line AS tick_last_line,
    if(outcome.entry_time_ns <= fill.event_time_ns, outcome.id, '') AS outcome_id,
    if(outcome_id != '', outcome.net_pnl, 0) AS outcome_net_pnl,
    if(outcome_id != '', outcome.exit_reason, '') AS outcome_exit_reason,
    fill._config AS config_hash,
    fill._epoch AS epoch
FROM (SELECT * FROM trade_fills FINAL) AS fill
LEFT ANY JOIN
(
    SELECT
        order_id,
        any(client_order_id) AS client_order_id,
        any(kind) AS kind,
        arraySort(groupArray((sequence, status, event_time_ns, reason))) AS updates
    FROM trade_orders FINAL
    GROUP BY order_id
) AS orders ON orders.order_id = fill.order_id
LEFT ANY JOIN (SELECT * FROM trade_decisions FINAL) AS decision ON decision.id = fill.decision_id
LEFT ANY JOIN
(
    SELECT * FROM trade_signals FINAL
    WHERE id IN (SELECT cause FROM trade_decisions WHERE verdict != 'denied')
) AS signal ON signal.id = decision.cause
LEFT ANY JOIN
(
    SELECT * FROM market_features FINAL
    WHERE (venue, symbol, timeframe, close_time_ns) IN
    (
        SELECT venue, symbol, timeframe, event_time_ns FROM trade_signals
        WHERE id IN (SELECT cause FROM trade_decisions WHERE verdict != 'denied')
    )
) AS features ON features.id = signal.cause
LEFT ANY JOIN
(
    SELECT * FROM market_bars FINAL
    WHERE (venue, symbol, timeframe, close_time_ns) IN
    (
        SELECT venue, symbol, timeframe, event_time_ns FROM trade_signals
        WHERE id IN (SELECT cause FROM trade_decisions WHERE verdict != 'denied')
    )
) AS bar ON bar.id = signal.bar_id
-- A strategy has one leg in a symbol at a time, so the leg of a fill is the first that closed at or
-- after it. Decisions alone do not tell: a stop may close what a strategy's exit began.
ASOF LEFT JOIN (SELECT * FROM trade_outcomes FINAL) AS outcome
    ON outcome.account = fill.account AND outcome.strategy = fill.strategy
    AND outcome.venue = fill.venue AND outcome.symbol = fill.symbol
    AND outcome.event_time_ns >= fill.event_time_ns;

-- Fills whose chain is broken. A leg that is still open is no orphan: its fills await their outcome.
CREATE OR REPLACE VIEW orphans AS
SELECT fill_id, account, strategy, venue, symbol, missing
FROM
(
    SELECT
        fill_id, account, strategy, venue, symbol,
        arrayFilter(link -> link != '', [
            if(order_id = '', 'order', ''),
            if(decision_id = '', 'decision', ''),
            if(signal_id = '', 'signal', ''),
            if(features_id = '', 'features', ''),
            if(bar_id = '', 'bar', ''),
            if(outcome_id = '' AND (account, strategy, venue, symbol) NOT IN
            (
                SELECT account, strategy, venue, symbol
                FROM trade_positions FINAL
                WHERE strategy != ''
                GROUP BY account, strategy, venue, symbol
                HAVING argMax(quantity, (event_time_ns, _offset)) != 0
            ), 'outcome', '')
        ]) AS missing
    FROM why
)
WHERE notEmpty(missing);
