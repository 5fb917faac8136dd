-- readonly_role
-- The role belongs to the whole server, so it may exist already, or may not be ours to create.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'cykl_readonly') THEN
        CREATE ROLE cykl_readonly NOLOGIN;
    END IF;
    COMMENT ON ROLE cykl_readonly IS 'May read the billing views of Cykl and nothing else. GRANT it to the people who look.';
EXCEPTION
    WHEN duplicate_object OR unique_violation OR insufficient_privilege THEN NULL;
END $$;
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'cykl_readonly') THEN
        GRANT USAGE ON SCHEMA billing TO cykl_readonly;
        GRANT SELECT ON ALL TABLES IN SCHEMA billing TO cykl_readonly;
    END IF;
END $$;
