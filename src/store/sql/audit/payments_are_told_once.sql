-- audit_payments_are_told_once
WITH told AS (
    SELECT e.charge_id, count(*) AS times FROM events e WHERE e.kind = 'charge.paid' GROUP BY e.charge_id
)
SELECT c.subscription_id AS "subscription_id?", coalesce(c.charge_id, t.charge_id) AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('the charge is %s and was told as paid %s times', coalesce(c.state::text, 'missing'), coalesce(t.times, 0))
           AS "detail!"
FROM charges c FULL JOIN told t USING (charge_id)
WHERE coalesce(t.times, 0) <> CASE WHEN c.state = 'paid' THEN 1 ELSE 0 END
LIMIT $1
