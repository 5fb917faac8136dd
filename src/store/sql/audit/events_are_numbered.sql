-- audit_events_are_numbered
SELECT e.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('%s events, numbered %s to %s', e.events, e.first_no, e.last_no) AS "detail!"
FROM (
    SELECT e.subscription_id, count(DISTINCT e.sequence_no) AS events, min(e.sequence_no) AS first_no,
           max(e.sequence_no) AS last_no, min(e.occurred_at) AS first_at
    FROM all_events e WHERE e.subscription_id IS NOT NULL GROUP BY e.subscription_id
) e
    LEFT JOIN subscriptions s USING (subscription_id)
    CROSS JOIN archive h
WHERE CASE
          -- What was dropped are the first ones, but for some that were told within hours of the new year.
          WHEN s.created_at < h.kept_from
              THEN e.last_no - e.first_no + 1 <> e.events AND e.first_at >= h.kept_from + interval '1 day'
          ELSE (e.first_no, e.last_no) IS DISTINCT FROM (1::bigint, e.events)
      END
LIMIT $1
