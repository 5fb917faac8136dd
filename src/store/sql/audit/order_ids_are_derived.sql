-- audit_order_ids_are_derived
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('order id %s is not the one of period %s, attempt %s', a.order_id, a.period_no, a.attempt_no) AS "detail!"
FROM all_attempts a
WHERE a.order_id IS DISTINCT FROM
      'cykl-' || replace(a.subscription_id::text, '-', '') || '-' || a.period_no || '-' || a.attempt_no
LIMIT $1
