-- insert_attempts
INSERT INTO attempts (attempt_id, charge_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor, currency,
                      is_retry, permitted_at, deadline_at, quiet_until, state, fence_id, next_poll_at, decided_at)
SELECT n.attempt_id, n.charge_id, n.subscription_id, n.shop, n.card_id, n.period_no, n.attempt_no, n.order_id, n.amount_minor,
       n.currency, n.is_retry, n.permitted_at, n.deadline_at, n.quiet_until, $15, $16,
       CASE WHEN $15 = 'in_doubt'::attempt_state THEN n.deadline_at END,
       CASE WHEN $15 <> 'in_doubt'::attempt_state THEN n.permitted_at END
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::integer[], $7::integer[], $8::text[], $9::bigint[],
            $10::currency[], $11::boolean[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[])
    AS n (attempt_id, charge_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor, currency, is_retry,
          permitted_at, deadline_at, quiet_until)
