//! The ground that charging stands on: a plan for each day, the guards of the schema, and books that have not gone back in time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use chrono::TimeDelta;
use cykl::cli::{daemon, journal};
use cykl::domain::id::{ChargeId, FenceId};
use cykl::simulator::{Behaviour, DeclinesFirst, Script};
use cykl::store::adoption::{Adoption, JournalNews, LostFate};
use cykl::store::brakes::BrakeMode;
use cykl::store::people::Instruction;
use cykl::store::permits::Claim;
use cykl::store::status::By;
use cykl::store::{Store, StoreError};
use cykl::workers::charger::Ground;
use cykl::workers::crew::Workers;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{Agreement, World, connect, copy_of, open_books};
use crate::scratch;

const BY: By<'static> = By {
    actor: "test",
    reason: "a test",
};

/// Changes the books by hand.
async fn sql(world: &World, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&world.books)
        .await
        .unwrap();
}

async fn subscribe_many(world: &World, count: usize, anchor: &str) {
    for _ in 0..count {
        world.subscribe(Agreement::monthly(anchor)).await;
    }
}

async fn modes(world: &World) -> Vec<String> {
    world
        .column("SELECT shop || ' ' || mode FROM brakes ORDER BY shop")
        .await
}

async fn incident(world: &World, kind: &str) -> String {
    let mut told =
        sqlx::query_scalar::<_, String>("SELECT payload::text FROM events WHERE kind = $1")
            .bind(kind)
            .fetch_all(&world.books)
            .await
            .unwrap();
    assert_eq!(told.len(), 1, "{kind}");
    told.remove(0)
}

#[tokio::test]
async fn a_day_far_beyond_its_plan_stops_the_shop_until_a_person_has_looked() {
    let world = World::new(Script::default()).await;
    subscribe_many(&world, 10, "2027-01-01").await;
    subscribe_many(&world, 40, "2027-01-20").await;
    // The plan is made: ten charges. Then something puts forty more on the day.
    world
        .workers
        .charger
        .run_once(world.clock.now())
        .await
        .unwrap();
    sql(
        &world,
        "UPDATE due_periods SET due_at = '2027-01-01T06:00:00Z' WHERE due_on = '2027-01-20'",
    )
    .await;
    world.run_until_idle().await;
    assert_eq!(world.posts(), 0, "they were claimed together");
    assert_eq!(modes(&world).await, ["* run", "main stop"]);
    let told = incident(&world, "incident.daily_cap").await;
    assert!(
        told.contains("\"charges\": 50") && told.contains("\"planned_charges\": 10"),
        "{told}"
    );
    // Whoever releases it has looked: what is due now is the plan.
    let (shop, now) = ("main".parse().unwrap(), world.clock.now());
    let released = world
        .store
        .set_brake(Some(&shop), BrakeMode::Run, "test", "looked at", now);
    released.await.unwrap();
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"; 50]);
    world.settle_up().await;
}

#[tokio::test]
async fn the_sums_of_a_day_are_capped_over_all_instances_together() {
    let world = World::new(Script::default()).await;
    subscribe_many(&world, 40, "2027-01-20").await;
    world.charge().await;
    sql(
        &world,
        "UPDATE due_periods SET due_at = '2027-01-01T06:00:00Z'",
    )
    .await;
    world
        .workers
        .scheduler
        .run_once(world.clock.now())
        .await
        .unwrap();
    let other = world.another_instance().await;
    let names = other.charger.shops.names();
    let mut permitted = 0;
    // By turns, three at a time: 20 may be sent on a day with an empty plan.
    for turn in 0..20 {
        let charger = if turn % 2 == 0 {
            &world.workers.charger
        } else {
            &other.charger
        };
        let claim = charger
            .store
            .claim(
                &names,
                3,
                &charger.limits,
                world.fence_id,
                world.clock.now(),
            )
            .await
            .unwrap();
        if let Claim::Permits { permits, .. } = claim {
            permitted += permits.len();
        }
    }
    assert_eq!(permitted, 18);
    assert_eq!(modes(&world).await, ["* run", "main stop"]);
}

#[tokio::test]
async fn what_people_let_go_on_belongs_to_the_plan_of_the_day() {
    let world = World::new(Script::default()).await;
    subscribe_many(&world, 30, "2027-01-01").await;
    // Late by more than a week: they wait for a person, and the plan has nothing.
    world.advance(TimeDelta::days(10));
    world.charge().await;
    assert_eq!(world.charges().await, ["held"; 30]);
    let ids: Vec<Uuid> = sqlx::query_scalar("SELECT charge_id FROM charges")
        .fetch_all(&world.books)
        .await
        .unwrap();
    for id in ids {
        let policy = &world.workers.charger.policy;
        let approve = Instruction::Approve;
        world
            .store
            .rule(
                ChargeId::from_uuid(id),
                approve,
                BY,
                policy,
                world.clock.now(),
            )
            .await
            .unwrap();
    }
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"; 30]);
    assert_eq!(modes(&world).await, ["* run"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_guard_that_is_gone_stops_everything_until_it_is_back() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    let trigger: String = world
        .one("SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = 'attempt_facts'")
        .await;
    for lost in [
        "DROP TRIGGER attempt_facts ON attempts",
        "ALTER TABLE attempts DISABLE TRIGGER attempt_step",
        "DROP INDEX one_live_attempt",
    ] {
        sql(&world, lost).await;
        // As at the start of a daemon.
        let started = world.another_instance().await;
        world.step(&started).await;
        assert_eq!(world.posts(), 0, "{lost}");
        assert_eq!(modes(&world).await, ["* stop"], "{lost}");
        assert_eq!(world.incidents().await, ["incident.guards"], "{lost}");
        // A release helps nothing as long as it is gone.
        world.release_brake().await;
        world.step(&started).await;
        assert_eq!(world.posts(), 0, "{lost}");
        assert_eq!(modes(&world).await, ["* stop"], "{lost}");
        let back = match lost {
            "DROP INDEX one_live_attempt" => {
                "CREATE UNIQUE INDEX one_live_attempt ON attempts (charge_id) WHERE state IN ('in_doubt', 'pending', 'settled')"
            }
            "DROP TRIGGER attempt_facts ON attempts" => &trigger,
            _ => "ALTER TABLE attempts ENABLE TRIGGER attempt_step",
        };
        sql(&world, back).await;
        world.release_brake().await;
    }
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_guard_that_goes_while_a_daemon_runs_stops_it_at_its_next_look() {
    for (look_every, fails) in [(Duration::ZERO, false), (Duration::MAX, true)] {
        let world = World::new(Script::default()).await;
        let mut daemon = world.another_instance().await;
        daemon.charger.look_every = look_every;
        subscribe_many(&world, 1, "2027-01-01").await;
        while world.step(&daemon).await {}
        assert_eq!(world.posts(), 1);
        sql(&world, "ALTER TABLE attempts DISABLE TRIGGER attempt_step").await;
        subscribe_many(&world, 1, "2027-01-01").await;
        let now = world.clock.now();
        daemon.scheduler.run_once(now).await.unwrap();
        if fails {
            // The next look is far, but after a run that failed it looks at once.
            sql(
                &world,
                "CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     RAISE EXCEPTION 'disk' USING ERRCODE = '58030'; END $$;
                 CREATE TRIGGER fault BEFORE INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION fault();",
            )
            .await;
            daemon.charger.run_once(now).await.unwrap_err();
            sql(&world, "DROP TRIGGER fault ON attempts").await;
            assert_eq!(modes(&world).await, ["* run"]);
        }
        while world.step(&daemon).await {}
        assert_eq!(world.posts(), 1, "after a failure: {fails}");
        assert_eq!(modes(&world).await, ["* stop"]);
        incident(&world, "incident.guards").await;
        sql(&world, "ALTER TABLE attempts ENABLE TRIGGER attempt_step").await;
        world.release_brake().await;
        while world.step(&daemon).await {}
        assert_eq!(world.charges().await, ["paid"; 2]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn an_index_that_nothing_but_speed_needs_stops_nothing() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    sql(&world, "DROP INDEX charges_held").await;
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up_except(&["guards_stand"]).await;
}

/// Puts the books back to where nothing had been permitted, as a restore does.
async fn put_back(world: &World) {
    sql(
        world,
        "SET session_replication_role = replica; DELETE FROM attempts; DELETE FROM evidence;
         UPDATE charges SET state = 'planned', paid_at = NULL, paid_attempt_id = NULL, next_action_at = due_at, attempts = 0;
         RESET session_replication_role",
    )
    .await;
}

async fn is_stopped_by_what_it_knows(world: &World, workers: &Workers) {
    world.step(workers).await;
    assert_eq!(world.posts(), 3, "something was sent again");
    assert_eq!(modes(world).await, ["* stop"]);
    incident(world, "incident.books_behind").await;
}

#[tokio::test]
async fn a_database_that_goes_back_under_a_daemon_stops_it() {
    let world = World::new(Script::default()).await;
    subscribe_many(&world, 3, "2027-01-01").await;
    world.run_until_idle().await;
    // Between two ticks, and no connection that breaks tells of it.
    put_back(&world).await;
    is_stopped_by_what_it_knows(&world, &world.workers).await;
}

#[tokio::test]
async fn a_database_that_goes_back_before_the_first_permit_of_a_daemon_stops_it_by_the_journal() {
    let world = World::new(Script::default()).await;
    let folder = tempfile::tempdir_in(scratch::directory()).unwrap();
    subscribe_many(&world, 3, "2027-01-01").await;
    let first = world
        .with_journal(&world.store, world.fence_id, folder.path())
        .await;
    while world.step(&first).await {}
    // Another takes over, and has permitted nothing yet.
    let second = world
        .with_journal(&world.store, world.fence_id, folder.path())
        .await;
    while world.step(&second).await {}
    put_back(&world).await;
    is_stopped_by_what_it_knows(&world, &second).await;
}

#[tokio::test]
async fn a_switch_that_turns_every_trigger_off_stops_everything() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    let name = world.database.get_database().unwrap();
    sql(
        &world,
        &format!("ALTER DATABASE {name} SET session_replication_role = replica"),
    )
    .await;
    let started = world.another_instance().await;
    let now = world.clock.now();
    started.scheduler.run_once(now).await.unwrap();
    started.charger.run_once(now).await.unwrap();
    assert_eq!(world.posts(), 0);
    assert_eq!(modes(&world).await, ["* stop"]);
    incident(&world, "incident.guards").await;
}

#[tokio::test]
async fn what_was_not_sent_and_is_tried_again_counts_once_a_day() {
    let world = World::new(Script::default()).await;
    subscribe_many(&world, 10, "2027-01-01").await;
    world.simulator.go_down().await;
    // How many go out at a time before the first of them fails is chance. All of it stays on one day.
    let mut tried = 0;
    for _ in 0..180 {
        world.step(&world.workers).await;
        world.advance(TimeDelta::minutes(5));
        tried = world.one::<i64>("SELECT count(*) FROM attempts").await;
        if tried > 32 {
            break;
        }
    }
    assert!(tried > 32, "{tried}");
    world.simulator.come_up().await.unwrap();
    world.run_until_idle().await;
    world
        .run_until(world.clock.now() + TimeDelta::hours(8))
        .await;
    assert_eq!(modes(&world).await, ["* run"]);
    assert_eq!(world.charges().await, ["paid"; 10]);
    world.settle_up().await;
}

#[tokio::test]
async fn what_is_not_in_the_journal_is_not_sent() {
    let world = World::new(Script::default()).await;
    let folder = tempfile::tempdir_in(scratch::directory()).unwrap();
    let folder = folder.path().join("journal");
    let workers = world
        .with_journal(&world.store, world.fence_id, &folder)
        .await;
    subscribe_many(&world, 3, "2027-01-02").await;
    // The disk is gone when the file of the next day is to be made.
    std::fs::remove_dir_all(&folder).unwrap();
    world.advance(TimeDelta::days(1));
    world.step(&workers).await;
    assert_eq!(world.posts(), 0);
    assert_eq!(world.attempts().await, ["not_sent"; 3]);
    let why: String = world.one("SELECT DISTINCT detail FROM evidence").await;
    assert!(why.contains("permits-2027-01-02"), "{why}");
    // As long as it lasts, one charge at a time is tried.
    world.advance(TimeDelta::minutes(10));
    world.step(&workers).await;
    assert_eq!(world.attempts().await, ["not_sent"; 4]);
    std::fs::create_dir(&folder).unwrap();
    for _ in 0..10 {
        world.advance(TimeDelta::hours(7));
        while world.step(&workers).await {}
    }
    assert_eq!(world.charges().await, ["paid"; 3]);
    world.settle_up().await;
}

/// What the journal says that `store` does not.
async fn news(store: &Store, folder: &Path) -> JournalNews {
    journal::compare(folder.to_owned(), store)
        .await
        .unwrap()
        .news
}

async fn adopt(world: &World, store: &Store, news: &JournalNews) -> Result<Adoption, StoreError> {
    let shops = daemon::identities(&world.config);
    let limits = world.workers.charger.limits;
    store
        .adopt(&shops, BY, news, &limits, world.clock.now())
        .await
}

fn fates(adoption: &Adoption) -> BTreeMap<String, LostFate> {
    let lost = adoption.lost.iter();
    lost.map(|lost| (lost.order_id.clone(), lost.fate))
        .collect()
}

fn order(subscription: Uuid, attempt: u32) -> String {
    format!("cykl-{}-0-{attempt}", subscription.simple())
}

/// A shop that charged for two days with a journal, and its books as they were before.
pub struct Restored {
    world: World,
    folder: TempDir,
    /// The books of before: where they are, and a look into them.
    pub database: PgConnectOptions,
    store: Store,
    books: PgPool,
    /// Subscriptions, by what became of them in the two days.
    paid: Uuid,
    silent: Uuid,
    declined: Uuid,
    newcomer: Uuid,
    /// Paid, too, but held in the books of before.
    held: Uuid,
}

/// See [`Restored`].
pub async fn restored() -> Restored {
    let world = World::new(Script::default()).await;
    let folder = tempfile::tempdir_in(scratch::directory()).unwrap();
    let workers = world
        .with_journal(&world.store, world.fence_id, folder.path())
        .await;
    let paid = world.subscribe(Agreement::monthly("2027-01-01")).await;
    let lost_answer = Behaviour::take_money_and_lose_answer();
    let silent = world
        .subscribe(Agreement::monthly("2027-01-01").with_card(lost_answer))
        .await;
    let agreement = Agreement::monthly("2027-01-01");
    let mut card = agreement.profile();
    card.declines_first = Some(DeclinesFirst {
        count: 1,
        code: "CODE_51".to_owned(),
    });
    let declined = world.subscribe(agreement).await;
    world.simulator.register_profile(card);
    let held = world.subscribe(Agreement::monthly("2027-01-01")).await;
    world
        .workers
        .scheduler
        .run_once(world.clock.now())
        .await
        .unwrap();
    let backup = copy_of(&world).await;
    let newcomer = world.subscribe(Agreement::monthly("2027-01-01")).await;
    // Two days pass that the backup knows nothing of; the declined card is debited again on the second.
    for _ in 0..2 {
        while world.step(&workers).await {}
        world.advance(TimeDelta::hours(25));
    }
    while world.step(&workers).await {}
    assert_eq!(world.posts(), 6);
    let store = connect(backup.clone(), 4).await;
    let books = open_books(&backup).await;
    sqlx::query(
        "UPDATE charges SET state = 'held', reason = 'too_late' WHERE subscription_id = $1",
    )
    .bind(held)
    .execute(&books)
    .await
    .unwrap();
    Restored {
        world,
        folder,
        database: backup,
        store,
        books,
        paid,
        silent,
        declined,
        newcomer,
        held,
    }
}

impl Restored {
    pub async fn adopt(&self, news: &JournalNews) -> Adoption {
        self.adopt_through(&self.store, news).await.unwrap()
    }

    /// As [`Restored::adopt`], over the connections of `store`.
    pub async fn adopt_through(
        &self,
        store: &Store,
        news: &JournalNews,
    ) -> Result<Adoption, StoreError> {
        adopt(&self.world, store, news).await
    }

    pub async fn news(&self) -> JournalNews {
        news(&self.store, self.folder.path()).await
    }

    /// Lets workers go on from the books of before.
    pub async fn go_on(&self, fence_id: FenceId) {
        let workers = self
            .world
            .with_journal(&self.store, fence_id, self.folder.path())
            .await;
        while self.world.step(&workers).await {}
        assert_eq!(self.world.posts(), 6, "a debit was made a second time");
    }

    /// The books of before, which have gone on, agree with the ledger.
    pub async fn is_as_imoje_has_it(&self) {
        // Those whose answers came are known to be paid; of the other nobody has told anything, so people will be asked.
        let mut states = self
            .texts("SELECT order_id || ' ' || state FROM attempts")
            .await;
        states.sort();
        let mut expected = [
            (self.paid, 1, "settled"),
            (self.silent, 1, "in_doubt"),
            (self.declined, 2, "settled"),
        ]
        .map(|(of, attempt, state)| format!("{} {state}", order(of, attempt)));
        expected.sort();
        assert_eq!(states, expected);
        let ledger = self.world.simulator.ledger();
        for subscription in [self.paid, self.silent, self.held, self.newcomer] {
            assert_eq!(ledger.posts_of(&order(subscription, 1)).len(), 1);
        }
        self.world.settle_up_beside_doubts(&[]).await;
    }

    /// A person approves what is held.
    async fn approve(&self) {
        let id: Uuid = sqlx::query_scalar("SELECT charge_id FROM charges WHERE state = 'held'")
            .fetch_one(&self.books)
            .await
            .unwrap();
        let (id, now) = (ChargeId::from_uuid(id), self.world.clock.now());
        let policy = &self.world.workers.charger.policy;
        let approved = self.store.rule(id, Instruction::Approve, BY, policy, now);
        approved.await.unwrap();
    }

    async fn texts(&self, query: &'static str) -> Vec<String> {
        sqlx::query_scalar(query)
            .fetch_all(&self.books)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn permits_that_a_restored_database_forgot_come_back_as_what_they_are() {
    let shop = restored().await;
    let adopted = shop.adopt(&shop.news().await).await;
    let expected = BTreeMap::from([
        (order(shop.paid, 1), LostFate::Restored),
        (order(shop.silent, 1), LostFate::Restored),
        (order(shop.declined, 1), LostFate::Superseded),
        (order(shop.declined, 2), LostFate::Restored),
        (order(shop.held, 1), LostFate::Unplaced),
        (order(shop.newcomer, 1), LostFate::Unplaced),
    ]);
    assert_eq!(fates(&adopted), expected);
    assert!(shop.news().await.lost.is_empty());
    shop.go_on(adopted.fence_id).await;

    shop.is_as_imoje_has_it().await;
}

#[tokio::test]
async fn a_period_whose_lost_permit_has_no_place_is_not_charged_before_it_has_one() {
    let shop = restored().await;
    let adopted = shop.adopt(&shop.news().await).await;
    shop.approve().await;
    shop.go_on(adopted.fence_id).await;
    let told = shop
        .texts("SELECT payload ->> 'refusal' FROM events WHERE kind = 'incident.permit_refused'")
        .await;
    let lost = order(shop.held, 1);
    assert!(told.iter().any(|told| told.contains(&lost)), "{told:?}");
    // Its charge waits now, so another adoption finds the place.
    let again = shop.adopt(&JournalNews::default()).await;
    assert_eq!(fates(&again)[&lost], LostFate::Restored);
    assert_eq!(fates(&again)[&order(shop.newcomer, 1)], LostFate::Unplaced);
    shop.go_on(again.fence_id).await;
    let states = shop
        .texts("SELECT state::text FROM attempts ORDER BY state")
        .await;
    assert_eq!(states, ["in_doubt", "settled", "settled", "settled"]);
    shop.world.settle_up_beside_doubts(&[]).await;
}

#[tokio::test]
async fn a_period_that_was_charged_again_without_the_journal_is_told() {
    let world = World::new(Script::default()).await;
    let folder = tempfile::tempdir_in(scratch::directory()).unwrap();
    let workers = world
        .with_journal(&world.store, world.fence_id, folder.path())
        .await;
    let subscription = world.subscribe(Agreement::monthly("2027-01-01")).await;
    world
        .workers
        .scheduler
        .run_once(world.clock.now())
        .await
        .unwrap();
    let backup = copy_of(&world).await;
    while world.step(&workers).await {}
    // Somebody adopts the backup without the journal, and charges from it: this is what the journal is for.
    let copy = connect(backup.clone(), 4).await;
    let blind = adopt(&world, &copy, &JournalNews::default()).await.unwrap();
    let stop = CancellationToken::new();
    let none = Ground::default();
    let twice = daemon::workers(
        &world.config,
        &copy,
        &world.clock,
        &world.metrics,
        blind.fence_id,
        &none,
        stop,
    )
    .unwrap();
    while world.step(&twice).await {}
    assert_eq!(world.posts(), 2);
    let news = news(&copy, folder.path()).await;
    let adopted = adopt(&world, &copy, &news).await.unwrap();
    assert_eq!(
        fates(&adopted),
        BTreeMap::from([(order(subscription, 1), LostFate::OrderIdTaken)])
    );
}
