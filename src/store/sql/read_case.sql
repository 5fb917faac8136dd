-- read_case
SELECT c.subscription_id AS "subscription_id: SubscriptionId",
       c.shop AS "shop: ShopName",
       c.period_no, c.amount_minor,
       c.currency AS "currency: Currency",
       c.state AS "state: ChargeState",
       c.reason, c.next_action_at,
       s.status AS "status: SubscriptionStatus",
       coalesce(k.is_active, false) AS "card_is_active!",
       -- Spacing, over all charges of the subscription.
       (SELECT max(a.quiet_until) FROM attempts a
        WHERE a.subscription_id = c.subscription_id AND a.state <> 'not_sent') AS quiet_until
FROM charges c
    JOIN subscriptions s USING (subscription_id)
    LEFT JOIN cards k USING (card_id)
WHERE c.charge_id = $1
