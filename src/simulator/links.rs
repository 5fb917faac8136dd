//! Payment links: an address at which a payer pays, and, where the shop wants it, registers a card.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::{
    SimulatedShop,
    agenda::{Item, NoticeItem, Topic},
    behaviour::{Behaviour, Fate},
    book::{Book, NoticeJob},
    currency::Currency,
    director::Facts,
    ledger::Transaction,
    profile::SimulatedProfile,
    script::Call,
};

/// A payment link.
#[derive(Clone, Debug)]
pub struct Link {
    /// `payment.id`
    pub id: Uuid,
    /// `orderId`
    pub order_id: Arc<str>,
    /// `amount`
    pub amount_minor: u32,
    /// `currency`
    pub currency: Currency,
    /// When it was made, in simulated time.
    pub created_at: DateTime<Utc>,
    /// `validTo`
    pub valid_to: Option<DateTime<Utc>>,
    /// When the shop or time ended it.
    pub ended_at: Option<DateTime<Utc>>,
    /// The request that made it.
    pub request: Arc<Value>,
    pub(super) modified_at: DateTime<Utc>,
    pub(super) shop: Arc<SimulatedShop>,
}

impl Link {
    /// A text of the request.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.request[field].as_str()
    }

    /// A text about the payer.
    pub(super) fn payer(&self, field: &str) -> Option<&str> {
        self.request["customer"][field].as_str()
    }

    /// The card is stored under this name, if it is to be stored at all.
    fn stored_under(&self) -> Option<&str> {
        matches!(
            self.text("preselectMethodCode"),
            Some("recurring" | "oneclick")
        )
        .then(|| self.payer("cid"))
        .flatten()
    }

    /// Where its notices go: its own address, or else that of the shop.
    pub(super) fn notification_url(&self) -> Option<&str> {
        self.text("notificationUrl")
            .or(self.shop.notify_url.as_ref().map(url::Url::as_str))
    }

    /// Whether it can be paid, as far as time goes.
    pub(super) fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.ended_at.is_none() && self.valid_to.is_none_or(|valid_to| now < valid_to)
    }
}

/// A card that a payer types in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayersCard {
    /// The number.
    pub number: String,
    /// 1 to 12.
    pub expiry_month: u32,
    /// Four digits.
    pub expiry_year: i32,
}

/// What a card of imoje's sandbox does (imoje documentation, test cards).
struct SandboxCard {
    number: &'static str,
    /// What becomes of the payment.
    first: &'static str,
    /// What becomes of later debits of its profile.
    later: &'static str,
}

const SETTLED: &str = "CODE_000";
const DECLINED: &str = "CODE_05";
const PROVIDER_ERROR: &str = "CODE_999";

static SANDBOX_CARDS: &[SandboxCard] = &[
    sandbox("4111111111111111", SETTLED, SETTLED),
    sandbox("4485201817664006", SETTLED, DECLINED),
    sandbox("4444333322221111", DECLINED, DECLINED),
    sandbox("4012001037141112", SETTLED, SETTLED),
    sandbox("4749601201390567", SETTLED, DECLINED),
    sandbox("4934403892699132", DECLINED, DECLINED),
    sandbox("4012001007002005", PROVIDER_ERROR, PROVIDER_ERROR),
    sandbox("4282513338596268", SETTLED, PROVIDER_ERROR),
];

const fn sandbox(number: &'static str, first: &'static str, later: &'static str) -> SandboxCard {
    SandboxCard {
        number,
        first,
        later,
    }
}

/// The numbers of imoje's sandbox, for the page to offer.
pub(super) fn sandbox_numbers() -> impl Iterator<Item = &'static str> {
    SANDBOX_CARDS.iter().map(|card| card.number)
}

impl SandboxCard {
    fn fate(code: &str) -> Fate {
        match code {
            SETTLED => Fate::SettleAtOnce,
            code => Fate::RejectAtOnce(code.to_owned()),
        }
    }
}

impl PayersCard {
    fn known(&self) -> Option<&'static SandboxCard> {
        SANDBOX_CARDS.iter().find(|card| card.number == self.number)
    }

    /// Its last four digits, as imoje shows them.
    fn masked(&self) -> String {
        let shown = self.number.len().saturating_sub(4);
        format!("****{}", self.number.get(shown..).unwrap_or_default())
    }
}

/// What became of a payer's try to pay.
#[derive(Debug)]
pub(super) enum Paid {
    /// There is a transaction. `notices` are to be delivered before the payer is told.
    Booked {
        transaction: Box<Transaction>,
        notices: Vec<NoticeJob>,
    },
    /// The link has ended, or was paid.
    Closed,
}

impl Book {
    /// Makes a link.
    pub(super) fn add_link(&mut self, link: Link) {
        let position = self.links.len();
        if let Some(valid_to) = link.valid_to {
            self.agenda.plan(valid_to, Item::Expiry { link: position });
        }
        self.links.push(link);
    }

    /// The link with this id.
    pub(super) fn link(&self, id: Uuid) -> Option<&Link> {
        self.links.iter().find(|link| link.id == id)
    }

    /// The transactions that were made by a link.
    pub(super) fn payments_by(&self, id: Uuid) -> Vec<&Transaction> {
        self.transactions()
            .iter()
            .filter(|transaction| transaction.is_by_link && transaction.payment_id == id)
            .collect()
    }

    /// Whether somebody has paid by a link, or is about to.
    fn is_paid(&self, id: Uuid, now: DateTime<Utc>) -> bool {
        self.payments_by(id)
            .iter()
            .any(|payment| matches!(payment.status_at(now), "settled" | "pending"))
    }

    /// Whether a payer can pay by a link.
    pub(super) fn can_be_paid(&self, link: &Link, now: DateTime<Utc>) -> bool {
        link.is_open(now) && (self.registration().pays_again || !self.is_paid(link.id, now))
    }

    /// Ends a link that is not paid, as its shop wants. Returns whether there is one to end.
    pub(super) fn cancel_link(&mut self, id: Uuid, now: DateTime<Utc>) -> bool {
        let is_paid = self.is_paid(id, now);
        let Some(position) = self.links.iter().position(|link| link.id == id) else {
            return false;
        };
        if is_paid {
            return false;
        }
        if self.links[position].is_open(now) {
            self.end(position, now);
        }
        true
    }

    /// A link is not valid any longer. One that was paid has nothing to tell.
    pub(super) fn expire(&mut self, position: usize, now: DateTime<Utc>) {
        let link = &self.links[position];
        if link.ended_at.is_none() && !self.is_paid(link.id, now) {
            self.end(position, now);
        }
    }

    fn end(&mut self, position: usize, now: DateTime<Utc>) {
        let link = &mut self.links[position];
        (link.ended_at, link.modified_at) = (Some(now), now);
        if link.notification_url().is_some() {
            let item = NoticeItem {
                topic: Topic::End { link: position },
                try_number: 1,
            };
            self.agenda.plan(now, Item::Notice(item));
        }
    }

    /// A payer pays by a link.
    pub(super) fn pay(&mut self, id: Uuid, card: &PayersCard, now: DateTime<Utc>) -> Paid {
        let rules = self.registration();
        let Some(link) = self.link(id).cloned() else {
            return Paid::Closed;
        };
        if !self.can_be_paid(&link, now) {
            return Paid::Closed;
        }
        let repetition = self.payments_by(id).len();
        let behaviour = self.behaviour_of(Facts {
            call: Call::Payer,
            payment_profile_id: None,
            order_id: Some(&link.order_id),
            repetition: u32::try_from(repetition).unwrap_or(u32::MAX),
        });
        let by_card = card
            .known()
            .map_or(Fate::SettleAtOnce, |card| SandboxCard::fate(card.first));
        let fate = behaviour.fate.clone().unwrap_or(by_card);
        let course = self.course(&fate, &behaviour);
        let settles = course.steps().iter().any(|step| &*step.status == "settled");
        let profile = registered(&link, card);
        let profile_id = profile.id;
        if settles && rules.creates_profile && link.stored_under().is_some() {
            self.profiles().register(profile);
        } else {
            self.profiles().register_plain(profile);
        }
        let transaction = Transaction {
            id: Uuid::new_v4(),
            refund_of: None,
            payment_id: link.id,
            payment_profile_id: profile_id,
            profile_type: None,
            is_by_link: true,
            order_id: Arc::clone(&link.order_id),
            title: link.text("title").unwrap_or_default().into(),
            amount_minor: link.amount_minor,
            currency: link.currency,
            created_at: now,
            notification_url: link.text("notificationUrl").map(Into::into),
            shop: Arc::clone(&link.shop),
            course,
        };
        let notices = self.add(transaction.clone(), now);
        Paid::Booked {
            transaction: Box::new(transaction),
            notices,
        }
    }
}

/// The card, as imoje keeps it, whether under a name of the shop's or not.
fn registered(link: &Link, card: &PayersCard) -> SimulatedProfile {
    let later = card.known().map_or(SETTLED, |card| card.later);
    let behaviour = match later {
        SETTLED => Behaviour::default(),
        code => Behaviour::default().with_fate(SandboxCard::fate(code)),
    };
    let payer = |field: &str| link.payer(field).unwrap_or_default().to_owned();
    let id = Uuid::new_v4();
    SimulatedProfile {
        cid: link.stored_under().map(str::to_owned),
        first_name: payer("firstName"),
        last_name: payer("lastName"),
        email: payer("email"),
        masked_number: card.masked(),
        expiry_month: card.expiry_month,
        expiry_year: card.expiry_year,
        behaviour,
        ..SimulatedProfile::new(id)
    }
}
