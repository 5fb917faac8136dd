//! A transaction that a person names as that of a charge: imoje is asked about it, and what imoje says is recorded as if the resolver
//! had found it by itself. The person's word is not used.

use chrono::{DateTime, Utc};

use super::Resolver;
use crate::domain::answer::{
    Body, Difference, ShownTransaction, Verdict, classify_read, differences,
};
use crate::domain::id::{ChargeId, TransactionId};
use crate::domain::people::{CaseAttempt, Ruling};
use crate::domain::registration::RegistrationOrderId;
use crate::domain::resolution::News;
use crate::domain::shop::ShopName;
use crate::gateway::{ReadAnswer, ReadError};
use crate::store::StoreError;
use crate::store::people::{ChargeCase, RulingError};
use crate::store::registrations::OpenRegistration;
use crate::store::resolution::{Bearer, Evidence, Finding, Recorded};
use crate::store::status::By;
use crate::workers::count;

/// What imoje said about the transaction, and what became of the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// imoje's word for where the transaction stands.
    pub gateway_status: String,
    /// What imoje was told as `orderId`.
    pub order_id: String,
    /// What is recorded now.
    pub recorded: Recorded,
}

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// There is no such charge in the books, or the books cannot be read.
    #[error(transparent)]
    Charge(#[from] RulingError),
    /// There is nothing that the transaction could belong to.
    #[error("nothing was ever sent for this charge, so no transaction can be its own")]
    NothingSent,
    /// Nobody knows how to ask.
    #[error("shop {0} is not in the configuration, so imoje cannot be asked")]
    UnknownShop(ShopName),
    /// No answer came.
    #[error("couldn't ask imoje about the transaction: {0}")]
    Unreachable(ReadError),
    /// An answer came that says nothing about the transaction.
    #[error("imoje did not show the transaction (HTTP {http_status}{})", .code.as_ref().map(|code| format!(" {code}")).unwrap_or_default())]
    NotShown {
        /// The HTTP status.
        http_status: u16,
        /// imoje's error code.
        code: Option<String>,
    },
    /// A payer paid it by a link, of which the books learn by reading the link.
    #[error(
        "it was paid by a link; what payers did by that is looked at now, and billing.registrations tells"
    )]
    PaidByLink,
    /// It is the transaction of something else.
    #[error("the transaction is not the charge's own: {}", told(.0))]
    Differs(Vec<Difference>),
}

impl From<StoreError> for SettleError {
    fn from(error: StoreError) -> Self {
        SettleError::Charge(error.into())
    }
}

fn told(differences: &[Difference]) -> String {
    let differences: Vec<_> = differences
        .iter()
        .map(|difference| {
            let shown = difference.shown.as_deref().unwrap_or("nothing readable");
            format!(
                "imoje shows {} {shown} instead of {}",
                difference.field, difference.expected
            )
        })
        .collect();
    differences.join(", ")
}

impl Resolver {
    /// Asks imoje about the transaction that a person says is the charge's, and records the answer if it is about an attempt of the
    /// charge in every respect.
    ///
    /// # Errors
    /// [`SettleError`]; nothing is changed then.
    pub async fn settle(
        &self,
        charge_id: ChargeId,
        transaction_id: TransactionId,
        by: By<'_>,
        now: DateTime<Utc>,
    ) -> Result<Settled, SettleError> {
        let found = self.store.charge_case(charge_id).await?;
        let last = found.case.attempts.last().ok_or(SettleError::NothingSent)?;
        let shop = self
            .shops
            .get(&found.shop)
            .ok_or_else(|| SettleError::UnknownShop(found.shop.clone()))?;
        let expected =
            |attempt: &CaseAttempt| shop.client.expected(attempt.order_id.clone(), found.amount);
        let answer = shop
            .client
            .transaction(transaction_id, &expected(last))
            .await
            .map_err(SettleError::Unreachable)?;
        let shown = answer.shown.as_deref().ok_or_else(|| not_shown(&answer))?;
        if let Some(registration) = self.paid_by_link(&found, transaction_id, shown).await? {
            let followed = self.follow_payment(shop, &registration, transaction_id, now);
            if let Err(error) = followed.await {
                tracing::warn!(%error, transaction.id = %transaction_id, "couldn't record a payment by a link");
            }
            // Its card, if it brings one, is looked for there.
            let id = registration.registration_id;
            self.store.hasten_registrations(&[id], now).await?;
            return Err(SettleError::PaidByLink);
        }
        let attempt = meant(&found, transaction_id, shown).unwrap_or(last);
        let expected = expected(attempt);
        let differences = differences(transaction_id, &expected, shown);
        if !differences.is_empty() {
            return Err(SettleError::Differs(differences));
        }
        let body = Body::Transaction(Box::new(shown.clone()));
        let verdict = classify_read(transaction_id, answer.http_status, &body, &expected);
        if matches!(verdict, Verdict::Refused(_) | Verdict::InDoubt(_)) {
            return Err(not_shown(&answer));
        }
        let finding = Finding {
            subscription_id: found.subscription_id,
            attempt_id: attempt.attempt_id,
            news: News::Read(verdict),
            evidence: Evidence {
                by: Some(Bearer {
                    ruling: Ruling::Settle,
                    actor: by.actor.to_owned(),
                    reason: by.reason.to_owned(),
                }),
                ..Evidence::of_answer(answer.http_status, None, answer.shown.clone())
            },
        };
        let recorded = self.store.record(&[finding], &self.policy, now).await?;
        count::recorded(&self.metrics, &recorded);
        // It went to the archive meanwhile.
        let recorded = recorded
            .into_iter()
            .next()
            .ok_or(RulingError::Archived(charge_id))?;
        Ok(Settled {
            gateway_status: shown.status.clone().unwrap_or_default(),
            order_id: attempt.order_id.clone(),
            recorded,
        })
    }
}

impl Resolver {
    /// The registration by whose link a transaction was paid that the books do not have.
    async fn paid_by_link(
        &self,
        found: &ChargeCase,
        transaction_id: TransactionId,
        shown: &ShownTransaction,
    ) -> Result<Option<OpenRegistration>, StoreError> {
        let order_id = shown.order_id.as_deref().unwrap_or_default();
        let Ok(RegistrationOrderId(id)) = order_id.parse() else {
            return Ok(None);
        };
        let is_booked = found
            .case
            .attempts
            .iter()
            .any(|attempt| attempt.transaction_id == Some(transaction_id));
        if is_booked {
            return Ok(None);
        }
        self.store.registration(id).await
    }
}

/// The attempt whose transaction it is, or else whose order imoje shows: a payer may pay by one link twice.
fn meant<'a>(
    found: &'a ChargeCase,
    transaction_id: TransactionId,
    shown: &ShownTransaction,
) -> Option<&'a CaseAttempt> {
    let attempts = &found.case.attempts;
    let of_order = |attempt: &&CaseAttempt| shown.order_id.as_deref() == Some(&attempt.order_id);
    attempts
        .iter()
        .filter(of_order)
        .find(|attempt| attempt.transaction_id == Some(transaction_id))
        .or_else(|| attempts.iter().find(of_order))
}

fn not_shown(answer: &ReadAnswer) -> SettleError {
    SettleError::NotShown {
        http_status: answer.http_status,
        code: answer.error_code.clone(),
    }
}
