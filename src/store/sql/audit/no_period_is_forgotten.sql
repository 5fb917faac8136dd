-- audit_no_period_is_forgotten
-- Every period up to the next one has a charge, unless the subscription was stopped, or had no card yet: then what fell due until it
-- went on is not charged. Such a gap begins after the charge before it was planned, and ends with what fell due by the day of going on.
-- Of gaps that begin before what is kept, nobody can tell any more.
WITH steps AS (
    SELECT c.subscription_id, c.period_no, c.planned_at AS at FROM all_charges c
    UNION ALL
    SELECT s.subscription_id, s.first_period_no - 1, s.created_at FROM subscriptions s
    UNION ALL
    SELECT d.subscription_id, d.period_no, NULL FROM due_periods d
), neighbours AS (
    SELECT t.subscription_id, t.period_no AS before, t.at AS since,
           lead(t.period_no) OVER w AS after, lead(t.at) OVER w AS until
    FROM steps t
    WINDOW w AS (PARTITION BY t.subscription_id ORDER BY t.period_no)
), gaps AS (
    SELECT n.subscription_id, n.before + 1 AS first_no, n.after - 1 AS last_no, n.since, n.until
    FROM neighbours n WHERE n.after > n.before + 1
)
SELECT g.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('periods %s to %s have no charge, and no stop of the subscription explains it', g.first_no, g.last_no) AS "detail!"
FROM gaps g JOIN subscriptions s USING (subscription_id) CROSS JOIN archive h
WHERE g.since >= h.kept_from AND (s.anchor_date + g.first_no * s.period::interval)::date >= h.kept_from AND NOT EXISTS (
    SELECT FROM all_events stopped JOIN all_events resumed USING (subscription_id)
    WHERE stopped.subscription_id = g.subscription_id
      AND (stopped.kind IN ('subscription.paused', 'subscription.deactivated')
               AND resumed.kind IN ('subscription.resumed', 'subscription.recovered')
           OR stopped.kind = 'subscription.created'
               AND (resumed.kind = 'subscription.activated'
                    OR resumed.kind = 'registration.paid' AND resumed.payload ->> 'purpose' = 'first_charge' AND NOT EXISTS (
                        SELECT FROM all_events a
                        WHERE a.subscription_id = g.subscription_id AND a.kind = 'subscription.activated'
                          AND a.sequence_no < resumed.sequence_no)))
      AND stopped.sequence_no < resumed.sequence_no
      AND (stopped.occurred_at >= g.since
           -- Without a card it was stopped until it had one, whatever was paid before, or was heard of later.
           OR stopped.kind = 'subscription.created' AND (
               NOT EXISTS (
                   SELECT FROM all_events a
                   WHERE a.subscription_id = g.subscription_id AND a.kind = 'subscription.activated' AND a.occurred_at <= g.since)
               OR EXISTS (
                   SELECT FROM registrations r
                   WHERE r.subscription_id = g.subscription_id AND r.period_no = g.first_no - 1 AND r.transaction_id IS NOT NULL)))
      AND (g.until IS NULL OR resumed.occurred_at <= g.until)
      AND (s.anchor_date + g.last_no * s.period::interval)::date <= (resumed.occurred_at AT TIME ZONE s.timezone)::date)
LIMIT $1
