-- audit_verdicts_have_evidence
-- Whoever says that no money moved must be in a position to know. A tombstone is born as not sent: it was never a permit.
SELECT a.subscription_id AS "subscription_id?", a.charge_id AS "charge_id?", a.attempt_id AS "attempt_id?",
       format('attempt %s is %s without evidence that can say so', a.order_id, a.state) AS "detail!"
FROM all_attempts a
WHERE a.state <> 'in_doubt'
  AND NOT (a.state = 'not_sent' AND a.last_evidence_id IS NULL AND a.decided_at = a.permitted_at)
  AND NOT EXISTS (
      SELECT FROM all_evidence e
      WHERE e.attempt_id = a.attempt_id AND e.verdict = a.state
        AND CASE a.state
                WHEN 'not_sent' THEN e.kind = 'local'
                WHEN 'refused' THEN e.kind = 'answer'
                WHEN 'absent' THEN e.kind = 'person'
                ELSE e.kind IN ('answer', 'read', 'person')
            END
        AND (a.state NOT IN ('settled', 'surplus') OR e.transaction_id IS NULL OR e.transaction_id = a.transaction_id))
LIMIT $1
