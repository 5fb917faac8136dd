-- audit_books_have_what_is_settled
-- An order that the books do not know was sent by somebody else, or lost by them: its money may move yet, and its name may be
-- used again, so that counts whatever became of it. What was dropped from the archive is not missed.
SELECT e.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('line %s: order cykl-%s-%s-%s is %s in the export, transaction %s, %s %s; ', e.line,
              replace(e.subscription_id::text, '-', ''), e.period_no, e.attempt_no, e.status, e.transaction_id,
              e.amount_minor, e.currency)
       || CASE WHEN a.attempt_id IS NULL THEN 'the books do not know it' ELSE format('it is %s in the books', a.state) END
       || CASE WHEN c.charge_id IS NULL THEN ''
               ELSE format(': cykl charge settle %s --transaction %s --reason TEXT', c.charge_id, e.transaction_id) END
           AS "detail!"
FROM UNNEST($2::bigint[], $3::uuid[], $4::bigint[], $5::integer[], $6::uuid[], $7::bigint[], $8::text[], $9::text[],
            $10::boolean[])
         AS e (line, subscription_id, period_no, attempt_no, transaction_id, amount_minor, currency, status, has_moved)
    CROSS JOIN archive h
    LEFT JOIN all_attempts a
        ON a.subscription_id = e.subscription_id AND a.period_no = e.period_no AND a.attempt_no = e.attempt_no
    LEFT JOIN charges c ON c.charge_id = a.charge_id
    LEFT JOIN subscriptions s ON s.subscription_id = e.subscription_id AND a.attempt_id IS NULL
WHERE (e.has_moved AND a.state IN ('not_sent', 'refused', 'rejected', 'absent'))
   OR (a.attempt_id IS NULL
       AND CASE WHEN e.period_no <= s.archived_to
                THEN (s.anchor_date + e.period_no::integer * s.period::interval)::date >= h.kept_from
                ELSE true END)
ORDER BY e.line
LIMIT $1
