-- The role that people and dashboards read the books with. Run it as a superuser in Cykl's database, after the first
-- `cykl migrate`; running it again changes nothing:
--
--   sudo -u postgres psql -d cykl -v ON_ERROR_STOP=1 -f readonly.sql
--
-- A role belongs to the whole cluster, so this is not a migration. Give it to a login role with GRANT (docs/operations.md).

DO $$
BEGIN
    CREATE ROLE cykl_readonly NOLOGIN;
EXCEPTION WHEN duplicate_object THEN
    NULL;
END $$;

-- What every role may do unless told otherwise: connect, make temporary tables, and execute functions. The functions of
-- the schema billing change subscriptions and the brake.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO cykl_readonly', current_database());
END $$;
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA billing, public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE cykl REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- The views, and those that later migrations add. The tables behind them stay out of reach.
GRANT USAGE ON SCHEMA billing TO cykl_readonly;
GRANT SELECT ON ALL TABLES IN SCHEMA billing TO cykl_readonly;
ALTER DEFAULT PRIVILEGES FOR ROLE cykl IN SCHEMA billing GRANT SELECT ON TABLES TO cykl_readonly;
