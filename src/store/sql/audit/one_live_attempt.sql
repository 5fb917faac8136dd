-- audit_one_live_attempt
SELECT NULL::uuid AS "subscription_id?", a.charge_id AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('%s attempts may move money: %s', count(*), string_agg(a.order_id || ' ' || a.state, ', ' ORDER BY a.attempt_no))
           AS "detail!"
FROM attempts a
WHERE a.state IN ('in_doubt', 'pending', 'settled')
GROUP BY a.charge_id
HAVING count(*) > 1
LIMIT $1
