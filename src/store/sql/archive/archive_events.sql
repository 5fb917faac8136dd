-- archive_events
INSERT INTO archived_events (event_id, subscription_id, sequence_no, kind, is_alert, shop, charge_id, attempt_id, payload, occurred_at)
SELECT event_id, subscription_id, sequence_no, kind, is_alert, shop, charge_id, attempt_id, payload, occurred_at
FROM events WHERE event_id = ANY($1)
