//! The rows of new subscriptions, a batch at a time: made ready while the batch before is being stored.

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use sqlx::PgTransaction;
use tokio::sync::mpsc;

use crate::domain::card::ChargedCard;
use crate::domain::enrolment::{NewCard, NewSubscription};
use crate::domain::event::EventKind;
use crate::domain::id::{CardId, SubscriptionId};
use crate::domain::money::Currency;
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionStatus;
use crate::store::copying::Rows;
use crate::store::daily_cap::Additions;
use crate::store::enrolment::Telling;
use crate::store::events::{self, FirstEvent, NewEvent};
use crate::store::status::By;
use crate::store::{Channels, StoreError, new_id, readings};

/// A new subscription with what the store adds to it.
pub(super) struct Newcomer<'a> {
    pub subscription_id: SubscriptionId,
    pub card_id: Option<CardId>,
    pub first_due_at: DateTime<Utc>,
    pub new: &'a NewSubscription,
}

impl Newcomer<'_> {
    fn status(&self) -> SubscriptionStatus {
        match self.card_id {
            Some(_) => SubscriptionStatus::Active,
            None => SubscriptionStatus::Registering,
        }
    }
}

/// Subscriptions that are ready to be stored, with their new cards and their first events.
#[derive(Default)]
pub(super) struct Batch {
    cards: Rows,
    subscriptions: Rows,
    due_periods: Rows,
    kept: Rows,
    due_soon: Additions,
    told: Vec<NewEvent>,
}

/// Stores batches as they come, and hands the transaction back when no more will come.
pub(super) async fn store_all(
    mut transaction: PgTransaction<'static>,
    mut batches: mpsc::Receiver<Batch>,
    channels: Channels,
    now: DateTime<Utc>,
) -> Result<PgTransaction<'static>, StoreError> {
    let mut due_soon = Additions::default();
    while let Some(mut batch) = batches.recv().await {
        due_soon.merge(std::mem::take(&mut batch.due_soon));
        batch.store(&mut transaction, channels, now).await?;
    }
    // Last, because others wait for these rows until the transaction ends.
    due_soon.store(&mut transaction).await?;
    Ok(transaction)
}

impl Batch {
    /// Adds a card, which is not stored yet.
    pub fn add_card(
        &mut self,
        shop: &ShopName,
        card: &NewCard,
        now: DateTime<Utc>,
    ) -> Result<CardId, StoreError> {
        let card_id = CardId::from_uuid(new_id(now));
        let (profile_id, plain) = match &card.charged {
            ChargedCard::Stored(profile_id) => (Some(profile_id), None),
            ChargedCard::Plain(plain) => (None, Some(&**plain)),
        };
        self.cards.push(&[
            &card_id,
            shop,
            &card.cid,
            &profile_id,
            &plain.map(|plain| &plain.first_transaction_id),
            &plain.map(|plain| &plain.customer),
            &plain.and_then(|plain| plain.aliases.as_ref()),
            &now,
        ])?;
        Ok(card_id)
    }

    /// Adds a subscription. Without a card, nothing of it falls due.
    pub fn add(&mut self, newcomer: &Newcomer<'_>, now: DateTime<Utc>) -> Result<(), StoreError> {
        let (new, terms) = (newcomer.new, &newcomer.new.terms);
        let first_period_no = readings::stored_count(new.first.period_no)?;
        let max_charges = terms.max_charges.map(readings::stored_count).transpose()?;
        self.subscriptions.push(&[
            &newcomer.subscription_id,
            &new.shop,
            &new.external_id,
            &newcomer.status(),
            &newcomer.card_id,
            &new.amount.minor(),
            &new.amount.currency(),
            &terms.period.to_string(),
            &terms.anchor,
            &new.zone.name(),
            &new.title,
            &terms.starts_on,
            &terms.ends_on,
            &max_charges,
            &new.paid_until,
            &first_period_no,
            &newcomer.card_id.map(|_| newcomer.first_due_at),
            &new.notification_url,
            &new.invoice,
            &new.multipayout,
            &now,
            &now,
        ])?;
        if newcomer.card_id.is_none() {
            return Ok(());
        }
        self.due_soon
            .add(&new.shop, new.amount, newcomer.first_due_at, now);
        self.due_periods.push(&[
            &newcomer.first_due_at,
            &newcomer.subscription_id,
            &first_period_no,
            &new.first.due_on,
        ])
    }

    /// Adds the event of a subscription.
    pub fn tell(
        &mut self,
        newcomer: &Newcomer<'_>,
        telling: Telling,
        by: By<'_>,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let (kind, new) = (EventKind::SubscriptionCreated, newcomer.new);
        let payload = Payload {
            actor: by.actor,
            reason: by.reason,
            amount_minor: new.amount.minor(),
            currency: new.amount.currency(),
            period: new.terms.period.to_string(),
            first_period_no: new.first.period_no,
            next_charge_on: newcomer.card_id.map(|_| new.first.due_on),
        };
        match telling {
            Telling::Everybody => self.told.push(NewEvent {
                kind,
                subscription_id: Some(newcomer.subscription_id),
                shop: Some(new.shop.clone()),
                charge_id: None,
                attempt_id: None,
                payload: events::payload(&payload),
            }),
            Telling::Nobody => {
                let event = FirstEvent {
                    kind,
                    subscription_id: newcomer.subscription_id,
                    shop: &new.shop,
                    payload,
                };
                event.add_to(&mut self.kept, now)?;
            }
        }
        Ok(())
    }

    async fn store(
        self,
        transaction: &mut PgTransaction<'_>,
        channels: Channels,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        for (rows, statement) in [
            (self.cards, include_str!("sql/copy_cards.sql")),
            (
                self.subscriptions,
                include_str!("sql/copy_subscriptions.sql"),
            ),
            (self.due_periods, include_str!("sql/copy_due_periods.sql")),
            (self.kept, events::COPY_FIRST),
        ] {
            rows.store(transaction, statement).await?;
        }
        events::append(transaction, &self.told, channels, now).await
    }
}

/// What is told of a new subscription.
#[derive(Serialize)]
struct Payload<'a> {
    actor: &'a str,
    reason: &'a str,
    amount_minor: i64,
    currency: Currency,
    period: String,
    first_period_no: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_charge_on: Option<NaiveDate>,
}
