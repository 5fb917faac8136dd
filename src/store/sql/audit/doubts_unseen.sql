-- audit_doubts_unseen
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('order %s, %s %s, permitted at %s', a.order_id, a.amount_minor, a.currency, a.permitted_at) AS "detail!"
FROM attempts a
    JOIN UNNEST($2::text[], $3::timestamptz[], $4::timestamptz[]) AS t (shop, begins_at, ends_at)
        ON t.shop = a.shop AND a.permitted_at >= t.begins_at AND a.permitted_at < t.ends_at
    LEFT JOIN UNNEST($5::uuid[], $6::bigint[], $7::integer[]) AS e (subscription_id, period_no, attempt_no)
        ON e.subscription_id = a.subscription_id AND e.period_no = a.period_no AND e.attempt_no = a.attempt_no
WHERE a.state = 'in_doubt' AND e.subscription_id IS NULL
ORDER BY a.permitted_at
LIMIT $1
