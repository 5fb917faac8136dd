//! What operators read with SQL: the views keep their columns, explain themselves, and are all that the read-only role sees.

use cykl::simulator::Script;

use crate::harness::World;

/// The columns that others rely on.
const CONTRACT: [(&str, &str); 3] = [
    (
        "subscriptions",
        "subscription_id, external_id, shop, status, status_reason, cid, payment_profile_id, amount_minor, currency, period, \
         anchor_date, timezone, next_charge_on, next_due_at, charges_paid, created_at",
    ),
    (
        "charges",
        "charge_id, subscription_id, external_id, shop, period_no, due_on, due_at, amount_minor, currency, state, attempts, \
         next_action_at, paid_at, last_status_code, transaction_id",
    ),
    (
        "attempts",
        "attempt_id, charge_id, subscription_id, attempt_no, order_id, state, transaction_id, status_code, permitted_at, \
         decided_at, card_masked",
    ),
];

const VIEWS: [&str; 9] = [
    "subscriptions",
    "charges",
    "attempts",
    "refunds",
    "due_today",
    "failed_now",
    "held",
    "in_doubt",
    "needs_card",
];

#[tokio::test]
async fn the_views_have_the_columns_that_others_rely_on() {
    let world = World::new(Script::default()).await;
    for (view, columns) in CONTRACT {
        let query = sqlx::AssertSqlSafe(format!("SELECT {columns} FROM billing.{view}"));
        sqlx::query(query).fetch_all(&world.books).await.unwrap();
    }
}

#[tokio::test]
async fn every_view_and_every_column_explains_itself() {
    let world = World::new(Script::default()).await;
    let silent = world
        .column(
            "SELECT c.relname || coalesce('.' || a.attname, '') FROM pg_class c
             LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
             WHERE c.relnamespace = 'billing'::regnamespace
               AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)",
        )
        .await;
    assert_eq!(silent, Vec::<String>::new());
    let views = world
        .column("SELECT relname::text FROM pg_class WHERE relnamespace = 'billing'::regnamespace")
        .await;
    for view in VIEWS {
        assert!(views.iter().any(|name| name == view), "{view}");
    }
}

#[tokio::test]
async fn the_read_only_role_reads_every_view_and_nothing_else() {
    let world = World::new(Script::default()).await;
    let mut session = world.books.acquire().await.unwrap();
    sqlx::raw_sql("SET ROLE cykl_readonly")
        .execute(&mut *session)
        .await
        .unwrap();
    for view in VIEWS {
        let query = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM billing.{view}"));
        sqlx::raw_sql(query).execute(&mut *session).await.unwrap();
    }
    for statement in [
        "SELECT count(*) FROM cykl.charges",
        "SELECT count(*) FROM cykl.notices",
        "UPDATE cykl.brakes SET mode = 'run'",
        "DELETE FROM billing.charges",
        "CREATE TABLE billing.mine (id integer)",
        "SELECT billing.brake('stop', 'a test')",
    ] {
        let error = sqlx::raw_sql(statement)
            .execute(&mut *session)
            .await
            .unwrap_err();
        let code = error
            .as_database_error()
            .and_then(|error| error.code())
            .unwrap_or_default();
        assert!(code == "42501" || code == "55000", "{statement}: {error}");
    }
    sqlx::raw_sql("RESET ROLE")
        .execute(&mut *session)
        .await
        .unwrap();
}
