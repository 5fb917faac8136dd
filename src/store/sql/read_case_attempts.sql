-- read_case_attempts
SELECT a.attempt_id AS "attempt_id: AttemptId",
       a.attempt_no, a.order_id,
       a.state AS "state: AttemptState",
       a.transaction_id AS "transaction_id: TransactionId",
       a.permitted_at,
       a.case_opened_at IS NOT NULL AS "has_case!",
       a.decline AS "decline: DeclineClass",
       a.card_id IS NOT DISTINCT FROM s.card_id AS "is_on_present_card!",
       ARRAY(SELECT e.actor FROM evidence e
             WHERE e.attempt_id = a.attempt_id AND e.kind = 'person' AND e.verdict = 'absent'
             ORDER BY e.recorded_at, e.evidence_id) AS "declared_by!",
       coalesce(i.was_alive, false) AS "inbox_was_alive!",
       coalesce(i.spoke_of_it, false) AS "inbox_spoke_of_it!"
FROM charges c
    JOIN subscriptions s USING (subscription_id)
    JOIN attempts a USING (subscription_id, period_no)
    -- Only of an attempt in doubt it matters.
    LEFT JOIN LATERAL (SELECT was_alive, spoke_of_it FROM inbox_since_permit(a.attempt_id) WHERE a.state = 'in_doubt') i ON true
WHERE c.charge_id = $1
ORDER BY a.attempt_no
