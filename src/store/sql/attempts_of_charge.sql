-- attempts_of_charge
SELECT a.attempt_id AS "attempt_id!: AttemptId", a.attempt_no AS "attempt_no!", a.order_id AS "order_id!",
       a.state AS "state!: AttemptState",
       a.transaction_id AS "transaction_id: TransactionId",
       a.status_code,
       a.decline AS "decline: DeclineClass",
       a.amount_minor AS "amount_minor!",
       a.currency AS "currency!: Currency",
       a.permitted_at AS "permitted_at!", a.deadline_at AS "deadline_at!", a.decided_at, a.next_poll_at, a.case_opened_at,
       coalesce(a.card_masked, k.masked_number) AS card_masked
FROM all_charges c
    JOIN all_attempts a USING (subscription_id, period_no)
    LEFT JOIN cards k USING (card_id)
WHERE c.charge_id = $1
ORDER BY a.attempt_no
