-- What the database refuses, whoever asks. Constraints bind what we intend; what is observed can always be recorded.
--
-- What needs other rows is checked per statement over transition tables, so that a batch of hundreds of rows pays for it once;
-- what needs only the row itself, in the condition of a row trigger, which costs next to nothing as long as it is false.
-- The functions look rows up by index whatever the statistics say: a plan made while a table was small would read all of it for as
-- long as the connection lives.
-- SQLSTATEs: CY001 brake, CY002 fence, CY003 terms, CY004 spacing, CY005 earlier attempt unresolved, CY006 illegal transition,
-- CY007 immutable, CY008 no evidence, CY009 append-only, CY010 paid without a settlement, CY011 absence not established,
-- CY012 a permit for the period was forgotten.

-- Rows that may only ever be added.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'CY009';
END $$;

CREATE TRIGGER evidence_is_append_only BEFORE UPDATE OR TRUNCATE ON evidence
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER events_are_append_only BEFORE UPDATE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER attempts_are_kept BEFORE TRUNCATE ON attempts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER charges_are_kept BEFORE TRUNCATE ON charges
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER notices_are_kept BEFORE TRUNCATE ON notices
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER subscriptions_are_kept BEFORE DELETE OR TRUNCATE ON subscriptions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- What others refer to keeps its key, too.
CREATE TRIGGER cards_are_kept BEFORE UPDATE OF card_id, shop OR DELETE OR TRUNCATE ON cards
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER shops_are_kept BEFORE UPDATE OF shop OR DELETE OR TRUNCATE ON shops
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();


-- A row leaves the books for the archive or not at all. Of what may be archived, the archive's own constraints say the rest.
CREATE FUNCTION refuse_unarchived() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    lost bigint;
BEGIN
    CASE TG_TABLE_NAME
    WHEN 'charges' THEN
        SELECT count(*) INTO lost FROM old_rows o WHERE NOT EXISTS (
            SELECT FROM archived_charges h
            WHERE (h.subscription_id, h.period_no, h.due_on) = (o.subscription_id, o.period_no, o.due_on)
              AND (h.charge_id, h.state, h.attempts) = (o.charge_id, o.state, o.attempts)
              AND h.paid_attempt_id IS NOT DISTINCT FROM o.paid_attempt_id)
            OR EXISTS (SELECT FROM attempts a WHERE (a.subscription_id, a.period_no) = (o.subscription_id, o.period_no))
            OR NOT EXISTS (SELECT FROM charges c WHERE c.subscription_id = o.subscription_id AND c.period_no > o.period_no)
            OR NOT EXISTS (SELECT FROM subscriptions s WHERE s.subscription_id = o.subscription_id AND s.archived_to >= o.period_no);
    -- Before its charge, whose date says which quarter to look in.
    WHEN 'attempts' THEN
        SELECT count(*) INTO lost FROM old_rows o WHERE NOT EXISTS (
            SELECT FROM charges c
                JOIN archived_charges g USING (subscription_id, period_no, due_on)
                JOIN archived_attempts h USING (subscription_id, period_no, due_on)
            WHERE (c.subscription_id, c.period_no) = (o.subscription_id, o.period_no) AND h.attempt_no = o.attempt_no
              AND (h.attempt_id, h.state) = (o.attempt_id, o.state) AND h.transaction_id IS NOT DISTINCT FROM o.transaction_id)
            OR EXISTS (SELECT FROM evidence e WHERE e.attempt_id = o.attempt_id);
    -- Before its attempt.
    WHEN 'evidence' THEN
        SELECT count(*) INTO lost FROM old_rows o WHERE NOT EXISTS (
            SELECT FROM attempts a
                JOIN charges c USING (subscription_id, period_no)
                JOIN archived_attempts g USING (subscription_id, period_no, attempt_no, due_on)
                JOIN archived_evidence h ON h.due_on = c.due_on AND h.attempt_id = a.attempt_id
            WHERE a.attempt_id = o.attempt_id AND (h.evidence_id, h.verdict) = (o.evidence_id, o.verdict));
    WHEN 'events' THEN
        SELECT count(*) INTO lost FROM old_rows o WHERE NOT EXISTS (
            SELECT FROM archived_events h WHERE h.event_id = o.event_id AND h.occurred_at = o.occurred_at)
            OR o.subscription_id IS NOT NULL AND NOT EXISTS (
                SELECT FROM events e WHERE e.subscription_id = o.subscription_id AND e.sequence_no > o.sequence_no);
    WHEN 'notices' THEN
        SELECT count(*) INTO lost FROM old_rows o WHERE NOT EXISTS (
            SELECT FROM archived_notices h WHERE h.notice_id = o.notice_id AND h.received_at = o.received_at);
    END CASE;
    IF lost > 0 THEN
        RAISE EXCEPTION '% of % rows of % are not in the archive, or are needed here', lost, (SELECT count(*) FROM old_rows),
            TG_TABLE_NAME USING ERRCODE = 'CY009';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER charges_are_archived AFTER DELETE ON charges
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION refuse_unarchived();
CREATE TRIGGER attempts_are_archived AFTER DELETE ON attempts
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION refuse_unarchived();
CREATE TRIGGER evidence_is_archived AFTER DELETE ON evidence
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION refuse_unarchived();
CREATE TRIGGER events_are_archived AFTER DELETE ON events
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION refuse_unarchived();
CREATE TRIGGER notices_are_archived AFTER DELETE ON notices
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION refuse_unarchived();
-- What is archived stays as it is, until its quarter is dropped.
CREATE TRIGGER archived_charges_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON archived_charges
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER archived_attempts_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON archived_attempts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER archived_evidence_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON archived_evidence
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER archived_events_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON archived_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER archived_notices_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON archived_notices
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The two ways in which an update of a row can be refused by what it was before.
CREATE FUNCTION refuse_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% % may not go from % to %', TG_ARGV[0], to_jsonb(OLD) ->> (TG_ARGV[0] || '_id'), OLD.state, NEW.state
        USING ERRCODE = 'CY006';
END $$;
CREATE FUNCTION refuse_new_facts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% %: its facts never change', TG_ARGV[0], to_jsonb(OLD) ->> (TG_ARGV[0] || '_id') USING ERRCODE = 'CY007';
END $$;

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

-- A card belongs to a shop, for ever, and a subscription to a shop and a card of it.
CREATE FUNCTION guard_card_insert() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.card_id, n.shop INTO refused
    FROM new_rows n
    WHERE NOT EXISTS (SELECT FROM shops s WHERE s.shop = n.shop)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'there is no shop % for card %', refused.shop, refused.card_id USING ERRCODE = '23503';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER card_insert AFTER INSERT ON cards
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_card_insert();

CREATE FUNCTION guard_subscription_card() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.subscription_id INTO refused
    FROM new_rows n
        LEFT JOIN shops s ON s.shop = n.shop
        LEFT JOIN cards k ON k.card_id = n.card_id AND k.shop = n.shop
    WHERE s.shop IS NULL OR (n.card_id IS NOT NULL AND k.card_id IS NULL)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'there is no such shop or no such card of it for subscription %', refused.subscription_id
            USING ERRCODE = '23503';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER subscription_insert AFTER INSERT ON subscriptions
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_subscription_card();
CREATE TRIGGER subscription_card AFTER UPDATE ON subscriptions
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_subscription_card();

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
       OR n.archived_to < o.archived_to OR n.archived_payments < o.archived_payments
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
CREATE FUNCTION guard_charge_insert() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.subscription_id, n.period_no INTO refused
    FROM new_rows n LEFT JOIN subscriptions s USING (subscription_id)
    WHERE (n.shop, n.amount_minor, n.currency, n.due_on) IS DISTINCT FROM
          (s.shop, s.amount_minor, s.currency, (s.anchor_date + n.period_no * s.period::interval)::date)
       OR n.period_no < s.first_period_no
       OR n.period_no <= s.archived_to
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

CREATE TRIGGER charge_step AFTER UPDATE ON charges FOR EACH ROW
    WHEN (NOT charge_may_become(OLD.state, NEW.state))
    EXECUTE FUNCTION refuse_step('charge');
CREATE TRIGGER charge_facts AFTER UPDATE ON charges FOR EACH ROW
    WHEN ((OLD.charge_id, OLD.subscription_id, OLD.shop, OLD.period_no, OLD.due_on, OLD.due_at, OLD.amount_minor, OLD.currency,
           OLD.planned_at)
        IS DISTINCT FROM
          (NEW.charge_id, NEW.subscription_id, NEW.shop, NEW.period_no, NEW.due_on, NEW.due_at, NEW.amount_minor, NEW.currency,
           NEW.planned_at)
       OR (OLD.first_attempt_at IS NOT NULL AND OLD.first_attempt_at IS DISTINCT FROM NEW.first_attempt_at)
       OR (OLD.state = 'paid' AND NEW.state = 'paid' AND (OLD.paid_at, OLD.paid_attempt_id) IS DISTINCT FROM (NEW.paid_at, NEW.paid_attempt_id))
       OR NEW.attempts < OLD.attempts OR NEW.declines < OLD.declines)
    EXECUTE FUNCTION refuse_new_facts('charge');

CREATE FUNCTION guard_charge_payment() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.charge_id INTO refused
    FROM new_rows n
    WHERE n.state = 'paid' AND NOT EXISTS (
        SELECT FROM attempts a
        WHERE a.attempt_id = n.paid_attempt_id AND a.subscription_id = n.subscription_id AND a.charge_id = n.charge_id
          AND a.state IN ('settled', 'surplus'))
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'charge % cannot be paid without a settled attempt', refused.charge_id USING ERRCODE = 'CY010';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER charge_payment AFTER UPDATE ON charges
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_charge_payment();

-- The permit gate. An attempt is born in doubt, or, as the tombstone of a permit whose commit was never confirmed, as not sent.
CREATE FUNCTION guard_permit() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    refused record;
BEGIN
    -- What a payer paid by a link has a guard of its own.
    SELECT n.attempt_id INTO refused FROM new_rows n
    WHERE n.state NOT IN ('in_doubt', 'not_sent') AND n.card_id IS NOT NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt % must be born in doubt', refused.attempt_id USING ERRCODE = 'CY006';
    END IF;

    IF EXISTS (SELECT FROM lost_permits) THEN
        -- Permits that were given before the database went back come home: they are a fact, whatever would be intended now.
        IF NOT EXISTS (
            SELECT FROM new_rows n WHERE NOT EXISTS (
                SELECT FROM lost_permits l
                WHERE (l.attempt_id, l.order_id, l.amount_minor, l.currency) = (n.attempt_id, n.order_id, n.amount_minor, n.currency)
                  AND l.fate = 'restored')) THEN
            RETURN NULL;
        END IF;
        SELECT n.attempt_id, l.order_id INTO refused
        FROM new_rows n JOIN lost_permits l USING (subscription_id, period_no)
        WHERE n.state = 'in_doubt' AND l.fate = 'unplaced' LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'the permit journal names order %, which these books lack, for the charge of attempt %', refused.order_id,
                refused.attempt_id USING ERRCODE = 'CY012', HINT = 'Run "cykl adopt --reason ..." once its charge can take it.';
        END IF;
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
    -- What starts slowly lets through what its stage has counted.
    IF EXISTS (SELECT FROM brakes b WHERE b.stage IS NOT NULL) THEN
        SELECT n.attempt_id INTO refused FROM new_rows n JOIN brakes b ON b.shop IN ('*', n.shop)
        WHERE n.state = 'in_doubt' AND b.stage IS NOT NULL AND n.attempt_id <> ALL (b.stage_attempts)
        LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'attempt % is not one of those that the slow start allows', refused.attempt_id USING ERRCODE = 'CY001';
        END IF;
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

    -- Two permits for one subscription wait for each other here, so that each sees the other's attempt below: the charge of the one
    -- still waits as far as the other can see. Written so that no index but those by subscription can be used, whatever the
    -- statistics say about how much waits.
    PERFORM FROM charges c WHERE c.subscription_id = ANY (ARRAY(SELECT n.subscription_id FROM new_rows n)) AND c.is_waiting
        ORDER BY c.charge_id FOR NO KEY UPDATE;

    SELECT n.attempt_id INTO refused
    FROM new_rows n
        LEFT JOIN charges c ON c.charge_id = n.charge_id AND c.subscription_id = n.subscription_id
        LEFT JOIN subscriptions s ON s.subscription_id = n.subscription_id
        LEFT JOIN cards k ON k.card_id = n.card_id
    WHERE c.charge_id IS NULL OR k.card_id IS NULL AND n.card_id IS NOT NULL OR n.state = 'in_doubt' AND (
        (n.subscription_id, n.shop, n.period_no, n.amount_minor, n.currency, n.card_id)
            IS DISTINCT FROM (c.subscription_id, c.shop, c.period_no, c.amount_minor, c.currency, s.card_id)
        OR c.state NOT IN ('planned', 'retry_wait')
        OR s.status NOT IN ('active', 'past_due')
        OR NOT k.is_active OR k.shop <> n.shop)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt % does not fit its charge, subscription and card', refused.attempt_id USING ERRCODE = 'CY003';
    END IF;

    SELECT n.attempt_id, a.state <> 'not_sent' AND a.quiet_until > n.permitted_at AS is_too_close INTO refused
    FROM new_rows n JOIN attempts a USING (subscription_id)
    WHERE n.state = 'in_doubt' AND a.attempt_id <> n.attempt_id
      AND (a.state <> 'not_sent' AND a.quiet_until > n.permitted_at
        OR a.period_no = n.period_no AND (a.next_poll_at IS NOT NULL OR a.state = 'surplus' OR EXISTS (
            -- A notice about it that was not followed up yet.
            SELECT FROM notices t
            WHERE t.state = 'new' AND t.shop = a.shop AND (t.attempt_id = a.attempt_id OR t.order_id = a.order_id))))
    ORDER BY is_too_close DESC
    LIMIT 1;
    IF refused.is_too_close THEN
        RAISE EXCEPTION 'attempt % follows too closely on another of its subscription', refused.attempt_id
            USING ERRCODE = 'CY004';
    ELSIF FOUND THEN
        RAISE EXCEPTION 'an earlier attempt of the charge of attempt % must be read again first', refused.attempt_id
            USING ERRCODE = 'CY005';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER attempt_insert AFTER INSERT ON attempts
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_permit();

CREATE TRIGGER attempt_step AFTER UPDATE ON attempts FOR EACH ROW
    WHEN (NOT attempt_may_become(OLD.state, NEW.state))
    EXECUTE FUNCTION refuse_step('attempt');
CREATE TRIGGER attempt_facts AFTER UPDATE ON attempts FOR EACH ROW
    WHEN ((OLD.attempt_id, OLD.charge_id, OLD.subscription_id, OLD.shop, OLD.card_id, OLD.period_no, OLD.attempt_no, OLD.order_id,
           OLD.amount_minor, OLD.currency, OLD.is_retry, OLD.fence_id, OLD.permitted_at, OLD.quiet_until)
        IS DISTINCT FROM
          (NEW.attempt_id, NEW.charge_id, NEW.subscription_id, NEW.shop, NEW.card_id, NEW.period_no, NEW.attempt_no, NEW.order_id,
           NEW.amount_minor, NEW.currency, NEW.is_retry, NEW.fence_id, NEW.permitted_at, NEW.quiet_until)
       OR (OLD.transaction_id IS NOT NULL AND OLD.transaction_id IS DISTINCT FROM NEW.transaction_id))
    EXECUTE FUNCTION refuse_new_facts('attempt');

-- An attempt is where its last piece of evidence says, and moves only with a new one.
CREATE FUNCTION refuse_without_evidence() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'attempt % cannot change its state without evidence', NEW.attempt_id USING ERRCODE = 'CY008';
END $$;
CREATE TRIGGER attempt_needs_evidence AFTER UPDATE ON attempts FOR EACH ROW
    WHEN (OLD.state <> NEW.state AND (NEW.last_evidence_id IS NULL OR NEW.last_evidence_id = OLD.last_evidence_id))
    EXECUTE FUNCTION refuse_without_evidence();

CREATE FUNCTION guard_attempt_evidence() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.attempt_id INTO refused
    FROM new_rows n
    WHERE n.last_evidence_id IS NOT NULL AND NOT EXISTS (
        SELECT FROM evidence e
        WHERE e.attempt_id = n.attempt_id AND e.subscription_id = n.subscription_id AND e.evidence_id = n.last_evidence_id
          AND e.verdict = n.state)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'attempt % is not where its evidence says', refused.attempt_id USING ERRCODE = 'CY008';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER attempt_evidence AFTER UPDATE ON attempts
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_attempt_evidence();

-- Evidence is about an attempt.
CREATE FUNCTION guard_evidence_insert() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    refused record;
BEGIN
    SELECT n.attempt_id INTO refused
    FROM new_rows n
    WHERE NOT EXISTS (
        SELECT FROM attempts a WHERE a.attempt_id = n.attempt_id AND a.subscription_id = n.subscription_id)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'there is no attempt % of that subscription to give evidence about', refused.attempt_id
            USING ERRCODE = '23503';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER evidence_insert AFTER INSERT ON evidence
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION guard_evidence_insert();

-- This id is before those of all notices that came in from then on. An id is never earlier than its notice, and later only while a
-- clock that was put back catches up.
CREATE FUNCTION first_notice_id(since timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM since) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- What imoje told us while it would have told us about an attempt: whether the inbox was open to it at all, and whether it spoke of
-- that attempt. imoje repeats a notice for 95 h 25 min. Of what came in after more than twice that time, only what still has to be
-- followed up is looked at, so that a question about an attempt of long ago does not read a year of notices.
CREATE FUNCTION inbox_since_permit(of uuid, OUT was_alive boolean, OUT spoke_of_it boolean)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    WITH asked AS (
        -- The notices of a subscription with an address of its own go there, and never come here.
        SELECT s.notification_url IS NULL AS tells_us,
               a.attempt_id, a.order_id, a.shop, a.permitted_at AS since, a.permitted_at + interval '96 hours' AS until,
               first_notice_id(a.permitted_at) AS first_id,
               first_notice_id(a.permitted_at + interval '5 days') AS last_id,
               first_notice_id(a.permitted_at + interval '10 days') AS late_id
        FROM attempts a JOIN subscriptions s USING (subscription_id) WHERE a.attempt_id = $1
    )
    SELECT tells_us AND (
            EXISTS (SELECT FROM notices n
                    WHERE n.notice_id BETWEEN first_id AND last_id AND n.shop = asked.shop AND n.received_at BETWEEN since AND until)
            OR EXISTS (SELECT FROM archived_notices n
                    WHERE n.notice_id BETWEEN first_id AND last_id AND n.shop = asked.shop AND n.received_at BETWEEN since AND until)),
           EXISTS (SELECT FROM notices n
                   WHERE n.notice_id BETWEEN first_id AND late_id AND n.shop = asked.shop
                     AND (n.attempt_id = asked.attempt_id OR n.order_id = asked.order_id))
        OR EXISTS (SELECT FROM archived_notices n
                   WHERE n.notice_id BETWEEN first_id AND late_id AND n.shop = asked.shop AND n.received_at >= since
                     AND (n.attempt_id = asked.attempt_id OR n.order_id = asked.order_id))
        OR EXISTS (SELECT FROM notices n
                   WHERE n.state = 'new' AND n.shop = asked.shop
                     AND (n.attempt_id = asked.attempt_id OR n.order_id = asked.order_id))
    FROM asked
$$;

-- That imoje never had a transaction is believed from people, once its notice would have come and could have come. The time is the one
-- that the declaration carries and, for a real gateway, the database's own as well: a person's machine may be ahead.
CREATE FUNCTION guard_absence() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    declared record;
    inbox record;
BEGIN
    SELECT a.state, a.transaction_id, a.order_id, a.permitted_at + interval '100 hours' AS possible_at,
           CASE s.environment WHEN 'simulator' THEN NEW.recorded_at ELSE least(NEW.recorded_at, now()) END AS declared_at
    INTO declared
    FROM attempts a JOIN shops s USING (shop)
    WHERE a.subscription_id = NEW.subscription_id AND a.attempt_id = NEW.attempt_id;
    -- Whatever is not known is no reason to believe.
    IF declared.state IS DISTINCT FROM 'in_doubt' OR declared.transaction_id IS NOT NULL THEN
        RAISE EXCEPTION 'attempt % cannot be declared absent: it is %', declared.order_id, declared.state USING ERRCODE = 'CY011';
    END IF;
    IF (declared.declared_at >= declared.possible_at) IS NOT TRUE THEN
        RAISE EXCEPTION 'attempt % cannot be declared absent before %', declared.order_id, declared.possible_at
            USING ERRCODE = 'CY011';
    END IF;
    SELECT * INTO inbox FROM inbox_since_permit(NEW.attempt_id);
    IF inbox.spoke_of_it IS NOT FALSE THEN
        RAISE EXCEPTION 'attempt % cannot be declared absent: imoje sent a notice about it', declared.order_id USING ERRCODE = 'CY011';
    END IF;
    IF inbox.was_alive IS NOT TRUE THEN
        RAISE EXCEPTION 'attempt % cannot be declared absent: no notice came in while its own would have', declared.order_id
            USING ERRCODE = 'CY011';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER absence_is_established AFTER INSERT ON evidence FOR EACH ROW
    WHEN (NEW.kind = 'person' AND NEW.verdict = 'absent')
    EXECUTE FUNCTION guard_absence();

CREATE FUNCTION refuse_absence_of_one() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(DISTINCT lower(btrim(e.actor))) FROM evidence e
        WHERE e.subscription_id = NEW.subscription_id AND e.attempt_id = NEW.attempt_id
          AND e.kind = 'person' AND e.verdict = 'absent') < 2 THEN
        RAISE EXCEPTION 'attempt % is absent only when two people say so', NEW.attempt_id USING ERRCODE = 'CY011';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER absence_needs_two AFTER UPDATE ON attempts FOR EACH ROW
    WHEN (NEW.state = 'absent' AND OLD.state <> 'absent')
    EXECUTE FUNCTION refuse_absence_of_one();

-- A charge that waited for a person, or was given up, goes on only when no attempt of it can have moved money. What a person lets go
-- on is for a subscription that is billed and, after a card that must never be tried again, for another card; what goes on because
-- its doubt has ended was decided together with that.
CREATE FUNCTION guard_going_on() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF EXISTS (SELECT FROM attempts a
               WHERE a.subscription_id = NEW.subscription_id AND a.period_no = NEW.period_no
                 AND a.state IN ('in_doubt', 'pending', 'settled', 'surplus')) THEN
        RAISE EXCEPTION 'charge % cannot go on: an attempt of it may have moved money', NEW.charge_id USING ERRCODE = 'CY005';
    END IF;
    IF (OLD.state = 'failed' OR OLD.reason IS DISTINCT FROM 'in_doubt') AND NOT EXISTS (
        SELECT FROM subscriptions s
        WHERE s.subscription_id = NEW.subscription_id AND s.status IN ('active', 'past_due')
          AND NOT EXISTS (SELECT FROM attempts a
                          WHERE a.subscription_id = NEW.subscription_id AND a.period_no = NEW.period_no
                            AND a.decline = 'never' AND a.card_id = s.card_id)) THEN
        RAISE EXCEPTION 'charge % cannot go on: its subscription is not billed, or its card must never be tried again', NEW.charge_id
            USING ERRCODE = 'CY003';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER charge_goes_on AFTER UPDATE ON charges FOR EACH ROW
    WHEN (NEW.state = 'retry_wait' AND OLD.state IN ('held', 'failed'))
    EXECUTE FUNCTION guard_going_on();

-- A charge is not given up when its money has moved, nor while it may move and nobody was asked.
CREATE FUNCTION guard_giving_up() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF EXISTS (SELECT FROM attempts a
               WHERE a.subscription_id = NEW.subscription_id AND a.period_no = NEW.period_no
                 AND (a.state IN ('settled', 'surplus') OR a.state IN ('in_doubt', 'pending') AND a.case_opened_at IS NULL)) THEN
        RAISE EXCEPTION 'charge % cannot be given up: an attempt of it moved money, or may and nobody was asked', NEW.charge_id
            USING ERRCODE = 'CY005';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER charge_gives_up AFTER UPDATE ON charges FOR EACH ROW
    WHEN (NEW.state = 'failed' AND OLD.state <> 'failed')
    EXECUTE FUNCTION guard_giving_up();
