-- read_registrations
SELECT r.registration_id AS "registration_id: RegistrationId", r.subscription_id AS "subscription_id: SubscriptionId",
       r.shop AS "shop: ShopName", r.cid,
       r.way AS "way: Way", r.state AS "state: RegistrationState", r.amount_minor, r.currency AS "currency: Currency",
       r.payment_id AS "payment_id: PaymentId", r.sale_id AS "sale_id: TransactionId",
       r.transaction_id AS "transaction_id: TransactionId", r.created_at, r.paid_at, r.valid_to, r.ended_at,
       r.mismatched_ids AS "mismatched_ids: Vec<TransactionId>",
       (r.purpose = 'verification' AND s.status NOT IN ('cancelled', 'completed')
        OR s.status = 'registering' AND NOT EXISTS (
            SELECT FROM charges c
            WHERE c.subscription_id = r.subscription_id AND c.period_no = r.period_no AND c.state = 'paid')) AS "is_wanted!"
FROM registrations r JOIN subscriptions s USING (subscription_id)
WHERE r.registration_id = ANY($1)
ORDER BY r.registration_id
