-- What is over, out of the way of what is not.
--
-- The tables that charging works on keep the periods of the last months only, so that a charge costs the same however long Cykl has
-- been in use. A period that has been closed for long moves here as a whole, with its attempts and evidence; so do old events and
-- notices. The archive lies in partitions by quarter, which are dropped when the time for which the books are kept is over:
-- months would be too many to look into for one subscription, and the indexes of a year too large to write to all over. The
-- newest period of a subscription never moves: it says where the next one is.

-- What has left the books for good.
CREATE TABLE archive (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    kept_from date NOT NULL
);
INSERT INTO archive (kept_from) VALUES ('-infinity');
COMMENT ON TABLE archive IS 'The books are complete from this date on. What was due, told or received before it was dropped.';

CREATE TABLE archived_charges (
    charge_id           uuid NOT NULL,
    subscription_id     uuid NOT NULL,
    shop                text NOT NULL,
    period_no           integer NOT NULL,
    due_on              date NOT NULL,
    due_at              timestamptz NOT NULL,
    amount_minor        bigint NOT NULL,
    currency            currency NOT NULL,
    state               charge_state NOT NULL,
    reason              text,
    attempts            smallint NOT NULL,
    declines            smallint NOT NULL,
    unsent              smallint NOT NULL,
    first_attempt_at    timestamptz,
    paid_at             timestamptz,
    paid_attempt_id     uuid,
    paid_transaction_id uuid,
    last_status_code    text,
    planned_at          timestamptz NOT NULL,
    next_due_at         timestamptz,
    -- The date follows from the period, so these hold across quarters as well.
    CONSTRAINT one_archived_charge_per_period PRIMARY KEY (subscription_id, period_no, due_on),
    CONSTRAINT archived_charges_are_closed CHECK (state IN ('paid', 'failed', 'skipped', 'void')),
    CONSTRAINT archived_payments_are_named CHECK ((state = 'paid') = (paid_at IS NOT NULL AND paid_attempt_id IS NOT NULL))
) PARTITION BY RANGE (due_on);
CREATE INDEX archived_charges_by_id ON archived_charges (charge_id);
COMMENT ON TABLE archived_charges IS 'Charges that have been closed for long.';

CREATE TABLE archived_attempts (
    attempt_id       uuid NOT NULL,
    charge_id        uuid NOT NULL,
    subscription_id  uuid NOT NULL,
    shop             text NOT NULL,
    card_id          uuid,
    period_no        integer NOT NULL,
    due_on           date NOT NULL,
    attempt_no       smallint NOT NULL,
    order_id         text NOT NULL,
    amount_minor     bigint NOT NULL,
    currency         currency NOT NULL,
    state            attempt_state NOT NULL,
    is_retry         boolean NOT NULL,
    fence_id         uuid NOT NULL,
    permitted_at     timestamptz NOT NULL,
    deadline_at      timestamptz NOT NULL,
    quiet_until      timestamptz NOT NULL,
    transaction_id   uuid,
    status_code      text,
    decline          decline_class,
    card_masked      text,
    polls            smallint NOT NULL,
    case_opened_at   timestamptz,
    decided_at       timestamptz NOT NULL,
    confirmed_at     timestamptz,
    last_evidence_id uuid,
    CONSTRAINT archived_order_id_is_never_reused PRIMARY KEY (subscription_id, period_no, attempt_no, due_on),
    CONSTRAINT archived_attempts_are_final CHECK (state NOT IN ('in_doubt', 'pending'))
) PARTITION BY RANGE (due_on);
CREATE INDEX archived_attempts_by_transaction ON archived_attempts (transaction_id);
COMMENT ON TABLE archived_attempts IS 'The attempts of archived charges.';

CREATE TABLE archived_evidence (
    evidence_id     uuid NOT NULL,
    attempt_id      uuid NOT NULL,
    subscription_id uuid NOT NULL,
    due_on          date NOT NULL,
    kind            evidence_kind NOT NULL,
    verdict         attempt_state NOT NULL,
    http_status     smallint,
    error_code      text,
    gateway_status  text,
    status_code     text,
    transaction_id  uuid,
    detail          text,
    actor           text NOT NULL,
    recorded_at     timestamptz NOT NULL,
    PRIMARY KEY (attempt_id, evidence_id, subscription_id, due_on)
) PARTITION BY RANGE (due_on);
COMMENT ON TABLE archived_evidence IS 'The evidence about archived attempts.';

CREATE TABLE archived_events (
    event_id        uuid NOT NULL,
    subscription_id uuid,
    sequence_no     bigint,
    kind            text NOT NULL,
    is_alert        boolean NOT NULL,
    shop            text,
    charge_id       uuid,
    attempt_id      uuid,
    payload         jsonb NOT NULL,
    occurred_at     timestamptz NOT NULL,
    CONSTRAINT archived_events_are_numbered UNIQUE (subscription_id, sequence_no, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE INDEX archived_events_by_id ON archived_events (event_id);
COMMENT ON TABLE archived_events IS 'Events that were told long ago. The newest of a subscription stays: the next one is numbered after it.';

CREATE TABLE archived_notices (
    notice_id      uuid NOT NULL,
    shop           text NOT NULL,
    body_sha256    bytea NOT NULL,
    body           text NOT NULL,
    order_id       text,
    transaction_id uuid,
    attempt_id     uuid,
    is_refund      boolean NOT NULL,
    refund_of      uuid,
    says_settled   boolean NOT NULL,
    state          notice_state NOT NULL,
    received_at    timestamptz NOT NULL,
    received_count integer NOT NULL,
    PRIMARY KEY (notice_id, received_at),
    CONSTRAINT archived_notices_are_closed CHECK (state <> 'new')
) PARTITION BY RANGE (received_at);
COMMENT ON TABLE archived_notices IS 'Notices that were followed up long ago.';

-- All of it, for whoever looks back. The two halves of each never overlap.
CREATE VIEW all_charges AS
SELECT charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, reason, next_action_at, attempts,
       declines, unsent, first_attempt_at, paid_at, paid_attempt_id, NULL::uuid AS paid_transaction_id, last_status_code, planned_at,
       next_due_at
FROM charges
UNION ALL
SELECT charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state, reason, NULL, attempts,
       declines, unsent, first_attempt_at, paid_at, paid_attempt_id, paid_transaction_id, last_status_code, planned_at, next_due_at
FROM archived_charges;

CREATE VIEW all_attempts AS
SELECT attempt_id, charge_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor, currency, state, is_retry,
       permitted_at, deadline_at, quiet_until, transaction_id, status_code, decline, card_masked, next_poll_at, case_opened_at,
       decided_at, confirmed_at, last_evidence_id
FROM attempts
UNION ALL
SELECT attempt_id, charge_id, subscription_id, shop, card_id, period_no, attempt_no, order_id, amount_minor, currency, state, is_retry,
       permitted_at, deadline_at, quiet_until, transaction_id, status_code, decline, card_masked, NULL, case_opened_at,
       decided_at, confirmed_at, last_evidence_id
FROM archived_attempts;

CREATE VIEW all_evidence AS
SELECT evidence_id, attempt_id, subscription_id, kind, verdict, http_status, error_code, gateway_status, status_code, transaction_id,
       detail, actor, recorded_at
FROM evidence
UNION ALL
SELECT evidence_id, attempt_id, subscription_id, kind, verdict, http_status, error_code, gateway_status, status_code, transaction_id,
       detail, actor, recorded_at
FROM archived_evidence;

CREATE VIEW all_events AS
SELECT event_id, subscription_id, sequence_no, kind, is_alert, shop, charge_id, attempt_id, payload, occurred_at FROM events
UNION ALL
SELECT event_id, subscription_id, sequence_no, kind, is_alert, shop, charge_id, attempt_id, payload, occurred_at FROM archived_events;

-- Makes the partitions of a quarter, unless they are there. Attached instead of created in place, so that whoever reads the archive need
-- not have ended.
CREATE FUNCTION add_archive_quarter(of date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    first_day CONSTANT date := date_trunc('quarter', of)::date;
    whole text;
    part text;
BEGIN
    FOREACH whole IN ARRAY ARRAY['archived_charges', 'archived_attempts', 'archived_evidence', 'archived_events', 'archived_notices'] LOOP
        part := whole || to_char(first_day, '_YYYY_"q"Q');
        CONTINUE WHEN to_regclass(part) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, whole);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', whole, part,
                       -- Months end where UTC says, whatever the zone of the session.
                       to_char(first_day, 'YYYY-MM-DD "00:00:00+00"'),
                       to_char(first_day + interval '3 months', 'YYYY-MM-DD "00:00:00+00"'));
        -- A trigger for each statement belongs to the table that a statement names, so each part needs its own.
        EXECUTE format('CREATE TRIGGER %I BEFORE UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()',
                       part || '_stays', part);
    END LOOP;
END $$;

-- Drops the quarters before the first of a year for good. Returns how many there were.
CREATE FUNCTION drop_archive_before(first_of_year date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    part record;
    quarters integer := 0;
BEGIN
    IF first_of_year <> date_trunc('year', first_of_year) THEN
        RAISE EXCEPTION 'the archive is dropped by whole years, and % does not begin one', first_of_year USING ERRCODE = '22023';
    END IF;
    FOR part IN
        SELECT c.relname AS name, p.relname AS whole
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
        WHERE i.inhparent IN ('archived_charges'::regclass, 'archived_attempts'::regclass, 'archived_evidence'::regclass,
                              'archived_events'::regclass, 'archived_notices'::regclass)
          AND left(right(c.relname, 7), 4)::integer < extract(year FROM first_of_year)
    LOOP
        EXECUTE format('DROP TABLE %I', part.name);
        quarters := quarters + (part.whole = 'archived_charges')::integer;
    END LOOP;
    UPDATE archive SET kept_from = first_of_year WHERE kept_from < first_of_year;
    RETURN quarters;
END $$;
