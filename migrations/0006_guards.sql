-- What the database refuses, whoever asks. Constraints bind what we intend; what is observed can always be recorded.
--
-- All checks are per statement over transition tables, so that a batch of hundreds of rows pays for them once.
-- SQLSTATEs: CY001 brake, CY002 fence, CY003 terms, CY004 spacing, CY005 earlier attempt unresolved, CY006 illegal transition,
-- CY007 immutable, CY008 no evidence, CY009 append-only, CY010 paid without a settlement.

-- Rows that may only ever be added.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'CY009';
END $$;

CREATE TRIGGER evidence_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON evidence
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER events_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER attempts_are_kept BEFORE DELETE OR TRUNCATE ON attempts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER charges_are_kept BEFORE DELETE OR TRUNCATE ON charges
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER subscriptions_are_kept BEFORE DELETE OR TRUNCATE ON subscriptions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Legal transitions, the same as in src/domain; a test compares them pair by pair.
CREATE FUNCTION attempt_may_become(was attempt_state, becomes attempt_state) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT was = becomes OR CASE was
        WHEN 'in_doubt' THEN true
        WHEN 'pending' THEN becomes IN ('settled', 'surplus', 'rejected')
        WHEN 'settled' THEN false
        WHEN 'surplus' THEN false
        ELSE becomes IN ('settled', 'surplus')
    END
$$;

CREATE FUNCTION charge_may_become(was charge_state, becomes charge_state) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT was = becomes OR becomes = 'paid' OR CASE was
        WHEN 'planned' THEN becomes IN ('in_flight', 'held', 'skipped', 'void')
        WHEN 'in_flight' THEN becomes IN ('retry_wait', 'failed', 'held')
        WHEN 'retry_wait' THEN becomes IN ('in_flight', 'failed', 'held', 'skipped', 'void')
        WHEN 'held' THEN becomes IN ('retry_wait', 'failed')
        WHEN 'failed' THEN becomes = 'retry_wait'
        ELSE false
    END
$$;

CREATE FUNCTION subscription_may_become(was subscription_status, becomes subscription_status) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT was = becomes OR CASE was
        WHEN 'registering' THEN becomes IN ('active', 'cancelled')
        WHEN 'active' THEN becomes IN ('past_due', 'paused', 'deactivated', 'cancelled', 'completed')
        WHEN 'past_due' THEN becomes IN ('active', 'paused', 'deactivated', 'cancelled', 'completed')
        WHEN 'paused' THEN becomes IN ('active', 'deactivated', 'cancelled')
        WHEN 'deactivated' THEN becomes IN ('active', 'cancelled')
        ELSE false
    END
$$;

-- A subscription's agreement never changes.
CREATE FUNCTION guard_subscription_update() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.subscription_id, o.status AS was, n.status AS becomes INTO refused
    FROM old_rows o FULL JOIN new_rows n USING (subscription_id)
    WHERE NOT coalesce(subscription_may_become(o.status, n.status), false) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'subscription % may not go from % to %', refused.subscription_id, refused.was, refused.becomes
            USING ERRCODE = 'CY006';
    END IF;
    SELECT n.subscription_id INTO refused
    FROM old_rows o JOIN new_rows n USING (subscription_id)
    WHERE (o.shop, o.external_id, o.amount_minor, o.currency, o.period, o.anchor_date, o.timezone, o.first_period_no, o.created_at)
        IS DISTINCT FROM
          (n.shop, n.external_id, n.amount_minor, n.currency, n.period, n.anchor_date, n.timezone, n.first_period_no, n.created_at)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'subscription %: amount, currency, period, anchor date and zone never change', refused.subscription_id
            USING ERRCODE = 'CY007';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER subscription_update AFTER UPDATE ON subscriptions
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_subscription_update();

-- A charge is born with the terms of its subscription, on a date that PostgreSQL's own calendar finds as well. Anchor and period
-- never change, so unique period numbers mean that periods cannot overlap.
CREATE FUNCTION guard_charge_insert() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.subscription_id, n.period_no INTO refused
    FROM new_rows n LEFT JOIN subscriptions s USING (subscription_id)
    WHERE (n.shop, n.amount_minor, n.currency, n.due_on) IS DISTINCT FROM
          (s.shop, s.amount_minor, s.currency, (s.anchor_date + n.period_no * s.period::interval)::date)
       OR n.period_no < s.first_period_no
       OR n.state NOT IN ('planned', 'held', 'skipped')
       OR (n.attempts, n.declines, n.unsent) <> (0, 0, 0)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'charge for period % of subscription % differs from its subscription', refused.period_no,
            refused.subscription_id USING ERRCODE = 'CY003';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER charge_insert AFTER INSERT ON charges
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_charge_insert();

CREATE FUNCTION guard_charge_update() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.charge_id, o.state AS was, n.state AS becomes INTO refused
    FROM old_rows o FULL JOIN new_rows n USING (charge_id)
    WHERE NOT coalesce(charge_may_become(o.state, n.state), false) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'charge % may not go from % to %', refused.charge_id, refused.was, refused.becomes
            USING ERRCODE = 'CY006';
    END IF;
    SELECT n.charge_id INTO refused
    FROM old_rows o JOIN new_rows n USING (charge_id)
    WHERE (o.subscription_id, o.shop, o.period_no, o.due_on, o.due_at, o.amount_minor, o.currency, o.planned_at)
        IS DISTINCT FROM
          (n.subscription_id, n.shop, n.period_no, n.due_on, n.due_at, n.amount_minor, n.currency, n.planned_at)
       OR (o.first_attempt_at IS NOT NULL AND o.first_attempt_at IS DISTINCT FROM n.first_attempt_at)
       OR (o.state = 'paid' AND (o.paid_at, o.paid_attempt_id) IS DISTINCT FROM (n.paid_at, n.paid_attempt_id))
       OR n.attempts < o.attempts OR n.declines < o.declines
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'charge %: its facts never change', refused.charge_id USING ERRCODE = 'CY007';
    END IF;
    SELECT n.charge_id INTO refused
    FROM new_rows n JOIN old_rows o USING (charge_id)
    WHERE n.state = 'paid' AND o.state <> 'paid' AND NOT EXISTS (
        SELECT FROM attempts a
        WHERE a.attempt_id = n.paid_attempt_id AND a.charge_id = n.charge_id AND a.state IN ('settled', 'surplus'))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'charge % cannot be paid without a settled attempt', refused.charge_id USING ERRCODE = 'CY010';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER charge_update AFTER UPDATE ON charges
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_charge_update();

-- The permit gate. An attempt is born in doubt, or, as the tombstone of a permit whose commit was never confirmed, as not sent.
CREATE FUNCTION guard_permit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.attempt_id INTO refused FROM new_rows n WHERE n.state NOT IN ('in_doubt', 'not_sent') LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt % must be born in doubt', refused.attempt_id USING ERRCODE = 'CY006';
    END IF;

    -- Locked, so that a brake that is put on while permits are being committed is effective as soon as it is committed.
    PERFORM FROM brakes b WHERE b.shop = '*' OR b.shop IN (SELECT n.shop FROM new_rows n) FOR SHARE;
    SELECT n.shop INTO refused FROM new_rows n
    WHERE n.state = 'in_doubt' AND (
        NOT EXISTS (SELECT FROM brakes b WHERE b.shop = '*' AND b.mode = 'run')
        OR EXISTS (SELECT FROM brakes b WHERE b.shop = n.shop AND b.mode <> 'run'))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the brake is on for shop %', refused.shop USING ERRCODE = 'CY001';
    END IF;

    SELECT n.attempt_id INTO refused FROM new_rows n
    WHERE n.state = 'in_doubt' AND NOT EXISTS (
        SELECT FROM installation i, current_place() p
        WHERE i.fence_id = n.fence_id
          AND (i.system_identifier, i.timeline, i.database_oid) = (p.system_identifier, p.timeline, p.database_oid))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'this database was moved, restored or promoted since charging was allowed in it'
            USING ERRCODE = 'CY002', HINT = 'Compare its books with imoje, then run "cykl adopt --reason ...".';
    END IF;

    -- Two permits for one subscription wait for each other here, so that each sees the other's attempt below.
    PERFORM FROM schedules s WHERE s.subscription_id IN (SELECT n.subscription_id FROM new_rows n)
        ORDER BY s.subscription_id FOR NO KEY UPDATE;

    SELECT n.attempt_id INTO refused
    FROM new_rows n
        LEFT JOIN charges c USING (charge_id)
        LEFT JOIN subscriptions s ON s.subscription_id = c.subscription_id
        LEFT JOIN cards k ON k.card_id = n.card_id
    WHERE n.state = 'in_doubt' AND (
        (n.subscription_id, n.shop, n.period_no, n.amount_minor, n.currency, n.card_id)
            IS DISTINCT FROM (c.subscription_id, c.shop, c.period_no, c.amount_minor, c.currency, s.card_id)
        OR c.state NOT IN ('planned', 'retry_wait')
        OR s.status NOT IN ('active', 'past_due')
        OR NOT k.is_active OR k.shop <> n.shop)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt % does not fit its charge, subscription and card', refused.attempt_id USING ERRCODE = 'CY003';
    END IF;

    SELECT n.attempt_id INTO refused
    FROM new_rows n JOIN attempts a USING (subscription_id)
    WHERE n.state = 'in_doubt' AND a.attempt_id <> n.attempt_id AND a.state <> 'not_sent'
      AND a.quiet_until > n.permitted_at
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt % follows too closely on another of its subscription', refused.attempt_id
            USING ERRCODE = 'CY004';
    END IF;

    SELECT n.attempt_id INTO refused
    FROM new_rows n JOIN attempts a USING (subscription_id, period_no)
    WHERE n.state = 'in_doubt' AND a.attempt_id <> n.attempt_id
      AND (a.next_poll_at IS NOT NULL OR a.state = 'surplus')
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'an earlier attempt of the charge of attempt % must be read again first', refused.attempt_id
            USING ERRCODE = 'CY005';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER attempt_insert AFTER INSERT ON attempts
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_permit();

CREATE FUNCTION guard_attempt_update() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.attempt_id, o.state AS was, n.state AS becomes INTO refused
    FROM old_rows o FULL JOIN new_rows n USING (attempt_id)
    WHERE NOT coalesce(attempt_may_become(o.state, n.state), false) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt % may not go from % to %', refused.attempt_id, refused.was, refused.becomes
            USING ERRCODE = 'CY006';
    END IF;
    SELECT n.attempt_id INTO refused
    FROM old_rows o JOIN new_rows n USING (attempt_id)
    WHERE (o.charge_id, o.subscription_id, o.shop, o.card_id, o.period_no, o.attempt_no, o.order_id, o.amount_minor, o.currency,
           o.is_retry, o.fence_id, o.permitted_at, o.quiet_until)
        IS DISTINCT FROM
          (n.charge_id, n.subscription_id, n.shop, n.card_id, n.period_no, n.attempt_no, n.order_id, n.amount_minor, n.currency,
           n.is_retry, n.fence_id, n.permitted_at, n.quiet_until)
       OR (o.transaction_id IS NOT NULL AND o.transaction_id IS DISTINCT FROM n.transaction_id)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt %: its facts never change', refused.attempt_id USING ERRCODE = 'CY007';
    END IF;
    SELECT n.attempt_id INTO refused
    FROM old_rows o JOIN new_rows n USING (attempt_id)
    WHERE o.state <> n.state AND NOT EXISTS (
        SELECT FROM evidence e
        WHERE e.evidence_id = n.last_evidence_id AND e.attempt_id = n.attempt_id AND e.verdict = n.state
          AND n.last_evidence_id IS DISTINCT FROM o.last_evidence_id)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt % cannot change its state without evidence', refused.attempt_id USING ERRCODE = 'CY008';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER attempt_update AFTER UPDATE ON attempts
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_attempt_update();
