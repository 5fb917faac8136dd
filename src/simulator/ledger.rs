//! What the pretend gateway did: the truth that books are compared with. Append-only.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, OnceLock},
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{SimulatedShop, course::Course, currency::Currency, links::Link};

/// A `POST transaction/profile` or `POST transaction` that was received, whatever came of it. Fields that the request lacked are `None`.
#[derive(Clone, Debug)]
pub struct Post {
    /// When, in simulated time.
    pub at: DateTime<Utc>,
    /// `orderId`
    pub order_id: Option<Arc<str>>,
    /// `paymentProfileId`
    pub payment_profile_id: Option<Uuid>,
    /// `amount`
    pub amount_minor: Option<u32>,
    /// `currency`
    pub currency: Option<Currency>,
    /// The transaction it made; `None` if nothing was booked.
    pub transaction_id: Option<Uuid>,
    /// The HTTP status that was sent; `None` if the connection ended or hung without one.
    pub answered: Option<u16>,
}

/// A `POST transaction/{id}/refund` that its caller was allowed to make, whatever came of it.
#[derive(Clone, Debug)]
pub struct RefundPost {
    /// When, in simulated time.
    pub at: DateTime<Utc>,
    /// The transaction whose money goes back, as the address named it.
    pub sale_id: Option<Uuid>,
    /// `amount`
    pub amount_minor: Option<u32>,
    /// The refund it made; `None` if nothing was booked.
    pub refund_id: Option<Uuid>,
    /// The HTTP status that was sent; `None` if the connection ended or hung without one.
    pub answered: Option<u16>,
}

/// `profileType`: what a transaction of a card without a profile is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileType {
    /// It registers the card.
    First,
    /// It debits the card.
    Standard,
}

/// A transaction: a debit, or a refund of one.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// `transaction.id`
    pub id: Uuid,
    /// `originalTransactionId` of a refund: the debit whose money goes back.
    pub refund_of: Option<Uuid>,
    /// `payment.id`
    pub payment_id: Uuid,
    /// `paymentProfile.id`; of a card without a profile the id that the simulator keeps it under.
    pub payment_profile_id: Uuid,
    /// `profileType` of a debit without a profile.
    pub profile_type: Option<ProfileType>,
    /// Whether a payer made it on the page of a link, `payment_id`.
    pub is_by_link: bool,
    /// `orderId`
    pub order_id: Arc<str>,
    /// `title`, empty if the debit had none.
    pub title: Arc<str>,
    /// `amount`
    pub amount_minor: u32,
    /// `currency`
    pub currency: Currency,
    /// When it was booked, in simulated time.
    pub created_at: DateTime<Utc>,
    pub(super) notification_url: Option<Arc<str>>,
    pub(super) shop: Arc<SimulatedShop>,
    pub(super) course: Arc<Course>,
}

/// A transaction had this status from `at` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusChange {
    /// In simulated time.
    pub at: DateTime<Utc>,
    /// imoje's word.
    pub status: Arc<str>,
    /// imoje's `statusCode`.
    pub status_code: Option<Arc<str>>,
}

impl Transaction {
    /// `serviceId`
    pub fn service_id(&self) -> Uuid {
        self.shop.service_id
    }

    /// The status at a moment.
    pub fn status_at(&self, at: DateTime<Utc>) -> &str {
        &self.course.step(self.step_at(at)).status
    }

    /// All changes of status up to a moment.
    pub fn history_until(&self, at: DateTime<Utc>) -> Vec<StatusChange> {
        let begun = self
            .course
            .steps()
            .iter()
            .take(self.step_at(at) + 1)
            .enumerate();
        begun
            .map(|(index, step)| StatusChange {
                at: self.course.begins(index, self.created_at),
                status: Arc::clone(&step.status),
                status_code: step.code.clone(),
            })
            .collect()
    }

    pub(super) fn step_at(&self, at: DateTime<Utc>) -> usize {
        self.course.index_at(self.created_at, at)
    }

    /// Where its notices go: the address of the debit, or else of the shop.
    pub(super) fn notification_url(&self) -> Option<&str> {
        self.notification_url
            .as_deref()
            .or(self.shop.notify_url.as_ref().map(url::Url::as_str))
    }
}

/// A notice that was sent once; a repetition has a record of its own.
#[derive(Clone, Debug)]
pub struct Notice {
    /// When, in simulated time.
    pub at: DateTime<Utc>,
    /// The transaction it tells of; `None` if it was forged.
    pub transaction_id: Option<Uuid>,
    /// `orderId`
    pub order_id: Arc<str>,
    /// The status it tells.
    pub status: Arc<str>,
    /// The 1st to 23rd try.
    pub try_number: u8,
    /// The receiver's HTTP status; `None` if it gave none.
    pub answer: Option<u16>,
}

/// Counts that are cheap to ask for while calls go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls of any kind.
    pub calls: u64,
    /// `POST transaction/profile` and `POST transaction`
    pub posts: u64,
    /// Debits that made a transaction.
    pub booked: u64,
    /// Debits that became settled.
    pub settled: u64,
    /// Debits that became rejected.
    pub rejected: u64,
    /// Refunds that made a transaction.
    pub refunds: u64,
    /// Refunds that were asked for less than 5 seconds after another of the same shop.
    pub hasty_refunds: u64,
    /// Notices sent, repetitions included.
    pub notices_sent: u64,
    /// Notices that the receiver answered with 200.
    pub notices_accepted: u64,
}

/// Everything that happened, in order.
pub(super) struct Records {
    pub(super) posts: Vec<Post>,
    pub(super) refund_posts: Vec<RefundPost>,
    /// Debits and refunds.
    pub(super) transactions: Vec<Transaction>,
    pub(super) links: Vec<Link>,
    pub(super) notices: Vec<Notice>,
    pub(super) totals: Totals,
}

/// A snapshot of everything that happened.
#[derive(Debug)]
pub struct Ledger {
    as_of: DateTime<Utc>,
    posts: Vec<Post>,
    transactions: Vec<Transaction>,
    refund_posts: Vec<RefundPost>,
    refunds: Vec<Transaction>,
    links: Vec<Link>,
    notices: Vec<Notice>,
    totals: Totals,
    posts_by_order: OnceLock<HashMap<Arc<str>, Vec<usize>>>,
    transactions_by_order: OnceLock<HashMap<Arc<str>, Vec<usize>>>,
}

impl Ledger {
    pub(super) fn new(as_of: DateTime<Utc>, records: Records) -> Self {
        let (refunds, transactions) = records
            .transactions
            .into_iter()
            .partition(|transaction| transaction.refund_of.is_some());
        Self {
            as_of,
            posts: records.posts,
            transactions,
            refund_posts: records.refund_posts,
            refunds,
            links: records.links,
            notices: records.notices,
            totals: records.totals,
            posts_by_order: OnceLock::new(),
            transactions_by_order: OnceLock::new(),
        }
    }

    /// The simulated time of this snapshot; statuses are those of this moment.
    pub fn as_of(&self) -> DateTime<Utc> {
        self.as_of
    }

    /// Every debit request received, in order.
    pub fn posts(&self) -> &[Post] {
        &self.posts
    }

    /// Every debit, in order.
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// Every request for a refund, in order.
    pub fn refund_posts(&self) -> &[RefundPost] {
        &self.refund_posts
    }

    /// Every refund, in order.
    pub fn refunds(&self) -> &[Transaction] {
        &self.refunds
    }

    /// Every payment link, in order.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// How much of a debit went back, in minor units.
    pub fn refunded(&self, sale_id: Uuid) -> u64 {
        self.refunds
            .iter()
            .filter(|refund| refund.refund_of == Some(sale_id))
            .filter(|refund| self.status_of(refund) == "settled")
            .map(|refund| u64::from(refund.amount_minor))
            .sum()
    }

    /// Every notice sent, in order.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// The counts at this moment.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The status of a transaction in this snapshot.
    pub fn status_of<'a>(&self, transaction: &'a Transaction) -> &'a str {
        transaction.status_at(self.as_of)
    }

    /// The debit with this id.
    pub fn transaction(&self, id: Uuid) -> Option<&Transaction> {
        self.transactions
            .iter()
            .find(|transaction| transaction.id == id)
    }

    /// Debits that moved money.
    pub fn settled(&self) -> impl Iterator<Item = &Transaction> {
        self.transactions
            .iter()
            .filter(|transaction| self.status_of(transaction) == "settled")
    }

    /// The sum of settled debits, in minor units, for each currency that has one.
    pub fn settled_by_currency(&self) -> BTreeMap<Currency, u64> {
        let mut sums = BTreeMap::new();
        for transaction in self.settled() {
            *sums.entry(transaction.currency).or_insert(0) += u64::from(transaction.amount_minor);
        }
        sums
    }

    /// Debits of an order.
    pub fn transactions_of(&self, order_id: &str) -> Vec<&Transaction> {
        let index = self.transactions_by_order.get_or_init(|| {
            index_by_order(
                self.transactions
                    .iter()
                    .map(|transaction| Some(&transaction.order_id)),
            )
        });
        let found = index.get(order_id).map(Vec::as_slice).unwrap_or_default();
        found
            .iter()
            .map(|position| &self.transactions[*position])
            .collect()
    }

    /// Debit requests of an order.
    pub fn posts_of(&self, order_id: &str) -> Vec<&Post> {
        let found = self
            .posts_index()
            .get(order_id)
            .map(Vec::as_slice)
            .unwrap_or_default();
        found
            .iter()
            .map(|position| &self.posts[*position])
            .collect()
    }

    /// Notices about an order.
    pub fn notices_of(&self, order_id: &str) -> Vec<&Notice> {
        self.notices
            .iter()
            .filter(|notice| *notice.order_id == *order_id)
            .collect()
    }

    /// Order ids that were received more than once, whatever came of them, in alphabetical order.
    pub fn order_ids_posted_twice(&self) -> Vec<&str> {
        let repeated = self
            .posts_index()
            .iter()
            .filter(|(_, positions)| positions.len() > 1);
        let mut ids: Vec<&str> = repeated.map(|(order_id, _)| &**order_id).collect();
        ids.sort_unstable();
        ids
    }

    fn posts_index(&self) -> &HashMap<Arc<str>, Vec<usize>> {
        self.posts_by_order
            .get_or_init(|| index_by_order(self.posts.iter().map(|post| post.order_id.as_ref())))
    }
}

fn index_by_order<'a>(
    order_ids: impl Iterator<Item = Option<&'a Arc<str>>>,
) -> HashMap<Arc<str>, Vec<usize>> {
    let mut index: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
    for (position, order_id) in order_ids.enumerate() {
        if let Some(order_id) = order_id {
            index
                .entry(Arc::clone(order_id))
                .or_default()
                .push(position);
        }
    }
    index
}

/// What an operator wants to read when the simulator ends.
impl fmt::Display for Ledger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let totals = self.totals;
        writeln!(
            formatter,
            "{:>9} calls, {} of them debits",
            totals.calls, totals.posts
        )?;
        let mut statuses: BTreeMap<&str, u64> = BTreeMap::new();
        for transaction in &self.transactions {
            *statuses.entry(self.status_of(transaction)).or_insert(0) += 1;
        }
        writeln!(formatter, "{:>9} transactions", self.transactions.len())?;
        for (status, count) in statuses {
            writeln!(formatter, "{count:>9}   {status}")?;
        }
        for (currency, minor) in self.settled_by_currency() {
            writeln!(
                formatter,
                "{:>9}.{:02} {currency} settled",
                minor / 100,
                minor % 100
            )?;
        }
        if !self.refunds.is_empty() {
            writeln!(formatter, "{:>9} refunds", self.refunds.len())?;
        }
        writeln!(
            formatter,
            "{:>9} notices sent, {} accepted",
            totals.notices_sent, totals.notices_accepted
        )?;
        let twice = self.order_ids_posted_twice();
        if twice.is_empty() {
            return write!(formatter, "          no order id was debited twice");
        }
        write!(
            formatter,
            "{:>9} order ids were debited more than once: {}",
            twice.len(),
            twice.join(", ")
        )
    }
}
