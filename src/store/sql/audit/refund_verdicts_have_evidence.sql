-- audit_refund_verdicts_have_evidence
SELECT r.subscription_id AS "subscription_id?", r.charge_id AS "charge_id?", r.attempt_id AS "attempt_id?",
       format('refund %s of order %s is %s without evidence that can say so', r.refund_id, r.order_id, r.state) AS "detail!"
FROM refunds r
WHERE r.state <> 'in_doubt'
  AND NOT EXISTS (
      SELECT FROM refund_evidence e
      WHERE e.refund_id = r.refund_id AND e.verdict = r.state
        AND CASE r.state
                WHEN 'not_sent' THEN e.kind = 'local'
                WHEN 'refused' THEN e.kind = 'answer'
                WHEN 'absent' THEN e.kind = 'person' AND e.recorded_at >= r.permitted_at + interval '100 hours'
                ELSE e.kind IN ('answer', 'read')
            END
        AND (r.state <> 'settled' OR e.transaction_id = r.transaction_id))
LIMIT $1
