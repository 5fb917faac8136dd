-- copy_first_events
COPY events (event_id, subscription_id, sequence_no, kind, is_alert, shop, payload, occurred_at) FROM STDIN (FORMAT binary)
