//! Storing new subscriptions and their cards: all of a list, or none of it.
//!
//! Nothing is charged here. A subscription begins with the first period that its description owes, and the scheduler does the
//! rest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use chrono::{DateTime, Utc};
use sqlx::types::JsonValue;
use sqlx::{PgConnection, PgTransaction};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::domain::card::{CardKey, ChargedCard, FirstTransactionId};
use crate::domain::enrolment::{NewCard, NewSubscription};
use crate::domain::id::{CardId, ProfileId, SubscriptionId};
use crate::domain::shop::ShopName;
use crate::store::enrolment_rows::{Batch, Newcomer, store_all};
use crate::store::status::By;
use crate::store::{Store, StoreError, Wake, new_id, readings, wake};

/// How many subscriptions are compared or stored by one statement.
pub const BATCH: usize = 5_000;

/// How many batches may be ready to be stored while one is being stored.
const BATCHES_AHEAD: usize = 1;

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
    /// The `cid` belongs to another card.
    OtherCard(CardKey),
    /// The card belongs to another `cid`.
    OtherCid(String),
    /// The card, which has no profile, is stored with another payer or other aliases.
    OtherDetails,
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

/// New subscriptions on their way into the books, in one transaction: all of them or none. Dropped before [`commit`](Self::commit),
/// it leaves nothing behind.
///
/// What is stored already is asked on another connection, so that it does not wait for what is being stored.
pub struct Enrolment<'a> {
    store: Store,
    telling: Telling,
    by: By<'a>,
    now: DateTime<Utc>,
    /// Whether there was nothing to compare with when it began. Nobody else may add to that meanwhile.
    is_first: bool,
    batches: mpsc::Sender<Batch>,
    storing: JoinHandle<Result<PgTransaction<'static>, StoreError>>,
    new_cards: HashMap<ShopName, HashMap<CardKey, CardId>>,
    subscription_ids: Vec<SubscriptionId>,
}

impl Store {
    /// What of the list contradicts what is stored, by place.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn conflicts(&self, list: &[NewSubscription]) -> Result<Vec<Conflict>, StoreError> {
        let mut conflicts = Vec::new();
        for (batch_no, batch) in list.chunks(BATCH).enumerate() {
            let (of_batch, _) = self.compare(batch).await?;
            conflicts.extend(of_batch.into_iter().map(|conflict| Conflict {
                place: batch_no * BATCH + conflict.place,
                with: conflict.with,
            }));
        }
        Ok(conflicts)
    }

    /// Stores every subscription of the list in one transaction, each due first at the instant that `due_at` finds. The list must
    /// not contradict itself; see [`Roll`](crate::domain::enrolment::Roll).
    ///
    /// # Errors
    /// [`EnrolError`]; nothing is stored then.
    pub async fn enrol(
        &self,
        list: &[NewSubscription],
        telling: Telling,
        by: By<'_>,
        now: DateTime<Utc>,
        due_at: impl Fn(SubscriptionId, &NewSubscription) -> DateTime<Utc>,
    ) -> Result<Enrolled, EnrolError> {
        let mut enrolment = self.begin_enrolment(telling, by, now).await?;
        for batch in list.chunks(BATCH) {
            enrolment = match enrolment.add(batch, &due_at).await {
                Err(EnrolError::Conflicts(_)) => {
                    return Err(EnrolError::Conflicts(self.conflicts(list).await?));
                }
                added => added?,
            };
        }
        Ok(enrolment.commit().await?)
    }

    /// Begins to store subscriptions that come in batches. One enrolment after the other is let in.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when another one takes long, or when the database does not answer.
    pub async fn begin_enrolment<'a>(
        &self,
        telling: Telling,
        by: By<'a>,
        now: DateTime<Utc>,
    ) -> Result<Enrolment<'a>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!(
            "-- enrol_one_at_a_time
            SELECT pg_advisory_xact_lock($1)",
            ONE_AT_A_TIME
        )
        .execute(&mut *transaction)
        .await?;
        let is_first = sqlx::query_scalar!(
            r#"-- is_first_enrolment
            SELECT NOT EXISTS (SELECT FROM subscriptions) AND NOT EXISTS (SELECT FROM cards) AS "is_first!""#
        )
        .fetch_one(&mut *transaction)
        .await?;
        let (batches, to_store) = mpsc::channel(BATCHES_AHEAD);
        Ok(Enrolment {
            store: self.clone(),
            telling,
            by,
            now,
            is_first,
            batches,
            storing: tokio::spawn(store_all(transaction, to_store, self.channels, now)),
            new_cards: HashMap::new(),
            subscription_ids: Vec::new(),
        })
    }

    /// What of at most [`BATCH`] subscriptions contradicts what is stored, and the card of each whose card is stored already.
    async fn compare(
        &self,
        batch: &[NewSubscription],
    ) -> Result<(Vec<Conflict>, Vec<Option<CardId>>), StoreError> {
        let mut connection = self.pool.acquire().await?;
        let mut conflicts = Vec::new();
        let mut cards = vec![None; batch.len()];
        for place in stored_names(&mut connection, batch).await? {
            conflicts.push(Conflict {
                place: place_in_batch(place),
                with: Stored::Name,
            });
        }
        for card in stored_cards(&mut connection, batch).await? {
            let place = place_in_batch(card.place);
            let Some(new) = &batch[place].card else {
                continue;
            };
            match card.fit(new)? {
                Ok(card_id) => cards[place] = Some(card_id),
                Err(with) => conflicts.push(Conflict { place, with }),
            }
        }
        conflicts.sort_by_key(|conflict| conflict.place);
        Ok((conflicts, cards))
    }
}

impl Enrolment<'_> {
    /// Adds at most [`BATCH`] subscriptions. They are stored while the next are made ready.
    ///
    /// # Errors
    /// [`EnrolError`], with places in `batch`; nothing is stored then.
    pub async fn add(
        mut self,
        batch: &[NewSubscription],
        due_at: impl Fn(SubscriptionId, &NewSubscription) -> DateTime<Utc>,
    ) -> Result<Self, EnrolError> {
        let known_cards = if self.is_first {
            vec![None; batch.len()]
        } else {
            let (conflicts, known_cards) = self.store.compare(batch).await?;
            if !conflicts.is_empty() {
                return Err(EnrolError::Conflicts(conflicts));
            }
            known_cards
        };
        let mut rows = Batch::default();
        for (new, known_card) in batch.iter().zip(known_cards) {
            let card_id = match (known_card, &new.card) {
                (None, Some(card)) => Some(self.new_card(&mut rows, &new.shop, card)?),
                (known_card, _) => known_card,
            };
            let subscription_id = SubscriptionId::from_uuid(new_id(self.now));
            let newcomer = Newcomer {
                subscription_id,
                card_id,
                first_due_at: due_at(subscription_id, new),
                new,
            };
            rows.add(&newcomer, self.now)?;
            rows.tell(&newcomer, self.telling, self.by, self.now)?;
            self.subscription_ids.push(subscription_id);
        }
        if self.batches.send(rows).await.is_err() {
            let failed = stored(self.storing).await;
            return Err(failed
                .expect_err("it stops taking only when it fails")
                .into());
        }
        Ok(self)
    }

    /// Stores all that was added.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is stored then.
    pub async fn commit(self) -> Result<Enrolled, StoreError> {
        drop(self.batches);
        let mut transaction = stored(self.storing).await?;
        wake(&mut transaction, Wake::Scheduler).await?;
        transaction.commit().await?;
        Ok(Enrolled {
            subscription_ids: self.subscription_ids,
            new_cards: self.new_cards.values().map(HashMap::len).sum(),
        })
    }

    /// A card, which is not stored yet but may be on the list already.
    fn new_card(
        &mut self,
        rows: &mut Batch,
        shop: &ShopName,
        card: &NewCard,
    ) -> Result<CardId, StoreError> {
        if !self.new_cards.contains_key(shop) {
            self.new_cards.insert(shop.clone(), HashMap::new());
        }
        let of_shop = self.new_cards.get_mut(shop).expect("inserted if missing");
        Ok(match of_shop.entry(card.charged.key()) {
            Entry::Occupied(listed) => *listed.get(),
            Entry::Vacant(free) => *free.insert(rows.add_card(shop, card, self.now)?),
        })
    }
}

/// The transaction of a task that has stored all it was given, or why it has not.
async fn stored(
    storing: JoinHandle<Result<PgTransaction<'static>, StoreError>>,
) -> Result<PgTransaction<'static>, StoreError> {
    storing
        .await
        .expect("it is never aborted, and does not panic")
}

/// `WITH ORDINALITY` counts from 1.
fn place_in_batch(place: i64) -> usize {
    usize::try_from(place - 1).expect("a place in an array is not negative")
}

async fn stored_names(
    connection: &mut PgConnection,
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
    .fetch_all(connection)
    .await?)
}

struct StoredCard {
    place: i64,
    card_id: CardId,
    cid: String,
    profile_id: Option<ProfileId>,
    first_transaction_id: Option<FirstTransactionId>,
    customer: Option<JsonValue>,
    aliases: Option<JsonValue>,
    is_active: bool,
}

impl StoredCard {
    /// This card, if it is the one that is meant and can be charged.
    fn fit(self, new: &NewCard) -> Result<Result<CardId, Stored>, StoreError> {
        let charged = readings::charged_card(
            self.profile_id,
            self.first_transaction_id,
            self.customer,
            self.aliases,
        )?;
        Ok(if self.cid != new.cid {
            Err(Stored::OtherCid(self.cid))
        } else if charged.key() != new.charged.key() {
            Err(Stored::OtherCard(charged.key()))
        } else if charged != new.charged {
            Err(Stored::OtherDetails)
        } else if !self.is_active {
            Err(Stored::InactiveCard)
        } else {
            Ok(self.card_id)
        })
    }
}

async fn stored_cards(
    connection: &mut PgConnection,
    batch: &[NewSubscription],
) -> Result<Vec<StoredCard>, StoreError> {
    Ok(sqlx::query_file_as!(
        StoredCard,
        "src/store/sql/stored_cards.sql",
        &column(batch, |new| new.shop.as_str()) as &[&str],
        &column(batch, |new| Some(new.card.as_ref()?.cid.as_str())) as &[Option<&str>],
        &column(batch, |new| match &new.card.as_ref()?.charged {
            ChargedCard::Stored(profile_id) => Some(*profile_id),
            ChargedCard::Plain(_) => None,
        }) as &[Option<ProfileId>],
        &column(batch, |new| match &new.card.as_ref()?.charged {
            ChargedCard::Stored(_) => None,
            ChargedCard::Plain(plain) => Some(plain.first_transaction_id.as_str()),
        }) as &[Option<&str>],
    )
    .fetch_all(connection)
    .await?)
}

/// One parameter of an `unnest`.
fn column<'a, R, T>(rows: &'a [R], read: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(read).collect()
}
