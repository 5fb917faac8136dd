-- audit_billed_subscriptions_go_on
SELECT s.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       CASE
           WHEN d.subscription_id IS NULL THEN 'it has no schedule'
           WHEN s.status NOT IN ('active', 'past_due') THEN format('it is %s, but period %s is still to fall due', s.status,
                                                                   d.next_period_no)
           WHEN d.next_period_no IS NULL THEN format('it is %s, but no period will fall due any more', s.status)
           WHEN d.next_period_no <= l.last_period_no THEN format('the next period is %s, but %s is planned already',
                                                                 d.next_period_no, l.last_period_no)
           ELSE format('the next period is %s, due on %s; the calendar says %s', d.next_period_no, d.next_due_on,
                       (s.anchor_date + d.next_period_no * s.period::interval)::date)
       END AS "detail!"
FROM subscriptions s
    LEFT JOIN schedules d USING (subscription_id)
    LEFT JOIN (SELECT c.subscription_id, max(c.period_no) AS last_period_no FROM charges c GROUP BY c.subscription_id) l
        USING (subscription_id)
WHERE d.subscription_id IS NULL
   OR (s.status NOT IN ('active', 'past_due') AND (d.next_period_no IS NOT NULL OR d.is_finishing))
   OR (s.status IN ('active', 'past_due') AND d.next_period_no IS NULL AND NOT d.is_finishing)
   OR d.next_period_no <= l.last_period_no
   OR d.next_period_no < s.first_period_no
   OR d.next_due_on <> (s.anchor_date + d.next_period_no * s.period::interval)::date
LIMIT $1
