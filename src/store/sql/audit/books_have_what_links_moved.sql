-- audit_books_have_what_links_moved
SELECT r.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('line %s: order %s is settled in the export, transaction %s, %s %s; ', e.line, e.order_id, e.transaction_id, e.amount_minor,
              e.currency)
       || CASE WHEN r.registration_id IS NULL THEN 'the books do not know the link'
               WHEN (r.amount_minor, r.currency::text) <> (e.amount_minor, e.currency)
                   THEN format('the link is over %s %s in the books', r.amount_minor, r.currency)
               ELSE format('the books do not know the payment, the link is %s', r.state) END AS "detail!"
FROM UNNEST($2::bigint[], $3::text[], $4::uuid[], $5::bigint[], $6::text[])
         AS e (line, order_id, transaction_id, amount_minor, currency)
    LEFT JOIN registrations r ON r.order_id = e.order_id
WHERE (r.amount_minor, r.currency::text) IS DISTINCT FROM (e.amount_minor, e.currency)
   OR (e.transaction_id = ANY (r.surplus_ids || r.transaction_id)) IS NOT TRUE
ORDER BY e.line
LIMIT $1
