-- audit_sums_agree
-- Three records of the same payments, each added up by day and currency: the charges, their attempts, and what was told. What was dropped
-- from the archive was dropped by the days on which it was due and told, so the year after it is left out.
WITH paid AS (
    SELECT (c.paid_at AT TIME ZONE 'UTC')::date AS day, c.currency, count(*) AS charges, sum(c.amount_minor) AS charged_minor,
           sum(a.amount_minor) AS moved_minor
    FROM all_charges c LEFT JOIN all_attempts a ON a.attempt_id = c.paid_attempt_id AND a.currency = c.currency
    WHERE c.state = 'paid'
    GROUP BY 1, 2
), told AS (
    SELECT (e.occurred_at AT TIME ZONE 'UTC')::date AS day, (e.payload ->> 'currency')::currency AS currency, count(*) AS events,
           sum((e.payload ->> 'amount_minor')::bigint) AS told_minor
    FROM all_events e
    WHERE e.kind = 'charge.paid'
    GROUP BY 1, 2
)
SELECT NULL::uuid AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('on %s %s charges were paid with %s %s in minor units; their attempts moved %s, and %s were told with %s', day,
              coalesce(p.charges, 0), coalesce(p.charged_minor, 0), currency, coalesce(p.moved_minor, 0), coalesce(t.events, 0),
              coalesce(t.told_minor, 0)) AS "detail!"
FROM paid p FULL JOIN told t USING (day, currency) CROSS JOIN archive h
WHERE (p.charges, p.charged_minor, p.charged_minor) IS DISTINCT FROM (t.events, t.told_minor, p.moved_minor)
  AND day >= h.kept_from + interval '1 year'
ORDER BY day
LIMIT $1
