//! Storing new subscriptions and their cards: all of a list, or none of it.
//!
//! Nothing is charged here. A subscription begins with the first period that its description owes, and the scheduler does the
//! rest.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use sqlx::PgTransaction;

use crate::domain::enrolment::NewSubscription;
use crate::domain::event::EventKind;
use crate::domain::id::{CardId, ProfileId, SubscriptionId};
use crate::domain::money::Currency;
use crate::domain::shop::ShopName;
use crate::store::events::{self, NewEvent};
use crate::store::status::By;
use crate::store::{Store, StoreError, Wake, new_id, readings, wake};

/// How many subscriptions are stored by one statement.
pub const BATCH: usize = 1_000;

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
struct Entry<'a> {
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
                insert_cards(&mut transaction, batch, known_cards, &mut new_cards, now).await?;
            let entries: Vec<Entry<'_>> = batch
                .iter()
                .zip(cards)
                .map(|(new, card_id)| {
                    let subscription_id = SubscriptionId::from_uuid(new_id(now));
                    Entry {
                        subscription_id,
                        card_id,
                        first_due_at: due_at(subscription_id, new),
                        new,
                    }
                })
                .collect();
            insert(&mut transaction, &entries, now).await?;
            let events: Vec<_> = entries.iter().map(|entry| told(entry, by)).collect();
            match telling {
                Telling::Everybody => {
                    events::append(&mut transaction, &events, self.channels, now).await?;
                }
                Telling::Nobody => events::keep(&mut transaction, &events, now).await?,
            }
            subscription_ids.extend(entries.iter().map(|entry| entry.subscription_id));
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
        &column(batch, |new| new.shop.clone()) as &[ShopName],
        &column(batch, |new| new.external_id.clone()),
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
        &column(batch, |new| new.shop.clone()) as &[ShopName],
        &column(batch, |new| new.card.cid.clone()),
        &column(batch, |new| new.card.payment_profile_id) as &[ProfileId],
    )
    .fetch_all(&mut **transaction)
    .await?)
}

/// Inserts the cards of `batch` that are neither stored nor in `new_cards`, and returns the card of each subscription.
async fn insert_cards<'a>(
    transaction: &mut PgTransaction<'_>,
    batch: &'a [NewSubscription],
    known_cards: &[Option<CardId>],
    new_cards: &mut HashMap<(&'a ShopName, &'a str), CardId>,
    now: DateTime<Utc>,
) -> Result<Vec<CardId>, StoreError> {
    let mut to_insert: Vec<(CardId, &NewSubscription)> = Vec::new();
    let cards = batch
        .iter()
        .zip(known_cards)
        .map(|(new, known)| {
            known.unwrap_or_else(|| {
                *new_cards
                    .entry((&new.shop, &new.card.cid))
                    .or_insert_with(|| {
                        let card_id = CardId::from_uuid(new_id(now));
                        to_insert.push((card_id, new));
                        card_id
                    })
            })
        })
        .collect();
    sqlx::query!(
        "-- insert_cards
        INSERT INTO cards (card_id, shop, cid, payment_profile_id, created_at)
        SELECT n.card_id, n.shop, n.cid, n.payment_profile_id, $5
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[]) AS n (card_id, shop, cid, payment_profile_id)",
        &column(&to_insert, |(card_id, _)| *card_id) as &[CardId],
        &column(&to_insert, |(_, new)| new.shop.clone()) as &[ShopName],
        &column(&to_insert, |(_, new)| new.card.cid.clone()),
        &column(&to_insert, |(_, new)| new.card.payment_profile_id) as &[ProfileId],
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(cards)
}

async fn insert(
    transaction: &mut PgTransaction<'_>,
    entries: &[Entry<'_>],
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let first_periods = entries
        .iter()
        .map(|entry| readings::stored_count(entry.new.first.period_no))
        .collect::<Result<Vec<_>, _>>()?;
    let max_charges = entries
        .iter()
        .map(|entry| {
            entry
                .new
                .terms
                .max_charges
                .map(readings::stored_count)
                .transpose()
        })
        .collect::<Result<Vec<_>, _>>()?;
    sqlx::query_file!(
        "src/store/sql/insert_subscriptions.sql",
        &column(entries, |entry| entry.subscription_id) as &[SubscriptionId],
        &column(entries, |entry| entry.new.shop.clone()) as &[ShopName],
        &column(entries, |entry| entry.new.external_id.clone()),
        &column(entries, |entry| entry.card_id) as &[CardId],
        &column(entries, |entry| entry.new.amount.minor()),
        &column(entries, |entry| entry.new.amount.currency()) as &[Currency],
        &column(entries, |entry| entry.new.terms.period.to_string()),
        &column(entries, |entry| entry.new.terms.anchor),
        &column(entries, |entry| entry.new.zone.name().to_owned()),
        &column(entries, |entry| entry.new.title.clone()) as &[Option<String>],
        &column(entries, |entry| entry.new.terms.starts_on) as &[Option<NaiveDate>],
        &column(entries, |entry| entry.new.terms.ends_on) as &[Option<NaiveDate>],
        &max_charges as &[Option<i32>],
        &column(entries, |entry| entry.new.paid_until) as &[Option<NaiveDate>],
        &first_periods,
        &column(entries, |entry| entry.new.notification_url.clone()) as &[Option<String>],
        &column(entries, |entry| entry.new.invoice.clone()) as &[Option<Value>],
        &column(entries, |entry| entry.new.multipayout.clone()) as &[Option<Value>],
        &column(entries, |entry| entry.new.first.due_on),
        &column(entries, |entry| entry.first_due_at),
        now,
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

fn told(entry: &Entry<'_>, by: By<'_>) -> NewEvent {
    let new = entry.new;
    NewEvent {
        kind: EventKind::SubscriptionCreated,
        subscription_id: Some(entry.subscription_id),
        shop: Some(new.shop.clone()),
        charge_id: None,
        attempt_id: None,
        payload: json!({
            "actor": by.actor,
            "reason": by.reason,
            "amount_minor": new.amount.minor(),
            "currency": new.amount.currency(),
            "period": new.terms.period.to_string(),
            "first_period_no": new.first.period_no,
            "next_charge_on": new.first.due_on,
        }),
    }
}

/// One parameter of an `unnest`.
fn column<R, T>(rows: &[R], read: impl Fn(&R) -> T) -> Vec<T> {
    rows.iter().map(read).collect()
}
