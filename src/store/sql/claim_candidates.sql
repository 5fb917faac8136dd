-- claim_candidates
WITH due AS MATERIALIZED (
    -- Chosen before anything is joined to it. On the morning of a large run the statistics still say that hardly anything is
    -- due, and a plan made for that joins all that is due, and only then sorts it and takes the first.
    SELECT charge_id, subscription_id, shop, period_no, due_on, amount_minor, currency, attempts, declines, first_attempt_at, send_at
    FROM charges c
    WHERE send_at <= $1 AND send_at >= coalesce($5::timestamptz, '-infinity') AND shop = ANY($2)
      -- A decline is read again before the retry, and so is what a notice tells of; until that is done the charge is left alone.
      AND (attempts = 0 OR NOT EXISTS (
          SELECT FROM attempts a
          WHERE a.subscription_id = c.subscription_id AND a.period_no = c.period_no
            AND (a.next_poll_at IS NOT NULL OR EXISTS (
                SELECT FROM notices n
                WHERE n.state = 'new' AND n.shop = a.shop AND (n.attempt_id = a.attempt_id OR n.order_id = a.order_id)))))
    ORDER BY send_at
    LIMIT $3
    FOR UPDATE SKIP LOCKED
)
SELECT c.charge_id AS "charge_id: ChargeId",
       c.subscription_id AS "subscription_id: SubscriptionId",
       c.shop AS "shop: ShopName",
       c.period_no, c.due_on, c.send_at AS "send_at!", c.amount_minor,
       c.currency AS "currency: Currency",
       c.attempts,
       c.declines > 0 AS "is_retry!",
       -- Otherwise it was permitted before, and not sent.
       c.attempts = c.declines AS "is_new_try!",
       c.first_attempt_at,
       s.status AS "status: SubscriptionStatus",
       s.title, s.period, s.invoice, s.multipayout, s.notification_url,
       k.card_id AS "card_id?: CardId",
       k.cid AS "cid?",
       k.payment_profile_id AS "profile_id?: ProfileId",
       k.first_transaction_id AS "first_transaction_id?: FirstTransactionId", k.customer AS "customer?", k.aliases AS "aliases?",
       coalesce(k.is_active, false) AS "card_is_active!",
       -- Spacing, over all charges of the subscription.
       (SELECT max(a.quiet_until) FROM attempts a
        WHERE a.subscription_id = c.subscription_id AND a.state <> 'not_sent') AS quiet_until,
       -- How old the gateway's word is that the earlier attempts were declined.
       c.attempts > 0 AND EXISTS (
           SELECT FROM attempts a
           WHERE a.subscription_id = c.subscription_id AND a.period_no = c.period_no
             AND a.state = 'rejected' AND coalesce(a.confirmed_at, '-infinity') < $4) AS "is_stale!",
       -- An attempt that was written off stays in doubt, and the schema allows no other beside it.
       c.attempts > 0 AND EXISTS (
           SELECT FROM attempts a
           WHERE a.subscription_id = c.subscription_id AND a.period_no = c.period_no
             AND a.state IN ('in_doubt', 'pending', 'settled', 'surplus')) AS "is_blocked!"
FROM due c
    JOIN subscriptions s USING (subscription_id)
    LEFT JOIN cards k USING (card_id)
-- Of the periods of a subscription that were put off to the same time the oldest comes first.
ORDER BY c.send_at, c.period_no
