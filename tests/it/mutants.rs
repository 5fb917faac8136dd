//! Nothing of the schema goes unnoticed: each constraint, index and trigger is dropped in turn, and the attestation says exactly that.
//! What each is for, and the test that notices by what happens then, is written down in `docs/mutants.md`.

use std::collections::BTreeSet;

use cykl::simulator::Script;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::harness::World;

const MUTANTS: &str = include_str!("../../docs/mutants.md");

/// The check of the audit.
const GUARDS_STAND: &str = include_str!("../../src/store/sql/audit/guards_stand.sql");

/// Every constraint, index and trigger of the books, with the foreign keys that rest on it, as the attestation calls them.
const GUARDS: &str = "
    SELECT 'constraint', c.conrelid::regclass::text, c.conname::text,
           ARRAY(SELECT format('the constraint %s on %s is missing', f.conname, f.conrelid::regclass)
                 FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = c.conindid AND f.oid <> c.oid)
    FROM pg_constraint c WHERE c.connamespace = 'cykl'::regnamespace AND c.conrelid <> 0
    UNION ALL
    SELECT CASE WHEN i.indisunique THEN 'unique index' ELSE 'index' END, i.indrelid::regclass::text, r.relname, '{}'
    FROM pg_index i JOIN pg_class r ON r.oid = i.indexrelid
    WHERE r.relnamespace = 'cykl'::regnamespace AND NOT EXISTS (SELECT FROM pg_constraint c WHERE c.conindid = r.oid)
    UNION ALL
    SELECT 'trigger', t.tgrelid::regclass::text, t.tgname, '{}'
    FROM pg_trigger t JOIN pg_class r ON r.oid = t.tgrelid
    WHERE r.relnamespace = 'cykl'::regnamespace AND NOT t.tgisinternal";

/// One of them.
#[derive(sqlx::FromRow)]
struct Guard {
    kind: String,
    table: String,
    name: String,
    /// What goes with it.
    resting: Vec<String>,
}

impl Guard {
    /// The statements that take it away.
    fn drops(&self) -> Vec<(String, &'static str)> {
        let Self { table, name, .. } = self;
        match self.kind.as_str() {
            "constraint" => vec![(
                format!("ALTER TABLE {table} DROP CONSTRAINT {name} CASCADE"),
                "missing",
            )],
            "trigger" => vec![
                (format!("DROP TRIGGER {name} ON {table}"), "missing"),
                (
                    format!("ALTER TABLE {table} DISABLE TRIGGER {name}"),
                    "not in force",
                ),
            ],
            _ => vec![(format!("DROP INDEX {name}"), "missing")],
        }
    }
}

async fn guards(world: &World) -> Vec<Guard> {
    let query = format!(
        "SELECT * FROM ({GUARDS}) g (kind, \"table\", name, resting) WHERE \"table\" <> '_sqlx_migrations'"
    );
    sqlx::query_as(AssertSqlSafe(query))
        .fetch_all(&world.books)
        .await
        .unwrap()
}

async fn attestation(connection: &mut PgConnection) -> BTreeSet<String> {
    sqlx::query_scalar::<_, String>(AssertSqlSafe(format!(
        "SELECT \"detail!\" FROM ({GUARDS_STAND}) attested"
    )))
    .bind(1_000_i64)
    .bind(false)
    .fetch_all(connection)
    .await
    .unwrap()
    .into_iter()
    .collect()
}

async fn run(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

#[tokio::test]
async fn whatever_is_dropped_the_attestation_names_it_and_nothing_else() {
    let world = World::new(Script::default()).await;
    let guards = guards(&world).await;
    let mut books = world.books.begin().await.unwrap();
    assert_eq!(attestation(&mut books).await, BTreeSet::new());
    for guard in guards {
        for (mutation, becomes) in guard.drops() {
            run(&mut books, "SAVEPOINT whole").await;
            run(&mut books, &mutation).await;
            let Guard {
                kind, table, name, ..
            } = &guard;
            let itself = format!("the {kind} {name} on {table} is {becomes}");
            let missed: BTreeSet<_> = guard.resting.iter().cloned().chain([itself]).collect();
            assert_eq!(
                attestation(&mut books).await,
                missed,
                "after {mutation}. A new {kind} belongs into src/store/sql/audit/guards_stand.sql"
            );
            run(&mut books, "ROLLBACK TO whole").await;
        }
    }
    books.rollback().await.unwrap();
}

/// `tests/docs.rs` sees that the named tests exist, and that they take away what they are named for.
#[tokio::test]
async fn every_constraint_index_and_trigger_is_in_the_table_of_mutants() {
    // A guard with several rules has a row for each.
    let mut written = BTreeSet::new();
    for line in MUTANTS.lines().filter(|line| line.starts_with("| `")) {
        let codes: Vec<_> = line.split('`').skip(1).step_by(2).collect();
        written.insert((codes[1].to_owned(), codes[0].to_owned()));
    }
    let world = World::new(Script::default()).await;
    let there: BTreeSet<_> = guards(&world)
        .await
        .into_iter()
        .map(|guard| (guard.table, guard.name))
        .collect();
    let unwritten: Vec<_> = there.difference(&written).collect();
    let gone: Vec<_> = written.difference(&there).collect();
    assert!(
        unwritten.is_empty() && gone.is_empty(),
        "docs/mutants.md lacks {unwritten:?}, and has what is not in the schema: {gone:?}.\n\
         A constraint, unique index or trigger needs a test with `is_refused`, in tests/it/constraints.rs or where its rule is \
         tested, that takes it away; any other index a line in READ_BY of tests/it/plans.rs. Then add a row:\n\
         | `name` | `table` | what it keeps | `SQLSTATE`, or `statement` that reads the index | `test` |\n\
         and its name to src/store/sql/audit/guards_stand.sql."
    );
}
