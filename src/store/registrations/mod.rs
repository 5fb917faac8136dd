//! Registrations: links and transactions by which payers register cards, and what became of each.

mod attaching;
mod paying;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde_json::json;
use sqlx::PgTransaction;
use sqlx::types::JsonValue;
use url::Url;

use crate::domain::IllegalTransition;
use crate::domain::event::EventKind;
use crate::domain::id::{PaymentId, RegistrationId, SubscriptionId, TransactionId};
use crate::domain::money::{Currency, Money, MoneyError};
use crate::domain::registration::{
    FirstCharge, Purpose, RegistrationEvent, RegistrationOrderId, RegistrationState, Way,
};
use crate::domain::resolution::ResolverPolicy;
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionStatus;
use crate::domain::title::{self, Occasion};
use crate::store::events::{self, NewEvent};
use crate::store::status::{self, By, StepError, Stopped};
use crate::store::{Store, StoreError, Wake, despite_others, new_id, readings, wake};

pub use attaching::{Attached, Attaching};
pub use paying::PaidByLink;

/// How many registrations are looked at at once.
pub const BATCH: usize = 500;

/// How long imoje may take to answer when a link is ordered. One that was never answered has an address that nobody knows.
const ANSWER_WAIT: TimeDelta = TimeDelta::minutes(2);

/// What is to be registered.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// For which subscription.
    pub subscription_id: SubscriptionId,
    /// Under which name imoje keeps the card; one of its own when absent.
    pub cid: Option<&'a str>,
    /// What the payment counts as.
    pub payment: WantedPayment,
    /// For how long it can be paid, at least an hour; when absent a week, or until the next period falls due, and an hour with card data.
    pub valid_for: Option<TimeDelta>,
    /// What later debits say about a card whose data are sent; absent when it is registered by a link.
    pub card_data: Option<CardData<'a>>,
    /// Who wants it, and why.
    pub by: By<'a>,
}

/// What every debit of a card without a profile says. Never a card number, nor a security code.
#[derive(Debug, Clone, Copy)]
pub struct CardData<'a> {
    /// The payer, as documented for `customer`, without the `cid`.
    pub customer: &'a JsonValue,
    /// The members of `card`, as aliases that a tokenising proxy knows.
    pub aliases: &'a JsonValue,
}

/// What the payment of a registration counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedPayment {
    /// The charge of the period that has fallen due, or falls due first: the amount of the subscription.
    FirstCharge,
    /// Nothing but a verification, of so many minor units.
    Verification(i64),
}

/// A registration that was begun: the link can be ordered.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// The registration.
    pub registration_id: RegistrationId,
    /// Its shop.
    pub shop: ShopName,
    /// How much the payer pays.
    pub amount: Money,
    /// Under which name imoje keeps the card.
    pub cid: String,
    /// The period that is paid by it, if one is.
    pub period_no: Option<u32>,
    /// Until when it can be paid.
    pub valid_to: DateTime<Utc>,
    /// What the payer reads about a first charge.
    pub title: Option<String>,
    /// Where imoje sends the notices of the subscription instead of to Cykl.
    pub notification_url: Option<String>,
    /// The invoice of a first charge.
    pub invoice: Option<JsonValue>,
    /// The payouts of a first charge.
    pub multipayout: Option<JsonValue>,
}

/// Why a registration was not begun. Nothing is changed then.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// There is no such subscription.
    #[error("there is no subscription {0}")]
    Missing(SubscriptionId),
    /// It is over.
    #[error("the subscription is {}, so it needs no card any more", .0.as_str())]
    Over(SubscriptionStatus),
    /// Only a subscription that waits for its first card has a first charge.
    #[error(
        "the subscription is {}; only one that waits for its first card pays its first charge by a link",
        .0.as_str()
    )]
    NotFirst(SubscriptionStatus),
    /// The payer has paid it, and the next is not due.
    #[error("the first charge is paid already")]
    FirstIsPaid,
    /// Nothing is left to be charged.
    #[error("the subscription has no period left to be charged")]
    NothingDue,
    /// It could be paid for less than an hour, or for longer than the period that is paid.
    #[error(
        "a payment of this charge has to be made before the next period falls due, at {next_due_at}"
    )]
    PastNextPeriod {
        /// When the next period falls due.
        next_due_at: DateTime<Utc>,
    },
    /// Another one may still be paid, or was paid and its card is looked for.
    #[error("registration {registration_id} is {} already (until {valid_to})", .state.as_str())]
    Open {
        /// The other registration.
        registration_id: RegistrationId,
        /// How its payer pays.
        way: Way,
        /// Where it stands.
        state: RegistrationState,
        /// Until when it can be paid.
        valid_to: DateTime<Utc>,
    },
    /// imoje documents no payouts for cards without a profile.
    #[error(
        "the subscription has payouts (multipayout), which imoje takes for cards with a profile only"
    )]
    Payouts,
    /// The brake is on: nothing is sent that moves money.
    #[error("the brake of shop {0} is on, so no money is moved")]
    Braked(ShopName),
    /// One instrument, one cid.
    #[error(
        "cid {0} belongs to a card or a registration already, and each card needs a cid of its own"
    )]
    CidTaken(String),
    /// It is no amount.
    #[error(transparent)]
    Amount(#[from] MoneyError),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for BeginError {
    fn from(error: sqlx::Error) -> Self {
        BeginError::Store(error.into())
    }
}

/// A registration that is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRegistration {
    /// The registration.
    pub registration_id: RegistrationId,
    /// Its subscription.
    pub subscription_id: SubscriptionId,
    /// Its shop.
    pub shop: ShopName,
    /// Under which name imoje keeps the card.
    pub cid: String,
    /// How the payer pays.
    pub way: Way,
    /// Where it stands.
    pub state: RegistrationState,
    /// How much the payer pays.
    pub amount: Money,
    /// imoje's id of the link, once known.
    pub payment_id: Option<PaymentId>,
    /// What imoje made of an order with card data, once known.
    pub sale_id: Option<TransactionId>,
    /// The payment that registered the card.
    pub transaction_id: Option<TransactionId>,
    /// When it was begun.
    pub created_at: DateTime<Utc>,
    /// When that was made, as imoje says.
    pub paid_at: Option<DateTime<Utc>>,
    /// Until when the link can be paid.
    pub valid_to: DateTime<Utc>,
    /// When it came to its end.
    pub ended_at: Option<DateTime<Utc>>,
    /// The payments that people were told are not over what the link was made for.
    pub mismatched_ids: Vec<TransactionId>,
    /// Whether its payment would still be for something.
    pub is_wanted: bool,
}

impl OpenRegistration {
    /// What imoje was told as `orderId`.
    pub fn order_id(&self) -> String {
        RegistrationOrderId(self.registration_id).to_string()
    }
}

/// Why a registration was not ended.
#[derive(Debug, thiserror::Error)]
pub enum EndError {
    /// It cannot be.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition<RegistrationState, RegistrationEvent>),
    /// The database failed; nothing is changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EndError {
    fn is_busy(&self) -> bool {
        matches!(self, EndError::Store(error) if error.is_busy())
    }
}

/// A registration under lock.
struct Subject {
    registration_id: RegistrationId,
    subscription_id: SubscriptionId,
    shop: ShopName,
    cid: String,
    way: Way,
    purpose: Purpose,
    amount_minor: i64,
    currency: Currency,
    state: RegistrationState,
    transaction_id: Option<TransactionId>,
    surplus_ids: Vec<TransactionId>,
    created_at: DateTime<Utc>,
}

impl Subject {
    fn order_id(&self) -> String {
        RegistrationOrderId(self.registration_id).to_string()
    }

    /// What is told about it; see `docs/events.md`.
    fn event(&self, kind: EventKind, state: RegistrationState, more: JsonValue) -> NewEvent {
        let mut payload = json!({
            "registration_id": self.registration_id,
            "order_id": self.order_id(),
            "way": self.way,
            "purpose": self.purpose,
            "cid": self.cid,
            "amount_minor": self.amount_minor,
            "currency": self.currency,
            "state": state,
        });
        if let (Some(payload), JsonValue::Object(more)) = (payload.as_object_mut(), more) {
            payload.extend(more);
        }
        NewEvent {
            kind,
            subscription_id: Some(self.subscription_id),
            shop: Some(self.shop.clone()),
            charge_id: None,
            attempt_id: None,
            payload: events::payload(&payload),
        }
    }
}

impl Store {
    /// Begins a registration: from now on the subscription has a link that may be paid, and no other is made. `due_at` says when a date
    /// of the subscription falls due.
    ///
    /// # Errors
    /// [`BeginError`]; nothing is changed then.
    pub async fn begin_registration(
        &self,
        wanted: &Wanted<'_>,
        now: DateTime<Utc>,
        due_at: impl Fn(&Stopped, NaiveDate) -> DateTime<Utc> + Send + Sync,
    ) -> Result<Begun, BeginError> {
        let is_busy =
            |error: &BeginError| matches!(error, BeginError::Store(error) if error.is_busy());
        despite_others(is_busy, || self.begin_once(wanted, now, &due_at)).await
    }

    async fn begin_once(
        &self,
        wanted: &Wanted<'_>,
        now: DateTime<Utc>,
        due_at: &(impl Fn(&Stopped, NaiveDate) -> DateTime<Utc> + Send + Sync),
    ) -> Result<Begun, BeginError> {
        let mut transaction = self.pool.begin().await?;
        let id = wanted.subscription_id;
        let (status, stopped) = status::lock(&mut transaction, id).await.map_err(of_step)?;
        if status.is_over() {
            return Err(BeginError::Over(status));
        }
        no_other_is_open(&mut transaction, id, now).await?;
        let agreed = agreed(&mut transaction, id).await?;
        if wanted.card_data.is_some() {
            may_send_card_data(&mut transaction, &stopped.shop, &agreed).await?;
        }
        let first = match wanted.payment {
            WantedPayment::FirstCharge => {
                Some(first_charge(status, &stopped, &agreed, now, due_at)?)
            }
            WantedPayment::Verification(_) => None,
        };
        let valid_to = valid_to(
            wanted.valid_for.or(wanted.card_data.map(|_| AT_LEAST)),
            first.and_then(|first| first.next_due_at),
            now,
        )?;
        let (purpose, minor) = match wanted.payment {
            WantedPayment::FirstCharge => (Purpose::FirstCharge, agreed.amount_minor),
            WantedPayment::Verification(minor) => (Purpose::Verification, minor),
        };
        let amount = Money::new(minor, agreed.currency)?;
        let registration_id = RegistrationId::from_uuid(new_id(now));
        // An id of its own is a cid of its own, and imoje takes 36 characters of this kind.
        let cid = wanted
            .cid
            .map_or_else(|| registration_id.to_string(), str::to_owned);
        if is_taken(&mut transaction, &stopped.shop, &cid, id).await? {
            return Err(BeginError::CidTaken(cid));
        }
        let period_no = first.map(|first| first.period.period_no);
        insert(
            &mut transaction,
            registration_id,
            &stopped,
            &cid,
            (purpose, period_no, amount),
            wanted,
            (now, valid_to),
        )
        .await?;
        transaction.commit().await?;
        let of_charge = |value: Option<JsonValue>| first.and(value);
        Ok(Begun {
            registration_id,
            title: first.zip(agreed.title).map(|(first, template)| {
                let occasion = Occasion {
                    period: stopped.terms.period,
                    period_no: first.period.period_no,
                    due_on: first.period.due_on,
                    shop: &stopped.shop,
                };
                title::of_debit(&template, &occasion)
            }),
            shop: stopped.shop,
            amount,
            cid,
            period_no,
            valid_to,
            notification_url: agreed.notification_url,
            invoice: of_charge(agreed.invoice),
            multipayout: of_charge(agreed.multipayout),
        })
    }

    /// Has a registration that ended at `ended_at` not looked at any more, unless it went on meanwhile.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn stop_looking_at_registration(
        &self,
        registration_id: RegistrationId,
        ended_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "-- stop_looking_at_registration
            UPDATE registrations SET next_poll_at = NULL WHERE registration_id = $1 AND ended_at = $2",
            registration_id as RegistrationId,
            ended_at,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Notes that imoje has made the link.
    ///
    /// # Errors
    /// [`EndError::Illegal`] when the registration was ended meanwhile.
    pub async fn open_registration(
        &self,
        registration_id: RegistrationId,
        (payment_id, url): (PaymentId, &Url),
        by: By<'_>,
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<(), EndError> {
        despite_others(EndError::is_busy, || {
            self.open_once(registration_id, (payment_id, url), by, policy, now)
        })
        .await
    }

    async fn open_once(
        &self,
        registration_id: RegistrationId,
        (payment_id, url): (PaymentId, &Url),
        by: By<'_>,
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<(), EndError> {
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        let subject = lock(&mut transaction, registration_id).await?;
        let state = subject.state.after(RegistrationEvent::Opened)?;
        sqlx::query!(
            "-- open_registration
            UPDATE registrations SET state = $2, payment_id = $3, url = $4, next_poll_at = $5 WHERE registration_id = $1",
            registration_id as RegistrationId,
            state as RegistrationState,
            payment_id as PaymentId,
            url.as_str(),
            now + policy.poll_after(0),
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::from)?;
        let more = json!({ "actor": by.actor, "reason": by.reason, "url": url });
        let told = subject.event(EventKind::RegistrationOpened, state, more);
        events::append(&mut transaction, &[told], self.channels, now).await?;
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(())
    }

    /// Tells people that nobody knows whether card data were charged, once.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is told then.
    pub async fn tell_unanswered_registration(
        &self,
        registration_id: RegistrationId,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        despite_others(StoreError::is_busy, || async {
            let mut transaction = self.pool.begin().await?;
            let subject = lock(&mut transaction, registration_id).await?;
            let opened = sqlx::query!(
                "-- open_registration_case
                UPDATE registrations SET case_opened_at = $2
                WHERE registration_id = $1 AND case_opened_at IS NULL AND state IN ('requested', 'open')",
                registration_id as RegistrationId,
                now,
            )
            .execute(&mut *transaction)
            .await?;
            if opened.rows_affected() == 0 {
                return Ok(());
            }
            let told = subject.event(EventKind::RegistrationInDoubt, subject.state, json!({}));
            events::append(&mut transaction, &[told], self.channels, now).await?;
            transaction.commit().await?;
            Ok(())
        })
        .await
    }

    /// Notes which transaction imoje has made of an order with card data, and where the payer goes on. One that is noted already stays.
    ///
    /// # Errors
    /// [`EndError::Illegal`] when the registration has ended meanwhile; the transaction is noted all the same.
    pub async fn note_sale(
        &self,
        registration_id: RegistrationId,
        (sale_id, url): (TransactionId, Option<&Url>),
        by: By<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), EndError> {
        despite_others(EndError::is_busy, || {
            self.note_sale_once(registration_id, (sale_id, url), by, now)
        })
        .await
    }

    async fn note_sale_once(
        &self,
        registration_id: RegistrationId,
        (sale_id, url): (TransactionId, Option<&Url>),
        by: By<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), EndError> {
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        let subject = lock(&mut transaction, registration_id).await?;
        let opened = subject.state.after(RegistrationEvent::Opened);
        sqlx::query!(
            "-- note_sale
            UPDATE registrations SET state = $2, sale_id = $3, url = coalesce($4, url), next_poll_at = $5, polls = 0
            WHERE registration_id = $1 AND (sale_id IS NULL OR sale_id = $3 AND url IS NULL)",
            registration_id as RegistrationId,
            opened.as_ref().map_or(subject.state, |state| *state) as RegistrationState,
            sale_id as TransactionId,
            url.map(Url::as_str),
            now,
        )
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::from)?;
        if let Ok(state) = opened {
            let more = json!({
                "actor": by.actor, "reason": by.reason, "url": url, "transaction_id": sale_id
            });
            let told = subject.event(EventKind::RegistrationOpened, state, more);
            events::append(&mut transaction, &[told], self.channels, now).await?;
        }
        transaction.commit().await.map_err(StoreError::from)?;
        opened.map(drop).map_err(EndError::from)
    }

    /// Ends a registration that nobody has paid.
    ///
    /// # Errors
    /// [`EndError::Illegal`] when it was paid, or has ended otherwise.
    pub async fn end_registration(
        &self,
        registration_id: RegistrationId,
        event: RegistrationEvent,
        by: Option<By<'_>>,
        now: DateTime<Utc>,
    ) -> Result<RegistrationState, EndError> {
        despite_others(EndError::is_busy, || {
            self.end_once(registration_id, event, by, now)
        })
        .await
    }

    async fn end_once(
        &self,
        registration_id: RegistrationId,
        event: RegistrationEvent,
        by: Option<By<'_>>,
        now: DateTime<Utc>,
    ) -> Result<RegistrationState, EndError> {
        let mut transaction = self.pool.begin().await.map_err(StoreError::from)?;
        let subject = lock(&mut transaction, registration_id).await?;
        let state = subject.state.after(event)?;
        end(
            &mut transaction,
            &subject,
            state,
            by.map(|by| by.reason),
            now,
        )
        .await?;
        let told = match state {
            RegistrationState::Expired => Some(EventKind::RegistrationExpired),
            RegistrationState::Cancelled => Some(EventKind::RegistrationCancelled),
            RegistrationState::Requested
            | RegistrationState::Open
            | RegistrationState::Paid
            | RegistrationState::Attached
            | RegistrationState::Cardless
            | RegistrationState::Refused => None,
        };
        if let Some(kind) = told {
            let more = by.map_or_else(
                || json!({}),
                |by| json!({ "actor": by.actor, "reason": by.reason }),
            );
            let told = subject.event(kind, state, more);
            events::append(&mut transaction, &[told], self.channels, now).await?;
        }
        transaction.commit().await.map_err(StoreError::from)?;
        Ok(state)
    }

    /// Takes registrations of `shops` that it is time to look at, and puts each off.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is taken then.
    pub async fn take_registrations(
        &self,
        shops: &[ShopName],
        policy: &ResolverPolicy,
        now: DateTime<Utc>,
    ) -> Result<Vec<OpenRegistration>, StoreError> {
        let waits: Vec<i64> = policy.poll.iter().map(TimeDelta::num_seconds).collect();
        let taken = sqlx::query_file_scalar!(
            "src/store/sql/take_registrations.sql",
            now,
            &waits,
            shops as &[ShopName],
        )
        .fetch_all(&self.pool)
        .await?;
        if taken.is_empty() {
            return Ok(Vec::new());
        }
        self.registrations(&taken).await
    }

    /// One registration, whether it is time to look at it or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn registration(
        &self,
        registration_id: RegistrationId,
    ) -> Result<Option<OpenRegistration>, StoreError> {
        Ok(self.registrations(&[registration_id]).await?.pop())
    }

    async fn registrations(
        &self,
        ids: &[RegistrationId],
    ) -> Result<Vec<OpenRegistration>, StoreError> {
        let rows = sqlx::query_file_as!(
            Row,
            "src/store/sql/read_registrations.sql",
            ids as &[RegistrationId],
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(Row::read).collect()
    }

    /// The registration of a subscription that may still be paid, if there is one.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn payable_registration(
        &self,
        subscription_id: SubscriptionId,
    ) -> Result<Option<RegistrationId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- payable_registration
            SELECT registration_id AS "registration_id: RegistrationId" FROM registrations
            WHERE subscription_id = $1 AND state IN ('requested', 'open')"#,
            subscription_id as SubscriptionId,
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// The shop of a subscription.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn shop_of_subscription(
        &self,
        subscription_id: SubscriptionId,
    ) -> Result<Option<ShopName>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"-- shop_of_subscription
            SELECT shop AS "shop: ShopName" FROM subscriptions WHERE subscription_id = $1"#,
            subscription_id as SubscriptionId,
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// Has registrations looked at now.
    ///
    /// # Errors
    /// [`StoreError`]; they are looked at in their own time then.
    pub async fn hasten_registrations(
        &self,
        registrations: &[RegistrationId],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        if registrations.is_empty() {
            return Ok(());
        }
        sqlx::query!(
            "-- hasten_registrations
            UPDATE registrations SET next_poll_at = $2, polls = 0 WHERE registration_id = ANY($1)",
            registrations as &[RegistrationId],
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// A registration as the queries have it.
struct Row {
    registration_id: RegistrationId,
    subscription_id: SubscriptionId,
    shop: ShopName,
    cid: String,
    way: Way,
    state: RegistrationState,
    amount_minor: i64,
    currency: Currency,
    payment_id: Option<PaymentId>,
    sale_id: Option<TransactionId>,
    transaction_id: Option<TransactionId>,
    created_at: DateTime<Utc>,
    paid_at: Option<DateTime<Utc>>,
    valid_to: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    mismatched_ids: Vec<TransactionId>,
    is_wanted: bool,
}

impl Row {
    fn read(self) -> Result<OpenRegistration, StoreError> {
        Ok(OpenRegistration {
            registration_id: self.registration_id,
            subscription_id: self.subscription_id,
            shop: self.shop,
            cid: self.cid,
            way: self.way,
            state: self.state,
            amount: readings::money(self.amount_minor, self.currency)?,
            payment_id: self.payment_id,
            sale_id: self.sale_id,
            transaction_id: self.transaction_id,
            created_at: self.created_at,
            paid_at: self.paid_at,
            valid_to: self.valid_to,
            ended_at: self.ended_at,
            mismatched_ids: self.mismatched_ids,
            is_wanted: self.is_wanted,
        })
    }
}

/// What was agreed, as far as a link says it.
struct Agreed {
    amount_minor: i64,
    currency: Currency,
    title: Option<String>,
    notification_url: Option<String>,
    invoice: Option<JsonValue>,
    multipayout: Option<JsonValue>,
    has_charges: bool,
}

fn of_step(error: StepError) -> BeginError {
    match error {
        StepError::Missing(id) => BeginError::Missing(id),
        StepError::Store(error) => error.into(),
        StepError::Illegal(_) => unreachable!("a lock takes no step"),
    }
}

/// The period that is paid, for a subscription that waits for its first card.
fn first_charge(
    status: SubscriptionStatus,
    stopped: &Stopped,
    agreed: &Agreed,
    now: DateTime<Utc>,
    due_at: &impl Fn(&Stopped, NaiveDate) -> DateTime<Utc>,
) -> Result<FirstCharge, BeginError> {
    if status != SubscriptionStatus::Registering {
        return Err(BeginError::NotFirst(status));
    }
    let due_at = |date| due_at(stopped, date);
    let from = stopped.from_period_no;
    let first = crate::domain::registration::first_charge(&stopped.terms, from, now, due_at)
        .ok_or(BeginError::NothingDue)?;
    if agreed.has_charges && due_at(first.period.due_on) > now {
        return Err(BeginError::FirstIsPaid);
    }
    Ok(first)
}

/// For how long a link can be paid at least, and how long a payer has for 3-D Secure.
const AT_LEAST: TimeDelta = TimeDelta::hours(1);

/// Until when it can be paid.
fn valid_to(
    valid_for: Option<TimeDelta>,
    next_due_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, BeginError> {
    const USUALLY: TimeDelta = TimeDelta::days(7);
    let wanted = now + valid_for.unwrap_or(USUALLY);
    let Some(next_due_at) = next_due_at else {
        return Ok(wanted);
    };
    match valid_for {
        None if next_due_at >= now + AT_LEAST => Ok(wanted.min(next_due_at)),
        Some(_) if wanted <= next_due_at => Ok(wanted),
        Some(_) | None => Err(BeginError::PastNextPeriod { next_due_at }),
    }
}

async fn agreed(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
) -> Result<Agreed, StoreError> {
    Ok(sqlx::query_as!(
        Agreed,
        r#"-- agreed_for_registration
        SELECT s.amount_minor, s.currency AS "currency: Currency", s.title, s.notification_url, s.invoice, s.multipayout,
               EXISTS (SELECT FROM charges c WHERE c.subscription_id = s.subscription_id) AS "has_charges!"
        FROM subscriptions s WHERE s.subscription_id = $1"#,
        subscription_id as SubscriptionId,
    )
    .fetch_one(&mut **transaction)
    .await?)
}

/// Sees to it that what is asked for can be debited later, and that the brake is off.
async fn may_send_card_data(
    transaction: &mut PgTransaction<'_>,
    shop: &ShopName,
    agreed: &Agreed,
) -> Result<(), BeginError> {
    if agreed.multipayout.is_some() {
        return Err(BeginError::Payouts);
    }
    let is_braked = sqlx::query_scalar!(
        r#"-- is_shop_braked
        SELECT NOT EXISTS (SELECT FROM brakes WHERE shop = '*' AND mode = 'run')
            OR EXISTS (SELECT FROM brakes WHERE shop = $1 AND mode <> 'run') AS "is_braked!""#,
        shop.as_str(),
    )
    .fetch_one(&mut **transaction)
    .await?;
    if is_braked {
        return Err(BeginError::Braked(shop.clone()));
    }
    Ok(())
}

/// Sees to it that no other registration of the subscription may still be paid, or was paid just now. A link whose order was never answered
/// has an address that nobody knows; card data whose order was never answered may have been charged.
async fn no_other_is_open(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
    now: DateTime<Utc>,
) -> Result<(), BeginError> {
    sqlx::query!(
        "-- cancel_unanswered_registration
        UPDATE registrations SET state = 'cancelled', reason = 'never_answered', ended_at = $2, next_poll_at = $2
        WHERE subscription_id = $1 AND state = 'requested' AND way = 'link' AND created_at < $3",
        subscription_id as SubscriptionId,
        now,
        now - ANSWER_WAIT,
    )
    .execute(&mut **transaction)
    .await?;
    let open = sqlx::query!(
        r#"-- open_registration_of
        SELECT registration_id AS "registration_id: RegistrationId", way AS "way: Way", state AS "state: RegistrationState", valid_to
        FROM registrations WHERE subscription_id = $1 AND state IN ('requested', 'open', 'paid') LIMIT 1"#,
        subscription_id as SubscriptionId,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    match open {
        Some(open) => Err(BeginError::Open {
            registration_id: open.registration_id,
            way: open.way,
            state: open.state,
            valid_to: open.valid_to,
        }),
        None => Ok(()),
    }
}

/// Lets nobody else of the shop take a `cid` until `transaction` ends.
async fn one_cid_at_a_time(
    transaction: &mut PgTransaction<'_>,
    shop: &ShopName,
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- lock_shop_for_cid
        SELECT shop FROM shops WHERE shop = $1 FOR NO KEY UPDATE",
        shop as &ShopName,
    )
    .fetch_optional(&mut **transaction)
    .await?;
    Ok(())
}

/// Whether a `cid` belongs to a card, or may come to do so by a registration of another subscription.
async fn is_taken(
    transaction: &mut PgTransaction<'_>,
    shop: &ShopName,
    cid: &str,
    subscription_id: SubscriptionId,
) -> Result<bool, StoreError> {
    one_cid_at_a_time(transaction, shop).await?;
    Ok(sqlx::query_scalar!(
        r#"-- is_cid_taken
        SELECT EXISTS (SELECT FROM cards WHERE cid = $2 AND shop = $1)
            OR EXISTS (SELECT FROM registrations WHERE cid = $2 AND shop = $1
                       AND (subscription_id <> $3 OR state IN ('attached', 'cardless'))) AS "is_taken!""#,
        shop as &ShopName,
        cid,
        subscription_id as SubscriptionId,
    )
    .fetch_one(&mut **transaction)
    .await?)
}

async fn insert(
    transaction: &mut PgTransaction<'_>,
    registration_id: RegistrationId,
    stopped: &Stopped,
    cid: &str,
    (purpose, period_no, amount): (Purpose, Option<u32>, Money),
    wanted: &Wanted<'_>,
    (now, valid_to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<(), StoreError> {
    let way = wanted.card_data.map_or(Way::Link, |_| Way::CardData);
    sqlx::query!(
        "-- insert_registration
        INSERT INTO registrations (registration_id, subscription_id, shop, cid, purpose, period_no, order_id, amount_minor, currency,
                                   state, actor, created_at, valid_to, next_poll_at, way, customer, aliases)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'requested', $10, $11, $12, $16, $13, $14, $15)",
        registration_id as RegistrationId,
        stopped.subscription_id as SubscriptionId,
        &stopped.shop as &ShopName,
        cid,
        purpose as Purpose,
        period_no.map(readings::stored_count).transpose()?,
        RegistrationOrderId(registration_id).to_string(),
        amount.minor(),
        amount.currency() as Currency,
        wanted.by.actor,
        now,
        valid_to,
        way as Way,
        wanted.card_data.map(|data| data.customer),
        wanted.card_data.map(|data| data.aliases),
        match way {
            Way::Link => valid_to,
            Way::CardData => now + ANSWER_WAIT,
        },
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn lock(
    transaction: &mut PgTransaction<'_>,
    registration_id: RegistrationId,
) -> Result<Subject, StoreError> {
    Ok(sqlx::query_as!(
        Subject,
        r#"-- lock_registration
        SELECT registration_id AS "registration_id: RegistrationId", subscription_id AS "subscription_id: SubscriptionId",
               shop AS "shop: ShopName", cid, way AS "way: Way", purpose AS "purpose: Purpose", amount_minor,
               currency AS "currency: Currency", state AS "state: RegistrationState",
               transaction_id AS "transaction_id: TransactionId", surplus_ids AS "surplus_ids: Vec<TransactionId>",
               created_at
        FROM registrations WHERE registration_id = $1 FOR NO KEY UPDATE"#,
        registration_id as RegistrationId,
    )
    .fetch_one(&mut **transaction)
    .await?)
}

/// Lets a registration end in `state`.
async fn end(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    state: RegistrationState,
    reason: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- end_registration
        UPDATE registrations SET state = $2, reason = $3, ended_at = $4 WHERE registration_id = $1",
        subject.registration_id as RegistrationId,
        state as RegistrationState,
        reason,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Has every link of a subscription that may still be paid looked at when `transaction` commits: it may have become one too many.
pub(super) async fn look_again(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let hastened = sqlx::query!(
        "-- hasten_registration_of
        UPDATE registrations SET next_poll_at = $2
        WHERE subscription_id = $1 AND state IN ('requested', 'open') AND next_poll_at > $2",
        subscription_id as SubscriptionId,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    if hastened.rows_affected() > 0 {
        wake(transaction, Wake::Resolver).await?;
    }
    Ok(())
}
