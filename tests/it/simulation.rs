//! Months in the life of a shop, drawn from a seed: everything goes wrong at once, then nothing does, then the books are closed.
//!
//! Each seed draws its own weather (which faults, how often), as FoundationDB's swarm testing does: a run with all faults at full strength
//! never gets far enough to meet the rare ones. In the first phase several real daemons charge under faults of the gateway, of
//! notices, of processes, of connections and of clocks, and people interfere. In the second all is well, and everything
//! that is owed has to come to an end. The oracle is the ledger of the simulator, which nothing of ours writes.
//!
//! The weather, the people and the fate of each order follow from the seed alone. Which of two requests that are under way together
//! comes first is up to the machine, so a replay draws the same faults, but may meet them in another order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use cykl::cli::daemon;
use cykl::domain::attempt::{AttemptEvent, AttemptState};
use cykl::domain::id::{ChargeId, RegistrationId, SubscriptionId, TransactionId};
use cykl::domain::shop::ShopName;
use cykl::simulator::{
    Behaviour, Call, CardData, DeclinesFirst, ErrorBody, Notices, ProfileType, Rule, Script,
    Transaction, WrongEcho,
};
use cykl::store::brakes::BrakeMode;
use cykl::store::registrations::WantedPayment;
use cykl::store::status::By;
use cykl::workers::refunder::Wanted;
use cykl::workers::resolver::NamePaymentError;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::card_data::{confirm, new_card};
use crate::fire::{Dice, Instance, Odds, Plan, Stage, Stepped};
use crate::harness::{
    Agreement, SERVICE_KEY, START, TOKEN, World, drop_database, is_registration, number_from,
};
use crate::registering::{BY, DECLINED, GOOD, link, registrar, try_to_pay, wanted};

/// How many seeds `make test` runs; `CYKL_SOAK_SEEDS` asks for more, and with `CYKL_SOAK_SHORT` for more of the same extent.
const SEEDS: u64 = 20;
/// How many seeds run at once on each core: while one waits for a request to time out, another works. In `make test`, beside other tests,
/// and when nothing else runs.
const SEEDS_PER_CORE: (usize, usize) = (2, 5);
/// Subscriptions of each run, and days under faults: in `make test`, and when more seeds are asked for.
const SHORT: (u64, i64) = (50, 22);
const LONG: (u64, i64) = (800, 75);
/// Days without: the longest an open question may last, and its charge after it.
const CALM_DAYS: i64 = 36;
/// How often the daemon looks at what is due in them. Nothing goes wrong there that looking more often would meet.
const CALM_TICK: TimeDelta = TimeDelta::hours(1);
/// The most requests of an instance that wait for their answer.
const IN_FLIGHT_MAX: i64 = 16;
/// And those that have a permit and wait for their turn.
const CLAIM_AHEAD: i64 = 0;
/// The most doubts before nothing more is sent.
const IN_DOUBT_MAX: i64 = 4;

/// What goes wrong in one run.
#[derive(Debug)]
struct Weather {
    instances: usize,
    odds: Odds,
    /// Minutes between two looks at what is due: one thing after the other, or much of it at once.
    tick_minutes: u64,
    /// Minutes by which a process may be ahead of the true time, or behind it.
    skew_minutes: u64,
    /// Per thousand days and subscription.
    whims: u64,
    /// Per thousand days.
    gateway_outages: u64,
    /// Whether declined debits may turn out settled.
    flips: bool,
}

/// What was lived through.
#[derive(Debug, Default)]
struct Lived {
    subscription_days: i64,
    debits: usize,
    crashes: usize,
    faults: usize,
    rounds: usize,
    held: i64,
    refunds: usize,
    registered: i64,
    by_card_data: i64,
    plain_debits: usize,
}

impl Weather {
    fn of(dice: &mut Dice) -> Self {
        Self {
            instances: usize::try_from(1 + dice.below(3)).unwrap(),
            // Much is done in one commit, so that a day has few effects, and each of them is in danger.
            odds: Odds {
                crash: *dice.pick(&[0, 4, 20, 80]),
                cut: *dice.pick(&[0, 4, 20, 80]),
            },
            skew_minutes: *dice.pick(&[0, 0, 2, 30]),
            whims: *dice.pick(&[0, 1, 5]),
            gateway_outages: *dice.pick(&[0, 0, 30]),
            flips: dice.hits(150),
            // With dice of its own, so that what else a seed draws stays what it was before there were ticks.
            tick_minutes: *dice.clone().split().pick(&[1, 5, 15, 60]),
        }
    }
}

/// What imoje does to some of the debits. Each seed draws a few of them.
fn gateway_faults(dice: &mut Dice, flips: bool) -> Vec<Rule> {
    let hours = |hours: u64| Duration::from_secs(3_600 * hours);
    let settled = || Behaviour::settle_after(Duration::from_secs(40));
    let mut faults: Vec<Behaviour> = vec![
        Behaviour::lose_request(),
        Behaviour::take_money_and_lose_answer(),
        Behaviour::take_money_and_lose_answer().with_notices(Notices::none()),
        Behaviour::reset(true),
        Behaviour::reset(false),
        Behaviour::error(StatusCode::INTERNAL_SERVER_ERROR, ErrorBody::Object, true),
        Behaviour::error(StatusCode::INTERNAL_SERVER_ERROR, ErrorBody::Html, false),
        Behaviour::error(StatusCode::SERVICE_UNAVAILABLE, ErrorBody::Empty, true),
        Behaviour::error(StatusCode::GATEWAY_TIMEOUT, ErrorBody::Empty, false),
        Behaviour::error(StatusCode::BAD_REQUEST, ErrorBody::Html, false),
        Behaviour::error(StatusCode::NOT_FOUND, ErrorBody::Html, false),
        Behaviour::error(StatusCode::TOO_MANY_REQUESTS, ErrorBody::Object, false),
        Behaviour::redirect("http://127.0.0.1:1/elsewhere"),
        Behaviour::garbage("<html>try again</html>", true),
        Behaviour::garbage("{}", false),
        Behaviour::truncated(true),
        settled().amount_as_text().bare(),
        settled().with_status_code_in_answer(),
        settled().with_read_lag(hours(2)),
        settled().with_notices(Notices::none()),
        settled().with_notices(Notices::duplicated(3)),
        settled().with_notices(Notices::late_by(hours(90))),
        settled().with_notices(Notices {
            before_answer: true,
            ..Notices::default()
        }),
        settled().with_notices(Notices {
            pending_last: true,
            ..Notices::default()
        }),
        settled().with_notices(Notices {
            wrong_key: true,
            ..Notices::default()
        }),
        settled().with_notices(Notices {
            payment_only: true,
            ..Notices::default()
        }),
        Behaviour::settle_after(hours(50)),
        Behaviour::status("authorized"),
        Behaviour::status("no word of theirs"),
        Behaviour::decline("CODE_51"),
        Behaviour::decline_after("CODE_05", hours(30)),
        Behaviour::status("error"),
        Behaviour::status("cancelled"),
        Behaviour::error(StatusCode::UNAUTHORIZED, ErrorBody::Object, false),
        Behaviour::error(StatusCode::FORBIDDEN, ErrorBody::Empty, false),
        settled().echoing_wrongly(WrongEcho::Amount),
        settled().echoing_wrongly(WrongEcho::OrderId),
        Behaviour::drip(Duration::from_millis(400)),
        Behaviour::hang(true),
        settled().with_notices(Notices {
            forged_order: Some("cykl-of-somebody-else".to_owned()),
            ..Notices::default()
        }),
    ];
    if flips {
        faults.push(Behaviour::decline_then_settle("CODE_51", hours(20)));
    }
    drawn(dice, faults, 8, Rule::debits)
}

/// What imoje does to some of the reads.
fn read_faults(dice: &mut Dice) -> Vec<Rule> {
    let faults = vec![
        Behaviour::error(StatusCode::BAD_GATEWAY, ErrorBody::Html, true),
        Behaviour::error(StatusCode::NOT_FOUND, ErrorBody::Object, true),
        Behaviour::error(StatusCode::UNAUTHORIZED, ErrorBody::Object, true),
        Behaviour::truncated(true),
        Behaviour::reset(true),
    ];
    drawn(dice, faults, 30, Rule::reads)
}

/// What imoje and payers do to some of the payment links.
fn link_faults(dice: &mut Dice) -> Vec<Rule> {
    let settled = |seconds| Behaviour::settle_after(Duration::from_secs(seconds));
    let of_links = [
        Behaviour::take_money_and_lose_answer(),
        Behaviour::lose_request(),
        Behaviour::truncated(true),
        Behaviour::error(StatusCode::INTERNAL_SERVER_ERROR, ErrorBody::Html, true),
    ];
    let of_payers = [
        settled(40).with_notices(Notices::none()),
        settled(40).with_read_lag(Duration::from_secs(7_200)),
        settled(40).with_notices(Notices {
            payment_only: true,
            ..Notices::default()
        }),
        settled(50 * 3_600),
        Behaviour::decline("CODE_51"),
        Behaviour::status("cancelled"),
    ];
    let mut rules = drawn(dice, of_links.to_vec(), 30, |fault| {
        Rule::debits(fault).on(Call::Link)
    });
    rules.extend(drawn(dice, of_payers.to_vec(), 40, |fault| {
        Rule::debits(fault).on(Call::Payer)
    }));
    rules
}

/// What imoje does to some of the refunds.
fn refund_faults(dice: &mut Dice) -> Vec<Rule> {
    let faults = vec![
        Behaviour::take_money_and_lose_answer(),
        Behaviour::take_money_and_lose_answer().with_notices(Notices::none()),
        Behaviour::lose_request(),
        Behaviour::error(StatusCode::INTERNAL_SERVER_ERROR, ErrorBody::Object, true),
        Behaviour::error(StatusCode::BAD_GATEWAY, ErrorBody::Html, false),
        Behaviour::settle_after(Duration::from_secs(90_000)),
        Behaviour::decline_after("CODE_05", Duration::from_secs(90_000)),
    ];
    drawn(dice, faults, 40, |fault| {
        Rule::debits(fault).on(Call::Refund)
    })
}

/// A few of the faults, each in up to so many percent of the calls.
fn drawn(
    dice: &mut Dice,
    faults: Vec<Behaviour>,
    percent_max: u64,
    rule: fn(Behaviour) -> Rule,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for fault in faults {
        if dice.hits(300) {
            let percent = u8::try_from(1 + dice.below(percent_max)).unwrap();
            rules.push(rule(fault).percent(percent));
        }
    }
    rules
}

/// An agreement on a card with its own temper.
fn agreement(number: u64, dice: &mut Dice) -> (Agreement, Option<DeclinesFirst>, Option<u64>) {
    let first_day: NaiveDate = "2027-01-01".parse().unwrap();
    let period = *dice.pick(&["P1W", "P1M", "P1M", "P10D", "P2W", "P4D"]);
    let behaviour = match dice.below(10) {
        0..4 => Behaviour::settle_at_once(),
        4..7 => Behaviour::settle_after(Duration::from_secs(dice.below(200))),
        7 => Behaviour::settle_after(Duration::from_secs(3_600 * dice.below(40))),
        _ => Behaviour::default(),
    };
    let agreement = Agreement {
        id: uuid_of(dice),
        profile: uuid_of(dice),
        external_id: format!("sub-{number}"),
        cid: format!("card-{number}"),
        amount_minor: i64::try_from(100 + dice.below(90_000)).unwrap(),
        anchor: first_day + chrono::Days::new(dice.below(25)),
        ..Agreement::monthly("2027-01-01")
            .every(period)
            .with_card(behaviour)
    };
    let declines = dice.hits(200).then(|| DeclinesFirst {
        count: u32::try_from(1 + dice.below(5)).unwrap(),
        code: (*dice.pick(&["CODE_51", "CODE_05", "CODE_43"])).to_owned(),
    });
    let inactive_on = dice.hits(80).then(|| dice.below(60));
    (agreement, declines, inactive_on)
}

fn uuid_of(dice: &mut Dice) -> Uuid {
    let bits = [(); 4].map(|()| dice.below(1 << 32));
    let bits = bits
        .iter()
        .fold(0_u128, |bits, part| (bits << 32) | u128::from(*part));
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
}

/// An instance, or the time at which it is started again.
enum Place {
    Up(Arc<Instance>),
    Down(DateTime<Utc>),
}

/// One run.
struct Run {
    stage: Stage,
    weather: Weather,
    dice: Dice,
    /// For what was added later.
    others: Dice,
    places: Vec<Place>,
    subscriptions: Vec<Uuid>,
    lived: Lived,
    gateway_up_at: Option<DateTime<Utc>>,
    gave_back_at: Option<DateTime<Utc>>,
    /// How many debits imoje had been asked for, and how many had settled, when the ledger was looked at last.
    looked_at: (u64, u64),
}

impl Run {
    async fn begin(seed: u64, subscriptions_max: u64) -> Self {
        let mut dice = Dice::new(seed);
        let weather = Weather::of(&mut dice);
        let sections = format!(
            "[charging]\nin_flight_max = {IN_FLIGHT_MAX}\nin_doubt_max = {IN_DOUBT_MAX}\nclaim_ahead = {CLAIM_AHEAD}\nconnect_timeout = \"500ms\"\nrequest_timeout = \"1s\"\n\
             [resolver]\npoll = [\"60s\", \"1h\", \"1d\"]\n"
        );
        let script = Script {
            card_data: CardData {
                knows_aliases: true,
                ..CardData::default()
            },
            ..Script::default()
        };
        let stage = Stage::new(script, &sections).await;
        let mut rules = gateway_faults(&mut dice, weather.flips);
        rules.extend(read_faults(&mut dice));
        // With dice of their own, so that what else a seed draws stays what it was before there were links and refunds.
        let mut others = dice.clone().split().split();
        rules.extend(link_faults(&mut others));
        rules.extend(refund_faults(&mut others));
        for rule in rules {
            stage.world.simulator.add_rule(rule);
        }
        let mut subscriptions = Vec::new();
        let mut drawing = dice.split();
        for number in 0..subscriptions_max {
            let (agreement, declines_first, inactive_on) = agreement(number, &mut drawing);
            let agreement = match others.below(10) {
                0..2 => agreement.without_profile(),
                2 => agreement.without_card(),
                _ => agreement,
            };
            let mut card = agreement.profile();
            card.declines_first = declines_first;
            card.inactive_from =
                inactive_on.map(|days| stage.now() + TimeDelta::days(i64::try_from(days).unwrap()));
            if agreement.has_card {
                stage.world.simulator.register_profile(card);
            }
            let world = &stage.world;
            subscriptions.push(
                agreement
                    .store(&world.books, &world.config, world.clock.now())
                    .await,
            );
        }
        // A server in use knows how many rows there are; autovacuum is not that fast.
        sqlx::query("ANALYZE")
            .execute(&stage.world.books)
            .await
            .unwrap();
        let places = (0..weather.instances)
            .map(|_| Place::Down(stage.now()))
            .collect();
        Self {
            stage,
            weather,
            dice,
            places,
            subscriptions,
            others,
            lived: Lived::default(),
            gateway_up_at: None,
            gave_back_at: None,
            looked_at: (0, 0),
        }
    }

    /// The first phase.
    async fn live(&mut self, end: DateTime<Utc>) {
        let mut tomorrow = self.stage.now();
        while self.stage.now() < end {
            if self.stage.now() >= tomorrow {
                tomorrow += TimeDelta::days(1);
                self.happen().await;
                self.deal().await;
                self.look_in_between().await;
            }
            self.start_what_is_down().await;
            let moved = self.step().await;
            self.look_at_ledger();
            if moved {
                continue;
            }
            let next = self.stage.world.next_due().await.unwrap_or(end);
            // Now and then everybody is late.
            let late = if self.dice.hits(20) {
                self.dice.below(4_000)
            } else {
                self.weather.tick_minutes
            };
            let late = TimeDelta::minutes(i64::try_from(late).unwrap());
            let next = next.min(tomorrow).max(self.stage.now()) + late;
            self.stage.world.clock.set(next.min(end));
        }
    }

    /// What a day brings besides charges.
    async fn happen(&mut self) {
        let now = self.stage.now();
        if self.gateway_up_at.is_some_and(|up_at| up_at <= now) {
            self.stage.world.simulator.come_up().await.unwrap();
            self.gateway_up_at = None;
        } else if self.gateway_up_at.is_none() && self.dice.hits(self.weather.gateway_outages) {
            self.stage.world.simulator.go_down().await;
            let days = i64::try_from(1 + self.dice.below(3)).unwrap();
            self.gateway_up_at = Some(now + TimeDelta::days(days));
        }
        for place in &self.places {
            if let Place::Up(instance) = place {
                instance.clear_away().await;
            }
        }
        if self.dice.hits(500) {
            release_brakes(&self.stage.world).await;
            look_for_card_data(&self.stage.world).await;
        }
        for index in 0..self.subscriptions.len() {
            if self.dice.hits(self.weather.whims) {
                let id = SubscriptionId::from_uuid(self.subscriptions[index]);
                let by = By {
                    actor: "test",
                    reason: "a whim",
                };
                let world = &self.stage.world;
                let store = &world.store;
                let calendar = daemon::calendar(world.config.shops.values().next().unwrap());
                // What cannot be done is refused.
                let _ = match self.dice.below(3) {
                    0 => store.cancel(id, by, now).await,
                    1 => store.pause(id, by, now).await,
                    _ => {
                        store
                            .resume(id, by, now, |stopped| calendar.next_period(stopped, now))
                            .await
                    }
                };
            }
        }
    }

    /// What people do about refunds, and payers about links and their cards, on a day.
    async fn deal(&mut self) {
        if self.others.hits(500) {
            self.give_back().await;
        }
        let waiting: Vec<Uuid> =
            sqlx::query_scalar("SELECT subscription_id FROM subscriptions WHERE status IN ('registering', 'deactivated') ORDER BY 1")
                .fetch_all(&self.stage.world.books)
                .await
                .unwrap();
        for id in waiting {
            if self.others.hits(300) {
                let payment = *self.others.pick(&[
                    WantedPayment::FirstCharge,
                    WantedPayment::FirstCharge,
                    WantedPayment::Verification(100),
                ]);
                // What cannot be done is refused, and what was not done may be tried again.
                let (world, id) = (&self.stage.world, SubscriptionId::from_uuid(id));
                if self.others.hits(300) {
                    let (registrar, wanted) = (registrar(world), wanted(id, payment));
                    let made = registrar.register_card(&wanted, new_card());
                    let made = made.await.ok().and_then(|made| made.url);
                    // Most payers confirm it there and then.
                    let says = *self.others.pick(&["confirm", "confirm", "leave", ""]);
                    if let Some(page) = made.filter(|_| !says.is_empty()) {
                        confirm(page.as_str(), says).await;
                    }
                } else {
                    let _ = link(world, id, payment).await;
                }
            }
        }
        let open = "SELECT url FROM registrations WHERE state = 'open' AND way = 'link' ORDER BY registration_id";
        for url in self.stage.world.column(open).await {
            let number = *self.others.pick(&[GOOD, GOOD, GOOD, DECLINED]);
            if self.others.hits(400) {
                let _ = try_to_pay(&url, number).await;
            }
        }
    }

    /// A person gives back all or a part of some charge. At most one at a time, so that nobody has to wait for the distance between two.
    async fn give_back(&mut self) {
        let now = self.stage.now();
        if self.gave_back_at.replace(now) == Some(now) {
            return;
        }
        let world = &self.stage.world;
        let paid: Vec<Uuid> = sqlx::query_scalar(
            "SELECT charge_id FROM charges WHERE state = 'paid' ORDER BY charge_id",
        )
        .fetch_all(&world.books)
        .await
        .unwrap();
        if paid.is_empty() {
            return;
        }
        let charge_id = *self.others.pick(&paid);
        let amount_minor = *self.others.pick(&[None, Some(1), Some(50)]);
        let refunder =
            daemon::refunder(&world.config, &world.store, &world.clock, world.fence_id).unwrap();
        let wanted = Wanted {
            charge_id: ChargeId::from_uuid(charge_id),
            attempt_no: None,
            amount_minor,
            title: None,
            is_confirmed_by_email: false,
            by: By {
                actor: "test",
                reason: "a whim",
            },
        };
        if let Ok(refunded) = refunder.refund(wanted).await {
            self.lived.refunds += usize::from(refunded.recorded.became.is_some());
        }
    }

    async fn start_what_is_down(&mut self) {
        let now = self.stage.now();
        for index in 0..self.places.len() {
            if !matches!(self.places[index], Place::Down(until) if until <= now) {
                continue;
            }
            let skew = self.dice.below(self.weather.skew_minutes + 1);
            let skew = TimeDelta::minutes(i64::try_from(skew).unwrap());
            let skew = if self.dice.hits(500) { skew } else { -skew };
            let plan = Plan::Chance(self.weather.odds, self.dice.split());
            let instance = Instance::start(&self.stage, plan, skew).await;
            if index == 0 {
                self.stage.relay.lead_to(Some(instance.door));
            }
            self.places[index] = Place::Up(Arc::new(instance));
        }
    }

    /// One round of every instance that is up, all at the same time. Returns whether anything moved.
    async fn step(&mut self) -> bool {
        let now = self.stage.now();
        self.lived.rounds += 1;
        let mut steps = JoinSet::new();
        for place in &self.places {
            if let Place::Up(instance) = place {
                let instance = Arc::clone(instance);
                steps.spawn(async move { instance.step(now).await });
            }
        }
        let delivered = self.stage.world.simulator.deliver_due().await;
        let stepped = steps.join_all().await;
        let mut moved = delivered.sent > 0 || stepped.contains(&Stepped::Moved);
        for index in 0..self.places.len() {
            if let Place::Up(instance) = &self.places[index]
                && instance.effects.is_crashed()
            {
                moved = true;
                self.lived.crashes += 1;
                self.lived.faults += instance.effects.struck();
                if index == 0 {
                    self.stage.relay.lead_to(None);
                }
                let hours = *self.dice.pick(&[0, 0, 0, 0, 1, 20, 80]);
                self.places[index] = Place::Down(now + TimeDelta::hours(hours));
            }
        }
        moved
    }

    /// The second phase.
    async fn calm_down(&mut self) {
        for place in &self.places {
            if let Place::Up(instance) = place {
                self.lived.faults += instance.effects.struck();
            }
        }
        self.places.clear();
        let world = &self.stage.world;
        world.simulator.clear_rules();
        world.simulator.come_up().await.unwrap();
        self.stage.open_own_door();
        let end = world.clock.now() + TimeDelta::days(CALM_DAYS);
        while world.clock.now() < end {
            release_brakes(world).await;
            look_for_card_data(world).await;
            let until = (world.clock.now() + TimeDelta::days(3)).min(end);
            world.run_until_every(CALM_TICK, until).await;
        }
    }
}

/// A person looks into imoje's panel for the card data that were never answered, names what it shows, and gives up what it does not, once
/// that may be.
async fn look_for_card_data(world: &World) {
    let unanswered: Vec<(Uuid, Uuid, String)> = sqlx::query_as(
        "SELECT registration_id, subscription_id, order_id FROM registrations
         WHERE way = 'card_data' AND state IN ('requested', 'open')",
    )
    .fetch_all(&world.books)
    .await
    .unwrap();
    for (id, subscription_id, order_id) in unanswered {
        let ledger = world.simulator.ledger();
        // What is refused is asked again on another day.
        if let [in_the_panel] = ledger.transactions_of(&order_id)[..] {
            let (resolver, now) = (&world.workers.resolver, world.clock.now());
            let named = TransactionId::from_uuid(in_the_panel.id);
            let subscription_id = SubscriptionId::from_uuid(subscription_id);
            let named = resolver.name_payment(subscription_id, named, now).await;
            if !matches!(named, Err(NamePaymentError::Unfinished)) {
                continue;
            }
        }
        let id = RegistrationId::from_uuid(id);
        let _ = registrar(world).cancel(id, BY).await;
    }
}

/// A person has looked at what stopped charging.
async fn release_brakes(world: &World) {
    let stopped = world
        .column("SELECT shop FROM brakes WHERE mode <> 'run'")
        .await;
    for shop in stopped {
        let shop = shop.parse::<ShopName>().ok();
        let store = &world.store;
        store
            .set_brake(
                shop.as_ref(),
                BrakeMode::Run,
                "test",
                "looked at",
                world.clock.now(),
            )
            .await
            .unwrap();
    }
}

/// What must hold, whatever happened. The numbers are those of the test programme.
impl Run {
    /// After each step of the first phase in which money may have moved.
    fn look_at_ledger(&mut self) {
        let totals = self.stage.world.simulator.totals();
        if self.looked_at == (totals.posts, totals.settled) {
            return;
        }
        self.looked_at = (totals.posts, totals.settled);
        let ledger = self.stage.world.simulator.ledger();
        assert_eq!(
            ledger.order_ids_posted_twice(),
            Vec::<&str>::new(),
            "O6: an order id was posted twice"
        );
        if !self.weather.flips {
            let twice = paid_twice(ledger.settled());
            assert_eq!(twice, BTreeSet::new(), "O1: a period was paid twice");
        }
    }

    /// After each day of the first phase.
    async fn look_in_between(&self) {
        let instances = i64::try_from(self.weather.instances).unwrap();
        let open: i64 = self.stage.world
            .one("SELECT count(*) FROM attempts WHERE state = 'in_doubt' AND next_poll_at IS NOT NULL")
            .await;
        let most = instances * (IN_FLIGHT_MAX + CLAIM_AHEAD) + IN_DOUBT_MAX;
        assert!(open <= most, "O7: {open} attempts in doubt");
    }

    /// At the end.
    async fn settle_up(&mut self) {
        // O1 to O4, O6, O8: by the audit and the ledger.
        let world = &self.stage.world;
        let mut untrue = Vec::new();
        if self.weather.skew_minutes > 1 {
            // A stop by a process that is ahead seems to come after the release that followed it. The database refuses permits all the same.
            untrue.push("nothing_was_permitted_while_braked");
        }
        let by_link = self.paid_twice_by_links().await;
        if self.weather.flips || by_link {
            // The gateway itself took back a decline, or a payer has paid by two links. Money that moved twice is an incident, and every
            // transaction is in the books.
            untrue.push("money_moved_once");
            world.audit_except(&untrue).await;
            world.compare_beside_doubts().await;
            let told = world
                .column(
                    "SELECT format('cykl-%s-%s', replace(c.subscription_id::text, '-', ''), c.period_no)
                     FROM all_events e JOIN all_charges c USING (charge_id) WHERE e.kind = 'incident.surplus'",
                )
                .await;
            let mut twice = paid_twice(world.simulator.ledger().settled());
            if self.weather.flips {
                twice.retain(|period| !told.contains(period));
            }
            assert_eq!(twice, BTreeSet::new(), "O1: a second payment was not told");
        } else {
            world.settle_up_beside_doubts(&untrue).await;
        }
        self.stage.compare_with_journal().await;
        self.everything_ended().await;
        self.nobody_was_debited_too_soon();
        self.evidence_leads_where_attempts_stand().await;
        self.no_secret_is_stored().await;
        let world = &self.stage.world;
        self.lived.debits = world.simulator.ledger().posts().len();
        self.lived.held = world
            .one("SELECT count(*) FROM charges WHERE state = 'held'")
            .await;
        self.lived.registered = world
            .one("SELECT count(*) FROM registrations WHERE state = 'attached'")
            .await;
        self.lived.by_card_data = world
            .one(
                "SELECT count(*) FROM registrations WHERE state = 'attached' AND way = 'card_data'",
            )
            .await;
        let transactions = world.simulator.ledger();
        let plain = transactions.transactions().iter();
        self.lived.plain_debits = plain
            .filter(|one| one.profile_type == Some(ProfileType::Standard))
            .count();
        let unended: i64 = world
            .one("SELECT count(*) FROM registrations WHERE state IN ('requested', 'open', 'paid')")
            .await;
        assert_eq!(unended, 0, "a registration never ended");
        let days = (world.clock.now() - START.parse::<DateTime<Utc>>().unwrap()).num_days();
        self.lived.subscription_days = days * i64::try_from(self.subscriptions.len()).unwrap();
    }

    /// Whether money moved by a link beside other money for the same. Each such payment was told to people.
    async fn paid_twice_by_links(&self) -> bool {
        let world = &self.stage.world;
        let untold = world
            .column(
                "SELECT r.order_id FROM registrations r, unnest(r.surplus_ids) AS p (transaction_id)
                 WHERE r.purpose = 'verification' AND NOT EXISTS (
                     SELECT FROM all_events e WHERE e.kind = 'incident.surplus' AND e.subscription_id = r.subscription_id
                         AND e.payload ->> 'transaction_id' = p.transaction_id::text)",
            )
            .await;
        assert_eq!(
            untold,
            Vec::<String>::new(),
            "O1: a further verification was not told"
        );
        let surplus: Vec<(String, bool)> = sqlx::query_as(
            "SELECT a.order_id, EXISTS (SELECT FROM all_events e WHERE e.attempt_id = a.attempt_id AND e.kind = 'incident.surplus')
             FROM all_attempts a WHERE a.state = 'surplus' AND EXISTS (
                 SELECT FROM all_attempts o
                 WHERE (o.subscription_id, o.period_no) = (a.subscription_id, a.period_no) AND o.card_id IS NULL)",
        )
        .fetch_all(&world.books)
        .await
        .unwrap();
        let untold: Vec<_> = surplus.iter().filter(|(_, is_told)| !is_told).collect();
        assert!(
            untold.is_empty(),
            "O1: a second payment by a link was not told: {untold:?}"
        );
        if !self.weather.flips {
            let by_data = world
                .column(
                    "SELECT r.subscription_id || ' period ' || r.period_no
                     FROM registrations r JOIN all_attempts a USING (order_id)
                     WHERE r.way = 'card_data' AND a.state IN ('settled', 'surplus')
                     GROUP BY r.subscription_id, r.period_no HAVING count(*) > 1",
                )
                .await;
            assert_eq!(
                by_data,
                Vec::<String>::new(),
                "O1: a period was paid twice by card data"
            );
        }
        !surplus.is_empty()
    }

    /// O5: what fell due has a charge, and what fell due and was tried before the last weeks has ended, or a person was told. Retries may
    /// wait a month for the budget of their card.
    async fn everything_ended(&self) {
        self.stage.world.nothing_due_is_forgotten().await;
        let before = self.stage.now() - TimeDelta::days(CALM_DAYS - 3);
        let open: Vec<String> = sqlx::query_scalar(
            "SELECT format('%s of %s is %s %s, looked at %s; attempts: %s; told: %s', c.charge_id, c.due_on, c.state, c.reason, c.next_action_at,
                 (SELECT string_agg(format('%s %s poll %s case %s', a.state, a.permitted_at, a.next_poll_at, a.case_opened_at), '; ')
                  FROM attempts a WHERE a.charge_id = c.charge_id),
                 (SELECT string_agg(e.kind, ' ') FROM events e WHERE e.charge_id = c.charge_id))
             FROM charges c
             WHERE coalesce(c.first_attempt_at, c.due_at) < $1 AND c.state IN ('planned', 'in_flight', 'retry_wait', 'held')
                 AND NOT (c.state = 'held' AND EXISTS (
                     SELECT FROM events e WHERE e.charge_id = c.charge_id AND e.kind IN ('charge.held', 'case.opened')))",
        )
        .bind(before)
        .fetch_all(&self.stage.world.books)
        .await
        .unwrap();
        let brakes = self.stage.world.brakes().await;
        assert!(
            open.is_empty(),
            "O5: a charge never ended under {brakes:?}: {open:#?}"
        );
    }

    /// O9, as far as the clocks of the processes were right.
    fn nobody_was_debited_too_soon(&self) {
        let ledger = self.stage.world.simulator.ledger();
        let mut last: BTreeMap<&str, DateTime<Utc>> = BTreeMap::new();
        let skew = TimeDelta::minutes(i64::try_from(self.weather.skew_minutes).unwrap());
        let gap = TimeDelta::hours(20) - skew;
        for post in ledger
            .posts()
            .iter()
            .filter(|post| post.transaction_id.is_some())
        {
            let order_id = post.order_id.as_deref().unwrap();
            if is_registration(order_id) {
                continue;
            }
            let subscription = order_id.split('-').nth(1).unwrap();
            if let Some(before) = last.insert(subscription, post.at) {
                assert!(
                    post.at - before >= gap,
                    "O9: {order_id} came {} after another",
                    post.at - before
                );
            }
        }
    }

    /// O10: from its birth in doubt, the evidence about an attempt leads to where it stands.
    async fn evidence_leads_where_attempts_stand(&self) {
        let told: Vec<(String, AttemptState, Option<AttemptState>)> = sqlx::query_as(
            "SELECT a.order_id, a.state, e.verdict
             FROM all_attempts a LEFT JOIN all_evidence e ON e.attempt_id = a.attempt_id
             -- A tombstone is no permit: nothing is told about it.
             WHERE NOT (a.state = 'not_sent' AND a.last_evidence_id IS NULL)",
        )
        .fetch_all(&self.stage.world.books)
        .await
        .unwrap();
        let mut evidence: BTreeMap<(String, AttemptState), Vec<AttemptState>> = BTreeMap::new();
        for (order_id, state, verdict) in told {
            evidence
                .entry((order_id, state))
                .or_default()
                .extend(verdict);
        }
        for ((order_id, state), mut verdicts) in evidence {
            // Several processes told it, some with clocks that were ahead, but there is only one way through the states.
            verdicts.sort_by_key(|verdict| steps_from_birth(*verdict));
            let led_to = verdicts
                .iter()
                .try_fold(AttemptState::InDoubt, |stands, verdict| {
                    let became = told_by(*verdict).map_or(Ok(stands), |event| stands.after(event));
                    became.ok().filter(|became| became == verdict)
                });
            assert_eq!(
                led_to,
                Some(state),
                "O10: {order_id} is {state:?} after {verdicts:?}"
            );
        }
    }

    /// O11: no row of any table holds a secret.
    async fn no_secret_is_stored(&self) {
        let world = &self.stage.world;
        let tables = world
            .column("SELECT relname::text FROM pg_class WHERE relnamespace = 'cykl'::regnamespace AND relkind = 'r'")
            .await;
        for table in tables {
            let query = format!(
                "SELECT count(*) FROM cykl.{table} t WHERE t::text LIKE $1 OR t::text LIKE $2"
            );
            let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
                .bind(format!("%{TOKEN}%"))
                .bind(format!("%{SERVICE_KEY}%"))
                .fetch_one(&world.books)
                .await
                .unwrap();
            assert_eq!(found, 0, "O11: {table} holds a secret");
        }
    }
}

/// How many steps of an attempt come before this one at most.
fn steps_from_birth(state: AttemptState) -> u8 {
    match state {
        AttemptState::InDoubt => 0,
        AttemptState::Pending => 1,
        AttemptState::NotSent
        | AttemptState::Refused
        | AttemptState::Rejected
        | AttemptState::Absent => 2,
        AttemptState::Settled | AttemptState::Surplus => 3,
    }
}

/// What was told about an attempt that evidence says stands there. `None` when nothing was.
fn told_by(verdict: AttemptState) -> Option<AttemptEvent> {
    match verdict {
        AttemptState::InDoubt => None,
        AttemptState::NotSent => Some(AttemptEvent::NotSent),
        AttemptState::Refused => Some(AttemptEvent::Refused),
        AttemptState::Pending => Some(AttemptEvent::Pending),
        AttemptState::Settled => Some(AttemptEvent::Settled),
        AttemptState::Rejected => Some(AttemptEvent::Rejected),
        AttemptState::Absent => Some(AttemptEvent::DeclaredAbsent),
        AttemptState::Surplus => Some(AttemptEvent::SettledBesideAnother),
    }
}

/// Subscriptions and periods that more than one of these transactions belongs to.
fn paid_twice<'a>(settled: impl Iterator<Item = &'a Transaction>) -> BTreeSet<String> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    // What payers paid to register cards is looked at in the books.
    for transaction in settled.filter(|transaction| !is_registration(&transaction.order_id)) {
        let (period, _attempt) = transaction.order_id.rsplit_once('-').unwrap();
        *count.entry(period.to_owned()).or_default() += 1;
    }
    count.retain(|_, count| *count > 1);
    count.into_keys().collect()
}

async fn live_through(seed: u64, (subscriptions, rough_days): (u64, i64)) -> Lived {
    let mut run = Run::begin(seed, subscriptions).await;
    let rough_until = run.stage.now() + TimeDelta::days(rough_days);
    run.live(rough_until).await;
    run.calm_down().await;
    run.settle_up().await;
    drop_database(run.stage.world).await;
    run.lived
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_every_period_is_paid_once_or_told_about() {
    let first = number_from("CYKL_SOAK_FROM").unwrap_or(1);
    let asked = number_from("CYKL_SOAK_SEEDS");
    let is_short = asked.is_none() || number_from("CYKL_SOAK_SHORT").is_some();
    let (extent, short) = if is_short {
        (SHORT, "CYKL_SOAK_SHORT=1 ")
    } else {
        (LONG, "")
    };
    let seeds = asked.unwrap_or(SEEDS);
    let since = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (among_others, alone) = SEEDS_PER_CORE;
    let at_once = cores * asked.map_or(among_others, |_| alone);
    let mut running = JoinSet::new();
    let (mut all, mut next) = (Lived::default(), first);
    loop {
        while running.len() < at_once && next < first + seeds {
            let seed = next;
            running.spawn(async move {
                let living = tokio::spawn(live_through(seed, extent));
                living.await.unwrap_or_else(|_| {
                    panic!(
                        "seed {seed} failed; once more: {short}CYKL_SOAK_FROM={seed} CYKL_SOAK_SEEDS=1 \
                         cargo test --locked --test it -- --nocapture simulation::"
                    )
                })
            });
            next += 1;
        }
        let Some(lived) = running.join_next().await else {
            break;
        };
        all.add(&lived.unwrap());
    }
    let years = all.subscription_days / 365;
    let seconds = since.elapsed().as_secs().max(1);
    let pace = 60 * u64::try_from(years).unwrap() / seconds / u64::try_from(cores).unwrap();
    println!(
        "{seeds} seeds from {first}: {years} subscription years, {} debits, {} crashes, {} faults in {} rounds, {} held for a person, {} refunds, {} cards \
         registered, {} of them by card data, {} debits without a profile; 0 twice, 0 lost, 0 unexplained; {seconds} s on {cores} cores, {pace} years per minute and core",
        all.debits,
        all.crashes,
        all.faults,
        all.rounds,
        all.held,
        all.refunds,
        all.registered,
        all.by_card_data,
        all.plain_debits,
    );
    assert!(
        // A single seed may be a calm one.
        seeds < SEEDS
            || all.crashes > 0
                && all.faults > all.crashes
                && all.refunds > 0
                && all.registered > all.by_card_data
                && all.by_card_data > 0
                && all.plain_debits > 0,
        "too calm to show anything"
    );
}

impl Lived {
    fn add(&mut self, other: &Lived) {
        self.subscription_days += other.subscription_days;
        self.debits += other.debits;
        self.crashes += other.crashes;
        self.faults += other.faults;
        self.rounds += other.rounds;
        self.held += other.held;
        self.refunds += other.refunds;
        self.registered += other.registered;
        self.by_card_data += other.by_card_data;
        self.plain_debits += other.plain_debits;
    }
}
