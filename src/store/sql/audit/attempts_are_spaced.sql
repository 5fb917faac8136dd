-- audit_attempts_are_spaced
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('attempt %s was permitted at %s, before %s', a.order_id, a.permitted_at, a.quiet_until) AS "detail!"
FROM (
    SELECT a.subscription_id, a.charge_id, a.attempt_id, a.order_id, a.permitted_at,
           max(a.quiet_until) OVER (PARTITION BY a.subscription_id ORDER BY a.permitted_at, a.attempt_id
                                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS quiet_until
    FROM all_attempts a
    WHERE a.state <> 'not_sent' AND a.card_id IS NOT NULL
) a
WHERE a.permitted_at < a.quiet_until
LIMIT $1
