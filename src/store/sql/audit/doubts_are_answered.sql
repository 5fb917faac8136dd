-- audit_doubts_are_answered
-- An attempt in doubt needs to know its transaction, wherever that stands; one that is pending knows it, and waits for a verdict.
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('line %s: order %s is %s in the export, transaction %s, %s %s; it is %s in the books: '
              'cykl charge settle %s --transaction %s --reason TEXT', e.line, a.order_id, e.status, e.transaction_id,
              e.amount_minor, e.currency, a.state, a.charge_id, e.transaction_id) AS "detail!"
FROM UNNEST($2::bigint[], $3::uuid[], $4::bigint[], $5::integer[], $6::uuid[], $7::bigint[], $8::text[], $9::text[],
            $10::boolean[])
         AS e (line, subscription_id, period_no, attempt_no, transaction_id, amount_minor, currency, status, has_moved)
    JOIN attempts a
        ON a.subscription_id = e.subscription_id AND a.period_no = e.period_no AND a.attempt_no = e.attempt_no
WHERE a.state = 'in_doubt' OR (a.state = 'pending' AND (e.has_moved OR e.status = 'rejected'))
ORDER BY e.line
LIMIT $1
