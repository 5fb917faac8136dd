-- audit_charges_fit_their_subscription
SELECT c.subscription_id AS "subscription_id?", c.charge_id AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('period %s, due on %s: %s %s at %s; subscription: due on %s, %s %s at %s', c.period_no, c.due_on, c.amount_minor,
              c.currency, c.shop, (s.anchor_date + c.period_no * s.period::interval)::date, s.amount_minor, s.currency, s.shop)
           AS "detail!"
FROM all_charges c LEFT JOIN subscriptions s USING (subscription_id)
WHERE (c.amount_minor, c.currency, c.shop, c.due_on)
          IS DISTINCT FROM (s.amount_minor, s.currency, s.shop, (s.anchor_date + c.period_no * s.period::interval)::date)
   OR c.period_no < s.first_period_no
   OR c.period_no >= s.max_charges
   OR c.due_on > s.ends_on
   OR c.due_on < s.starts_on
LIMIT $1
