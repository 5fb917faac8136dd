-- copy_subscriptions
COPY subscriptions (subscription_id, shop, external_id, status, card_id, amount_minor, currency, period, anchor_date, timezone,
                    title, starts_on, ends_on, max_charges, paid_until, first_period_no, from_due_at, notification_url, invoice,
                    multipayout, created_at, updated_at)
FROM STDIN (FORMAT binary)
