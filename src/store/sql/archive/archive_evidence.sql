-- archive_evidence
INSERT INTO archived_evidence (evidence_id, attempt_id, subscription_id, due_on, kind, verdict, http_status, error_code, gateway_status,
                               status_code, transaction_id, detail, actor, recorded_at)
SELECT e.evidence_id, e.attempt_id, e.subscription_id, c.due_on, e.kind, e.verdict, e.http_status, e.error_code, e.gateway_status,
       e.status_code, e.transaction_id, e.detail, e.actor, e.recorded_at
FROM charges c JOIN attempts a USING (subscription_id, period_no) JOIN evidence e USING (attempt_id)
WHERE c.charge_id = ANY($1)
