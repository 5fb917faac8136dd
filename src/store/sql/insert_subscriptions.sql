-- insert_subscriptions
WITH new_rows AS (
    SELECT *
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::bigint[], $6::currency[], $7::text[], $8::date[], $9::text[],
                $10::text[], $11::date[], $12::date[], $13::integer[], $14::date[], $15::integer[], $16::text[], $17::jsonb[],
                $18::jsonb[], $19::date[], $20::timestamptz[])
        AS n (subscription_id, shop, external_id, card_id, amount_minor, currency, period, anchor_date, timezone,
              title, starts_on, ends_on, max_charges, paid_until, first_period_no, notification_url, invoice,
              multipayout, first_due_on, first_due_at)
), stored AS (
    INSERT INTO subscriptions (subscription_id, shop, external_id, status, card_id, amount_minor, currency, period, anchor_date,
                               timezone, title, starts_on, ends_on, max_charges, paid_until, first_period_no, from_due_at,
                               notification_url, invoice, multipayout, created_at, updated_at)
    SELECT n.subscription_id, n.shop, n.external_id, 'active', n.card_id, n.amount_minor, n.currency, n.period, n.anchor_date,
           n.timezone, n.title, n.starts_on, n.ends_on, n.max_charges, n.paid_until, n.first_period_no, n.first_due_at,
           n.notification_url, n.invoice, n.multipayout, $21, $21
    FROM new_rows n
)
INSERT INTO due_periods (due_at, subscription_id, period_no, due_on)
SELECT n.first_due_at, n.subscription_id, n.first_period_no, n.first_due_on FROM new_rows n
