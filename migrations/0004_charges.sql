-- The obligations, the permits to send a debit for them, and why each permit ended as it did.
--
-- What these tables refer to is checked per statement by the triggers of 0007 instead of per row by foreign keys, which would lock
-- and log the referenced row for every charge.

CREATE TABLE charges (
    charge_id        uuid PRIMARY KEY,
    subscription_id  uuid NOT NULL,
    shop             text NOT NULL,
    period_no        integer NOT NULL CHECK (period_no >= 0),
    due_on           date NOT NULL,
    due_at           timestamptz NOT NULL,
    amount_minor     bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 999999999),
    currency         currency NOT NULL,
    state            charge_state NOT NULL,
    reason           text,
    next_action_at   timestamptz,
    attempts         smallint NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    declines         smallint NOT NULL DEFAULT 0 CHECK (declines >= 0),
    unsent           smallint NOT NULL DEFAULT 0 CHECK (unsent >= 0),
    first_attempt_at timestamptz,
    paid_at          timestamptz,
    paid_attempt_id  uuid,
    last_status_code text,
    planned_at       timestamptz NOT NULL,
    next_due_at      timestamptz,
    -- What the indexes below name, apart from the state, so that a charge that is paid stays on its page in all of them.
    send_at          timestamptz GENERATED ALWAYS AS (CASE WHEN state IN ('planned', 'retry_wait') THEN next_action_at END) STORED,
    is_waiting       boolean NOT NULL GENERATED ALWAYS AS (state IN ('planned', 'retry_wait')) STORED,
    is_held          boolean NOT NULL GENERATED ALWAYS AS (state = 'held') STORED,
    is_failed        boolean NOT NULL GENERATED ALWAYS AS (state = 'failed') STORED,
    CONSTRAINT one_charge_per_period UNIQUE (subscription_id, period_no),
    CONSTRAINT open_charges_are_looked_at
        CHECK ((next_action_at IS NOT NULL) = (state IN ('planned', 'in_flight', 'retry_wait', 'held'))),
    CONSTRAINT paid_charges_name_their_payment
        CHECK ((state = 'paid') = (paid_at IS NOT NULL AND paid_attempt_id IS NOT NULL)),
    CONSTRAINT charges_say_why CHECK (reason IS NOT NULL OR state NOT IN ('failed', 'held', 'skipped', 'void'))
) WITH (fillfactor = 60);
CREATE INDEX charges_to_send ON charges (send_at) WHERE send_at IS NOT NULL;
CREATE INDEX charges_waiting ON charges (subscription_id) WHERE is_waiting;
CREATE INDEX charges_held ON charges (subscription_id) WHERE is_held;
CREATE INDEX charges_failed ON charges (subscription_id) WHERE is_failed;
COMMENT ON TABLE charges IS 'One row per subscription and period that fell due. At most one movement of money each.';
COMMENT ON COLUMN charges.next_due_at IS 'When the period after it falls due, as it was planned; where due_periods has that period.';

-- The period that falls due next. Its row is found without an index by subscription, which would be written to all over with every
-- charge: the newest charge says where it was put, or, before there is one and after a stop, the subscription.
CREATE FUNCTION next_period(of uuid) RETURNS TABLE (period_no integer, due_on date, due_at timestamptz)
LANGUAGE sql STABLE AS $$
    SELECT d.period_no, d.due_on, d.due_at
    FROM due_periods d
    WHERE d.subscription_id = of AND d.due_at IN (
        (SELECT s.from_due_at FROM subscriptions s WHERE s.subscription_id = of),
        (SELECT c.next_due_at FROM charges c WHERE c.subscription_id = of ORDER BY c.period_no DESC LIMIT 1))
    LIMIT 1
$$;

-- Locks that row, so that the scheduler leaves the subscription alone, and says where it is. A row that was moved on while it was
-- waited for is looked for again where the new charge says.
CREATE FUNCTION lock_next_period(of uuid) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
    found_at timestamptz;
    put_at timestamptz;
    put_now_at timestamptz;
BEGIN
    LOOP
        SELECT c.next_due_at INTO put_at FROM charges c WHERE c.subscription_id = of ORDER BY c.period_no DESC LIMIT 1;
        SELECT d.due_at INTO found_at
        FROM due_periods d
        WHERE d.subscription_id = of
          AND d.due_at IN ((SELECT s.from_due_at FROM subscriptions s WHERE s.subscription_id = of), put_at)
        FOR UPDATE;
        EXIT WHEN FOUND;
        SELECT c.next_due_at INTO put_now_at FROM charges c WHERE c.subscription_id = of ORDER BY c.period_no DESC LIMIT 1;
        EXIT WHEN put_now_at IS NOT DISTINCT FROM put_at;
    END LOOP;
    RETURN found_at;
END $$;

CREATE TABLE attempts (
    attempt_id       uuid PRIMARY KEY,
    charge_id        uuid NOT NULL,
    subscription_id  uuid NOT NULL,
    shop             text NOT NULL,
    -- Null for what a payer paid by a link: see 0009.
    card_id          uuid,
    period_no        integer NOT NULL,
    attempt_no       smallint NOT NULL CHECK (attempt_no > 0),
    order_id         text NOT NULL,
    amount_minor     bigint NOT NULL,
    currency         currency NOT NULL,
    state            attempt_state NOT NULL,
    is_retry         boolean NOT NULL,
    fence_id         uuid NOT NULL,
    permitted_at     timestamptz NOT NULL,
    deadline_at      timestamptz NOT NULL,
    quiet_until      timestamptz NOT NULL,
    transaction_id   uuid CONSTRAINT transaction_belongs_to_one_attempt UNIQUE,
    status_code      text,
    decline          decline_class,
    card_masked      text,
    next_poll_at     timestamptz,
    polls            smallint NOT NULL DEFAULT 0,
    case_opened_at   timestamptz,
    decided_at       timestamptz,
    confirmed_at     timestamptz,
    last_evidence_id uuid,
    -- The order id of a debit is made of these three and nothing else, so this holds for it as well.
    CONSTRAINT order_id_is_never_reused UNIQUE (subscription_id, period_no, attempt_no),
    CONSTRAINT order_id_is_derived CHECK (CASE
        WHEN card_id IS NULL THEN order_id ~ '^cykl-r-[0-9a-f]{32}$'
        ELSE order_id = 'cykl-' || replace(subscription_id::text, '-', '') || '-' || period_no || '-' || attempt_no END),
    CONSTRAINT final_attempts_say_when CHECK ((decided_at IS NULL) = (state IN ('in_doubt', 'pending'))),
    CONSTRAINT the_gateway_named_it CHECK (
        transaction_id IS NOT NULL OR state IN ('in_doubt', 'not_sent', 'refused', 'absent')),
    CONSTRAINT declines_have_a_class CHECK ((decline IS NOT NULL) OR state <> 'rejected')
) WITH (fillfactor = 60);
CREATE UNIQUE INDEX one_live_attempt ON attempts (charge_id) WHERE state IN ('in_doubt', 'pending', 'settled');
CREATE INDEX attempts_to_resolve ON attempts (next_poll_at) WHERE next_poll_at IS NOT NULL;
CREATE INDEX attempts_in_doubt ON attempts (deadline_at) WHERE state = 'in_doubt';
CREATE INDEX attempts_declined_by_card ON attempts (card_id, decided_at) WHERE state = 'rejected';
CREATE INDEX attempts_retried_by_card ON attempts (card_id, permitted_at) WHERE is_retry;
COMMENT ON TABLE attempts IS
    'One row is one permit for one request, committed before the request leaves. Born in doubt; only evidence moves it on.';

CREATE TABLE evidence (
    evidence_id    uuid NOT NULL,
    attempt_id     uuid NOT NULL,
    subscription_id uuid NOT NULL,
    kind           evidence_kind NOT NULL,
    verdict        attempt_state NOT NULL,
    http_status    smallint,
    error_code     text,
    gateway_status text,
    status_code    text,
    transaction_id uuid,
    detail         text,
    actor          text NOT NULL,
    recorded_at    timestamptz NOT NULL,
    PRIMARY KEY (attempt_id, evidence_id),
    CONSTRAINT people_say_who_and_why CHECK (
        kind <> 'person' OR detail IS NOT NULL AND lower(btrim(actor)) NOT IN ('', 'cykl'))
);
-- The same name in other letters is the same person.
CREATE UNIQUE INDEX nobody_declares_twice ON evidence (subscription_id, attempt_id, lower(btrim(actor)))
    WHERE kind = 'person' AND verdict = 'absent';
COMMENT ON TABLE evidence IS
    'Why an attempt changed state, what was said about it that contradicts what was known, or what a person decided about it. Append-only.';

-- What the permit journal named and this database had forgotten when it was adopted: it was restored from before those permits.
CREATE TABLE lost_permits (
    attempt_id      uuid PRIMARY KEY,
    subscription_id uuid NOT NULL,
    shop            text NOT NULL,
    card_id         uuid NOT NULL,
    period_no       integer NOT NULL,
    attempt_no      smallint NOT NULL,
    order_id        text NOT NULL,
    amount_minor    bigint NOT NULL,
    currency        currency NOT NULL,
    is_retry        boolean NOT NULL,
    permitted_at    timestamptz NOT NULL,
    transaction_id  uuid,
    found_at        timestamptz NOT NULL,
    fate            lost_fate NOT NULL
);
CREATE INDEX lost_permits_by_period ON lost_permits (subscription_id, period_no);
COMMENT ON TABLE lost_permits IS
    'Permits that the permit journal names and this database had forgotten: it was restored from before them. Their requests may have moved money.';
COMMENT ON COLUMN lost_permits.fate IS
    'restored: its attempt is in the books again, in doubt; superseded: a later attempt of its period was permitted, so this one had moved nothing; order_id_taken: another attempt has its order id, compare both with imoje; unplaced: its subscription, card or charge is not in the books as it was. Nothing is permitted for the period of one that is unplaced.';

-- How much of each shop is to be charged on a day, as the books said when the day began, and how much was permitted since. Days are those
-- of UTC, so that there is no question about what belongs to which.
CREATE TABLE daily_plans (
    shop         text NOT NULL,
    day          date NOT NULL,
    currency     currency NOT NULL,
    charges      bigint NOT NULL,
    amount_minor bigint NOT NULL,
    planned_at   timestamptz NOT NULL,
    PRIMARY KEY (shop, day, currency)
);
COMMENT ON TABLE daily_plans IS
    'What falls due on a day, counted when it begins. Permits far beyond it stop the shop: something plans or retries what it should not.';

-- A row for each session that gives permits, so that claims do not wait for each other.
CREATE TABLE daily_permits (
    shop         text NOT NULL,
    day          date NOT NULL,
    currency     currency NOT NULL,
    counted_by   integer NOT NULL,
    charges      bigint NOT NULL,
    amount_minor bigint NOT NULL,
    PRIMARY KEY (shop, day, currency, counted_by)
);
COMMENT ON TABLE daily_permits IS 'How much was permitted on a day, by each session of the database.';

-- Counts what is to be charged until the day ends, for shops without a plan: the next period of each subscription, those that were missed
-- before it, and what waits already. What was permitted since the day began belongs to it, for a plan that is made anew in the middle.
CREATE FUNCTION plan_day(of text[], on_day date, at timestamptz) RETURNS void LANGUAGE sql AS $$
    INSERT INTO daily_plans (shop, day, currency, charges, amount_minor, planned_at)
    SELECT n.shop, on_day, u.currency, coalesce(sum(p.charges), 0), coalesce(sum(p.charges * p.amount_minor), 0), at
    FROM unnest(of) AS n (shop)
        CROSS JOIN unnest(enum_range(NULL::currency)) AS u (currency)
        LEFT JOIN (
            SELECT s.shop, s.currency, s.amount_minor,
                   1 + floor(extract(epoch FROM on_day + 1 - d.due_at AT TIME ZONE 'UTC') / extract(epoch FROM s.period::interval))
                       AS charges
            FROM due_periods d JOIN subscriptions s USING (subscription_id)
            WHERE d.due_at < (on_day + 1)::timestamp AT TIME ZONE 'UTC' AND s.status IN ('active', 'past_due')
            UNION ALL
            SELECT c.shop, c.currency, c.amount_minor, 1 FROM charges c
            WHERE c.send_at < (on_day + 1)::timestamp AT TIME ZONE 'UTC'
            UNION ALL
            SELECT d.shop, d.currency, d.amount_minor / greatest(d.charges, 1), d.charges FROM daily_permits d WHERE d.day = on_day
        ) p ON p.shop = n.shop AND p.currency = u.currency
    WHERE NOT EXISTS (SELECT FROM daily_plans q WHERE q.shop = n.shop AND q.day = on_day)
    GROUP BY n.shop, u.currency
    ORDER BY n.shop, u.currency
    ON CONFLICT (shop, day, currency) DO NOTHING
$$;

-- A person has looked and lets charging go on: the plan of the day is made anew, from what is to be charged then.
CREATE FUNCTION forget_plan(scope text, on_day date) RETURNS void LANGUAGE sql AS $$
    WITH locked AS (
        SELECT p.shop, p.currency FROM daily_plans p
        WHERE p.day = on_day AND scope IN ('*', p.shop) ORDER BY p.shop, p.currency FOR UPDATE
    )
    DELETE FROM daily_plans p USING locked l WHERE (p.shop, p.day, p.currency) = (l.shop, on_day, l.currency)
$$;
