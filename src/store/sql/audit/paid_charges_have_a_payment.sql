-- audit_paid_charges_have_a_payment
SELECT c.subscription_id AS "subscription_id?", c.charge_id AS "charge_id?", c.paid_attempt_id AS "attempt_id?",
       format('period %s is paid, but its payment %s', c.period_no,
              CASE WHEN c.paid_attempt_id IS NULL THEN 'is not named'
                   WHEN a.attempt_id IS NULL THEN 'does not exist'
                   WHEN a.charge_id <> c.charge_id THEN 'belongs to another charge'
                   ELSE 'is ' || a.state END) AS "detail!"
FROM all_charges c LEFT JOIN all_attempts a ON a.attempt_id = c.paid_attempt_id
WHERE c.state = 'paid'
  AND NOT coalesce(a.charge_id = c.charge_id AND a.state IN ('settled', 'surplus') AND c.paid_at IS NOT NULL, false)
LIMIT $1
