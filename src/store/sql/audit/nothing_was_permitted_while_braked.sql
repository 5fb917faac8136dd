-- audit_nothing_was_permitted_while_braked
-- A permit carries the time at which its claim began, and clocks of machines differ: a minute at each end is left out. A machine
-- that paused because of its clock may have written any time. Changes within one millisecond have no order; a release counts as the last.
WITH settings AS (
    SELECT e.payload ->> 'shop' AS shop, e.payload ->> 'mode' AS mode, e.occurred_at AS since,
           lead(e.occurred_at) OVER (
               PARTITION BY e.payload ->> 'shop' ORDER BY e.occurred_at, e.payload ->> 'mode' = 'run', e.event_id) AS until
    FROM all_events e
    WHERE e.kind = 'brake.changed' AND (e.payload ->> 'actor', e.payload ->> 'reason') IS DISTINCT FROM ('cykl', 'clock_disagreement')
)
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('attempt %s was permitted at %s; the brake of %s said %s since %s', a.order_id, a.permitted_at, b.shop, b.mode,
              b.since) AS "detail!"
FROM settings b
    JOIN all_attempts a ON (b.shop = '*' OR b.shop = a.shop)
        AND a.permitted_at > b.since + interval '1 minute'
        AND (b.until IS NULL OR a.permitted_at < b.until - interval '1 minute')
-- Payers pay by links whenever they want to.
WHERE b.mode <> 'run' AND a.card_id IS NOT NULL AND NOT (a.state = 'not_sent' AND a.last_evidence_id IS NULL)
LIMIT $1
