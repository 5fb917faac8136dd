-- Books in which nothing is wrong, as the daemon would have left them. Times are in 2025, amounts in grosze.
--
-- 1 monthly: paid, paid after a decline, in doubt.    2 monthly: paid, paused over two periods, went on.
-- 3 one period: paid, completed.                      4 monthly: failed, deactivated.
SET search_path = cykl;
SET session_replication_role = replica;

INSERT INTO cards (card_id, shop, cid, payment_profile_id, masked_number, created_at)
SELECT format('00000000-0000-7000-8000-00000000c00%s', n)::uuid, 'main', 'cid-' || n, gen_random_uuid(), '****1111', '2025-01-01Z'
FROM generate_series(1, 4) AS n;

INSERT INTO subscriptions (subscription_id, shop, external_id, status, status_reason, card_id, amount_minor, currency, period,
                           anchor_date, timezone, max_charges, first_period_no, created_at, updated_at)
SELECT format('00000000-0000-7000-8000-00000000500%s', n)::uuid, 'main', external_id, status::subscription_status, reason,
       format('00000000-0000-7000-8000-00000000c00%s', n)::uuid, 4900, 'PLN', 'P1M', anchor_date::date, 'Europe/Warsaw',
       max_charges, 0, '2025-01-01T00:00Z', '2025-01-01T00:00Z'
FROM (VALUES (1, '=1+1', 'active', NULL, '2025-01-31', NULL::integer),
             (2, 'B-2', 'active', NULL, '2025-01-05', NULL),
             (3, 'C-3', 'completed', NULL, '2025-01-05', 1),
             (4, 'D-4', 'deactivated', 'card_blocked', '2025-01-05', NULL))
    AS s (n, external_id, status, reason, anchor_date, max_charges);

INSERT INTO due_periods (due_at, subscription_id, period_no, due_on)
VALUES ('2025-04-30T04:00Z', '00000000-0000-7000-8000-000000005001', 3, '2025-04-30'),
       ('2025-04-05T04:00Z', '00000000-0000-7000-8000-000000005002', 3, '2025-04-05');
-- The first went on after its last charge was planned, the second after its pause.
UPDATE subscriptions SET from_due_at = '2025-04-05T04:00Z' WHERE external_id = 'B-2';

INSERT INTO charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, reason,
                     next_action_at, attempts, declines, first_attempt_at, paid_at, paid_attempt_id, next_due_at, planned_at)
SELECT format('00000000-0000-7000-8000-0000000d%s00%s', n, p)::uuid, format('00000000-0000-7000-8000-00000000500%s', n)::uuid,
       'main', p, due_on::date, due_at::timestamptz, 4900, 'PLN', state::charge_state, reason, next_action_at::timestamptz,
       attempts, declines, due_at::timestamptz, paid_at::timestamptz,
       CASE WHEN paid_at IS NOT NULL THEN format('00000000-0000-7000-8000-000000a%s0%s0%s', n, p, attempts)::uuid END,
       CASE WHEN n = 1 AND p = 2 THEN timestamptz '2025-04-30T04:00Z' END, due_at::timestamptz
FROM (VALUES
    (1, 0, '2025-01-31', '2025-01-31T05:00Z', 'paid', NULL, NULL, 1, 0, '2025-01-31T05:01Z'),
    (1, 1, '2025-02-28', '2025-02-28T05:00Z', 'paid', NULL, NULL, 2, 1, '2025-03-01T05:01Z'),
    (1, 2, '2025-03-31', '2025-03-31T04:00Z', 'held', 'in_doubt', '2025-04-10T04:00Z', 1, 0, NULL),
    (2, 0, '2025-01-05', '2025-01-05T05:00Z', 'paid', NULL, NULL, 1, 0, '2025-01-05T05:01Z'),
    (3, 0, '2025-01-05', '2025-01-05T05:00Z', 'paid', NULL, NULL, 1, 0, '2025-01-05T05:01Z'),
    (4, 0, '2025-01-05', '2025-01-05T05:00Z', 'failed', 'declined', NULL, 1, 1, NULL))
    AS c (n, p, due_on, due_at, state, reason, next_action_at, attempts, declines, paid_at);

INSERT INTO attempts (attempt_id, charge_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor, currency,
                      state, is_retry, fence_id, permitted_at, deadline_at, quiet_until, transaction_id, status_code, decline,
                      next_poll_at, case_opened_at, decided_at)
SELECT format('00000000-0000-7000-8000-000000a%s0%s0%s', n, p, t)::uuid, format('00000000-0000-7000-8000-0000000d%s00%s', n, p)::uuid,
       format('00000000-0000-7000-8000-00000000500%s', n)::uuid, 'main', format('00000000-0000-7000-8000-00000000c00%s', n)::uuid,
       p, t, format('cykl-0000000000007000800000000000500%s-%s-%s', n, p, t), 4900, 'PLN', state::attempt_state, t > 1,
       (SELECT fence_id FROM installation), at::timestamptz, at::timestamptz + interval '150 s', at::timestamptz + interval '20 h',
       CASE WHEN state <> 'in_doubt' THEN format('00000000-0000-4000-8000-000000e%s0%s0%s', n, p, t)::uuid END,
       CASE WHEN state = 'rejected' THEN 'CODE_51' END, CASE WHEN state = 'rejected' THEN 'funds'::decline_class END,
       CASE WHEN state = 'in_doubt' THEN at::timestamptz + interval '10 days' END,
       CASE WHEN state = 'in_doubt' THEN at::timestamptz + interval '4 days' END,
       CASE WHEN state <> 'in_doubt' THEN at::timestamptz + interval '1 min' END
FROM (VALUES (1, 0, 1, 'settled', '2025-01-31T05:00Z'), (1, 1, 1, 'rejected', '2025-02-28T05:00Z'),
             (1, 1, 2, 'settled', '2025-03-01T05:00Z'), (1, 2, 1, 'in_doubt', '2025-03-31T04:00Z'),
             (2, 0, 1, 'settled', '2025-01-05T05:00Z'), (3, 0, 1, 'settled', '2025-01-05T05:00Z'),
             (4, 0, 1, 'rejected', '2025-01-05T05:00Z'))
    AS a (n, p, t, state, at);

INSERT INTO evidence (evidence_id, attempt_id, subscription_id, kind, verdict, http_status, transaction_id, actor, recorded_at)
SELECT gen_random_uuid(), attempt_id, subscription_id, 'answer', state, 200, transaction_id, 'cykl', decided_at
FROM attempts WHERE state <> 'in_doubt';
UPDATE attempts a SET last_evidence_id = e.evidence_id FROM evidence e WHERE e.attempt_id = a.attempt_id;

INSERT INTO events (event_id, subscription_id, sequence_no, kind, is_alert, shop, charge_id, payload, occurred_at)
SELECT (lpad(to_hex((extract(epoch FROM at::timestamptz) * 1000)::bigint), 12, '0') || '700080000000000000' || n || no)::uuid,
       format('00000000-0000-7000-8000-00000000500%s', n)::uuid, no, kind, false, 'main',
       c.charge_id, coalesce(jsonb_build_object('amount_minor', c.amount_minor, 'currency', c.currency), '{}'), at::timestamptz
FROM (VALUES (1, 1, 'subscription.created', NULL, '2025-01-01T00:00Z'), (1, 2, 'charge.paid', 0, '2025-01-31T05:01Z'),
             (1, 3, 'charge.declined', 1, '2025-02-28T05:01Z'), (1, 4, 'subscription.past_due', NULL, '2025-02-28T05:01Z'),
             (1, 5, 'charge.paid', 1, '2025-03-01T05:01Z'), (1, 6, 'subscription.recovered', NULL, '2025-03-01T05:01Z'),
             (1, 7, 'case.opened', 2, '2025-04-04T04:00Z'),
             (2, 1, 'subscription.created', NULL, '2025-01-01T00:00Z'), (2, 2, 'charge.paid', 0, '2025-01-05T05:01Z'),
             (2, 3, 'subscription.paused', NULL, '2025-01-20T12:00Z'), (2, 4, 'subscription.resumed', NULL, '2025-03-10T12:00Z'),
             (3, 1, 'subscription.created', NULL, '2025-01-01T00:00Z'), (3, 2, 'charge.paid', 0, '2025-01-05T05:01Z'),
             (3, 3, 'subscription.completed', NULL, '2025-01-05T05:02Z'),
             (4, 1, 'subscription.created', NULL, '2025-01-01T00:00Z'), (4, 2, 'charge.failed', 0, '2025-01-05T05:01Z'),
             (4, 3, 'subscription.deactivated', NULL, '2025-01-05T05:01Z'))
    AS e (n, no, kind, p, at)
    LEFT JOIN charges c ON c.charge_id::text = format('00000000-0000-7000-8000-0000000d%s00%s', n, p);

-- Put on and released at the same moment, with ids in the other order.
INSERT INTO events (event_id, kind, is_alert, payload, occurred_at)
SELECT format('01942a00-0000-7000-8000-00000000000%s', n)::uuid, 'brake.changed', true,
       jsonb_build_object('shop', 'main', 'mode', mode), '2025-01-03T00:00Z'
FROM (VALUES (1, 'run'), (2, 'drain')) AS b (n, mode);

-- Some of what the third paid went back: ordered here, and in the gateway's panel.
INSERT INTO refunds (refund_id, attempt_id, charge_id, subscription_id, shop, sale_transaction_id, order_id, origin, amount_minor,
                     currency, state, transaction_id, actor, reason, fence_id, permitted_at, deadline_at, decided_at, last_evidence_id)
SELECT format('00000000-0000-7000-8000-000000f%s0000', r.n)::uuid, attempt_id, charge_id, subscription_id, shop, transaction_id,
       order_id, r.origin::refund_origin, 100, currency, 'settled', format('00000000-0000-4000-8000-000000f%s0000', r.n)::uuid, r.actor,
       r.reason, CASE WHEN r.origin = 'cykl' THEN fence_id END, r.at::timestamptz, r.at::timestamptz, r.at::timestamptz,
       gen_random_uuid()
FROM (VALUES (1, 'cykl', 'eve', 'asked for it', '2025-01-06T08:00Z'), (2, 'elsewhere', 'cykl', NULL, '2025-01-07T08:00Z'))
        AS r (n, origin, actor, reason, at),
    attempts WHERE attempt_id = '00000000-0000-7000-8000-000000a30001';

INSERT INTO refund_evidence (evidence_id, refund_id, kind, verdict, http_status, transaction_id, actor, recorded_at)
SELECT last_evidence_id, refund_id, CASE origin WHEN 'cykl' THEN 'answer' ELSE 'read' END::evidence_kind, state, 200, transaction_id,
       'cykl', decided_at
FROM refunds;
