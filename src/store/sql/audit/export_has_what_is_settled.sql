-- audit_export_has_what_is_settled
WITH shown AS (
    SELECT u.subscription_id, u.period_no, u.attempt_no, string_agg(DISTINCT u.status, ', ') AS statuses
    FROM UNNEST($8::uuid[], $9::bigint[], $10::integer[], $11::text[]) AS u (subscription_id, period_no, attempt_no, status)
    GROUP BY u.subscription_id, u.period_no, u.attempt_no
)
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('order %s, transaction %s, %s %s, permitted at %s, is %s in the books and %s', a.order_id, a.transaction_id,
              a.amount_minor, a.currency, a.permitted_at, a.state,
              coalesce(w.statuses || ' in the export', 'not in the export')) AS "detail!"
FROM all_attempts a
    JOIN UNNEST($2::text[], $3::timestamptz[], $4::timestamptz[]) AS t (shop, begins_at, ends_at)
        ON t.shop = a.shop AND a.permitted_at >= t.begins_at AND a.permitted_at < t.ends_at
    LEFT JOIN UNNEST($5::uuid[], $6::bigint[], $7::integer[]) AS m (subscription_id, period_no, attempt_no)
        ON m.subscription_id = a.subscription_id AND m.period_no = a.period_no AND m.attempt_no = a.attempt_no
    LEFT JOIN shown w
        ON w.subscription_id = a.subscription_id AND w.period_no = a.period_no AND w.attempt_no = a.attempt_no
WHERE a.state IN ('settled', 'surplus')
  -- What was paid by a link is found by its transaction.
  AND CASE WHEN a.card_id IS NULL THEN a.transaction_id <> ALL ($12::uuid[]) ELSE m.subscription_id IS NULL END
LIMIT $1
