-- audit_nothing_ends_early
-- A subscription that is finishing or completed has no period left: none after its last charge, or, if it went on after a
-- stop since then, none after that day, as far as the events since then are kept. Periods are looked for over a hundred, which is more than one stop leaves out.
SELECT s.subscription_id AS "subscription_id?", NULL::uuid AS "charge_id?", NULL::uuid AS "attempt_id?",
       format('it has ended, but period %s, due on %s, is left', n.period_no, n.due_on) AS "detail!"
FROM subscriptions s
    CROSS JOIN LATERAL (
        SELECT coalesce(max(c.period_no) + 1, s.first_period_no) AS period_no, coalesce(max(c.planned_at), s.created_at) AS at
        FROM charges c WHERE c.subscription_id = s.subscription_id
    ) l
    CROSS JOIN LATERAL (
        SELECT max((e.occurred_at AT TIME ZONE s.timezone)::date) AS resumed_on
        FROM all_events e
        WHERE e.subscription_id = s.subscription_id AND e.kind IN ('subscription.resumed', 'subscription.recovered', 'subscription.activated')
          AND e.occurred_at >= l.at
    ) r
    CROSS JOIN LATERAL (
        SELECT p.period_no, (s.anchor_date + p.period_no * s.period::interval)::date AS due_on
        FROM generate_series(l.period_no, l.period_no + 100) AS p (period_no)
        WHERE (s.max_charges IS NULL OR p.period_no < s.max_charges)
          AND (r.resumed_on IS NULL OR (s.anchor_date + p.period_no * s.period::interval)::date > r.resumed_on)
        ORDER BY p.period_no LIMIT 1
    ) n
    CROSS JOIN archive h
WHERE (s.is_finishing OR s.status = 'completed') AND (s.ends_on IS NULL OR n.due_on <= s.ends_on) AND l.at >= h.kept_from
LIMIT $1
