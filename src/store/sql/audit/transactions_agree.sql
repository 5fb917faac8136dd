-- audit_transactions_agree
-- An order was sent once, so it has one transaction; and a transaction has one order.
WITH export AS (
    SELECT *
    FROM UNNEST($2::bigint[], $3::uuid[], $4::bigint[], $5::integer[], $6::uuid[], $7::bigint[], $8::text[], $9::text[],
                $10::boolean[])
             AS e (line, subscription_id, period_no, attempt_no, transaction_id, amount_minor, currency, status, has_moved)
), found AS (
    SELECT e.line, a.subscription_id, a.charge_id, a.attempt_id,
           format('line %s: order %s, %s %s, is transaction %s in the export, as %s; it is %s in the books, as %s', e.line,
                  a.order_id, e.amount_minor, e.currency, e.transaction_id, e.status, a.transaction_id, a.state) AS detail
    FROM export e
        JOIN all_attempts a
            ON a.subscription_id = e.subscription_id AND a.period_no = e.period_no AND a.attempt_no = e.attempt_no
    WHERE a.transaction_id <> e.transaction_id
    UNION ALL
    SELECT e.line, a.subscription_id, a.charge_id, a.attempt_id,
           format('line %s: transaction %s, %s %s, is of order cykl-%s-%s-%s in the export, as %s; it is of order %s in the '
                  'books, as %s', e.line, e.transaction_id, e.amount_minor, e.currency, replace(e.subscription_id::text, '-', ''),
                  e.period_no, e.attempt_no, e.status, a.order_id, a.state)
    FROM export e JOIN all_attempts a ON a.transaction_id = e.transaction_id
    WHERE (a.subscription_id, a.period_no, a.attempt_no) <> (e.subscription_id, e.period_no, e.attempt_no)
)
SELECT f.subscription_id AS "subscription_id?", f.charge_id AS "charge_id?", f.attempt_id AS "attempt_id?", f.detail AS "detail!"
FROM found f
ORDER BY f.line
LIMIT $1
