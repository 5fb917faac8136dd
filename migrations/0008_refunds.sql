-- Money that goes back to payers.
--
-- A refund is one permit for one request, like an attempt, and goes through the same states. What imoje lists of a debit and nobody here
-- ordered (it was ordered in imoje's panel, or these books were restored from before it) is kept beside, so that the sums are right.
-- Refunds are few and are not archived: a debit may be refunded for three years.

CREATE TYPE refund_origin AS ENUM ('cykl', 'elsewhere');

CREATE TABLE refunds (
    refund_id           uuid PRIMARY KEY,
    attempt_id          uuid NOT NULL,
    charge_id           uuid NOT NULL,
    subscription_id     uuid NOT NULL,
    shop                text NOT NULL,
    sale_transaction_id uuid NOT NULL,
    order_id            text NOT NULL,
    origin              refund_origin NOT NULL,
    amount_minor        bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 999999999),
    currency            currency NOT NULL,
    state               attempt_state NOT NULL CHECK (state <> 'surplus'),
    transaction_id      uuid CONSTRAINT transaction_belongs_to_one_refund UNIQUE,
    title               text,
    reason              text,
    actor               text NOT NULL,
    fence_id            uuid,
    permitted_at        timestamptz NOT NULL,
    deadline_at         timestamptz NOT NULL,
    next_poll_at        timestamptz,
    polls               smallint NOT NULL DEFAULT 0,
    case_opened_at      timestamptz,
    decided_at          timestamptz,
    last_evidence_id    uuid,
    CONSTRAINT final_refunds_say_when CHECK ((decided_at IS NULL) = (state IN ('in_doubt', 'pending'))),
    CONSTRAINT open_refunds_are_looked_at CHECK ((next_poll_at IS NOT NULL) = (state IN ('in_doubt', 'pending'))),
    CONSTRAINT the_gateway_named_the_refund CHECK (
        transaction_id IS NOT NULL OR state IN ('in_doubt', 'not_sent', 'refused', 'absent')),
    CONSTRAINT our_refunds_say_who_and_why CHECK (
        origin <> 'cykl' OR fence_id IS NOT NULL AND coalesce(btrim(reason), '') <> '' AND lower(btrim(actor)) NOT IN ('', 'cykl')),
    CONSTRAINT refunds_from_elsewhere_are_named CHECK (origin <> 'elsewhere' OR transaction_id IS NOT NULL)
);
-- Which of two lost answers a refund that imoje lists belongs to could not be told.
CREATE UNIQUE INDEX one_refund_in_doubt ON refunds (sale_transaction_id) WHERE state = 'in_doubt';
CREATE INDEX refunds_by_sale ON refunds (sale_transaction_id);
CREATE INDEX refunds_by_charge ON refunds (charge_id);
CREATE INDEX refunds_to_resolve ON refunds (next_poll_at) WHERE next_poll_at IS NOT NULL;
CREATE INDEX refunds_of_shop ON refunds (shop, permitted_at) WHERE origin = 'cykl';
COMMENT ON TABLE refunds IS
    'One row is one refund: a permit for one request, committed before the request leaves, or what imoje lists and nobody here ordered. Together never more than what was taken.';

CREATE TABLE refund_evidence (
    evidence_id    uuid PRIMARY KEY,
    refund_id      uuid NOT NULL REFERENCES refunds,
    kind           evidence_kind NOT NULL,
    verdict        attempt_state NOT NULL,
    http_status    smallint,
    error_code     text,
    gateway_status text,
    transaction_id uuid,
    detail         text,
    actor          text NOT NULL,
    recorded_at    timestamptz NOT NULL,
    CONSTRAINT people_say_who_and_why_of_refunds CHECK (
        kind <> 'person' OR detail IS NOT NULL AND lower(btrim(actor)) NOT IN ('', 'cykl'))
);
COMMENT ON TABLE refund_evidence IS 'Why a refund changed state. Append-only.';

-- CY013 too soon after another refund, CY014 more than what can go back.

CREATE TRIGGER refunds_are_kept BEFORE DELETE OR TRUNCATE ON refunds
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refund_evidence_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON refund_evidence
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The permit gate of refunds. What imoje lists is a fact and needs none.
CREATE FUNCTION guard_refund() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sale record;
BEGIN
    -- Two permits of one shop wait for each other here, so that each sees the other's below.
    PERFORM FROM shops s WHERE s.shop = NEW.shop FOR NO KEY UPDATE;

    SELECT a.state, a.amount_minor, (a.attempt_id, a.charge_id, a.subscription_id, a.shop, a.order_id, a.currency)
        = (NEW.attempt_id, NEW.charge_id, NEW.subscription_id, NEW.shop, NEW.order_id, NEW.currency) AS fits
    INTO sale
    FROM all_attempts a WHERE a.transaction_id = NEW.sale_transaction_id;
    IF sale.fits IS NOT TRUE OR sale.state NOT IN ('settled', 'surplus') THEN
        RAISE EXCEPTION 'refund % is of no debit that moved money', NEW.refund_id USING ERRCODE = 'CY003';
    END IF;
    IF NEW.origin = 'elsewhere' THEN
        RETURN NULL;
    END IF;

    IF NEW.state <> 'in_doubt' THEN
        RAISE EXCEPTION 'refund % must be born in doubt', NEW.refund_id USING ERRCODE = 'CY006';
    END IF;
    IF NOT EXISTS (
        SELECT FROM installation i, current_place() p
        WHERE i.fence_id = NEW.fence_id
          AND (i.system_identifier, i.timeline, i.database_oid) = (p.system_identifier, p.timeline, p.database_oid)) THEN
        RAISE EXCEPTION 'this database was moved, restored or promoted since charging was allowed in it'
            USING ERRCODE = 'CY002', HINT = 'Compare its books with imoje, then run "cykl adopt --reason ...".';
    END IF;
    -- "Leave at least 5 seconds between refunds" (imoje API, refunds), and one for the way there.
    IF EXISTS (
        SELECT FROM refunds r
        WHERE r.shop = NEW.shop AND r.origin = 'cykl' AND r.refund_id <> NEW.refund_id AND r.state <> 'not_sent'
          AND r.permitted_at > NEW.permitted_at - interval '6 seconds') THEN
        RAISE EXCEPTION 'refund % follows too closely on another of its shop', NEW.refund_id USING ERRCODE = 'CY013';
    END IF;
    IF (SELECT sum(r.amount_minor) FROM refunds r
        WHERE r.sale_transaction_id = NEW.sale_transaction_id AND r.state IN ('in_doubt', 'pending', 'settled')) > sale.amount_minor THEN
        RAISE EXCEPTION 'refund % would give back more than was taken', NEW.refund_id USING ERRCODE = 'CY014';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER refund_insert AFTER INSERT ON refunds FOR EACH ROW EXECUTE FUNCTION guard_refund();

CREATE TRIGGER refund_step AFTER UPDATE ON refunds FOR EACH ROW
    WHEN (NOT attempt_may_become(OLD.state, NEW.state))
    EXECUTE FUNCTION refuse_step('refund');
CREATE TRIGGER refund_facts AFTER UPDATE ON refunds FOR EACH ROW
    WHEN ((OLD.refund_id, OLD.attempt_id, OLD.charge_id, OLD.subscription_id, OLD.shop, OLD.sale_transaction_id, OLD.order_id,
           OLD.origin, OLD.amount_minor, OLD.currency, OLD.title, OLD.reason, OLD.actor, OLD.fence_id, OLD.permitted_at, OLD.deadline_at)
        IS DISTINCT FROM
          (NEW.refund_id, NEW.attempt_id, NEW.charge_id, NEW.subscription_id, NEW.shop, NEW.sale_transaction_id, NEW.order_id,
           NEW.origin, NEW.amount_minor, NEW.currency, NEW.title, NEW.reason, NEW.actor, NEW.fence_id, NEW.permitted_at, NEW.deadline_at)
       OR (OLD.transaction_id IS NOT NULL AND OLD.transaction_id IS DISTINCT FROM NEW.transaction_id))
    EXECUTE FUNCTION refuse_new_facts('refund');

-- A refund is where its last piece of evidence says, and moves only with a new one. That imoje never had it is believed of a person, once
-- imoje would have told of it and would list it.
CREATE FUNCTION guard_refund_step() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    said record;
BEGIN
    SELECT e.kind, e.recorded_at INTO said FROM refund_evidence e
    WHERE e.evidence_id = NEW.last_evidence_id AND e.refund_id = NEW.refund_id AND e.verdict = NEW.state
      AND NEW.last_evidence_id IS DISTINCT FROM OLD.last_evidence_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'refund % cannot change its state without evidence', NEW.refund_id USING ERRCODE = 'CY008';
    END IF;
    IF NEW.state = 'absent' AND (
        said.kind <> 'person' OR NEW.transaction_id IS NOT NULL OR said.recorded_at < NEW.permitted_at + interval '100 hours') THEN
        RAISE EXCEPTION 'refund % cannot be declared absent before %', NEW.refund_id, NEW.permitted_at + interval '100 hours'
            USING ERRCODE = 'CY011';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER refund_needs_evidence AFTER UPDATE ON refunds FOR EACH ROW
    WHEN (OLD.state <> NEW.state)
    EXECUTE FUNCTION guard_refund_step();
