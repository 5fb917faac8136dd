-- audit_order_ids_are_derived
-- What a payer paid by a link has the order id of the link, and is one of its payments.
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('order id %s is not the one of period %s, attempt %s', a.order_id, a.period_no, a.attempt_no) AS "detail!"
FROM all_attempts a
    LEFT JOIN registrations r ON a.card_id IS NULL AND r.order_id = a.order_id
WHERE CASE
    WHEN a.card_id IS NULL THEN
        (r.subscription_id, r.period_no, r.amount_minor, r.currency) IS DISTINCT FROM
            (a.subscription_id, a.period_no, a.amount_minor, a.currency)
        OR (a.transaction_id = ANY (r.surplus_ids || r.transaction_id)) IS NOT TRUE
    ELSE a.order_id IS DISTINCT FROM
         'cykl-' || replace(a.subscription_id::text, '-', '') || '-' || a.period_no || '-' || a.attempt_no
    END
LIMIT $1
