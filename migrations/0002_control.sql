-- Who may charge at all: the installation that this database belongs to, its shops, and the brake.

CREATE TABLE installation (
    singleton         boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    fence_id          uuid NOT NULL,
    system_identifier bigint NOT NULL,
    timeline          bigint NOT NULL,
    database_oid      bigint NOT NULL,
    adopted_at        timestamptz NOT NULL,
    adopted_by        text NOT NULL,
    reason            text NOT NULL,
    -- Whether the daemon that started last delivers events to a webhook. Functions that people call tell it their events, too.
    has_webhook       boolean NOT NULL DEFAULT false,
    -- What running daemons have told about a fence that closed behind them, so that each change is told once: that the database went to
    -- this place, and that it was adopted as this installation.
    told_place        text,
    told_fence_id     uuid
);
COMMENT ON TABLE installation IS
    'The database server, history and database that charging was allowed in. A restored backup, a promoted replica or a copy differs from it, so it refuses every permit until "cykl adopt".';

CREATE TABLE shops (
    shop        text PRIMARY KEY CHECK (shop ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    environment environment NOT NULL,
    merchant_id text NOT NULL,
    service_id  text NOT NULL,
    recorded_at timestamptz NOT NULL
);
COMMENT ON TABLE shops IS
    'The imoje shops whose cards this database knows. A configuration that names other credentials for one of them is refused until "cykl adopt".';

CREATE TABLE brakes (
    shop           text PRIMARY KEY CHECK (shop = '*' OR shop ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    mode           brake_mode NOT NULL,
    reason         text NOT NULL,
    actor          text NOT NULL,
    changed_at     timestamptz NOT NULL,
    until          timestamptz,
    stage          smallint CHECK (stage BETWEEN 1 AND 3),
    stage_since    timestamptz,
    stage_max      integer,
    stage_attempts uuid[] NOT NULL DEFAULT '{}',
    CONSTRAINT pauses_are_drains CHECK (until IS NULL OR mode = 'drain'),
    CONSTRAINT slow_starts_run CHECK (
        (stage IS NULL) = (stage_since IS NULL) AND (stage IS NULL) = (stage_max IS NULL) AND (stage IS NULL OR mode = 'run')),
    CONSTRAINT slow_starts_keep_their_limit CHECK (cardinality(stage_attempts) <= coalesce(stage_max, 0))
);
COMMENT ON TABLE brakes IS
    'The kill switch, for all shops (*) and for each. A permit needs "run" in the row of all and of its shop; a missing row for all means stop.';
COMMENT ON COLUMN brakes.until IS 'When a pause, which the brake began by itself, is over. The first claim after it lets charging start slowly.';
COMMENT ON COLUMN brakes.stage IS 'Of a slow start: 1 charge, 5, or a quarter of charging.in_flight_max. Null once all may be sent.';
COMMENT ON COLUMN brakes.stage_attempts IS 'The permits of the stage. Whoever adds one has locked the row, so that there are never more than stage_max.';

-- The one way in which the brake is set, whoever sets it. What was on, or is starting already, starts slowly when it is released, from
-- the first stage; so does the brake of all shops when its row is missing, which means stop, but not in a new database.
CREATE FUNCTION put_brake(scope text, becomes brake_mode, why text, who text, ends_at timestamptz, at timestamptz) RETURNS void
LANGUAGE sql AS $$
    WITH was AS MATERIALIZED (
        SELECT b.mode <> 'run' OR b.stage IS NOT NULL AS is_slow FROM brakes b WHERE b.shop = scope FOR UPDATE
    ), start AS MATERIALIZED (
        SELECT becomes = 'run' AND coalesce(
            (SELECT w.is_slow FROM was w), scope = '*' AND EXISTS (SELECT FROM installation)) AS is_slow
    )
    INSERT INTO brakes (shop, mode, reason, actor, changed_at, until, stage, stage_since, stage_max)
    SELECT scope, becomes, why, who, at, ends_at,
           CASE WHEN s.is_slow THEN 1 END, CASE WHEN s.is_slow THEN at END, CASE WHEN s.is_slow THEN 1 END
    FROM start s
    ON CONFLICT (shop) DO UPDATE SET
        mode = excluded.mode, reason = excluded.reason, actor = excluded.actor, changed_at = excluded.changed_at,
        until = excluded.until, stage = excluded.stage, stage_since = excluded.stage_since, stage_max = excluded.stage_max,
        stage_attempts = '{}'
$$;

-- What identifies the place this database runs in now. A snapshot of the disk that is put back as it was has the same place: nothing
-- inside a database can tell it from its past. The timeline grows with every promotion and point-in-time recovery, the
-- system identifier with every initdb, the database''s own id with every restored dump or copy.
CREATE FUNCTION current_place(OUT system_identifier bigint, OUT timeline bigint, OUT database_oid bigint)
LANGUAGE sql STABLE AS $$
    SELECT c.system_identifier,
           ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint,
           (SELECT d.oid::bigint FROM pg_database d WHERE d.datname = current_database())
    FROM pg_control_system() c
$$;
