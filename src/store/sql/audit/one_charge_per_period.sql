-- audit_one_charge_per_period
SELECT c.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('period %s has %s charges', c.period_no, count(*)) AS "detail!"
FROM all_charges c
GROUP BY c.subscription_id, c.period_no
HAVING count(*) > 1
LIMIT $1
