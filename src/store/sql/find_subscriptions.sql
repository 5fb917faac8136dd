-- find_subscriptions
SELECT b.subscription_id AS "subscription_id!: SubscriptionId", b.external_id AS "external_id!", b.shop AS "shop!: ShopName",
       b.status AS "status!: SubscriptionStatus", b.status_reason, b.cid, b.payment_profile_id AS "payment_profile_id: ProfileId",
       b.amount_minor AS "amount_minor!", b.currency AS "currency!: Currency", b.period AS "period!",
       b.anchor_date AS "anchor_date!", b.timezone AS "timezone!", b.next_charge_on, b.next_due_at,
       b.charges_paid AS "charges_paid!", b.created_at AS "created_at!", b.first_transaction_id
FROM billing.subscriptions b
WHERE (b.subscription_id = $1 AND ($3::text IS NULL OR b.shop = $3))
   -- By shop, because names are indexed by shop.
   OR (b.external_id = $2 AND b.shop IN (SELECT s.shop FROM shops s WHERE $3::text IS NULL OR s.shop = $3))
ORDER BY b.shop
LIMIT 20
