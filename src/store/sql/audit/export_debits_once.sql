-- audit_export_debits_once
WITH twice AS (
    SELECT e.subscription_id, e.period_no, count(DISTINCT e.transaction_id) AS times,
           string_agg(DISTINCT format('cykl-%s-%s-%s %s', replace(e.subscription_id::text, '-', ''), e.period_no, e.attempt_no,
                                      e.transaction_id), ', ') AS transactions
    FROM UNNEST($2::uuid[], $3::bigint[], $4::integer[], $5::uuid[]) AS e (subscription_id, period_no, attempt_no, transaction_id)
    GROUP BY e.subscription_id, e.period_no
    HAVING count(DISTINCT e.transaction_id) > 1
    LIMIT $1
)
SELECT t.subscription_id AS "subscription_id?", c.charge_id AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('money moved %s times for period %s in the export: %s', t.times, t.period_no, t.transactions) AS "detail!"
FROM twice t LEFT JOIN all_charges c ON c.subscription_id = t.subscription_id AND c.period_no = t.period_no
