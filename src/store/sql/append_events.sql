-- append_events
WITH kept AS (
    INSERT INTO events (event_id, subscription_id, sequence_no, kind, is_alert, shop, charge_id, attempt_id, payload, occurred_at)
    SELECT e.event_id, e.subscription_id,
           -- Whoever tells of a subscription has locked what it tells about. Two that tell of different things at once would take the
           -- same number: then one of them is refused by its uniqueness and tried again.
           CASE WHEN e.subscription_id IS NOT NULL THEN
               row_number() OVER (PARTITION BY e.subscription_id ORDER BY e.place)
               + coalesce((SELECT p.sequence_no FROM events p WHERE p.subscription_id = e.subscription_id
                           ORDER BY p.sequence_no DESC LIMIT 1), 0)
           END,
           e.kind, e.is_alert, e.shop, e.charge_id, e.attempt_id, e.payload, $9
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::boolean[], $5::text[], $6::uuid[], $7::uuid[], $8::jsonb[])
        WITH ORDINALITY
        AS e (event_id, subscription_id, kind, is_alert, shop, charge_id, attempt_id, payload, place)
    RETURNING event_id, is_alert
)
INSERT INTO outbox (event_id, channel, next_attempt_at)
SELECT k.event_id, c.channel, $9 FROM kept k CROSS JOIN unnest($10::text[]) AS c (channel)
WHERE k.is_alert OR c.channel = 'webhook'
