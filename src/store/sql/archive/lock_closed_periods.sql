-- lock_closed_periods
-- Which of these charges nothing can happen to any more: closed, paid or planned long ago, with attempts that were final by then and need
-- not be read again, and not the newest, which says where the next period is. A charge that failed can be tried again as long as its subscription goes on.
SELECT c.charge_id AS "charge_id: ChargeId", c.due_on
FROM charges c JOIN subscriptions s USING (subscription_id)
WHERE c.charge_id = ANY($1)
  AND (c.state IN ('paid', 'skipped', 'void') OR c.state = 'failed' AND s.status IN ('cancelled', 'completed'))
  AND coalesce(c.paid_at, c.planned_at) < $2
  AND EXISTS (SELECT FROM charges n WHERE n.subscription_id = c.subscription_id AND n.period_no > c.period_no)
  AND NOT EXISTS (
      SELECT FROM attempts a
      WHERE a.subscription_id = c.subscription_id AND a.period_no = c.period_no
        AND (a.decided_at IS NULL OR a.decided_at >= $2 OR a.next_poll_at IS NOT NULL))
ORDER BY c.charge_id
FOR UPDATE OF c SKIP LOCKED
