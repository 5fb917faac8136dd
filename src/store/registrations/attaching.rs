//! Attaching a card that was registered: the subscription goes on with it.

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgTransaction;

use super::paying::{of_lock, what_for};
use super::{Subject, end, lock, look_again};
use crate::domain::card::{CardKey, FirstTransactionId};
use crate::domain::event::EventKind;
use crate::domain::id::{CardId, ProfileId, RegistrationId, SubscriptionId};
use crate::domain::registration::{
    NoCard, Purpose, RegisteredCard, RegistrationEvent, RegistrationState,
};
use crate::domain::subscription::{SubscriptionEvent, SubscriptionStatus};
use crate::store::events;
use crate::store::planning::NextPeriod;
use crate::store::status::{self, By, Stopped};
use crate::store::{Store, StoreError, despite_others, new_id};

/// How a subscription goes on with a new card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attaching {
    /// It had none: it begins with the period after the one that was paid.
    AfterFirstCharge,
    /// It had none: it begins with the first period that falls due from this day on.
    FromToday,
    /// Its card could not be charged any more: it goes on with the first period that falls due from now on.
    AfterStop,
}

/// What became of a registration whose card was to be attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attached {
    /// The card is the subscription's.
    Done,
    /// It cannot be.
    Refused(NoCard),
    /// It was decided before.
    Decided(RegistrationState),
}

impl Store {
    /// Attaches the card of a registration that was paid, and lets the subscription go on with the period that `next` finds.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn attach_card(
        &self,
        registration_id: RegistrationId,
        card: &RegisteredCard,
        now: DateTime<Utc>,
        next: impl Fn(&Stopped, Attaching) -> Option<NextPeriod> + Send + Sync,
    ) -> Result<Attached, StoreError> {
        despite_others(StoreError::is_busy, || {
            self.attach_once(registration_id, card, now, &next)
        })
        .await
    }

    async fn attach_once(
        &self,
        registration_id: RegistrationId,
        card: &RegisteredCard,
        now: DateTime<Utc>,
        next: &(impl Fn(&Stopped, Attaching) -> Option<NextPeriod> + Send + Sync),
    ) -> Result<Attached, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let (id, _) = what_for(&mut transaction, registration_id).await?;
        let (was, stopped) = status::lock(&mut transaction, id).await.map_err(of_lock)?;
        let subject = lock(&mut transaction, registration_id).await?;
        let Ok(state) = subject.state.after(RegistrationEvent::Attached) else {
            return Ok(Attached::Decided(subject.state));
        };
        let event = SubscriptionEvent::CardAttached;
        let Ok(is) = was.after(event) else {
            return Ok(Attached::Refused(NoCard::Over));
        };
        let Some(card_id) = insert_card(&mut transaction, &subject, card, now).await? else {
            return Ok(Attached::Refused(NoCard::Known));
        };
        set_card(&mut transaction, id, card_id).await?;
        let (profile_id, first_transaction_id) = by_what(card);
        let more = json!({
            "payment_profile_id": profile_id,
            "first_transaction_id": first_transaction_id,
            "masked_number": card.masked_number,
        });
        let mut told = vec![subject.event(EventKind::CardAttached, state, more)];
        if is != was {
            let how = match (was, subject.purpose) {
                (SubscriptionStatus::Registering, Purpose::FirstCharge) => {
                    Attaching::AfterFirstCharge
                }
                (SubscriptionStatus::Registering, Purpose::Verification) => Attaching::FromToday,
                (_, Purpose::FirstCharge | Purpose::Verification) => Attaching::AfterStop,
            };
            let next = next(&stopped, how);
            status::set_status(&mut transaction, id, is, None, now).await?;
            status::restart(&mut transaction, id, next, now).await?;
            let by = By::itself("card_attached");
            let mut goes_on = status::told(&stopped, event, is, by, 0, next);
            if was == SubscriptionStatus::Registering {
                goes_on.kind = EventKind::SubscriptionActivated;
            }
            told.push(goes_on);
        }
        mark_attached(&mut transaction, &subject, state, card_id, now).await?;
        look_again(&mut transaction, id, now).await?;
        events::append(&mut transaction, &told, self.channels, now).await?;
        transaction.commit().await?;
        Ok(Attached::Done)
    }

    /// Tells people that a registration that was paid has no card.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed then.
    pub async fn give_up_card(
        &self,
        registration_id: RegistrationId,
        why: NoCard,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        despite_others(StoreError::is_busy, || {
            self.give_up_once(registration_id, why, now)
        })
        .await
    }

    async fn give_up_once(
        &self,
        registration_id: RegistrationId,
        why: NoCard,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let subject = lock(&mut transaction, registration_id).await?;
        let Ok(state) = subject.state.after(RegistrationEvent::NoCard) else {
            return Ok(());
        };
        end(&mut transaction, &subject, state, Some(why.as_str()), now).await?;
        let more = json!({ "reason": why.as_str(), "transaction_id": subject.transaction_id });
        let told = subject.event(EventKind::RegistrationCardless, state, more);
        events::append(&mut transaction, &[told], self.channels, now).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// What names a card: its profile, or the transaction that registered it.
fn by_what(card: &RegisteredCard) -> (Option<ProfileId>, Option<&FirstTransactionId>) {
    match &card.key {
        CardKey::Profile(id) => (Some(*id), None),
        CardKey::FirstTransaction(id) => (None, Some(id)),
    }
}

/// Inserts the card, unless what names it or its `cid` belongs to one already.
async fn insert_card(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    card: &RegisteredCard,
    now: DateTime<Utc>,
) -> Result<Option<CardId>, StoreError> {
    let (profile_id, first_transaction_id) = by_what(card);
    Ok(sqlx::query_scalar!(
        r#"-- insert_registered_card
        INSERT INTO cards (card_id, shop, cid, payment_profile_id, first_transaction_id, customer, aliases, masked_number, created_at)
        SELECT $1, shop, cid, $3, $4, customer, aliases, $5, $6 FROM registrations WHERE registration_id = $2
        ON CONFLICT DO NOTHING RETURNING card_id AS "card_id: CardId""#,
        CardId::from_uuid(new_id(now)) as CardId,
        subject.registration_id as RegistrationId,
        profile_id as Option<ProfileId>,
        first_transaction_id as Option<&FirstTransactionId>,
        card.masked_number,
        now,
    )
    .fetch_optional(&mut **transaction)
    .await?)
}

async fn set_card(
    transaction: &mut PgTransaction<'_>,
    subscription_id: SubscriptionId,
    card_id: CardId,
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- set_card
        UPDATE subscriptions SET card_id = $2 WHERE subscription_id = $1",
        subscription_id as SubscriptionId,
        card_id as CardId,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn mark_attached(
    transaction: &mut PgTransaction<'_>,
    subject: &Subject,
    state: RegistrationState,
    card_id: CardId,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    sqlx::query!(
        "-- mark_attached
        UPDATE registrations SET state = $2, reason = NULL, card_id = $3, ended_at = $4 WHERE registration_id = $1",
        subject.registration_id as RegistrationId,
        state as RegistrationState,
        card_id as CardId,
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
