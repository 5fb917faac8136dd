-- audit_archived_payments_are_counted
-- Of subscriptions that had periods before what is kept, nobody can tell any more.
SELECT s.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('it counts %s payments in the archive up to period %s; there are %s up to period %s', s.archived_payments, s.archived_to,
              coalesce(c.payments, 0), coalesce(c.last_no, -1)) AS "detail!"
FROM subscriptions s
    LEFT JOIN (
        SELECT c.subscription_id, count(*) FILTER (WHERE c.state = 'paid') AS payments, max(c.period_no) AS last_no
        FROM archived_charges c GROUP BY c.subscription_id
    ) c USING (subscription_id)
    CROSS JOIN archive h
WHERE (s.archived_payments, s.archived_to) IS DISTINCT FROM (coalesce(c.payments, 0), coalesce(c.last_no, -1))
  AND (s.anchor_date + s.first_period_no * s.period::interval)::date >= h.kept_from
LIMIT $1
