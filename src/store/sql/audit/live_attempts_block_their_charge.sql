-- audit_live_attempts_block_their_charge
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('attempt %s is %s, but its charge is %s', a.order_id, a.state, c.state) AS "detail!"
FROM attempts a JOIN charges c USING (charge_id)
WHERE a.state IN ('in_doubt', 'pending') AND c.state IN ('planned', 'retry_wait', 'skipped', 'void')
UNION ALL
SELECT c.subscription_id, c.charge_id, NULL, format('the charge of period %s is in flight without an attempt', c.period_no)
FROM charges c
WHERE c.state = 'in_flight'
  AND NOT EXISTS (SELECT FROM attempts a WHERE a.charge_id = c.charge_id AND a.state IN ('in_doubt', 'pending'))
LIMIT $1
