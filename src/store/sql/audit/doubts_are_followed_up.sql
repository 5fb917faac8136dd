-- audit_doubts_are_followed_up
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('attempt %s is %s since %s, and neither a read nor a person is to settle it', a.order_id, a.state, a.permitted_at)
           AS "detail!"
FROM attempts a
WHERE a.next_poll_at IS NULL
  AND (a.state = 'pending' OR (a.state = 'in_doubt' AND a.deadline_at <= $2 AND a.case_opened_at IS NULL))
LIMIT $1
