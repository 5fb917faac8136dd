-- audit_terms_agree
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('attempt %s: %s %s at %s for period %s; charge: %s %s at %s for period %s; subscription: %s %s at %s', a.order_id,
              a.amount_minor, a.currency, a.shop, a.period_no, c.amount_minor, c.currency, c.shop, c.period_no,
              s.amount_minor, s.currency, s.shop) AS "detail!"
FROM all_attempts a
    LEFT JOIN all_charges c USING (charge_id)
    LEFT JOIN subscriptions s ON s.subscription_id = a.subscription_id
    LEFT JOIN cards k ON k.card_id = a.card_id
WHERE (a.amount_minor, a.currency, a.shop, a.subscription_id, a.period_no)
          IS DISTINCT FROM (c.amount_minor, c.currency, c.shop, c.subscription_id, c.period_no)
   OR (a.amount_minor, a.currency, a.shop) IS DISTINCT FROM (s.amount_minor, s.currency, s.shop)
   OR a.card_id IS NOT NULL AND k.shop IS DISTINCT FROM a.shop
LIMIT $1
