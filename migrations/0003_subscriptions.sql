-- Cards and the agreements to charge them.
--
-- What they refer to is checked per statement by the triggers of 0007 instead of per row by foreign keys, which would look up, lock
-- and log the referenced row for every row of an import.

CREATE TABLE cards (
    card_id              uuid PRIMARY KEY,
    shop                 text NOT NULL,
    -- The length apart: a counted repetition costs ten times as much.
    cid                  text NOT NULL CHECK (cid ~ '^[A-Za-z0-9-]+$' AND length(cid) <= 36),
    payment_profile_id   uuid,
    -- Of a card without a profile, with what every debit of it says besides: the payer, and aliases that a tokenising proxy knows.
    first_transaction_id text,
    customer             jsonb,
    aliases              jsonb,
    is_active            boolean NOT NULL DEFAULT true,
    masked_number        text,
    -- What imoje showed when it was looked at before a charge.
    expires_on           date,
    concern              card_concern,
    looked_at            timestamptz,
    created_at           timestamptz NOT NULL,
    -- The shop comes last: it is the same in most rows.
    UNIQUE (cid, shop),
    UNIQUE (payment_profile_id, shop),
    UNIQUE (first_transaction_id, shop),
    CONSTRAINT cards_have_one_way_to_be_charged
        CHECK ((payment_profile_id IS NULL) <> (first_transaction_id IS NULL)),
    CONSTRAINT cards_without_a_profile_say_who_pays CHECK ((first_transaction_id IS NULL) = (customer IS NULL)),
    CONSTRAINT aliases_are_of_cards_without_a_profile CHECK (aliases IS NULL OR first_transaction_id IS NOT NULL)
);
COMMENT ON TABLE cards IS
    'Payment instruments. "Each payment instrument must have its own cid" (imoje API, one-click and recurring). Never a card number.';

CREATE TABLE subscriptions (
    subscription_id  uuid PRIMARY KEY,
    shop             text NOT NULL,
    external_id      text NOT NULL CHECK (external_id <> '' AND length(external_id) <= 200),
    status           subscription_status NOT NULL,
    status_reason    text,
    card_id          uuid,
    amount_minor     bigint NOT NULL CHECK (amount_minor BETWEEN 1 AND 999999999),
    currency         currency NOT NULL,
    period           text NOT NULL CHECK (period ~ '^P[1-9][0-9]{0,2}[DWMY]$' AND period::interval <= interval '366 days'),
    anchor_date      date NOT NULL,
    timezone         text NOT NULL,
    title            text,
    starts_on        date,
    ends_on          date,
    max_charges      integer CHECK (max_charges > 0),
    paid_until       date,
    first_period_no  integer NOT NULL CHECK (first_period_no >= 0),
    -- When the period fell due from which it was billed when it was stored, or went on after a stop; see next_period.
    from_due_at      timestamptz,
    is_finishing     boolean NOT NULL DEFAULT false,
    -- The last period that is in the archive, and how many of those that are there were paid.
    archived_to       integer NOT NULL DEFAULT -1,
    archived_payments integer NOT NULL DEFAULT 0,
    notification_url text,
    invoice          jsonb,
    multipayout      jsonb,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    UNIQUE (shop, external_id),
    CONSTRAINT subscriptions_have_a_card CHECK (card_id IS NOT NULL OR status IN ('registering', 'cancelled')),
    CONSTRAINT subscriptions_say_why CHECK (status_reason IS NOT NULL OR status <> 'deactivated')
);
CREATE INDEX subscriptions_by_card ON subscriptions (card_id);
COMMENT ON TABLE subscriptions IS
    'The agreements. Amount, currency, period, anchor and zone never change: the card schemes demand that a recurring payment repeats "in terms of amount and time period".';
CREATE INDEX subscriptions_finishing ON subscriptions (subscription_id) WHERE is_finishing;
CREATE INDEX subscriptions_without_card ON subscriptions (subscription_id) WHERE status IN ('deactivated', 'registering');

-- The queue of the scheduler. It changes with every charge, so it is narrow and has no index but its order, in which it also lies on
-- the disk: a run takes its rows from few pages and puts them behind all others.
CREATE TABLE due_periods (
    due_at          timestamptz NOT NULL,
    subscription_id uuid NOT NULL,
    period_no       integer NOT NULL CHECK (period_no >= 0),
    due_on          date NOT NULL,
    PRIMARY KEY (due_at, subscription_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE due_periods IS
    'The next period of each subscription that is billed. No row: it is stopped, or its last period is planned (subscriptions.is_finishing).';
