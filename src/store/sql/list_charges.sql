-- list_charges
-- Newest first, by the order in which charges were planned: their ids are ordered by time.
SELECT c.charge_id AS "charge_id!: ChargeId",
       c.subscription_id AS "subscription_id!: SubscriptionId",
       c.external_id AS "external_id!",
       c.shop AS "shop!: ShopName",
       c.period_no AS "period_no!",
       c.due_on AS "due_on!",
       c.due_at AS "due_at!",
       c.amount_minor AS "amount_minor!",
       c.currency AS "currency!: Currency",
       c.state AS "state!: ChargeState",
       c.attempts AS "attempts!",
       c.next_action_at, c.paid_at, c.last_status_code,
       c.transaction_id AS "transaction_id: TransactionId",
       c.reason
FROM billing.charges c
WHERE ($1::uuid IS NULL OR c.charge_id = $1)
  AND ($2::charge_state IS NULL OR c.state = $2)
  AND ($3::text IS NULL OR c.shop = $3)
  AND ($4::uuid[] IS NULL OR c.subscription_id = ANY($4))
ORDER BY c.charge_id DESC
LIMIT $5
