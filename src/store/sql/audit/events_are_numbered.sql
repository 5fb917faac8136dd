-- audit_events_are_numbered
SELECT coalesce(d.subscription_id, e.subscription_id) AS "subscription_id?", NULL::uuid AS "charge_id?",
       NULL::uuid AS "attempt_id?",
       format('%s events, numbered %s to %s; the last should be %s', coalesce(e.events, 0), e.first_no, e.last_no, d.last_event_no)
           AS "detail!"
FROM schedules d
    FULL JOIN (
        SELECT e.subscription_id, count(DISTINCT e.sequence_no) AS events, min(e.sequence_no) AS first_no,
               max(e.sequence_no) AS last_no
        FROM events e WHERE e.subscription_id IS NOT NULL GROUP BY e.subscription_id
    ) e USING (subscription_id)
WHERE d.last_event_no IS DISTINCT FROM coalesce(e.events, 0)
   OR (e.events > 0 AND (e.first_no, e.last_no) IS DISTINCT FROM (1::bigint, e.events))
LIMIT $1
