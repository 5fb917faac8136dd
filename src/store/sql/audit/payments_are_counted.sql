-- audit_payments_are_counted
SELECT d.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('%s charges are paid, %s are counted', coalesce(p.paid, 0), d.charges_paid) AS "detail!"
FROM schedules d
    LEFT JOIN (SELECT c.subscription_id, count(*) AS paid FROM charges c WHERE c.state = 'paid' GROUP BY c.subscription_id) p
        USING (subscription_id)
WHERE coalesce(p.paid, 0) <> d.charges_paid
LIMIT $1
