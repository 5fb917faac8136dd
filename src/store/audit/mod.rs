//! The audit: proves the promise from the books, with queries of its own.
//!
//! The promise is that money moves at most once per subscription and period, and that no due charge is forgotten. Each check
//! is one set-based query that returns what contradicts a sentence; none uses the functions or decisions that the books were
//! written with. All see the same moment, so the audit may run beside the daemon, and nothing is changed. [`export`] has those that
//! compare the books with what imoje exported.

pub mod export;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{ConnectOptions, Connection, PgConnection, PgTransaction};
use uuid::Uuid;

use crate::domain::export::{Coverage, Export};
use crate::store::{Store, StoreError, take_time};
use export::Unseen;

/// How many findings of one check are told.
pub const FINDINGS_MAX: usize = 100;

/// One more than [`FINDINGS_MAX`], to know that there are more.
const ASKED: i64 = 101;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The name of the check; stable.
    pub check: &'static str,
    /// The sentence that it proves.
    pub claim: &'static str,
    /// What contradicts the sentence, at most [`FINDINGS_MAX`] of it.
    pub findings: Vec<Finding>,
    /// Whether there is more than that.
    pub has_more: bool,
}

/// Something that contradicts a check, with as many of its identities as it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The subscription.
    pub subscription_id: Option<Uuid>,
    /// The charge.
    pub charge_id: Option<Uuid>,
    /// The attempt.
    pub attempt_id: Option<Uuid>,
    /// What is wrong.
    pub detail: String,
}

impl Check {
    fn new(check: &'static str, claim: &'static str, mut findings: Vec<Finding>) -> Self {
        let has_more = findings.len() > FINDINGS_MAX;
        findings.truncate(FINDINGS_MAX);
        Self {
            check,
            claim,
            findings,
            has_more,
        }
    }
}

/// Runs the check of one file.
macro_rules! check {
    ($transaction:ident, $name:literal, $file:literal, $claim:literal $(, $argument:expr)?) => {
        Check::new(
            $name,
            $claim,
            sqlx::query_file_as!(Finding, $file, ASKED $(, $argument)?)
                .fetch_all(&mut **$transaction)
                .await?,
        )
    };
}

impl Store {
    /// Runs every check, as of one moment. `now` decides whose deadline has passed.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer, or takes longer than an hour for one check.
    pub async fn audit(&self, now: DateTime<Utc>) -> Result<Vec<Check>, StoreError> {
        Ok(self.run_audit(now, None).await?.0)
    }

    /// Runs every check and those of [`export`], as of one moment. Tells as well what is in doubt and not in the export.
    ///
    /// # Errors
    /// As [`Store::audit`].
    pub async fn audit_against(
        &self,
        export: &Export,
        coverage: &[Coverage],
        now: DateTime<Utc>,
    ) -> Result<(Vec<Check>, Unseen), StoreError> {
        let (checks, unseen) = self.run_audit(now, Some((export, coverage))).await?;
        Ok((checks, unseen.unwrap_or_default()))
    }

    async fn run_audit(
        &self,
        now: DateTime<Utc>,
        against: Option<(&Export, &[Coverage])>,
    ) -> Result<(Vec<Check>, Option<Unseen>), StoreError> {
        // A connection of its own: reading all there is takes longer than ordinary work may, and would be logged as slow.
        // For that, the plans that ordinary work is kept from are the right ones.
        let options = self.pool.connect_options();
        let options = options
            .as_ref()
            .clone()
            .options([("enable_hashjoin", "on"), ("enable_mergejoin", "on")])
            .disable_statement_logging();
        let mut connection = PgConnection::connect_with(&options).await?;
        let mut transaction = connection
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            .await?;
        take_time(&mut transaction).await?;
        sqlx::query!("SET LOCAL work_mem = '64MB'")
            .execute(&mut *transaction)
            .await?;
        let mut checks = money(&mut transaction).await?;
        checks.extend(attempts(&mut transaction, now).await?);
        checks.extend(refunds(&mut transaction).await?);
        checks.extend(obligations(&mut transaction).await?);
        let unseen = match against {
            Some((export, coverage)) => {
                checks.extend(export::checks(&mut transaction, export, coverage).await?);
                Some(export::unseen(&mut transaction, export, coverage).await?)
            }
            None => None,
        };
        transaction.commit().await?;
        connection.close().await?;
        Ok((checks, unseen))
    }
}

impl Store {
    /// Constraints, unique indexes and triggers that the promise rests on and that are missing or not in force.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn missing_guards(&self) -> Result<Vec<Finding>, StoreError> {
        Ok(
            sqlx::query_file_as!(Finding, "src/store/sql/audit/guards_stand.sql", ASKED, true)
                .fetch_all(&self.pool)
                .await?,
        )
    }
}

/// What money moved, and what the books say was paid.
async fn money(transaction: &mut PgTransaction<'_>) -> Result<Vec<Check>, StoreError> {
    Ok(vec![
        check!(
            transaction,
            "one_charge_per_period",
            "src/store/sql/audit/one_charge_per_period.sql",
            "each period of a subscription has at most one charge"
        ),
        check!(
            transaction,
            "money_moved_once",
            "src/store/sql/audit/money_moved_once.sql",
            "money moved at most once for each period of a subscription"
        ),
        check!(
            transaction,
            "moved_money_is_booked",
            "src/store/sql/audit/moved_money_is_booked.sql",
            "each settled attempt belongs to a paid charge"
        ),
        check!(
            transaction,
            "paid_charges_have_a_payment",
            "src/store/sql/audit/paid_charges_have_a_payment.sql",
            "each paid charge names a settled attempt of its own"
        ),
        check!(
            transaction,
            "payments_are_told_once",
            "src/store/sql/audit/payments_are_told_once.sql",
            "each paid charge was told as paid once, and no other was"
        ),
        check!(
            transaction,
            "sums_agree",
            "src/store/sql/audit/sums_agree.sql",
            "the payments of each day and currency add up to what was moved and what was told"
        ),
        check!(
            transaction,
            "terms_agree",
            "src/store/sql/audit/terms_agree.sql",
            "each attempt has the amount, currency, shop and period of its charge and subscription"
        ),
        check!(
            transaction,
            "payments_by_link_count_once",
            "src/store/sql/audit/payments_by_link_count_once.sql",
            "each payment by a link is the charge of its period or a verification, never both"
        ),
        check!(
            transaction,
            "charges_fit_their_subscription",
            "src/store/sql/audit/charges_fit_their_subscription.sql",
            "each charge has the amount, currency, shop and calendar of its subscription"
        ),
    ])
}

/// What was sent, and how it is known what became of it.
async fn attempts(
    transaction: &mut PgTransaction<'_>,
    now: DateTime<Utc>,
) -> Result<Vec<Check>, StoreError> {
    Ok(vec![
        check!(
            transaction,
            "order_ids_are_derived",
            "src/store/sql/audit/order_ids_are_derived.sql",
            "each order id is made of subscription, period and attempt number, or is that of the link that was paid"
        ),
        check!(
            transaction,
            "names_are_used_once",
            "src/store/sql/audit/names_are_used_once.sql",
            "no order id and no transaction belongs to two attempts"
        ),
        check!(
            transaction,
            "one_live_attempt",
            "src/store/sql/audit/one_live_attempt.sql",
            "no charge has two attempts that may move money"
        ),
        check!(
            transaction,
            "live_attempts_block_their_charge",
            "src/store/sql/audit/live_attempts_block_their_charge.sql",
            "no charge may be sent while an attempt of it may move money, or is in flight without one"
        ),
        check!(
            transaction,
            "verdicts_have_evidence",
            "src/store/sql/audit/verdicts_have_evidence.sql",
            "each verdict rests on evidence from somebody who can know"
        ),
        check!(
            transaction,
            "absence_needs_two",
            "src/store/sql/audit/absence_needs_two.sql",
            "each absent attempt was declared so by two people, long enough after its permit"
        ),
        check!(
            transaction,
            "doubts_are_followed_up",
            "src/store/sql/audit/doubts_are_followed_up.sql",
            "each attempt without a verdict is read again or was brought to people",
            now
        ),
        check!(
            transaction,
            "attempts_are_spaced",
            "src/store/sql/audit/attempts_are_spaced.sql",
            "the attempts of a subscription keep their distance"
        ),
        check!(
            transaction,
            "attempts_are_counted",
            "src/store/sql/audit/attempts_are_counted.sql",
            "each charge counts its attempts"
        ),
        check!(
            transaction,
            "nothing_was_permitted_while_braked",
            "src/store/sql/audit/nothing_was_permitted_while_braked.sql",
            "no permit was given while the brake was on"
        ),
    ])
}

/// What went back, and how it is known.
async fn refunds(transaction: &mut PgTransaction<'_>) -> Result<Vec<Check>, StoreError> {
    Ok(vec![
        check!(
            transaction,
            "refunds_are_covered",
            "src/store/sql/audit/refunds_are_covered.sql",
            "no more went back than was taken, and each refund is of a debit that moved money"
        ),
        check!(
            transaction,
            "refund_verdicts_have_evidence",
            "src/store/sql/audit/refund_verdicts_have_evidence.sql",
            "each verdict on a refund rests on evidence from somebody who can know"
        ),
    ])
}

/// What fell due, and that nothing was forgotten.
async fn obligations(transaction: &mut PgTransaction<'_>) -> Result<Vec<Check>, StoreError> {
    Ok(vec![
        check!(
            transaction,
            "open_charges_are_looked_at",
            "src/store/sql/audit/open_charges_are_looked_at.sql",
            "each open charge, and no other, has a time at which it is looked at"
        ),
        check!(
            transaction,
            "billed_subscriptions_go_on",
            "src/store/sql/audit/billed_subscriptions_go_on.sql",
            "each subscription that is billed, and no other, has a next period, on its calendar"
        ),
        check!(
            transaction,
            "no_period_is_forgotten",
            "src/store/sql/audit/no_period_is_forgotten.sql",
            "each period up to the next one has a charge, but for those of a stop"
        ),
        check!(
            transaction,
            "nothing_ends_early",
            "src/store/sql/audit/nothing_ends_early.sql",
            "no subscription ended before its last period"
        ),
        check!(
            transaction,
            "events_are_numbered",
            "src/store/sql/audit/events_are_numbered.sql",
            "the events of each subscription are numbered without gaps"
        ),
        check!(
            transaction,
            "archived_payments_are_counted",
            "src/store/sql/audit/archived_payments_are_counted.sql",
            "each subscription counts the payments that are in the archive"
        ),
        check!(
            transaction,
            "guards_stand",
            "src/store/sql/audit/guards_stand.sql",
            "the constraints, indexes and triggers of the schema are there and in force",
            false
        ),
    ])
}
