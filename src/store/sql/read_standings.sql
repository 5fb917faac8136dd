-- read_standings
SELECT a.attempt_id AS "attempt_id: AttemptId",
       a.charge_id AS "charge_id: ChargeId",
       a.subscription_id AS "subscription_id: SubscriptionId",
       a.card_id AS "card_id: CardId",
       a.shop AS "shop: ShopName",
       a.amount_minor,
       a.currency AS "currency: crate::domain::money::Currency",
       a.period_no, a.attempt_no,
       a.state AS "attempt_state: AttemptState",
       a.transaction_id AS "transaction_id: TransactionId",
       a.permitted_at,
       c.state AS "charge_state: ChargeState",
       c.declines, c.unsent, c.first_attempt_at,
       CASE WHEN c.state = 'retry_wait' THEN c.next_action_at END AS retry_at,
       s.status AS "status: SubscriptionStatus",
       s.timezone,
       -- An only attempt has no others to look for.
       c.attempts > 1 AND EXISTS (
           SELECT FROM attempts o
           WHERE o.charge_id = a.charge_id AND o.subscription_id = a.subscription_id AND o.attempt_id <> a.attempt_id
             AND o.state IN ('in_doubt', 'pending', 'settled')) AS "another_blocks!",
       CASE WHEN c.attempts > 1 THEN (
           SELECT o.attempt_id FROM attempts o
           WHERE o.subscription_id = a.subscription_id AND o.period_no = a.period_no AND o.attempt_id <> a.attempt_id
             AND o.state IN ('settled', 'surplus')
           ORDER BY o.decided_at LIMIT 1) END AS "moved_by: AttemptId",
       c.attempts > 1 AND EXISTS (
           SELECT FROM attempts o
           WHERE o.subscription_id = a.subscription_id AND o.period_no = a.period_no AND o.attempt_id <> a.attempt_id
             AND o.state IN ('settled', 'surplus') AND o.card_id IS NULL)
           -- Beside a debit of ours it is no excuse, and card data were charged by us.
           AND NOT EXISTS (
               SELECT FROM attempts o LEFT JOIN registrations r ON o.card_id IS NULL AND r.order_id = o.order_id
               WHERE o.subscription_id = a.subscription_id AND o.period_no = a.period_no AND o.attempt_id <> a.attempt_id
                 AND o.state IN ('settled', 'surplus') AND (o.card_id IS NOT NULL OR r.way = 'card_data')) AS "moved_by_link!",
       a.card_id IS NOT NULL AND s.card_id IS DISTINCT FROM a.card_id AS "card_replaced!",
       EXISTS (SELECT FROM attempts o
               WHERE o.transaction_id = f.transaction_id AND o.attempt_id <> a.attempt_id) AS "transaction_taken!"
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) AS f (attempt_id, transaction_id, subscription_id)
    JOIN attempts a ON a.attempt_id = f.attempt_id AND a.subscription_id = f.subscription_id
    JOIN charges c ON c.charge_id = a.charge_id AND c.subscription_id = a.subscription_id
    JOIN subscriptions s ON s.subscription_id = a.subscription_id
ORDER BY a.attempt_id

