-- archive_attempts
INSERT INTO archived_attempts (attempt_id, charge_id, subscription_id, shop, card_id, period_no, due_on, attempt_no, order_id, amount_minor,
                               currency, state, is_retry, fence_id, permitted_at, deadline_at, quiet_until, transaction_id, status_code,
                               decline, card_masked, polls, case_opened_at, decided_at, confirmed_at, last_evidence_id)
SELECT a.attempt_id, a.charge_id, a.subscription_id, a.shop, a.card_id, a.period_no, c.due_on, a.attempt_no, a.order_id, a.amount_minor,
       a.currency, a.state, a.is_retry, a.fence_id, a.permitted_at, a.deadline_at, a.quiet_until, a.transaction_id, a.status_code,
       a.decline, a.card_masked, a.polls, a.case_opened_at, a.decided_at, a.confirmed_at, a.last_evidence_id
FROM charges c JOIN attempts a USING (subscription_id, period_no)
WHERE c.charge_id = ANY($1)
