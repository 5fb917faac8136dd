-- take_notices
WITH due AS (
    SELECT notice_id FROM notices
    WHERE state = 'new' AND next_action_at <= $1 AND shop = ANY($2)
    ORDER BY next_action_at LIMIT 500 FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE notices n
    SET next_action_at = $1 + least(interval '10 seconds' * (2 ^ least(n.tries, 20)), interval '6 hours'),
        tries = least(n.tries + 1, 1000)
    FROM due WHERE n.notice_id = due.notice_id
    RETURNING n.notice_id, n.shop, n.order_id, n.transaction_id, n.attempt_id, n.is_refund, n.refund_of, n.received_at,
              n.says_settled
)
SELECT t.notice_id AS "notice_id!: NoticeId",
       t.shop AS "shop!: ShopName",
       t.order_id,
       t.is_refund AS "is_refund!",
       t.refund_of AS "refund_of: TransactionId",
       t.says_settled AS "says_settled!",
       t.received_at AS "received_at!",
       t.transaction_id AS "transaction_id: TransactionId",
       a.subscription_id AS "subscription_id?: SubscriptionId",
       a.attempt_id AS "attempt_id?: AttemptId",
       a.state AS "state?: AttemptState",
       a.order_id AS "attempt_order_id?",
       a.amount_minor AS "amount_minor?",
       a.currency AS "currency?: Currency",
       a.transaction_id AS "attempt_transaction_id?: TransactionId",
       r.registration_id AS "registration_id?: RegistrationId",
       -- Money that the archive knows of, or that did not move for what is there, is nothing new.
       a.attempt_id IS NULL AND NOT t.is_refund AND EXISTS (
           SELECT FROM archived_attempts h
           WHERE h.subscription_id = CASE WHEN t.order_id ~ '^cykl-[0-9a-f]{32}-' THEN split_part(t.order_id, '-', 2)::uuid END
             AND h.order_id = t.order_id AND h.shop = t.shop
             AND (NOT t.says_settled OR h.transaction_id = t.transaction_id AND h.state IN ('settled', 'surplus'))) AS "is_archived!"
FROM taken t
    -- The address names the attempt; without it the order does.
    LEFT JOIN attempts a
        ON a.attempt_id = coalesce(t.attempt_id, (
            SELECT o.attempt_id FROM attempts o
            WHERE o.order_id = t.order_id
              -- Found by the subscription that an order id of ours names.
              AND o.subscription_id = CASE WHEN t.order_id ~ '^cykl-[0-9a-f]{32}-' THEN split_part(t.order_id, '-', 2)::uuid END))
       AND a.shop = t.shop
    LEFT JOIN registrations r ON r.order_id = t.order_id AND r.shop = t.shop
ORDER BY t.received_at
