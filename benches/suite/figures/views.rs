//! What operators wait for: each view over a year of charges, of which two thirds are archived.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Bench, Label};
use crate::report::{Amount, Goal};

/// The views that are opened daily, and how long all of their rows may take, in milliseconds.
const DAILY: [&str; 5] = ["due_today", "failed_now", "held", "in_doubt", "needs_card"];

/// The views of everything, of which a few rows are read at a time.
const WHOLE: [&str; 3] = ["subscriptions", "charges", "attempts"];

/// How many subscriptions are looked up.
const LOOK_UPS: u32 = 20;

/// What a statement cost.
struct Plan {
    planning: Duration,
    execution: Duration,
    text: String,
}

/// Every view: the daily ones as a whole, the others counted and for one subscription.
pub async fn views(bench: &mut Bench) -> anyhow::Result<()> {
    let mut connection = bench.world.history(bench.sizes.small).await?;
    let label = |key, name, goal| Label::new("views", key, name, goal);
    for view in DAILY {
        let runs = repeat(&mut connection, &format!("SELECT * FROM billing.{view}")).await?;
        let name = format!("all of billing.{view}, ms");
        bench.add(label(view, name, Goal::AtMost(100_000)), &runs, total, None);
    }
    for view in WHOLE {
        let query = format!("SELECT count(*) FROM billing.{view}");
        let counted = [explain(&mut connection, &query).await?];
        let name = format!("billing.{view}, counted, ms");
        bench.add(label("count", name, Goal::None), &counted, total, None);
        let (first, runs) = look_ups(&mut connection, view).await?;
        let name = format!("billing.{view} of one subscription, never read before, ms");
        let cold = label("first_read", name, Goal::None);
        bench.add(cold, &first, total, None);
        let goal = if view == "charges" {
            Goal::AtMost(5_000)
        } else {
            Goal::None
        };
        let name = format!("billing.{view} of one subscription, in memory, ms");
        bench.add(label(view, name, goal), &runs, total, None);
        let name = format!("  of it planning, {view}");
        let planning = |plan: &Plan| millis(plan.planning);
        bench.add(label("planning", name, Goal::None), &runs, planning, None);
        if let Some(slowest) = runs.iter().max_by_key(|plan| plan.execution) {
            println!("{}", slowest.text);
        }
    }
    connection.close().await?;
    Ok(())
}

/// The same statement three times; the first may read from the disk.
async fn repeat(connection: &mut PgConnection, query: &str) -> anyhow::Result<Vec<Plan>> {
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(explain(connection, query).await?);
    }
    Ok(runs)
}

/// What a view has of subscriptions from all over the table, looked up twice.
async fn look_ups(
    connection: &mut PgConnection,
    view: &str,
) -> anyhow::Result<(Vec<Plan>, Vec<Plan>)> {
    let ids: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT subscription_id::text FROM billing.due_today ORDER BY external_id DESC LIMIT {LOOK_UPS}"
    )))
    .fetch_all(&mut *connection)
    .await?;
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for id in ids {
        let query = format!("SELECT * FROM billing.{view} WHERE subscription_id = '{id}'");
        first.push(explain(connection, &query).await?);
        again.push(explain(connection, &query).await?);
    }
    Ok((first, again))
}

/// Runs a statement and says what it cost. All rows are made, none is sent.
async fn explain(connection: &mut PgConnection, query: &str) -> anyhow::Result<Plan> {
    let statement = format!("EXPLAIN (ANALYZE, TIMING OFF, BUFFERS, FORMAT JSON) {query}");
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(statement))
        .fetch_one(&mut *connection)
        .await
        .with_context(|| format!("couldn't run {query}"))?;
    // In milliseconds, with at most three digits behind the point.
    let time = |key: &str| -> anyhow::Result<Duration> {
        let text = plan[0][key].to_string();
        let (millis, thousandths) = text.split_once('.').unwrap_or((&text, ""));
        let micros = format!("{millis}{thousandths:0<3}").parse()?;
        Ok(Duration::from_micros(micros))
    };
    Ok(Plan {
        planning: time("Planning Time")?,
        execution: time("Execution Time")?,
        text: outline(&plan[0]["Plan"], 2),
    })
}

/// The nodes of a plan that were used, one to a line.
fn outline(node: &Value, depth: usize) -> String {
    let word = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
    if node["Actual Loops"].as_u64() == Some(0) {
        return String::new();
    }
    let mut text = format!(
        "{:depth$}{} {}{} rows {} pages {}\n",
        "",
        word("Node Type"),
        word("Relation Name"),
        word("Index Name"),
        node["Actual Rows"],
        node["Shared Hit Blocks"].as_u64().unwrap_or(0)
            + node["Shared Read Blocks"].as_u64().unwrap_or(0),
    );
    for child in node["Plans"].as_array().into_iter().flatten() {
        text += &outline(child, depth + 2);
    }
    text
}

fn total(plan: &Plan) -> Amount {
    millis(plan.planning + plan.execution)
}

fn millis(time: Duration) -> Amount {
    Amount::ratio(time.as_micros(), 1_000)
}
