-- lock_old_events
-- Those that were delivered, but not the newest of a subscription: the next is numbered after it.
SELECT e.event_id AS "event_id: EventId", e.occurred_at
FROM events e
WHERE e.event_id = ANY($1) AND e.occurred_at < $2
  AND NOT EXISTS (SELECT FROM outbox o WHERE o.event_id = e.event_id)
  AND (e.subscription_id IS NULL OR EXISTS (
      SELECT FROM events n WHERE n.subscription_id = e.subscription_id AND n.sequence_no > e.sequence_no))
ORDER BY e.event_id
FOR UPDATE OF e SKIP LOCKED
