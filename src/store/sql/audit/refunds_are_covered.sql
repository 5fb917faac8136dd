-- audit_refunds_are_covered
-- What went back, or may, was taken before, by the debit that the refund names. A debit that was dropped with its quarter of the archive
-- is not looked for.
SELECT r.subscription_id AS "subscription_id?", r.charge_id AS "charge_id?", r.attempt_id AS "attempt_id?",
       format('%s of order %s goes back, and %s was taken', r.back, r.order_id,
              CASE WHEN a.state IN ('settled', 'surplus') THEN a.amount_minor ELSE 0 END) AS "detail!"
FROM (
    SELECT sale_transaction_id, subscription_id, charge_id, attempt_id, shop, order_id, currency,
           coalesce(sum(amount_minor) FILTER (WHERE state IN ('in_doubt', 'pending', 'settled')), 0) AS back
    FROM refunds GROUP BY sale_transaction_id, subscription_id, charge_id, attempt_id, shop, order_id, currency
) r
    LEFT JOIN all_attempts a ON a.transaction_id = r.sale_transaction_id
WHERE CASE WHEN a.attempt_id IS NULL THEN EXISTS (SELECT FROM all_charges c WHERE c.charge_id = r.charge_id)
      ELSE a.state NOT IN ('settled', 'surplus') OR r.back > a.amount_minor
        OR (a.attempt_id, a.charge_id, a.subscription_id, a.shop, a.order_id, a.currency)
           <> (r.attempt_id, r.charge_id, r.subscription_id, r.shop, r.order_id, r.currency)
      END
LIMIT $1
