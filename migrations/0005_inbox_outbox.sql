-- Notices as they came in, and facts on their way out.

CREATE TABLE notices (
    notice_id      uuid PRIMARY KEY,
    shop           text NOT NULL REFERENCES shops,
    body_sha256    bytea NOT NULL CHECK (length(body_sha256) = 32),
    body           text NOT NULL,
    order_id       text,
    transaction_id uuid,
    attempt_id     uuid,
    is_refund      boolean NOT NULL DEFAULT false,
    refund_of      uuid,
    says_settled   boolean NOT NULL DEFAULT false,
    state          notice_state NOT NULL DEFAULT 'new',
    received_at    timestamptz NOT NULL,
    received_count integer NOT NULL DEFAULT 1,
    next_action_at timestamptz,
    tries          smallint NOT NULL DEFAULT 0,
    denials        smallint NOT NULL DEFAULT 0,
    CONSTRAINT a_notice_is_stored_once UNIQUE (shop, body_sha256),
    CONSTRAINT new_notices_are_looked_at CHECK ((next_action_at IS NOT NULL) = (state = 'new'))
);
CREATE INDEX notices_to_read ON notices (next_action_at) WHERE state = 'new';
COMMENT ON TABLE notices IS
    'The inbox: webhooks from imoje with a valid signature, stored raw but for card numbers. A notice decides nothing; it names a transaction, which is then read.';
COMMENT ON COLUMN notices.is_refund IS 'It is about a refund, which is a transaction of its own under the order of its debit.';
COMMENT ON COLUMN notices.refund_of IS 'The debit that the refund is of (originalTransactionId), where the notice says it.';
COMMENT ON COLUMN notices.denials IS 'How often imoje denied that it has the transaction; counted up to where that is told.';

CREATE TABLE events (
    event_id        uuid PRIMARY KEY,
    subscription_id uuid,
    sequence_no     bigint,
    kind            text NOT NULL,
    is_alert        boolean NOT NULL,
    shop            text,
    charge_id       uuid,
    attempt_id      uuid,
    payload         jsonb NOT NULL,
    occurred_at     timestamptz NOT NULL,
    CONSTRAINT events_are_numbered_per_subscription UNIQUE (subscription_id, sequence_no),
    CONSTRAINT events_of_a_subscription_have_a_number CHECK ((subscription_id IS NULL) = (sequence_no IS NULL))
);
COMMENT ON TABLE events IS 'Facts told to the shop or to operators. Append-only; numbered per subscription without gaps.';

CREATE TABLE outbox (
    event_id        uuid NOT NULL REFERENCES events,
    channel         text NOT NULL CHECK (channel IN ('log', 'webhook')),
    tries           smallint NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    PRIMARY KEY (event_id, channel)
);
CREATE INDEX outbox_due ON outbox (next_attempt_at);
COMMENT ON TABLE outbox IS 'Events that still have to be delivered. A row leaves when its channel has taken the event.';

CREATE TABLE worker_runs (
    worker          text PRIMARY KEY,
    last_started_at timestamptz NOT NULL,
    last_ended_at   timestamptz,
    handled         bigint NOT NULL DEFAULT 0
);
COMMENT ON TABLE worker_runs IS 'When each worker last ran, and how much it has handled.';
