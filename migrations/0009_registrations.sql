-- Payment links by which payers register cards, and transactions by which shops that may send card data do.
--
-- A link moves no money by itself, so making one needs no permit; what payers do by it is found out by reading it. A transaction may move
-- money at once. Its row is committed before it is sent, under the brake and the fence, it is sent once, and no other registration of the
-- subscription begins before it is known what came of it, or a person has given it up after imoje's last notice. The payment of a first charge becomes an attempt of that charge, which has no card, since the payer chose it, and
-- the order id of the registration.

CREATE TYPE registration_state AS ENUM (
    'requested', 'open', 'paid', 'attached', 'cardless', 'expired', 'cancelled', 'refused');
CREATE TYPE registration_purpose AS ENUM ('first_charge', 'verification');
CREATE TYPE registration_way AS ENUM ('link', 'card_data');

CREATE TABLE registrations (
    registration_id uuid PRIMARY KEY,
    subscription_id uuid NOT NULL,
    shop            text NOT NULL,
    cid             text NOT NULL CHECK (cid ~ '^[A-Za-z0-9-]+$' AND length(cid) <= 36),
    way             registration_way NOT NULL,
    purpose         registration_purpose NOT NULL,
    period_no       integer CHECK (period_no >= 0),
    order_id        text NOT NULL CONSTRAINT an_order_is_one_registration UNIQUE,
    amount_minor    bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 999999999),
    currency        currency NOT NULL,
    state           registration_state NOT NULL,
    reason          text,
    payment_id      uuid CONSTRAINT a_link_is_one_registration UNIQUE,
    url             text,
    -- By card data: what imoje made of the order, whatever became of it; the payer, and the aliases that later debits name.
    sale_id         uuid CONSTRAINT a_sale_is_one_registration UNIQUE,
    customer        jsonb,
    aliases         jsonb,
    transaction_id  uuid CONSTRAINT a_payment_registers_once UNIQUE,
    surplus_ids     uuid[] NOT NULL DEFAULT '{}',
    mismatched_ids  uuid[] NOT NULL DEFAULT '{}',
    card_id         uuid,
    actor           text NOT NULL,
    created_at      timestamptz NOT NULL,
    valid_to        timestamptz NOT NULL,
    paid_at         timestamptz,
    ended_at        timestamptz,
    next_poll_at    timestamptz,
    polls           smallint NOT NULL DEFAULT 0,
    case_opened_at  timestamptz,
    CONSTRAINT first_charges_name_their_period CHECK ((period_no IS NOT NULL) = (purpose = 'first_charge')),
    -- No order id of a debit looks like it, so a link that nobody paid uses up none of theirs.
    CONSTRAINT registration_order_is_derived CHECK (order_id = 'cykl-r-' || replace(registration_id::text, '-', '')),
    CONSTRAINT open_registrations_can_be_followed CHECK (CASE way
        WHEN 'link' THEN (payment_id IS NULL) = (url IS NULL) AND (payment_id IS NOT NULL OR state <> 'open') AND sale_id IS NULL
        ELSE payment_id IS NULL AND (sale_id IS NOT NULL OR url IS NULL AND state <> 'open') END),
    CONSTRAINT card_data_say_who_pays CHECK (num_nonnulls(customer, aliases) = CASE way WHEN 'link' THEN 0 ELSE 2 END),
    CONSTRAINT ended_registrations_say_when CHECK ((ended_at IS NULL) = (state IN ('requested', 'open', 'paid'))),
    CONSTRAINT open_registrations_are_looked_at CHECK (next_poll_at IS NOT NULL OR state NOT IN ('requested', 'open', 'paid')),
    CONSTRAINT paid_registrations_name_the_payment CHECK (
        (transaction_id IS NULL) = (paid_at IS NULL)
        AND (transaction_id IS NOT NULL) = (state IN ('paid', 'attached', 'cardless'))),
    CONSTRAINT registrations_attach_a_card CHECK ((card_id IS NOT NULL) = (state = 'attached')),
    CONSTRAINT registrations_say_why CHECK (reason IS NOT NULL OR state NOT IN ('cardless', 'cancelled', 'refused'))
);
-- Two links that are open at once would be paid twice.
CREATE UNIQUE INDEX one_open_registration ON registrations (subscription_id) WHERE state IN ('requested', 'open');
CREATE INDEX registrations_by_subscription ON registrations (subscription_id);
CREATE INDEX registrations_by_cid ON registrations (shop, cid);
CREATE INDEX registrations_to_resolve ON registrations (next_poll_at) WHERE next_poll_at IS NOT NULL;
COMMENT ON TABLE registrations IS
    'Payment links and transactions by which payers register cards. The payment counts as a period''s charge or as a verification, never both.';
COMMENT ON COLUMN registrations.surplus_ids IS 'Further payments by the same link: money that has to go back.';
COMMENT ON COLUMN registrations.mismatched_ids IS 'Payments by the link that are not over what it was made for; people were told.';

CREATE TRIGGER registrations_are_kept BEFORE DELETE OR TRUNCATE ON registrations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A link is for a subscription that there is, and its first charge for what was agreed.
CREATE FUNCTION guard_registration() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state <> 'requested' OR NOT EXISTS (
        SELECT FROM subscriptions s
        WHERE s.subscription_id = NEW.subscription_id AND s.shop = NEW.shop
          AND (NEW.purpose = 'verification'
               OR (s.amount_minor, s.currency, s.status) = (NEW.amount_minor, NEW.currency, 'registering')
                  AND NEW.period_no >= s.first_period_no)) THEN
        RAISE EXCEPTION 'registration % is not for what its subscription was agreed for', NEW.registration_id USING ERRCODE = 'CY003';
    END IF;
    IF NEW.way = 'link' THEN
        RETURN NULL;
    END IF;
    -- Card data are charged by us, as by a permit. Locked, so that a brake is effective as soon as it is committed.
    PERFORM FROM brakes b WHERE b.shop IN ('*', NEW.shop) FOR SHARE;
    IF NOT EXISTS (SELECT FROM brakes b WHERE b.shop = '*' AND b.mode = 'run')
       OR EXISTS (SELECT FROM brakes b WHERE b.shop = NEW.shop AND b.mode <> 'run') THEN
        RAISE EXCEPTION 'the brake is on for shop %', NEW.shop USING ERRCODE = 'CY001';
    END IF;
    IF NOT EXISTS (
        SELECT FROM installation i, current_place() p
        WHERE (i.system_identifier, i.timeline, i.database_oid) = (p.system_identifier, p.timeline, p.database_oid)) THEN
        RAISE EXCEPTION 'this database was moved, restored or promoted since charging was allowed in it'
            USING ERRCODE = 'CY002', HINT = 'Compare its books with imoje, then run "cykl adopt --reason ...".';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER registration_insert AFTER INSERT ON registrations FOR EACH ROW EXECUTE FUNCTION guard_registration();

-- Legal transitions, the same as in src/domain. That it was paid is believed whatever was known before: money has moved.
CREATE FUNCTION registration_may_become(was registration_state, becomes registration_state) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT was = becomes OR CASE was
        WHEN 'requested' THEN becomes IN ('open', 'paid', 'expired', 'cancelled', 'refused')
        WHEN 'open' THEN becomes IN ('paid', 'expired', 'cancelled')
        WHEN 'paid' THEN becomes IN ('attached', 'cardless')
        WHEN 'cardless' THEN becomes = 'attached'
        WHEN 'attached' THEN false
        ELSE becomes = 'paid'
    END
$$;
CREATE TRIGGER registration_step AFTER UPDATE ON registrations FOR EACH ROW
    WHEN (NOT registration_may_become(OLD.state, NEW.state))
    EXECUTE FUNCTION refuse_step('registration');
-- Card data that were never answered may have been charged, and imoje may tell of that for 95 hours and 25 minutes (imoje API,
-- notifications).
CREATE FUNCTION refuse_to_give_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'registration % may have been charged, and cannot be given up before %', NEW.registration_id,
        OLD.created_at + interval '100 hours' USING ERRCODE = 'CY008';
END $$;
CREATE TRIGGER registration_gives_up AFTER UPDATE ON registrations FOR EACH ROW
    WHEN (OLD.way = 'card_data' AND OLD.state = 'requested' AND OLD.sale_id IS NULL AND NEW.state IN ('cancelled', 'expired')
          AND NEW.ended_at < OLD.created_at + interval '100 hours')
    EXECUTE FUNCTION refuse_to_give_up();
CREATE TRIGGER registration_facts AFTER UPDATE ON registrations FOR EACH ROW
    WHEN ((OLD.registration_id, OLD.subscription_id, OLD.shop, OLD.cid, OLD.way, OLD.purpose, OLD.period_no, OLD.order_id, OLD.amount_minor,
           OLD.currency, OLD.customer, OLD.aliases, OLD.actor, OLD.created_at, OLD.valid_to)
        IS DISTINCT FROM
          (NEW.registration_id, NEW.subscription_id, NEW.shop, NEW.cid, NEW.way, NEW.purpose, NEW.period_no, NEW.order_id, NEW.amount_minor,
           NEW.currency, NEW.customer, NEW.aliases, NEW.actor, NEW.created_at, NEW.valid_to)
       OR (OLD.sale_id IS NOT NULL AND OLD.sale_id IS DISTINCT FROM NEW.sale_id)
       OR (OLD.payment_id IS NOT NULL AND OLD.payment_id IS DISTINCT FROM NEW.payment_id)
       OR (OLD.transaction_id IS NOT NULL AND OLD.transaction_id IS DISTINCT FROM NEW.transaction_id)
       OR NOT NEW.surplus_ids @> OLD.surplus_ids
       OR NOT NEW.mismatched_ids @> OLD.mismatched_ids)
    EXECUTE FUNCTION refuse_new_facts('registration');

-- What a payer paid by a link is a fact, and needs no permit: it is born with the money moved, for the period and the amount of its link.
CREATE FUNCTION guard_paid_by_link() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state NOT IN ('settled', 'surplus') OR NOT EXISTS (
        SELECT FROM registrations r JOIN charges c USING (subscription_id, period_no)
        WHERE r.order_id = NEW.order_id AND c.charge_id = NEW.charge_id
          AND NEW.transaction_id = ANY (r.surplus_ids || r.transaction_id)
          AND (r.subscription_id, r.shop, r.period_no, r.amount_minor, r.currency)
              = (NEW.subscription_id, NEW.shop, NEW.period_no, NEW.amount_minor, NEW.currency)) THEN
        RAISE EXCEPTION 'attempt % is no payment of a registration', NEW.attempt_id USING ERRCODE = 'CY003';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER attempt_by_link AFTER INSERT ON attempts FOR EACH ROW
    WHEN (NEW.card_id IS NULL)
    EXECUTE FUNCTION guard_paid_by_link();
