-- audit_billed_subscriptions_go_on
SELECT s.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       CASE
           WHEN s.status NOT IN ('active', 'past_due') THEN format('it is %s, but period %s is still to fall due', s.status,
                                                                   d.period_no)
           WHEN d.subscription_id IS NULL THEN format('it is %s, but no period will fall due any more', s.status)
           WHEN d.rows > 1 THEN 'more than one period is the next'
           WHEN d.period_no <= l.period_no THEN format('the next period is %s, but %s is planned already', d.period_no, l.period_no)
           WHEN d.due_at NOT IN (coalesce(s.from_due_at, '-infinity'), coalesce(l.next_due_at, '-infinity'))
               THEN format('period %s falls due at %s, where nothing points to', d.period_no, d.due_at)
           ELSE format('the next period is %s, due on %s; the calendar says %s', d.period_no, d.due_on,
                       (s.anchor_date + d.period_no * s.period::interval)::date)
       END AS "detail!"
FROM subscriptions s
    LEFT JOIN (SELECT d.*, count(*) OVER (PARTITION BY d.subscription_id) AS rows FROM due_periods d) d USING (subscription_id)
    LEFT JOIN (
        SELECT DISTINCT ON (c.subscription_id) c.subscription_id, c.period_no, c.next_due_at
        FROM charges c ORDER BY c.subscription_id, c.period_no DESC
    ) l USING (subscription_id)
WHERE (s.status NOT IN ('active', 'past_due') AND (d.subscription_id IS NOT NULL OR s.is_finishing))
   OR (s.status IN ('active', 'past_due') AND d.subscription_id IS NULL AND NOT s.is_finishing)
   OR d.rows > 1
   OR d.period_no <= l.period_no
   OR d.period_no < s.first_period_no
   OR d.due_at NOT IN (coalesce(s.from_due_at, '-infinity'), coalesce(l.next_due_at, '-infinity'))
   OR d.due_on <> (s.anchor_date + d.period_no * s.period::interval)::date
LIMIT $1
