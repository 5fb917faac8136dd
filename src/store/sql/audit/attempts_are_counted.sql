-- audit_attempts_are_counted
-- The next attempt's order id is made of this number.
SELECT c.subscription_id AS "subscription_id?", c.charge_id AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('the charge of period %s counts %s attempts, the last is number %s', c.period_no, c.attempts, coalesce(a.last, 0))
           AS "detail!"
FROM all_charges c
    LEFT JOIN (SELECT a.charge_id, max(a.attempt_no) AS last FROM all_attempts a GROUP BY a.charge_id) a USING (charge_id)
WHERE c.attempts <> coalesce(a.last, 0)
LIMIT $1
