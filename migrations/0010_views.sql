-- What operators read: stable views in the schema "billing". The names are a contract.

CREATE SCHEMA IF NOT EXISTS billing;
COMMENT ON SCHEMA billing IS 'Stable, read-only views of Cykl''s books. Start with billing.subscriptions and billing.charges.';

CREATE VIEW billing.subscriptions AS
SELECT s.subscription_id, s.external_id, s.shop, s.status, s.status_reason, k.cid, k.payment_profile_id,
       s.amount_minor, s.currency, s.period, s.anchor_date, s.timezone,
       d.due_on AS next_charge_on, d.due_at AS next_due_at,
       s.archived_payments + (
           SELECT count(*)::integer FROM charges c WHERE c.subscription_id = s.subscription_id AND c.state = 'paid') AS charges_paid,
       s.created_at, k.first_transaction_id
FROM subscriptions s
    LEFT JOIN cards k USING (card_id)
    -- As next_period finds it.
    LEFT JOIN LATERAL (
        SELECT p.due_on, p.due_at FROM due_periods p
        WHERE p.subscription_id = s.subscription_id AND p.due_at IN (
            s.from_due_at,
            (SELECT c.next_due_at FROM charges c WHERE c.subscription_id = s.subscription_id ORDER BY c.period_no DESC LIMIT 1))
        LIMIT 1
    ) d ON true;

CREATE VIEW billing.charges AS
SELECT c.charge_id, c.subscription_id, s.external_id, c.shop, c.period_no, c.due_on, c.due_at,
       c.amount_minor, c.currency, c.state, c.attempts, c.next_action_at, c.paid_at, c.last_status_code,
       coalesce(c.paid_transaction_id,
                (SELECT a.transaction_id FROM attempts a WHERE a.attempt_id = c.paid_attempt_id)) AS transaction_id,
       c.reason,
       (SELECT coalesce(sum(r.amount_minor), 0) FROM refunds r WHERE r.charge_id = c.charge_id AND r.state = 'settled')::bigint
           AS refunded_minor
FROM all_charges c
    JOIN subscriptions s USING (subscription_id);

CREATE VIEW billing.attempts AS
SELECT a.attempt_id, a.charge_id, a.subscription_id, a.attempt_no, a.order_id, a.state, a.transaction_id,
       a.status_code, a.permitted_at, a.decided_at, a.card_masked, a.decline
FROM all_attempts a;

CREATE VIEW billing.refunds AS
SELECT r.refund_id, r.charge_id, r.subscription_id, s.external_id, r.shop, r.attempt_id, r.order_id, r.origin, r.amount_minor,
       r.currency, r.state, r.transaction_id, r.sale_transaction_id, r.reason, r.actor, r.permitted_at, r.decided_at, r.case_opened_at
FROM refunds r JOIN subscriptions s USING (subscription_id);

CREATE VIEW billing.registrations AS
SELECT r.registration_id, r.subscription_id, s.external_id, r.shop, r.state, r.reason, r.way, r.purpose, r.period_no, r.cid, r.amount_minor,
       r.currency, r.order_id, r.payment_id, r.sale_id, r.url, r.transaction_id, cardinality(r.surplus_ids) AS surplus_payments, r.actor,
       r.created_at, r.valid_to, r.paid_at, r.ended_at, r.case_opened_at
FROM registrations r JOIN subscriptions s USING (subscription_id);

CREATE VIEW billing.due_today AS
SELECT s.subscription_id, s.external_id, s.shop, d.period_no, d.due_on, d.due_at,
       s.amount_minor, s.currency, 'scheduled'::text AS state
FROM due_periods d JOIN subscriptions s USING (subscription_id)
WHERE d.due_at < now() + interval '2 days' AND d.due_on <= (now() AT TIME ZONE s.timezone)::date
UNION ALL
SELECT c.subscription_id, s.external_id, c.shop, c.period_no, c.due_on, c.due_at, c.amount_minor, c.currency, c.state::text
FROM charges c JOIN subscriptions s USING (subscription_id)
WHERE c.send_at < now() + interval '2 days'
    AND (c.send_at AT TIME ZONE s.timezone)::date <= (now() AT TIME ZONE s.timezone)::date;

CREATE VIEW billing.failed_now AS
SELECT c.charge_id, c.subscription_id, s.external_id, c.shop, s.status, c.period_no, c.due_on, c.amount_minor, c.currency,
       c.reason, c.last_status_code, c.attempts
FROM charges c JOIN subscriptions s USING (subscription_id)
WHERE c.is_failed AND s.status NOT IN ('cancelled', 'completed');

CREATE VIEW billing.held AS
SELECT c.charge_id, c.subscription_id, s.external_id, c.shop, c.period_no, c.due_on, c.amount_minor, c.currency,
       c.reason, c.next_action_at, c.attempts
FROM charges c JOIN subscriptions s USING (subscription_id)
WHERE c.is_held;

CREATE VIEW billing.in_doubt AS
SELECT a.attempt_id, a.charge_id, a.subscription_id, s.external_id, a.shop, a.order_id, a.amount_minor, a.currency,
       a.permitted_at, a.deadline_at, a.case_opened_at, a.card_masked
FROM attempts a JOIN subscriptions s USING (subscription_id)
WHERE a.state = 'in_doubt';

CREATE VIEW billing.needs_card AS
SELECT s.subscription_id, s.external_id, s.shop, s.status, s.status_reason, k.cid, k.masked_number, s.amount_minor, s.currency,
       s.updated_at AS since
FROM subscriptions s LEFT JOIN cards k USING (card_id)
WHERE s.status IN ('deactivated', 'registering');

CREATE VIEW billing.card_concerns AS
SELECT s.subscription_id, s.external_id, s.shop, k.concern, k.cid, k.masked_number, k.expires_on, d.due_on AS next_charge_on, k.looked_at
FROM cards k JOIN subscriptions s USING (card_id) JOIN due_periods d USING (subscription_id)
WHERE k.concern IS NOT NULL;

COMMENT ON VIEW billing.subscriptions IS 'One row per subscription.';
COMMENT ON VIEW billing.charges IS 'One row per subscription and period that fell due: what was to be paid, and what became of it.';
COMMENT ON VIEW billing.attempts IS 'One row per request to the gateway. At most one of a charge is ever in doubt, pending or settled.';
COMMENT ON VIEW billing.refunds IS 'One row per refund: what people ordered with Cykl, and what imoje lists besides.';
COMMENT ON VIEW billing.registrations IS 'One row per link or transaction by which a payer registers a card, and what became of it.';
COMMENT ON VIEW billing.due_today IS 'What is still to be charged today, in each subscription''s zone: periods that fall due and charges that are planned or retried.';
COMMENT ON VIEW billing.failed_now IS 'Charges that were given up and whose subscription has not ended.';
COMMENT ON VIEW billing.held IS 'Charges that wait for a person.';
COMMENT ON VIEW billing.in_doubt IS 'Attempts whose outcome is unknown. They block their charge until evidence comes.';
COMMENT ON VIEW billing.needs_card IS 'Subscriptions that go on only with a new card.';
COMMENT ON VIEW billing.card_concerns IS 'Subscriptions that are billed, and whose card needs another one before long.';

-- One comment per column name; a name means the same in every view.
DO $$
DECLARE
    meanings CONSTANT jsonb := '{
        "subscription_id": "The subscription, as Cykl names it.",
        "external_id": "The subscription, as the shop names it; unique per shop.",
        "shop": "The shop''s name in the configuration.",
        "status": "registering, active, past_due, paused, deactivated, cancelled or completed.",
        "status_reason": "Why the subscription has its status, for deactivated ones always.",
        "cid": "The card, as imoje knows it: one cid is one payment instrument.",
        "payment_profile_id": "imoje''s id of the stored card.",
        "first_transaction_id": "Of a card without a profile: what imoje showed as firstTransactionId when it was registered.",
        "amount_minor": "The amount in minor units (grosze, cents).",
        "currency": "ISO 4217.",
        "period": "ISO 8601: the time between two charges.",
        "anchor_date": "The date of period 0; every due date is counted from it.",
        "timezone": "IANA name of the zone in which dates are meant.",
        "next_charge_on": "Local date of the next period that falls due; null when none will.",
        "next_due_at": "The instant at which that period falls due.",
        "charges_paid": "How many charges have been paid through Cykl.",
        "created_at": "When it was stored.",
        "charge_id": "The charge.",
        "period_no": "The period, counted from 0 at the anchor date.",
        "due_on": "Local date on which the charge is due.",
        "due_at": "The instant at which it falls due.",
        "state": "Where it stands; see ARCHITECTURE.md.",
        "reason": "Why, for failed, held, skipped and void charges, for refunds, and for registrations that came to nothing.",
        "attempts": "How many permits to debit have been given for it.",
        "next_action_at": "When it is looked at again; null exactly when it is closed.",
        "paid_at": "When the payment was established.",
        "last_status_code": "The issuer''s reason for the last decline (imoje statusCode).",
        "transaction_id": "imoje''s id of the transaction.",
        "attempt_id": "The attempt: one permit for one request.",
        "attempt_no": "The attempt at its charge, counted from 1.",
        "order_id": "What imoje was told as orderId; never used twice.",
        "status_code": "The issuer''s reason for a decline (imoje statusCode).",
        "decline": "What the decline means: never, new_card, funds, soft or technical.",
        "refunded_minor": "How much of what was taken went back, in minor units.",
        "refund_id": "The refund.",
        "origin": "Who asked for it: cykl, or elsewhere when imoje lists it and nobody here ordered it.",
        "sale_transaction_id": "imoje''s id of the transaction that took the money.",
        "actor": "Who ordered it; cykl itself where it was found.",
        "registration_id": "The registration of a card: one link, or one transaction with card data.",
        "way": "How the payer pays: link, or card_data that the shop sends through its proxy.",
        "purpose": "What its payment counts as: first_charge or verification.",
        "payment_id": "imoje''s id of the link.",
        "sale_id": "imoje''s id of the transaction that was made with card data, whatever became of it.",
        "url": "Where the payer pays, or confirms the payment.",
        "surplus_payments": "How many further payments were made by the link; they have to go back.",
        "valid_to": "Until when it can be paid or confirmed.",
        "ended_at": "When it came to its end; null while it is open, or paid and its card is looked for.",
        "permitted_at": "When the permit was committed, before the request was sent; of a refund from elsewhere, when it was found.",
        "decided_at": "When its fate was established; null while it is in doubt or pending.",
        "card_masked": "The card, masked as imoje shows it.",
        "masked_number": "The card, masked as imoje shows it.",
        "concern": "Why the card needs another one: expiring, inactive or not_recurring.",
        "expires_on": "The last day on which the card is good, as imoje showed it.",
        "looked_at": "When imoje was asked about the card last.",
        "deadline_at": "Until then an answer may still come by itself.",
        "case_opened_at": "When people were asked to look; null before that.",
        "since": "Since when."
    }';
    seen record;
BEGIN
    FOR seen IN SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'billing' LOOP
        IF NOT meanings ? seen.column_name THEN
            RAISE EXCEPTION 'billing.% has a column without a comment: %', seen.table_name, seen.column_name;
        END IF;
        EXECUTE format('COMMENT ON COLUMN billing.%I.%I IS %L', seen.table_name, seen.column_name, meanings ->> seen.column_name);
    END LOOP;
END $$;

-- What people set from SQL, as `cykl brake` does. The caller needs USAGE of the schema billing and EXECUTE of the function.
CREATE FUNCTION billing.brake(mode text, reason text, shop text DEFAULT '*') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = cykl, pg_temp AS $$
DECLARE
    at CONSTANT timestamptz := clock_timestamp();
    -- As UUIDv7 begins: with the time in milliseconds (RFC 9562, section 5.7).
    event CONSTANT uuid := overlay(
        overlay(replace(gen_random_uuid()::text, '-', '') PLACING '7' FROM 13)
        PLACING lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') FROM 1)::uuid;
BEGIN
    IF brake.mode IS NULL OR brake.mode NOT IN ('run', 'drain', 'stop') THEN
        RAISE EXCEPTION 'the mode of the brake is run, drain or stop, not %', coalesce(brake.mode, 'null') USING ERRCODE = '22023';
    END IF;
    IF brake.reason IS NULL OR btrim(brake.reason) = '' OR brake.reason ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION 'the brake needs a reason, in one line' USING ERRCODE = '22023';
    END IF;
    IF brake.shop IS NULL OR brake.shop <> '*' AND NOT EXISTS (SELECT FROM shops s WHERE s.shop = brake.shop) THEN
        RAISE EXCEPTION 'there is no shop %', coalesce(brake.shop, 'null') USING ERRCODE = '22023';
    END IF;
    PERFORM put_brake(brake.shop, brake.mode::brake_mode, brake.reason, session_user, NULL, at);
    IF brake.mode = 'run' THEN
        PERFORM forget_plan(brake.shop, (at AT TIME ZONE 'UTC')::date);
    END IF;
    INSERT INTO events (event_id, kind, is_alert, shop, payload, occurred_at)
    VALUES (event, 'brake.changed', true, nullif(brake.shop, '*'),
            jsonb_build_object('shop', brake.shop, 'mode', brake.mode, 'actor', session_user, 'reason', brake.reason), at);
    INSERT INTO outbox (event_id, channel, next_attempt_at)
    SELECT event, c.channel, at FROM (VALUES ('log'), ('webhook')) AS c (channel)
    WHERE c.channel = 'log' OR EXISTS (SELECT FROM installation i WHERE i.has_webhook);
    PERFORM pg_notify('cykl_wake', 'notifier');
    IF brake.mode = 'run' THEN
        PERFORM pg_notify('cykl_wake', 'charger');
    END IF;
END $$;
COMMENT ON FUNCTION billing.brake(text, text, text) IS
    'Sets the brake of a shop, or of all (*), to run, drain or stop, for a reason. Obeyed at the next permit of every instance; run is a slow start. Recorded as an event with the caller''s own role.';
-- Reading the books is no right to stop or to start them.
REVOKE EXECUTE ON FUNCTION billing.brake(text, text, text) FROM PUBLIC;
