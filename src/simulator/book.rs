//! Everything that changes: transactions, profiles, rules, and what is still to happen. One lock guards it, and no
//! method waits for anything.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    SimulatedShop,
    agenda::{Agenda, Item, NoticeItem, Topic},
    behaviour::{Behaviour, Fate, Notices},
    challenge::Challenge,
    course::{Course, delta, later},
    currency::Currency,
    director::{Director, Facts},
    ledger::{Ledger, Notice, Post, ProfileType, Records, RefundPost, Totals, Transaction},
    links::Link,
    notices,
    profile::{ProfileNow, Profiles, SimulatedProfile},
    script::{Call, CardData, Channel, Registration, RepeatedOrders, Script},
};

/// What names the card of a debit.
#[derive(Clone, Debug)]
pub(super) enum NamedCard {
    /// `paymentProfileId`
    Profile(Uuid),
    /// `firstTransactionId`
    FirstTransaction(Arc<str>),
    /// It is registered with this transaction, without a profile.
    New(Box<SimulatedProfile>),
}

impl NamedCard {
    fn profile_id(&self) -> Option<Uuid> {
        match self {
            NamedCard::Profile(id) => Some(*id),
            NamedCard::New(profile) => Some(profile.id),
            NamedCard::FirstTransaction(_) => None,
        }
    }

    fn profile_type(&self) -> Option<ProfileType> {
        match self {
            NamedCard::Profile(_) => None,
            NamedCard::FirstTransaction(_) => Some(ProfileType::Standard),
            NamedCard::New(_) => Some(ProfileType::First),
        }
    }
}

/// A valid debit request.
#[derive(Clone, Debug)]
pub(super) struct DebitRequest {
    pub(super) order_id: Arc<str>,
    pub(super) card: NamedCard,
    pub(super) amount_minor: u32,
    pub(super) currency: Currency,
    pub(super) title: Arc<str>,
    pub(super) notification_url: Option<Arc<str>>,
    /// Where the payer is to confirm it, if he is.
    pub(super) challenge: Option<Challenge>,
}

/// What became of a debit request, and how its caller is to be answered.
#[derive(Debug)]
pub(super) struct Debit {
    pub(super) behaviour: Behaviour,
    pub(super) outcome: DebitOutcome,
}

#[derive(Debug)]
pub(super) enum DebitOutcome {
    /// The script keeps it from having any effect.
    Dropped,
    /// There is no such profile.
    UnknownProfile,
    /// The profile is inactive.
    InactiveProfile,
    /// The order id has a transaction already.
    RepeatedOrder,
    /// There is a transaction. `notices` are to be delivered before the answer.
    Booked {
        transaction: Box<Transaction>,
        profile: ProfileNow,
        notices: Vec<NoticeJob>,
    },
}

/// A notice that is due.
#[derive(Clone, Debug)]
pub(super) struct NoticeJob {
    pub(super) item: NoticeItem,
    pub(super) told: Told,
}

/// What it tells.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// A transaction as it is at a step of its course.
    Step {
        transaction: Box<Transaction>,
        profile: ProfileNow,
        step: usize,
    },
    /// A transaction that never was.
    Forgery(Box<Transaction>, ProfileNow),
    /// A link that ended.
    End(Box<Link>),
}

pub(super) struct Book {
    default: Behaviour,
    channel: Channel,
    card_data: CardData,
    registration: Registration,
    repeated_orders: RepeatedOrders,
    /// The orders of each shop that were booked, where they may not be booked again.
    booked_orders: HashSet<(Uuid, Arc<str>)>,
    director: Director,
    profiles: Profiles,
    posts: Vec<Post>,
    posts_by_order: HashMap<Arc<str>, u32>,
    pub(super) refund_posts: Vec<RefundPost>,
    pub(super) transactions: Vec<Transaction>,
    pub(super) links: Vec<Link>,
    /// The positions of the refunds of each debit.
    refunds: HashMap<Uuid, Vec<usize>>,
    /// When each shop was last given a refund.
    pub(super) last_refunds: HashMap<Uuid, DateTime<Utc>>,
    pub(super) positions: HashMap<Uuid, usize>,
    /// The transactions that wait for their payers.
    pub(super) challenges: HashMap<Uuid, Challenge>,
    courses: HashMap<(Fate, Notices, Duration), Arc<Course>>,
    notices: Vec<Notice>,
    pub(super) agenda: Agenda,
    pub(super) totals: Totals,
}

impl Book {
    pub(super) fn new(seed: u64, script: Script) -> Self {
        Self {
            default: script.behaviour,
            channel: script.channel,
            card_data: script.card_data,
            registration: script.registration,
            repeated_orders: script.repeated_orders,
            booked_orders: HashSet::new(),
            director: Director::new(seed, script.rules),
            profiles: Profiles::new(script.accept_unknown_profiles, script.profiles),
            posts: Vec::new(),
            posts_by_order: HashMap::new(),
            refund_posts: Vec::new(),
            transactions: Vec::new(),
            links: Vec::new(),
            refunds: HashMap::new(),
            last_refunds: HashMap::new(),
            positions: HashMap::new(),
            challenges: HashMap::new(),
            courses: HashMap::new(),
            notices: Vec::new(),
            agenda: Agenda::default(),
            totals: Totals::default(),
        }
    }

    pub(super) fn director(&mut self) -> &mut Director {
        &mut self.director
    }

    pub(super) fn profiles(&mut self) -> &mut Profiles {
        &mut self.profiles
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    pub(super) fn registration(&self) -> Registration {
        self.registration
    }

    pub(super) fn card_data(&self) -> CardData {
        self.card_data
    }

    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    pub(super) fn ledger(&self, as_of: DateTime<Utc>) -> Ledger {
        let records = Records {
            posts: self.posts.clone(),
            refund_posts: self.refund_posts.clone(),
            transactions: self.transactions.clone(),
            links: self.links.clone(),
            notices: self.notices.clone(),
            totals: self.totals,
        };
        Ledger::new(as_of, records)
    }

    /// Every debit and refund, in order.
    pub(super) fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    pub(super) fn count_call(&mut self) {
        self.totals.calls += 1;
    }

    /// Notes a debit request.
    pub(super) fn record_post(&mut self, post: Post) {
        self.totals.posts += 1;
        if let Some(order_id) = &post.order_id {
            *self.posts_by_order.entry(Arc::clone(order_id)).or_insert(0) += 1;
        }
        self.posts.push(post);
    }

    /// What the script says about a call that is not a debit, and is about an order at most.
    pub(super) fn behaviour_of_order(&mut self, call: Call, order_id: Option<&str>) -> Behaviour {
        self.behaviour_of(Facts {
            call,
            payment_profile_id: None,
            order_id,
            repetition: 0,
        })
    }

    /// What the script says about a call that is not a debit.
    pub(super) fn behaviour_of(&mut self, facts: Facts<'_>) -> Behaviour {
        self.director
            .choose(facts)
            .map(|chosen| Behaviour::clone(&chosen))
            .unwrap_or_default()
    }

    /// The transaction with this id and its profile.
    pub(super) fn transaction(
        &self,
        id: Uuid,
        now: DateTime<Utc>,
    ) -> Option<(Transaction, ProfileNow)> {
        let transaction = self.transactions.get(*self.positions.get(&id)?)?;
        Some((
            transaction.clone(),
            self.profiles.find(transaction.payment_profile_id, now)?,
        ))
    }

    /// The refunds of a debit.
    pub(super) fn refunds_of(&self, sale_id: Uuid) -> Vec<Transaction> {
        let positions = self.refunds.get(&sale_id);
        positions
            .into_iter()
            .flatten()
            .map(|position| self.transactions[*position].clone())
            .collect()
    }

    /// Decides about a valid debit request, and books it if it has an effect.
    pub(super) fn debit(
        &mut self,
        request: &DebitRequest,
        shop: &Arc<SimulatedShop>,
        now: DateTime<Utc>,
    ) -> Debit {
        let profile = match &request.card {
            NamedCard::Profile(id) => self.profiles.find(*id, now),
            NamedCard::FirstTransaction(id) => self.profiles.find_first(id, now),
            NamedCard::New(profile) => {
                let profile_of_it = SimulatedProfile::clone(profile);
                if self.card_data.first_on_profile_only {
                    self.profiles.register(profile_of_it);
                } else {
                    self.profiles.register_plain(profile_of_it);
                }
                self.profiles.find(profile.id, now)
            }
        };
        let profile_id = profile
            .as_ref()
            .map(|profile| profile.profile.id)
            .or(request.card.profile_id());
        let rule = self.director.choose(Facts {
            call: Call::Debit,
            payment_profile_id: profile_id,
            order_id: Some(&request.order_id),
            repetition: self
                .posts_by_order
                .get(&request.order_id)
                .copied()
                .unwrap_or(0),
        });
        let base = match &profile {
            Some(profile) => profile.profile.behaviour.or(&self.default),
            None => self.default.clone(),
        };
        let behaviour = rule
            .as_ref()
            .map_or_else(|| base.clone(), |rule| rule.or(&base));
        let outcome = match profile {
            _ if !behaviour.takes_effect() => DebitOutcome::Dropped,
            None => DebitOutcome::UnknownProfile,
            Some(profile) if !profile.is_active => DebitOutcome::InactiveProfile,
            Some(_) if self.is_booked(request, shop) => DebitOutcome::RepeatedOrder,
            Some(profile) => {
                let by_rule = rule.and_then(|rule| rule.fate.clone());
                // A payer whom no answer leads on has a card that asks for nothing.
                let is_led_on = behaviour.status_sent(200) == Some(200);
                let challenge = request.challenge.as_ref().filter(|_| is_led_on);
                let waits = challenge.map(|_| Fate::PendingForEver);
                let fate = profile.fate(by_rule.or(waits), &base, now);
                if fate == Fate::Inactive {
                    self.profiles.deactivate(profile.profile.id);
                    DebitOutcome::InactiveProfile
                } else {
                    self.book(request, shop, profile, &fate, &behaviour, now)
                }
            }
        };
        let (transaction_id, normal_status) = match &outcome {
            DebitOutcome::Booked { transaction, .. } => (Some(transaction.id), 200),
            DebitOutcome::RepeatedOrder => (None, 422),
            DebitOutcome::Dropped
            | DebitOutcome::UnknownProfile
            | DebitOutcome::InactiveProfile => (None, 400),
        };
        self.record_post(Post {
            at: now,
            order_id: Some(Arc::clone(&request.order_id)),
            payment_profile_id: profile_id,
            amount_minor: Some(request.amount_minor),
            currency: Some(request.currency),
            transaction_id,
            answered: behaviour.status_sent(normal_status),
        });
        Debit { behaviour, outcome }
    }

    /// Whether the order was booked already and may not be again.
    fn is_booked(&self, request: &DebitRequest, shop: &SimulatedShop) -> bool {
        self.booked_orders
            .contains(&(shop.service_id, Arc::clone(&request.order_id)))
    }

    fn book(
        &mut self,
        request: &DebitRequest,
        shop: &Arc<SimulatedShop>,
        profile: ProfileNow,
        fate: &Fate,
        behaviour: &Behaviour,
        now: DateTime<Utc>,
    ) -> DebitOutcome {
        let id = Uuid::new_v4();
        let mut course = self.course(fate, behaviour);
        if let Some(challenge) = &request.challenge
            && *fate == Fate::PendingForEver
        {
            course = Arc::new(challenge.course(&course, now));
            self.challenges.insert(id, challenge.clone());
        }
        let transaction = Transaction {
            id,
            refund_of: None,
            payment_id: Uuid::new_v4(),
            payment_profile_id: profile.profile.id,
            profile_type: request.card.profile_type(),
            is_by_link: false,
            order_id: Arc::clone(&request.order_id),
            title: Arc::clone(&request.title),
            amount_minor: request.amount_minor,
            currency: request.currency,
            created_at: now,
            notification_url: request.notification_url.clone(),
            shop: Arc::clone(shop),
            course,
        };
        if self.repeated_orders == RepeatedOrders::Refuse {
            self.booked_orders
                .insert((shop.service_id, Arc::clone(&request.order_id)));
        }
        self.profiles.count_debit(profile.profile.id);
        self.totals.booked += 1;
        let notices = self.add(transaction.clone(), now);
        DebitOutcome::Booked {
            transaction: Box::new(transaction),
            profile,
            notices,
        }
    }

    /// Adds a transaction and what will happen with it. Returns the notices that are to be delivered before the answer.
    pub(super) fn add(&mut self, transaction: Transaction, now: DateTime<Utc>) -> Vec<NoticeJob> {
        let position = self.transactions.len();
        let course = Arc::clone(&transaction.course);
        self.positions.insert(transaction.id, position);
        if let Some(sale_id) = transaction.refund_of {
            self.refunds.entry(sale_id).or_default().push(position);
        }
        self.transactions.push(transaction);
        self.count_status(position, 0);
        for step in 1..course.steps().len() {
            self.agenda
                .plan(course.begins(step, now), Item::Change { position, step });
        }
        let first = self.notices_of_step(position, 0);
        if course.notices.before_answer {
            return first
                .into_iter()
                .filter_map(|(_, item)| self.job(item, now))
                .collect();
        }
        for (due, item) in first {
            self.agenda.plan(due, Item::Notice(item));
        }
        Vec::new()
    }

    pub(super) fn course(&mut self, fate: &Fate, behaviour: &Behaviour) -> Arc<Course> {
        let key = (
            fate.clone(),
            behaviour.notices.clone().unwrap_or_default(),
            behaviour.read_lag.unwrap_or_default(),
        );
        if let Some(course) = self.courses.get(&key) {
            return Arc::clone(course);
        }
        let course = Arc::new(Course::new(&key.0, key.1.clone(), key.2));
        self.courses.insert(key, Arc::clone(&course));
        course
    }

    fn count_status(&mut self, position: usize, step: usize) {
        let transaction = &self.transactions[position];
        if transaction.refund_of.is_some() {
            return;
        }
        match &*transaction.course.step(step).status {
            "settled" => self.totals.settled += 1,
            "rejected" => self.totals.rejected += 1,
            _ => {}
        }
    }

    /// The notices that a step causes, with the time at which they leave.
    fn notices_of_step(&self, position: usize, step: usize) -> Vec<(DateTime<Utc>, NoticeItem)> {
        let transaction = &self.transactions[position];
        if transaction.notification_url().is_none() {
            return Vec::new();
        }
        let course = &transaction.course;
        let wanted = &course.notices;
        let last = course.steps().len() - 1;
        if wanted.final_only && step == 0 && last > 0 {
            return Vec::new();
        }
        let begins = if wanted.pending_last && step == 0 && last > 0 && !wanted.before_answer {
            later(
                course.begins(last, transaction.created_at),
                TimeDelta::seconds(1),
            )
        } else {
            course.begins(step, transaction.created_at)
        };
        let due = later(begins, delta(wanted.late_by));
        let item = |topic| {
            (
                due,
                NoticeItem {
                    topic,
                    try_number: 1,
                },
            )
        };
        let mut planned = vec![item(Topic::Step { position, step }); usize::from(wanted.copies)];
        if step == 0 && wanted.forged_order.is_some() {
            planned.push(item(Topic::Forgery { position }));
        }
        planned
    }

    fn job(&self, item: NoticeItem, now: DateTime<Utc>) -> Option<NoticeJob> {
        let found = |position: usize| {
            let transaction = self.transactions.get(position)?.clone();
            let profile = self.profiles.find(transaction.payment_profile_id, now)?;
            Some((Box::new(transaction), profile))
        };
        let told = match item.topic {
            Topic::Step { position, step } => {
                let (transaction, profile) = found(position)?;
                Told::Step {
                    transaction,
                    profile,
                    step,
                }
            }
            Topic::Forgery { position } => {
                let (transaction, profile) = found(position)?;
                Told::Forgery(transaction, profile)
            }
            Topic::End { link } => Told::End(Box::new(self.links.get(link)?.clone())),
        };
        Some(NoticeJob { item, told })
    }

    /// The time of the next change of status or notice.
    pub(super) fn next_due_at(&self) -> Option<DateTime<Utc>> {
        self.agenda.next_due_at()
    }

    /// Applies the changes of status that are due and takes at most `limit` notices that are due. Returns how many
    /// statuses changed, and the notices in the order in which they are due.
    pub(super) fn take_due(&mut self, now: DateTime<Utc>, limit: usize) -> (usize, Vec<NoticeJob>) {
        let mut changes = 0;
        let mut jobs = Vec::new();
        while jobs.len() < limit
            && let Some(item) = self.agenda.take_due(now)
        {
            match item {
                // Its payer has confirmed it before.
                Item::Change { position, step }
                    if step >= self.transactions[position].course.steps().len() => {}
                Item::Change { position, step } => {
                    changes += 1;
                    self.count_status(position, step);
                    for (due, item) in self.notices_of_step(position, step) {
                        self.agenda.plan(due, Item::Notice(item));
                    }
                }
                Item::Expiry { link } => self.expire(link, now),
                Item::Notice(item) => jobs.extend(self.job(item, now)),
            }
        }
        (changes, jobs)
    }

    /// Notes what the receiver of a notice answered, and plans the next try if that was not HTTP 200.
    pub(super) fn record_notice(&mut self, item: NoticeItem, notice: Notice) {
        self.totals.notices_sent += 1;
        if notice.answer == Some(200) {
            self.totals.notices_accepted += 1;
        } else if let Some(gap) = notices::gap_after(item.try_number) {
            let next = NoticeItem {
                try_number: item.try_number + 1,
                ..item
            };
            self.agenda.plan(later(notice.at, gap), Item::Notice(next));
        }
        self.notices.push(notice);
    }
}
