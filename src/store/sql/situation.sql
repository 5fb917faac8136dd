-- situation
-- Every part reads a partial index of what is open, or the events of the last day, which their ids bound ($2).
SELECT (SELECT count(*) FROM charges WHERE send_at IS NOT NULL AND state = 'planned') AS "planned!",
       (SELECT count(*) FROM attempts a JOIN charges c USING (charge_id)
        WHERE a.next_poll_at IS NOT NULL AND a.state IN ('in_doubt', 'pending') AND c.state = 'in_flight') AS "in_flight!",
       (SELECT count(*) FROM charges WHERE send_at IS NOT NULL AND state = 'retry_wait') AS "retry_wait!",
       (SELECT count(*) FROM charges WHERE is_held) AS "held!",
       (SELECT count(*) FROM charges WHERE is_failed) AS "failed!",
       (SELECT count(*) FROM attempts WHERE state = 'in_doubt' AND deadline_at <= $1 AND next_poll_at IS NOT NULL) AS "in_doubt!",
       (SELECT count(*) FROM attempts WHERE state = 'pending' AND next_poll_at IS NOT NULL) AS "pending!",
       (SELECT count(*) FROM events WHERE event_id >= $2 AND kind = 'charge.paid') AS "paid_24h!",
       (SELECT count(*) FROM events WHERE event_id >= $2 AND kind = 'charge.declined') AS "declined_24h!",
       (SELECT count(*) FROM events WHERE event_id >= $2 AND kind IN ('charge.failed', 'charge.written_off')) AS "failed_24h!",
       (SELECT count(*) FROM notices WHERE state = 'new') AS "notices_new!",
       (SELECT count(*) FROM outbox) AS "outbox_pending!",
       (SELECT least((SELECT min(due_at) FROM due_periods WHERE due_at <= $1),
                     (SELECT min(send_at) FROM charges WHERE send_at <= $1)))
           AS oldest_due_at,
       (SELECT least((SELECT min(due_at) FROM due_periods WHERE due_at > $1),
                     (SELECT min(send_at) FROM charges WHERE send_at > $1)))
           AS next_due_at
