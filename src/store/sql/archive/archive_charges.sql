-- archive_charges
INSERT INTO archived_charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, reason, attempts,
                              declines, unsent, first_attempt_at, paid_at, paid_attempt_id, paid_transaction_id, last_status_code,
                              planned_at, next_due_at)
SELECT c.charge_id, c.subscription_id, c.shop, c.period_no, c.due_on, c.due_at, c.amount_minor, c.currency, c.state, c.reason, c.attempts,
       c.declines, c.unsent, c.first_attempt_at, c.paid_at, c.paid_attempt_id, a.transaction_id, c.last_status_code,
       c.planned_at, c.next_due_at
FROM charges c LEFT JOIN attempts a ON a.attempt_id = c.paid_attempt_id
WHERE c.charge_id = ANY($1)
