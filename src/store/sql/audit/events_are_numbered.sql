-- audit_events_are_numbered
SELECT e.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('%s events, numbered %s to %s', e.events, e.first_no, e.last_no) AS "detail!"
FROM (
    SELECT e.subscription_id, count(DISTINCT e.sequence_no) AS events, min(e.sequence_no) AS first_no, max(e.sequence_no) AS last_no
    FROM all_events e WHERE e.subscription_id IS NOT NULL GROUP BY e.subscription_id
) e CROSS JOIN archive h
-- Dropped events are the first ones.
WHERE e.last_no - e.first_no + 1 <> e.events OR (e.first_no <> 1 AND h.kept_from = '-infinity')
LIMIT $1
