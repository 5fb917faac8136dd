-- audit_names_are_used_once
SELECT NULL::uuid AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('order id %s stands for %s attempts', a.order_id, count(*)) AS "detail!"
-- A payer may pay by the same link twice.
FROM all_attempts a WHERE a.card_id IS NOT NULL GROUP BY a.order_id HAVING count(*) > 1
UNION ALL
SELECT NULL, NULL, NULL, format('transaction %s belongs to %s attempts', a.transaction_id, count(*))
FROM all_attempts a WHERE a.transaction_id IS NOT NULL GROUP BY a.transaction_id HAVING count(*) > 1
LIMIT $1
