-- audit_absence_needs_two
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('attempt %s is absent, but only %s people declared it at least 100 hours after its permit', a.order_id, e.people)
           AS "detail!"
FROM all_attempts a
    CROSS JOIN LATERAL (
        SELECT count(DISTINCT lower(btrim(e.actor))) AS people
        FROM all_evidence e
        WHERE e.attempt_id = a.attempt_id AND e.kind = 'person' AND e.verdict = 'absent'
          AND lower(btrim(e.actor)) <> 'cykl' AND e.recorded_at >= a.permitted_at + interval '100 hours') e
WHERE a.state = 'absent' AND e.people < 2
LIMIT $1
