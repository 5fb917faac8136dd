-- audit_amounts_agree
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('line %s: order %s is %s over %s %s in the export, transaction %s; it is %s over %s %s in the books', e.line,
              a.order_id, e.status, e.amount_minor, e.currency, e.transaction_id, a.state, a.amount_minor, a.currency) AS "detail!"
FROM UNNEST($2::bigint[], $3::uuid[], $4::bigint[], $5::integer[], $6::uuid[], $7::bigint[], $8::text[], $9::text[],
            $10::boolean[])
         AS e (line, subscription_id, period_no, attempt_no, transaction_id, amount_minor, currency, status, has_moved)
    JOIN all_attempts a
        ON a.subscription_id = e.subscription_id AND a.period_no = e.period_no AND a.attempt_no = e.attempt_no
WHERE (e.amount_minor, e.currency) <> (a.amount_minor, a.currency::text)
ORDER BY e.line
LIMIT $1
