-- audit_moved_money_is_booked
-- While another attempt is not final, the charge of a surplus settlement is held; once it is, the charge is paid.
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('attempt %s is %s, but its charge is %s', a.order_id, a.state, coalesce(c.state::text, 'missing')) AS "detail!"
FROM all_attempts a LEFT JOIN all_charges c USING (charge_id)
WHERE a.state IN ('settled', 'surplus')
  AND NOT coalesce(c.state = 'paid' OR (a.state = 'surplus' AND c.state = 'held'), false)
LIMIT $1
