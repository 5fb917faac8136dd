-- audit_open_charges_are_looked_at
SELECT c.subscription_id AS "subscription_id?", c.charge_id AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('the charge of period %s is %s and %s', c.period_no, c.state,
              CASE WHEN c.next_action_at IS NULL THEN 'nobody will look at it' ELSE 'has a next action' END) AS "detail!"
FROM charges c
WHERE (c.next_action_at IS NOT NULL) <> (c.state IN ('planned', 'in_flight', 'retry_wait', 'held'))
LIMIT $1
