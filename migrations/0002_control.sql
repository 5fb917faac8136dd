-- Who may charge at all: the installation that this database belongs to, its shops, and the brake.

CREATE TABLE installation (
    singleton         boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    fence_id          uuid NOT NULL,
    system_identifier bigint NOT NULL,
    timeline          bigint NOT NULL,
    database_oid      bigint NOT NULL,
    adopted_at        timestamptz NOT NULL,
    adopted_by        text NOT NULL,
    reason            text NOT NULL
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
    shop       text PRIMARY KEY CHECK (shop = '*' OR shop ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    mode       brake_mode NOT NULL,
    reason     text NOT NULL,
    actor      text NOT NULL,
    changed_at timestamptz NOT NULL
);
COMMENT ON TABLE brakes IS
    'The kill switch, for all shops (*) and for each. A permit needs "run" in the row of all and of its shop; a missing row for all means stop.';

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
