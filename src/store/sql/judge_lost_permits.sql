-- judge_lost_permits
-- What becomes of permits that have no place yet. One comes back where its charge waits and nothing else of it may move money.
UPDATE lost_permits l
SET found_at = $1,
    fate = CASE
        WHEN EXISTS (SELECT FROM all_attempts a
                     WHERE (a.subscription_id, a.period_no, a.attempt_no) = (l.subscription_id, l.period_no, l.attempt_no))
          -- The journal names two under one order id: the period was charged again from books that had forgotten the first.
          OR EXISTS (SELECT FROM lost_permits m
                     WHERE (m.subscription_id, m.period_no, m.attempt_no) = (l.subscription_id, l.period_no, l.attempt_no)
                       AND (m.permitted_at, m.attempt_id) > (l.permitted_at, l.attempt_id))
            THEN 'order_id_taken'::lost_fate
        WHEN EXISTS (SELECT FROM all_attempts a
                     WHERE (a.subscription_id, a.period_no) = (l.subscription_id, l.period_no) AND a.attempt_no > l.attempt_no)
          OR EXISTS (SELECT FROM lost_permits m
                     WHERE (m.subscription_id, m.period_no) = (l.subscription_id, l.period_no) AND m.attempt_no > l.attempt_no)
            THEN 'superseded'
        WHEN EXISTS (SELECT FROM charges c JOIN cards k ON k.card_id = l.card_id AND k.shop = c.shop
                     WHERE (c.subscription_id, c.period_no, c.shop, c.amount_minor, c.currency)
                         = (l.subscription_id, l.period_no, l.shop, l.amount_minor, l.currency)
                       AND c.state IN ('planned', 'retry_wait'))
         AND NOT EXISTS (SELECT FROM attempts a
                         WHERE (a.subscription_id, a.period_no) = (l.subscription_id, l.period_no)
                           AND a.state IN ('in_doubt', 'pending', 'settled', 'surplus'))
            THEN 'restored'
        ELSE 'unplaced'
    END
WHERE l.fate = 'unplaced'
