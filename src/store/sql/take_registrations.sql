-- take_registrations
WITH due AS (
    SELECT registration_id FROM registrations WHERE next_poll_at <= $1 AND shop = ANY($3)
    ORDER BY next_poll_at LIMIT 500 FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE registrations r
    SET next_poll_at = least($1 + make_interval(secs => ($2::bigint[])[least(r.polls + 1, cardinality($2::bigint[]))]),
                             -- The moment at which nobody can pay it any more, for as long as that is to come.
                             CASE WHEN r.valid_to > $1 THEN r.valid_to END),
        polls = least(r.polls + 1, 1000)
    FROM due WHERE r.registration_id = due.registration_id
    RETURNING r.*
)
SELECT t.registration_id AS "registration_id!: RegistrationId", t.shop AS "shop!: ShopName", t.cid AS "cid!",
       t.state AS "state!: RegistrationState", t.amount_minor AS "amount_minor!", t.currency AS "currency!: Currency",
       t.payment_id AS "payment_id: PaymentId", t.transaction_id AS "transaction_id: TransactionId", t.paid_at,
       t.valid_to AS "valid_to!", t.ended_at, t.mismatched_ids AS "mismatched_ids!: Vec<TransactionId>",
       (t.purpose = 'verification' AND s.status NOT IN ('cancelled', 'completed')
        OR s.status = 'registering' AND NOT EXISTS (
            SELECT FROM charges c
            WHERE c.subscription_id = t.subscription_id AND c.period_no = t.period_no AND c.state = 'paid')) AS "is_wanted!"
FROM taken t JOIN subscriptions s USING (subscription_id)
ORDER BY t.registration_id
