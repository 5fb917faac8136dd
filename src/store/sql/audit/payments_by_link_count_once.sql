-- audit_payments_by_link_count_once
WITH payments AS (
    SELECT r.registration_id, r.subscription_id, r.purpose, r.order_id, p.transaction_id
    FROM registrations r CROSS JOIN LATERAL unnest(r.surplus_ids || r.transaction_id) AS p (transaction_id)
    WHERE p.transaction_id IS NOT NULL
)
SELECT p.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('transaction %s was paid by the link of order %s as a %s; it is %s', p.transaction_id, p.order_id, p.purpose,
              CASE WHEN a.attempt_id IS NULL THEN 'no attempt'
                   ELSE format('attempt %s of period %s, as order %s', a.attempt_no, a.period_no, a.order_id) END) AS "detail!"
FROM payments p
    JOIN subscriptions s USING (subscription_id)
    CROSS JOIN archive h
    LEFT JOIN all_attempts a ON a.transaction_id = p.transaction_id
WHERE CASE p.purpose
    WHEN 'verification' THEN a.attempt_id IS NOT NULL
    -- What was dropped from the archive is not missed.
    ELSE (a.order_id, a.subscription_id) IS DISTINCT FROM (p.order_id, p.subscription_id)
         AND (a.attempt_id IS NOT NULL OR s.created_at >= h.kept_from)
    END
LIMIT $1
