-- audit_money_moved_once
SELECT a.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('money moved %s times for period %s: %s', count(*), a.period_no,
              string_agg(a.order_id || ' ' || a.state, ', ' ORDER BY a.attempt_no)) AS "detail!"
FROM all_attempts a
WHERE a.state IN ('settled', 'surplus')
GROUP BY a.subscription_id, a.period_no
HAVING count(*) > 1
LIMIT $1
