//! The books against an export of the gateway's transactions.
//!
//! The rows of the export go to the database as arrays: what is asked row by row in batches, what is asked of all of them as
//! keys. So nothing is written, and a million rows take some tens of megabytes at a time.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgTransaction;
use uuid::Uuid;

use crate::domain::export::{Coverage, Entry, Export};
use crate::store::StoreError;
use crate::store::audit::{ASKED, Check, FINDINGS_MAX, Finding};

/// How many rows are compared by one statement.
const BATCH: usize = 50_000;

/// Attempts in doubt that the export ought to have if imoje had them, and does not have.
///
/// That is no finding: nothing in the books contradicts it, and it proves nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// The attempts, at most [`FINDINGS_MAX`] of them.
    pub attempts: Vec<Finding>,
    /// Whether there are more than that.
    pub has_more: bool,
}

/// The order ids of rows, taken apart.
#[derive(Default)]
struct Keys {
    subscriptions: Vec<Uuid>,
    periods: Vec<i64>,
    attempts: Vec<i32>,
}

/// Rows, column by column.
#[derive(Default)]
struct Rows {
    lines: Vec<i64>,
    keys: Keys,
    transactions: Vec<Uuid>,
    amounts: Vec<i64>,
    currencies: Vec<String>,
    statuses: Vec<String>,
    moved: Vec<bool>,
}

/// The times in which nothing may be missing, column by column.
struct Windows {
    shops: Vec<String>,
    from: Vec<DateTime<Utc>>,
    to: Vec<DateTime<Utc>>,
}

/// Asks about each row, until enough is found.
macro_rules! each {
    ($transaction:ident, $export:ident, $name:literal, $file:literal, $claim:literal, $found:expr) => {{
        let mut found: Vec<Finding> = $found;
        for batch in $export.entries.chunks(BATCH) {
            if found.len() > FINDINGS_MAX {
                break;
            }
            let rows = Rows::of(batch, $export);
            found.extend(
                sqlx::query_file_as!(
                    Finding,
                    $file,
                    ASKED,
                    &rows.lines,
                    &rows.keys.subscriptions,
                    &rows.keys.periods,
                    &rows.keys.attempts,
                    &rows.transactions,
                    &rows.amounts,
                    &rows.currencies,
                    &rows.statuses,
                    &rows.moved
                )
                .fetch_all(&mut **$transaction)
                .await?,
            );
        }
        Check::new($name, $claim, found)
    }};
}

/// Runs the checks that compare the books with `export`.
pub(super) async fn checks(
    transaction: &mut PgTransaction<'_>,
    export: &Export,
    coverage: &[Coverage],
) -> Result<Vec<Check>, StoreError> {
    Ok(vec![
        has_what_is_settled(transaction, export, coverage).await?,
        each!(
            transaction,
            export,
            "books_have_what_is_settled",
            "src/store/sql/audit/books_have_what_is_settled.sql",
            "the books know each debit of the export, and of the settled ones that money moved",
            strangers(export)
        ),
        each!(
            transaction,
            export,
            "amounts_agree",
            "src/store/sql/audit/amounts_agree.sql",
            "each debit of the export has the amount and currency of the books",
            Vec::new()
        ),
        each!(
            transaction,
            export,
            "transactions_agree",
            "src/store/sql/audit/transactions_agree.sql",
            "each debit of the export has the transaction of the books",
            Vec::new()
        ),
        by_link(transaction, export).await?,
        debits_once(transaction, export).await?,
        each!(
            transaction,
            export,
            "doubts_are_answered",
            "src/store/sql/audit/doubts_are_answered.sql",
            "the export has no answer for an attempt without a verdict",
            Vec::new()
        ),
    ])
}

async fn has_what_is_settled(
    transaction: &mut PgTransaction<'_>,
    export: &Export,
    coverage: &[Coverage],
) -> Result<Check, StoreError> {
    let windows = Windows::of(coverage);
    let moved = Keys::of(export.entries.iter().filter(|entry| entry.has_moved));
    let others = || export.entries.iter().filter(|entry| !entry.has_moved);
    let unmoved = Keys::of(others());
    let words: Vec<_> = others().map(|entry| word(entry, export)).collect();
    let found = sqlx::query_file_as!(
        Finding,
        "src/store/sql/audit/export_has_what_is_settled.sql",
        ASKED,
        &windows.shops,
        &windows.from,
        &windows.to,
        &moved.subscriptions,
        &moved.periods,
        &moved.attempts,
        &unmoved.subscriptions,
        &unmoved.periods,
        &unmoved.attempts,
        &words,
        &links_moved(export)
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(Check::new(
        "export_has_what_is_settled",
        "the export has each settled attempt of the time that it covers, as settled",
        found,
    ))
}

/// The payments by links whose money moved.
fn links_moved(export: &Export) -> Vec<Uuid> {
    let payments = export.by_link.iter();
    payments
        .map(|(_, payment)| payment.transaction_id.as_uuid())
        .collect()
}

async fn by_link(
    transaction: &mut PgTransaction<'_>,
    export: &Export,
) -> Result<Check, StoreError> {
    let payments = || export.by_link.iter().map(|(_, payment)| payment);
    let lines: Vec<_> = export
        .by_link
        .iter()
        .map(|(line, _)| i64::try_from(*line).unwrap_or(i64::MAX))
        .collect();
    let orders: Vec<_> = payments()
        .map(|payment| payment.order_id.to_string())
        .collect();
    let amounts: Vec<_> = payments().map(|payment| payment.amount_minor).collect();
    let currencies: Vec<_> = payments()
        .map(|payment| payment.currency.code().to_owned())
        .collect();
    let found = sqlx::query_file_as!(
        Finding,
        "src/store/sql/audit/books_have_what_links_moved.sql",
        ASKED,
        &lines,
        &orders,
        &links_moved(export),
        &amounts,
        &currencies
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(Check::new(
        "books_have_what_links_moved",
        "the books know each payment by a link of the export that moved money",
        found,
    ))
}

async fn debits_once(
    transaction: &mut PgTransaction<'_>,
    export: &Export,
) -> Result<Check, StoreError> {
    let moved = || export.entries.iter().filter(|entry| entry.has_moved);
    let keys = Keys::of(moved());
    let transactions: Vec<_> = moved()
        .map(|entry| entry.transaction_id.as_uuid())
        .collect();
    let found = sqlx::query_file_as!(
        Finding,
        "src/store/sql/audit/export_debits_once.sql",
        ASKED,
        &keys.subscriptions,
        &keys.periods,
        &keys.attempts,
        &transactions
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(Check::new(
        "export_debits_once",
        "the export has at most one settled transaction for each period of a subscription",
        found,
    ))
}

/// Finds what is in doubt, and not in the export although it covers that time.
pub(super) async fn unseen(
    transaction: &mut PgTransaction<'_>,
    export: &Export,
    coverage: &[Coverage],
) -> Result<Unseen, StoreError> {
    let windows = Windows::of(coverage);
    let keys = Keys::of(&export.entries);
    let mut attempts = sqlx::query_file_as!(
        Finding,
        "src/store/sql/audit/doubts_unseen.sql",
        ASKED,
        &windows.shops,
        &windows.from,
        &windows.to,
        &keys.subscriptions,
        &keys.periods,
        &keys.attempts
    )
    .fetch_all(&mut **transaction)
    .await?;
    let has_more = attempts.len() > FINDINGS_MAX;
    attempts.truncate(FINDINGS_MAX);
    Ok(Unseen { attempts, has_more })
}

/// Money that moved under order ids that nobody here makes.
fn strangers(export: &Export) -> Vec<Finding> {
    let strangers = export.strangers.iter();
    strangers
        .map(|stranger| Finding {
            subscription_id: None,
            charge_id: None,
            attempt_id: None,
            detail: format!(
                "line {}: {} is settled, and is not an order id that Cykl makes",
                stranger.line, stranger.order_id
            ),
        })
        .collect()
}

fn word(entry: &Entry, export: &Export) -> String {
    export.statuses[entry.status].word.clone()
}

impl Keys {
    fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut keys = Self::default();
        for entry in entries {
            keys.subscriptions
                .push(entry.order_id.subscription_id.as_uuid());
            keys.periods.push(entry.order_id.period_no.into());
            keys.attempts.push(entry.order_id.attempt_no.into());
        }
        keys
    }
}

impl Rows {
    fn of(entries: &[Entry], export: &Export) -> Self {
        let mut rows = Self {
            keys: Keys::of(entries),
            ..Self::default()
        };
        for entry in entries {
            rows.lines
                .push(i64::try_from(entry.line).unwrap_or(i64::MAX));
            rows.transactions.push(entry.transaction_id.as_uuid());
            rows.amounts.push(entry.amount_minor);
            rows.currencies.push(entry.currency.code().to_owned());
            rows.statuses.push(word(entry, export));
            rows.moved.push(entry.has_moved);
        }
        rows
    }
}

impl Windows {
    fn of(coverage: &[Coverage]) -> Self {
        let shops = || coverage.iter();
        Self {
            shops: shops().map(|one| one.shop.to_string()).collect(),
            from: shops().map(|one| one.complete.from).collect(),
            to: shops().map(|one| one.complete.to).collect(),
        }
    }
}
