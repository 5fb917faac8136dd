//! Storing new subscriptions and their cards: all of a list, or none of it.
//!
//! Nothing is charged here. A subscription begins with the first period that its description owes, and the scheduler does the
//! rest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::PgTransaction;

use crate::domain::enrolment::NewSubscription;
use crate::domain::event::EventKind;
use crate::domain::id::{CardId, ProfileId, SubscriptionId};
use crate::domain::money::Currency;
use crate::domain::shop::ShopName;
use crate::domain::subscription::SubscriptionStatus;
use crate::store::copying::Rows;
use crate::store::events::{self, FirstEvent, NewEvent};
use crate::store::status::By;
use crate::store::{Store, StoreError, Wake, new_id, readings, wake};

/// How many subscriptions are compared or stored by one statement.
pub const BATCH: usize = 5_000;

/// The key of the advisory lock that lets one list after the other be compared and stored.
const ONE_AT_A_TIME: i64 = 0x6379_6b6c_0001;

/// Who hears of each new subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// The shop and the log.
    Everybody,
    /// Nobody. The event is kept.
    Nobody,
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The subscriptions, in the order of the list.
    pub subscription_ids: Vec<SubscriptionId>,
    /// How many of their cards are new.
    pub new_cards: usize,
}

/// Why one subscription of a list cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Its place in the list, from 0.
    pub place: usize,
    /// With what it conflicts.
    pub with: Stored,
}

/// What stands in the way in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// Its shop has a subscription of that name.
    Name,
    /// The `cid` belongs to another profile, or to a card without one.
    OtherProfile(Option<ProfileId>),
    /// The profile belongs to another `cid`.
    OtherCid(String),
    /// imoje called the card's profile inactive.
    InactiveCard,
}

/// Why nothing of a list was stored.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Some of it contradicts what is stored.
    #[error("{} of the subscriptions contradict what is stored", .0.len())]
    Conflicts(Vec<Conflict>),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for EnrolError {
    fn from(error: sqlx::Error) -> Self {
        EnrolError::Store(error.into())
    }
}

/// A new subscription with what the store adds to it.
struct Newcomer<'a> {
    subscription_id: SubscriptionId,
    card_id: CardId,
    first_due_at: DateTime<Utc>,
    new: &'a NewSubscription,
}

impl Store {
    /// What of the list contradicts what is stored, by place.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn conflicts(&self, list: &[NewSubscription]) -> Result<Vec<Conflict>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let (conflicts, _) = compare(&mut transaction, list).await?;
        Ok(conflicts)
    }

    /// Stores every subscription of the list in one transaction, each due first at the instant that `due_at` finds. The list must
    /// not contradict itself; see [`Roll`](crate::domain::enrolment::Roll). `progress` hears how many are written.
    ///
    /// # Errors
    /// [`EnrolError`]; nothing is stored then.
    pub async fn enrol(
        &self,
        list: &[NewSubscription],
        telling: Telling,
        by: By<'_>,
        now: DateTime<Utc>,
        due_at: impl Fn(SubscriptionId, &NewSubscription) -> DateTime<Utc> + Send,
        progress: impl Fn(usize) + Send,
    ) -> Result<Enrolled, EnrolError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "-- enrol_one_at_a_time
            SELECT pg_advisory_xact_lock($1)",
            ONE_AT_A_TIME
        )
        .execute(&mut *transaction)
        .await?;
        let (conflicts, known_cards) = compare(&mut transaction, list).await?;
        if !conflicts.is_empty() {
            return Err(EnrolError::Conflicts(conflicts));
        }
        let mut new_cards = HashMap::new();
        let mut subscription_ids = Vec::with_capacity(list.len());
        for (batch, known_cards) in list.chunks(BATCH).zip(known_cards.chunks(BATCH)) {
            let cards =
                store_cards(&mut transaction, batch, known_cards, &mut new_cards, now).await?;
            let newcomers: Vec<Newcomer<'_>> = batch
                .iter()
                .zip(cards)
                .map(|(new, card_id)| {
                    let subscription_id = SubscriptionId::from_uuid(new_id(now));
                    Newcomer {
                        subscription_id,
                        card_id,
                        first_due_at: due_at(subscription_id, new),
                        new,
                    }
                })
                .collect();
            store_subscriptions(&mut transaction, &newcomers, now).await?;
            match telling {
                Telling::Everybody => {
                    let told: Vec<_> = newcomers.iter().map(|one| one.told(by)).collect();
                    events::append(&mut transaction, &told, self.channels, now).await?;
                }
                Telling::Nobody => {
                    let kept: Vec<_> = newcomers.iter().map(|one| one.kept(by)).collect();
                    events::keep_first(&mut transaction, &kept, now).await?;
                }
            }
            subscription_ids.extend(newcomers.iter().map(|one| one.subscription_id));
            progress(subscription_ids.len());
        }
        wake(&mut transaction, Wake::Scheduler).await?;
        transaction.commit().await?;
        Ok(Enrolled {
            subscription_ids,
            new_cards: new_cards.len(),
        })
    }
}

/// What contradicts what is stored, and the card of each subscription whose card is stored already.
async fn compare(
    transaction: &mut PgTransaction<'_>,
    list: &[NewSubscription],
) -> Result<(Vec<Conflict>, Vec<Option<CardId>>), StoreError> {
    let mut conflicts = Vec::new();
    let mut cards = vec![None; list.len()];
    for (batch_no, batch) in list.chunks(BATCH).enumerate() {
        let place_in_list = |place: i64| {
            // `WITH ORDINALITY` counts from 1.
            let place = usize::try_from(place - 1).expect("a place in an array is not negative");
            batch_no * BATCH + place
        };
        for place in stored_names(transaction, batch).await? {
            conflicts.push(Conflict {
                place: place_in_list(place),
                with: Stored::Name,
            });
        }
        for card in stored_cards(transaction, batch).await? {
            let place = place_in_list(card.place);
            match card.fit(&list[place]) {
                Ok(card_id) => cards[place] = Some(card_id),
                Err(with) => conflicts.push(Conflict { place, with }),
            }
        }
    }
    conflicts.sort_by_key(|conflict| conflict.place);
    Ok((conflicts, cards))
}

async fn stored_names(
    transaction: &mut PgTransaction<'_>,
    batch: &[NewSubscription],
) -> Result<Vec<i64>, StoreError> {
    Ok(sqlx::query_scalar!(
        r#"-- stored_names
        SELECT n.place AS "place!"
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (shop, external_id, place)
            JOIN subscriptions s ON s.shop = n.shop AND s.external_id = n.external_id"#,
        &column(batch, |new| new.shop.as_str()) as &[&str],
        &column(batch, |new| new.external_id.as_str()) as &[&str],
    )
    .fetch_all(&mut **transaction)
    .await?)
}

struct StoredCard {
    place: i64,
    card_id: CardId,
    cid: String,
    profile_id: Option<ProfileId>,
    is_active: bool,
}

impl StoredCard {
    /// This card, if it is the one that `new` means and can be charged.
    fn fit(self, new: &NewSubscription) -> Result<CardId, Stored> {
        if self.cid != new.card.cid {
            Err(Stored::OtherCid(self.cid))
        } else if self.profile_id != Some(new.card.payment_profile_id) {
            Err(Stored::OtherProfile(self.profile_id))
        } else if !self.is_active {
            Err(Stored::InactiveCard)
        } else {
            Ok(self.card_id)
        }
    }
}

async fn stored_cards(
    transaction: &mut PgTransaction<'_>,
    batch: &[NewSubscription],
) -> Result<Vec<StoredCard>, StoreError> {
    Ok(sqlx::query_file_as!(
        StoredCard,
        "src/store/sql/stored_cards.sql",
        &column(batch, |new| new.shop.as_str()) as &[&str],
        &column(batch, |new| new.card.cid.as_str()) as &[&str],
        &column(batch, |new| new.card.payment_profile_id) as &[ProfileId],
    )
    .fetch_all(&mut **transaction)
    .await?)
}

/// Stores the cards of `batch` that are neither stored nor in `new_cards`, and returns the card of each subscription.
async fn store_cards<'a>(
    transaction: &mut PgTransaction<'_>,
    batch: &'a [NewSubscription],
    known_cards: &[Option<CardId>],
    new_cards: &mut HashMap<(&'a ShopName, &'a str), CardId>,
    now: DateTime<Utc>,
) -> Result<Vec<CardId>, StoreError> {
    let mut rows = Rows::default();
    let mut cards = Vec::with_capacity(batch.len());
    for (new, known) in batch.iter().zip(known_cards) {
        let card_id = match known {
            Some(known) => *known,
            None => match new_cards.entry((&new.shop, &new.card.cid)) {
                Entry::Occupied(listed) => *listed.get(),
                Entry::Vacant(free) => {
                    let card_id = CardId::from_uuid(new_id(now));
                    let profile_id = new.card.payment_profile_id;
                    rows.push(&[&card_id, &new.shop, &new.card.cid, &profile_id, &now])?;
                    *free.insert(card_id)
                }
            },
        };
        cards.push(card_id);
    }
    let statement = include_str!("sql/copy_cards.sql");
    rows.store(transaction, statement).await?;
    Ok(cards)
}

async fn store_subscriptions(
    transaction: &mut PgTransaction<'_>,
    newcomers: &[Newcomer<'_>],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut subscriptions = Rows::default();
    let mut due_periods = Rows::default();
    for newcomer in newcomers {
        let (new, terms) = (newcomer.new, &newcomer.new.terms);
        let first_period_no = readings::stored_count(new.first.period_no)?;
        let max_charges = terms.max_charges.map(readings::stored_count).transpose()?;
        subscriptions.push(&[
            &newcomer.subscription_id,
            &new.shop,
            &new.external_id,
            &SubscriptionStatus::Active,
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
            &newcomer.first_due_at,
            &new.notification_url,
            &new.invoice,
            &new.multipayout,
            &now,
            &now,
        ])?;
        due_periods.push(&[
            &newcomer.first_due_at,
            &newcomer.subscription_id,
            &first_period_no,
            &new.first.due_on,
        ])?;
    }
    let statement = include_str!("sql/copy_subscriptions.sql");
    subscriptions.store(transaction, statement).await?;
    let statement = include_str!("sql/copy_due_periods.sql");
    due_periods.store(transaction, statement).await
}

/// What is told of a new subscription.
#[derive(Serialize)]
struct Told<'a> {
    actor: &'a str,
    reason: &'a str,
    amount_minor: i64,
    currency: Currency,
    period: String,
    first_period_no: u32,
    next_charge_on: NaiveDate,
}

impl<'a> Newcomer<'a> {
    /// Its event, to be delivered.
    fn told(&self, by: By<'_>) -> NewEvent {
        NewEvent {
            kind: EventKind::SubscriptionCreated,
            subscription_id: Some(self.subscription_id),
            shop: Some(self.new.shop.clone()),
            charge_id: None,
            attempt_id: None,
            payload: json!(self.payload(by)),
        }
    }

    /// Its event, to be kept.
    fn kept<'b>(&self, by: By<'b>) -> FirstEvent<'a, Told<'b>> {
        FirstEvent {
            kind: EventKind::SubscriptionCreated,
            subscription_id: self.subscription_id,
            shop: &self.new.shop,
            payload: self.payload(by),
        }
    }

    fn payload<'b>(&self, by: By<'b>) -> Told<'b> {
        Told {
            actor: by.actor,
            reason: by.reason,
            amount_minor: self.new.amount.minor(),
            currency: self.new.amount.currency(),
            period: self.new.terms.period.to_string(),
            first_period_no: self.new.first.period_no,
            next_charge_on: self.new.first.due_on,
        }
    }
}

/// One parameter of an `unnest`.
fn column<'a, R, T>(rows: &'a [R], read: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(read).collect()
}
