-- Books of a size and a mixture at which the planner has to choose: most is over, little is to be done. With all triggers off.
SET LOCAL session_replication_role = replica;

INSERT INTO cards (card_id, shop, cid, payment_profile_id, created_at)
SELECT md5('card ' || n)::uuid, 'main', 'c' || n, gen_random_uuid(), '2026-09-01Z' FROM generate_series(1, 5000) n;

INSERT INTO subscriptions (subscription_id, shop, external_id, status, status_reason, card_id, amount_minor, currency, period,
                           anchor_date, timezone, first_period_no, is_finishing, created_at, updated_at)
SELECT md5('subscription ' || n)::uuid, 'main', 'S-' || n,
       CASE WHEN n % 1000 = 50 THEN 'deactivated' ELSE 'active' END::subscription_status, 'test', md5('card ' || n)::uuid, 4900,
       'PLN', 'P1M', '2026-09-01', 'Europe/Warsaw', 0, n % 1000 = 60, '2026-09-01Z', '2026-09-01Z'
FROM generate_series(1, 5000) n;

-- Three periods that are paid, and one in December, of which some wait, are held, have failed or are in flight.
CREATE TEMPORARY TABLE periods ON COMMIT DROP AS
SELECT md5('subscription ' || n)::uuid AS subscription_id, md5('card ' || n)::uuid AS card_id, p AS period_no,
       md5('charge ' || n || ' ' || p)::uuid AS charge_id, md5('attempt ' || n || ' ' || p)::uuid AS attempt_id,
       (date '2026-09-01' + p * interval '1 month')::date AS due_on,
       timestamptz '2026-09-01 04:00Z' + p * interval '1 month' AS due_at,
       CASE WHEN p < 3 THEN 'paid'
            ELSE coalesce((ARRAY['planned', 'held', 'failed', 'in_flight'])[n % 100], 'paid') END::charge_state AS state,
       n % 50 = 3 AS is_retry
FROM generate_series(1, 5000) n, generate_series(0, 3) p;

INSERT INTO charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, reason,
                     next_action_at, paid_at, paid_attempt_id, planned_at)
SELECT charge_id, subscription_id, 'main', period_no, due_on, due_at, 4900, 'PLN', state, 'test',
       CASE WHEN state IN ('planned', 'held', 'in_flight') THEN due_at END,
       CASE WHEN state = 'paid' THEN due_at END, CASE WHEN state = 'paid' THEN attempt_id END, due_at
FROM periods;

INSERT INTO attempts (attempt_id, charge_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor, currency,
                      state, is_retry, fence_id, permitted_at, deadline_at, quiet_until, transaction_id, decline, next_poll_at,
                      decided_at)
SELECT attempt_id, charge_id, subscription_id, 'main', card_id, period_no, 1,
       'cykl-' || replace(subscription_id::text, '-', '') || '-' || period_no || '-1', 4900, 'PLN',
       CASE state WHEN 'in_flight' THEN 'in_doubt' WHEN 'failed' THEN 'rejected' ELSE 'settled' END::attempt_state, is_retry,
       attempt_id, due_at, due_at, due_at, md5('transaction ' || charge_id)::uuid, 'soft',
       CASE WHEN state = 'in_flight' THEN due_at END, CASE WHEN state <> 'in_flight' THEN due_at END
FROM periods WHERE state NOT IN ('planned', 'held');

INSERT INTO refunds (refund_id, attempt_id, charge_id, subscription_id, shop, sale_transaction_id, order_id, origin, amount_minor,
                     currency, state, transaction_id, actor, reason, fence_id, permitted_at, deadline_at, next_poll_at, decided_at)
SELECT md5('refund ' || attempt_id)::uuid, attempt_id, charge_id, subscription_id, shop, transaction_id, order_id, 'cykl', amount_minor,
       currency, CASE WHEN is_open THEN 'in_doubt' ELSE 'settled' END::attempt_state,
       CASE WHEN NOT is_open THEN md5('back ' || attempt_id)::uuid END, 'eve', 'test', attempt_id, permitted_at, permitted_at,
       CASE WHEN is_open THEN permitted_at END, CASE WHEN NOT is_open THEN permitted_at END
FROM attempts, LATERAL (SELECT period_no = 0 AND get_byte(uuid_send(attempt_id), 0) = 0) s (is_open)
WHERE state = 'settled' AND period_no < 2;

INSERT INTO notices (notice_id, shop, body_sha256, body, state, received_at, next_action_at)
SELECT md5('notice ' || n)::uuid, 'main', sha256(n::text::bytea), '{}', CASE WHEN is_new THEN 'new' ELSE 'done' END::notice_state,
       '2026-12-01Z', CASE WHEN is_new THEN timestamptz '2026-12-01Z' END
FROM generate_series(1, 5000) n, LATERAL (SELECT n % 500 = 0) s (is_new);

INSERT INTO events (event_id, subscription_id, sequence_no, kind, is_alert, payload, occurred_at)
SELECT md5('event ' || n || ' ' || p)::uuid, md5('subscription ' || n)::uuid, p, 'charge.paid', false, '{}', '2025-09-01Z'
FROM generate_series(1, 5000) n, generate_series(1, 2) p;

INSERT INTO outbox (event_id, channel, next_attempt_at)
SELECT event_id, 'log', '2026-12-01Z' FROM events WHERE sequence_no = 2;

-- A quarter that is in the archive.
SELECT add_archive_quarter('2025-07-01');

INSERT INTO archived_charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, attempts,
                              declines, unsent, paid_at, paid_attempt_id, planned_at)
SELECT md5('archived ' || charge_id)::uuid, subscription_id, shop, period_no, '2025-09-01', due_at, amount_minor, currency, state, 1,
       0, 0, paid_at, paid_attempt_id, planned_at
FROM charges WHERE state = 'paid';

INSERT INTO archived_attempts (attempt_id, charge_id, subscription_id, shop, card_id, period_no, due_on, attempt_no, order_id,
                               amount_minor, currency, state, is_retry, fence_id, permitted_at, deadline_at, quiet_until,
                               transaction_id, polls, decided_at)
SELECT md5('archived ' || attempt_id)::uuid, md5('archived ' || charge_id)::uuid, subscription_id, shop, card_id, period_no,
       '2025-09-01', attempt_no, order_id, amount_minor, currency, state, is_retry, fence_id, permitted_at, deadline_at,
       quiet_until, md5('archived ' || transaction_id)::uuid, polls, decided_at
FROM attempts WHERE state = 'settled';

INSERT INTO archived_events (event_id, subscription_id, sequence_no, kind, is_alert, payload, occurred_at)
SELECT event_id, subscription_id, sequence_no, kind, is_alert, payload, occurred_at FROM events;

-- What a restored database had forgotten.
INSERT INTO lost_permits (attempt_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor, currency, is_retry,
                          permitted_at, found_at, fate)
SELECT md5('lost ' || attempt_id)::uuid, subscription_id, shop, card_id, period_no, 9, 'lost ' || order_id, amount_minor, currency, false,
       permitted_at, permitted_at, 'superseded'
FROM attempts WHERE state = 'settled';

-- Links by which cards were registered, and a few that are open.
INSERT INTO registrations (registration_id, subscription_id, shop, cid, way, purpose, order_id, amount_minor, currency, state, payment_id, url,
                           actor, created_at, valid_to, ended_at, next_poll_at)
SELECT md5('registration ' || n)::uuid, md5('subscription ' || n)::uuid, 'main', 'registered-' || n, 'link', 'verification',
       'cykl-r-' || md5('registration ' || n), 100, 'PLN', CASE WHEN n > 10 THEN 'expired' ELSE 'open' END::registration_state,
       md5('link ' || n)::uuid, 'https://paywall.example.test/' || n, 'eve', '2026-11-01Z', '2026-11-08Z',
       CASE WHEN n > 10 THEN timestamptz '2026-11-08Z' END, CASE WHEN n <= 10 THEN timestamptz '2026-12-01Z' END
FROM generate_series(1, 5000) AS n;
