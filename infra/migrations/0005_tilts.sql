-- What a model says always is taken off what it says on a bar: what was taken off, and what it said.

ALTER TABLE model_opinions
    ADD COLUMN IF NOT EXISTS raw_stances Array(String) AFTER provenance,
    ADD COLUMN IF NOT EXISTS tilts Array(Nullable(Float64)) AFTER raw_stances;

-- How often each model leant to each action, what counted of it, and what the pool and the threshold
-- made of that.
CREATE OR REPLACE VIEW opinion_mix AS
SELECT stage, stance, count() AS opinions
FROM
(
    SELECT voter AS stage, said AS stance
    FROM model_opinions FINAL
    ARRAY JOIN voters AS voter, if(empty(raw_stances), stances, raw_stances) AS said
    UNION ALL
    SELECT concat(voter, ' less its tilt'), said
    FROM model_opinions FINAL
    ARRAY JOIN voters AS voter, stances AS said
    UNION ALL
    SELECT 'pooled', pooled_stance FROM model_opinions FINAL
    UNION ALL
    SELECT 'after threshold', decided_stance FROM model_opinions FINAL
)
GROUP BY stage, stance
ORDER BY stage, stance;
