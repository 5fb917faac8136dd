-- audit_payments_are_told_once
WITH told AS (
    SELECT e.charge_id, count(*) AS times, max(e.occurred_at) AS at FROM all_events e WHERE e.kind = 'charge.paid' GROUP BY e.charge_id
)
SELECT c.subscription_id AS "subscription_id?", coalesce(c.charge_id, t.charge_id) AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('the charge is %s and was told as paid %s times', coalesce(c.state::text, 'missing'), coalesce(t.times, 0))
           AS "detail!"
FROM all_charges c FULL JOIN told t USING (charge_id) CROSS JOIN archive h
WHERE coalesce(t.times, 0) <> CASE WHEN c.state = 'paid' THEN 1 ELSE 0 END
  -- A charge is dropped by the day on which it was due, which may be long before it was told as paid; what was told, by when it was.
  AND (c.charge_id IS NOT NULL OR t.at >= h.kept_from + interval '1 year')
  AND (t.times IS NOT NULL OR c.paid_at IS NULL OR c.paid_at >= h.kept_from)
LIMIT $1
