//! What stops all charging: the brake, the fence, and a commit that nobody confirmed.

use std::time::Duration;

use chrono::TimeDelta;
use cykl::cli::daemon;
use cykl::clock::Clock;
use cykl::domain::answer::Verdict;
use cykl::domain::id::{AttemptId, SubscriptionId, TransactionId};
use cykl::domain::resolution::News;
use cykl::domain::shop::{Environment, ShopName};
use cykl::domain::tripwire::{Declines, Trip};
use cykl::simulator::{Behaviour, Call, ErrorBody, Rule, Script};
use cykl::store::brakes::BrakeMode;
use cykl::store::installation::{FenceLook, ShopIdentity};
use cykl::store::permits::{Claim, ClaimError, Permit};
use cykl::store::resolution::{Evidence, Finding};
use cykl::store::waiting::CROWD;
use cykl::store::{Refusal, Store, Wake};
use cykl::workers::charger::Report;
use cykl::workers::crew::Workers;
use reqwest::StatusCode;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::harness::{Agreement, Parts, Setting, World, connect, copy_of, open_books};

fn main_shop() -> ShopName {
    "main".parse().unwrap()
}

async fn brake(world: &World, shop: Option<&ShopName>, mode: BrakeMode) {
    world
        .store
        .set_brake(shop, mode, "test", "a test", world.clock.now())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_brake_on_all_shops_or_on_one_is_effective_until_it_is_released() {
    for shop in [None, Some(&main_shop())] {
        for mode in [BrakeMode::Stop, BrakeMode::Drain] {
            let world = World::new(Script::default()).await;
            world.subscribe(Agreement::monthly("2027-01-01")).await;
            brake(&world, shop, mode).await;
            world.run_days(1).await;
            assert_eq!(world.charges().await, ["planned"], "{mode:?}");
            assert_eq!(world.posts(), 0, "{mode:?}");
            brake(&world, shop, BrakeMode::Run).await;
            world.run_until_idle().await;
            assert_eq!(world.charges().await, ["paid"], "{mode:?}");
            let told = world
                .column("SELECT payload ->> 'mode' FROM events WHERE kind = 'brake.changed' ORDER BY occurred_at")
                .await;
            assert_eq!(told, [mode.as_str(), "run"]);
            world.settle_up().await;
        }
    }
}

#[tokio::test]
async fn the_brake_of_another_shop_and_a_shops_own_release_change_nothing() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    brake(&world, Some(&main_shop()), BrakeMode::Run).await;
    brake(&world, None, BrakeMode::Stop).await;
    world.run_until_idle().await;
    assert_eq!(
        world.charges().await,
        ["planned"],
        "the brake of all counts for each"
    );
    brake(&world, None, BrakeMode::Run).await;
    brake(&world, Some(&"other".parse().unwrap()), BrakeMode::Stop).await;
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn what_is_in_flight_when_the_brake_comes_on_is_recorded_and_read_but_never_retried() {
    let world = World::new(Script::default()).await;
    world
        .subscribe(
            Agreement::monthly("2027-01-01")
                .with_card(Behaviour::settle_after(Duration::from_secs(60))),
        )
        .await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline("CODE_51")).nth(2));
    world.charge().await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.charge().await;
    assert_eq!(world.posts(), 2);
    brake(&world, None, BrakeMode::Stop).await;
    world.run_days(20).await;
    assert_eq!(world.posts(), 2);
    let mut states = world.charges().await;
    states.sort();
    assert_eq!(states, ["paid", "retry_wait"]);
    brake(&world, None, BrakeMode::Run).await;
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid", "paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn permits_that_wait_for_their_turn_are_sent_under_drain_and_given_back_under_stop() {
    for mode in [BrakeMode::Drain, BrakeMode::Stop] {
        let world = World::with(Setting {
            shop: "rate_per_second = 1".to_owned(),
            ..Setting::default()
        })
        .await;
        for _ in 0..4 {
            world.subscribe(Agreement::monthly("2027-01-01")).await;
        }
        let now = world.clock.now();
        world.workers.scheduler.run_once(now).await.unwrap();
        let braking = async {
            while world.posts() == 0 {
                tokio::task::yield_now().await;
            }
            brake(&world, None, mode).await;
        };
        let (charged, ()) = tokio::join!(world.workers.charger.run_once(now), braking);
        assert_eq!(charged.unwrap().permitted, 4);
        let sent = usize::try_from(world.posts()).unwrap();
        assert_eq!(
            sent == 4,
            mode == BrakeMode::Drain,
            "{sent} were sent under {mode:?}"
        );
        let mut attempts = world.attempts().await;
        attempts.sort();
        assert_eq!(attempts[..4 - sent], vec!["not_sent"; 4 - sent]);
        brake(&world, None, BrakeMode::Run).await;
        world
            .run_until(world.clock.now() + TimeDelta::hours(1))
            .await;
        assert_eq!(world.charges().await, ["paid"; 4]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_missing_brake_means_stop() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    sqlx::query("DELETE FROM brakes")
        .execute(&world.books)
        .await
        .unwrap();
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["planned"]);
    assert_eq!(world.posts(), 0);
}

/// Whether a session of this database waits for a lock.
async fn somebody_waits(world: &World) -> bool {
    world
        .one(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
                            WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .await
}

/// Permits for everything that is due, by a session of its own.
async fn claim(store: &Store, world: &World) -> Vec<Permit> {
    let charger = &world.workers.charger;
    let claimed = store
        .claim(
            &charger.shops.names(),
            100,
            &charger.limits,
            world.fence_id,
            world.clock.now(),
        )
        .await
        .unwrap();
    let Claim::Permits { permits, .. } = claimed else {
        panic!("{claimed:?}");
    };
    permits
}

#[tokio::test]
async fn a_brake_waits_for_permits_that_are_being_committed_and_stops_all_after_them() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    // A permit is on its way to its commit and holds the brake as it saw it.
    let mut permitting = world.books.begin().await.unwrap();
    sqlx::query("SELECT FROM brakes FOR SHARE")
        .execute(&mut *permitting)
        .await
        .unwrap();
    let (store, now) = (world.store.clone(), world.clock.now());
    let (pulled, mut is_pulled) = oneshot::channel();
    let pulling = tokio::spawn(async move {
        let set = store
            .set_brake(None, BrakeMode::Stop, "test", "a test", now)
            .await;
        pulled.send(()).unwrap();
        set
    });
    while !somebody_waits(&world).await {
        assert!(is_pulled.try_recv().is_err(), "the brake overtook a permit");
    }
    permitting.commit().await.unwrap();
    pulling.await.unwrap().unwrap();
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["planned"]);
}

#[tokio::test]
async fn a_copy_of_the_database_charges_nothing_until_it_is_adopted() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    let options = copy_of(&world).await;
    let copy = connect(options, 4).await;
    let charger = &world.workers.charger;
    let claimed = copy
        .claim(
            &charger.shops.names(),
            10,
            &charger.limits,
            world.fence_id,
            now,
        )
        .await;
    match claimed {
        Err(ClaimError::Failed(error)) => {
            assert_eq!(error.refusal(), Some(Refusal::Fence), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let shops = daemon::identities(&world.config);
    let refused = copy.pass_fence(&shops, "test", now).await.unwrap_err();
    assert!(refused.to_string().contains("cykl adopt"), "{refused}");
    let adopted = world.adopt(&copy).await;
    assert_ne!(adopted, world.fence_id);
    assert_eq!(copy.pass_fence(&shops, "test", now).await.unwrap(), adopted);
    // A daemon that passed the fence before the adoption is out, even there.
    let old = copy
        .claim(
            &charger.shops.names(),
            10,
            &charger.limits,
            world.fence_id,
            now,
        )
        .await;
    assert!(old.is_err(), "{old:?}");
    let claimed = copy
        .claim(&charger.shops.names(), 10, &charger.limits, adopted, now)
        .await
        .unwrap();
    assert!(matches!(claimed, Claim::Permits { permits, .. } if permits.len() == 1));
    // The original goes on as if nothing had been.
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn adopting_the_database_locks_out_every_daemon_that_runs() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    let now = world.clock.now();
    // Nothing is planned yet: it only looks.
    world.workers.charger.run_once(now).await.unwrap();
    let fence_id = world.adopt(&world.store).await;
    world.workers.scheduler.run_once(now).await.unwrap();
    let error = world.workers.charger.run_once(now).await.unwrap_err();
    assert!(error.to_string().contains("fence"), "{error:#}");
    let late = world.another_instance().await;
    for charger in [
        &world.workers.charger,
        &world.workers.charger,
        &late.charger,
    ] {
        assert_eq!(charger.run_once(now).await.unwrap(), Report::default());
    }
    assert_eq!(world.posts(), 0);
    assert_eq!(world.charges().await, ["planned"]);
    assert_eq!(
        told_of_the_fence(&world).await,
        [format!("adopted {fence_id}")]
    );
    assert!(world.metrics.encode().contains("cykl_fence_closed 1\n"));
}

/// What was told about the fence, oldest first.
async fn told_of_the_fence(world: &World) -> Vec<String> {
    world
        .column(
            "SELECT concat_ws(' ', payload->>'cause', payload->>'fence_id', payload->>'was')
             FROM events WHERE kind = 'incident.fence' ORDER BY event_id",
        )
        .await
}

#[tokio::test]
async fn a_database_that_moves_under_a_daemon_is_told_once_until_it_is_back() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    let (first, second) = (&world.workers, world.another_instance().await);
    let move_by = async |by: i64| {
        sqlx::query("UPDATE installation SET timeline = timeline + $1")
            .bind(by)
            .execute(&world.books)
            .await
            .unwrap();
    };
    for number in 1..=2 {
        move_by(1).await;
        for workers in [first, &second, first, &second] {
            world.step(workers).await;
        }
        let told = told_of_the_fence(&world).await;
        assert_eq!(told.len(), number, "{told:?}");
        assert!(told.iter().all(|told| told.starts_with("moved system")));
        assert_eq!(world.posts(), 0);
        assert_eq!(world.brakes().await, ["* run first start"]);
        assert!(world.metrics.encode().contains("cykl_fence_closed 1\n"));
        move_by(-1).await;
        let look = world.store.watch_fence(world.fence_id, world.clock.now());
        assert_eq!(look.await.unwrap(), FenceLook::Open);
    }
    world.step(&second).await;
    assert!(world.metrics.encode().contains("cykl_fence_closed 0\n"));
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}

#[tokio::test]
async fn another_service_in_the_configuration_is_refused() {
    let world = World::new(Script::default()).await;
    let now = world.clock.now();
    let fine = daemon::identities(&world.config);
    let spoil: [fn(&mut ShopIdentity); 3] = [
        |shop| shop.service_id.replace_range(..1, "3"),
        |shop| shop.merchant_id.push('x'),
        |shop| shop.environment = Environment::Production,
    ];
    for spoil in spoil {
        let mut other = fine.clone();
        spoil(&mut other[0]);
        let refused = world
            .store
            .pass_fence(&other, "test", now)
            .await
            .unwrap_err();
        assert!(refused.to_string().contains("cykl adopt"), "{refused}");
        assert!(world.store.record_shops(&other, now).await.is_err());
    }
    assert_eq!(
        world.store.pass_fence(&fine, "test", now).await.unwrap(),
        world.fence_id
    );
}

/// Records permits that turned out to be committed as not sent, as the charger does.
async fn record_unsent(world: &World, committed: Vec<(SubscriptionId, AttemptId)>) {
    let findings: Vec<Finding> = committed
        .into_iter()
        .map(|(subscription_id, attempt_id)| Finding {
            subscription_id,
            attempt_id,
            news: News::NotSent,
            evidence: Evidence::default(),
        })
        .collect();
    let policy = &world.workers.charger.policy;
    world
        .store
        .record(&findings, policy, world.clock.now())
        .await
        .unwrap();
}

#[tokio::test]
async fn permits_that_were_committed_unconfirmed_are_buried_and_their_charges_go_on() {
    let world = World::new(Script::default()).await;
    for _ in 0..5 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    let permits = claim(&world.store, &world).await;
    assert_eq!(permits.len(), 5);
    let limits = &world.workers.charger.limits;
    for _ in 0..2 {
        let committed = world
            .store
            .bury(&permits, limits, world.fence_id)
            .await
            .unwrap();
        assert_eq!(committed.len(), 5);
    }
    let ids = permits
        .iter()
        .map(|permit| (permit.order_id.subscription_id, permit.attempt_id))
        .collect();
    record_unsent(&world, ids).await;
    assert_eq!(world.attempts().await, ["not_sent"; 5]);
    assert_eq!(world.charges().await, ["retry_wait"; 5]);
    world
        .run_until(world.clock.now() + TimeDelta::hours(1))
        .await;
    assert_eq!(world.charges().await, ["paid"; 5]);
    assert_eq!(world.posts(), 5);
    world.settle_up().await;
}

#[tokio::test]
async fn permits_that_were_never_committed_are_buried_and_can_never_be() {
    let world = World::new(Script::default()).await;
    for _ in 0..3 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    // What a lost connection leaves behind: permits in memory, and no rows. A copy of the database gives such permits.
    let options = copy_of(&world).await;
    let elsewhere = connect(options.clone(), 2).await;
    let fence_id = world.adopt(&elsewhere).await;
    sqlx::query("UPDATE brakes SET stage = NULL, stage_since = NULL, stage_max = NULL")
        .execute(&open_books(&options).await)
        .await
        .unwrap();
    let charger = &world.workers.charger;
    let claimed = elsewhere
        .claim(&charger.shops.names(), 10, &charger.limits, fence_id, now)
        .await
        .unwrap();
    let Claim::Permits { permits, .. } = claimed else {
        panic!("{claimed:?}");
    };
    assert_eq!(permits.len(), 3);
    let committed = world
        .store
        .bury(&permits, &charger.limits, world.fence_id)
        .await
        .unwrap();
    assert_eq!(committed, []);
    assert_eq!(world.attempts().await, ["not_sent"; 3]);
    assert_eq!(world.charges().await, ["planned"; 3]);
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"; 3]);
    let numbers = world
        .column("SELECT attempt_no || ' ' || state FROM attempts ORDER BY attempt_no")
        .await;
    assert_eq!(
        numbers,
        [
            "1 not_sent",
            "1 not_sent",
            "1 not_sent",
            "2 settled",
            "2 settled",
            "2 settled"
        ]
    );
    world.settle_up().await;
}

#[tokio::test]
async fn a_commit_that_breaks_sends_nothing_and_the_charges_go_out_afterwards() {
    let world = World::new(Script::default()).await;
    for _ in 0..3 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    // The first commit of permits loses its connection.
    sqlx::raw_sql(
        "CREATE SEQUENCE broken_commits;
         CREATE FUNCTION break_the_first_commit() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.state = 'in_doubt' AND nextval('broken_commits') = 1 THEN
                 PERFORM pg_terminate_backend(pg_backend_pid());
                 PERFORM pg_sleep(10);
             END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER break_the_first_commit AFTER INSERT ON attempts
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION break_the_first_commit()",
    )
    .execute(&world.books)
    .await
    .unwrap();
    world.charge().await;
    assert_eq!(world.posts(), 0);
    assert_eq!(world.attempts().await, ["not_sent"; 3]);
    assert_eq!(world.charges().await, ["planned"; 3]);
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"; 3]);
    assert_eq!(world.posts(), 3);
    world.settle_up().await;
}

#[tokio::test]
async fn a_burial_waits_for_the_lost_transaction_and_learns_what_became_of_it() {
    for commits in [true, false] {
        let world = World::new(Script::default()).await;
        world.subscribe(Agreement::monthly("2027-01-01")).await;
        let now = world.clock.now();
        world.workers.scheduler.run_once(now).await.unwrap();
        let elsewhere = connect(copy_of(&world).await, 2).await;
        let fence_id = world.adopt(&elsewhere).await;
        let charger = &world.workers.charger;
        let claimed = elsewhere
            .claim(&charger.shops.names(), 10, &charger.limits, fence_id, now)
            .await
            .unwrap();
        let Claim::Permits { permits, .. } = claimed else {
            panic!("{claimed:?}");
        };
        // The transaction of the permit, still open on a connection that its daemon has lost.
        let mut lost = world.books.begin().await.unwrap();
        sqlx::query(
            "INSERT INTO attempts (attempt_id, charge_id, subscription_id, shop, card_id, period_no, attempt_no, order_id,
                 amount_minor, currency, state, is_retry, fence_id, permitted_at, deadline_at, quiet_until, next_poll_at)
             SELECT $1, c.charge_id, c.subscription_id, c.shop, s.card_id, c.period_no, 1, $2, c.amount_minor, c.currency,
                 'in_doubt', false, $3, $4, $4, $4, $4
             FROM charges c JOIN subscriptions s USING (subscription_id)",
        )
        .bind(permits[0].attempt_id)
        .bind(permits[0].order_id.to_string())
        .bind(world.fence_id)
        .bind(now)
        .execute(&mut *lost)
        .await
        .unwrap();
        sqlx::query("UPDATE charges SET state = 'in_flight', attempts = 1")
            .execute(&mut *lost)
            .await
            .unwrap();
        let (store, limits, own_fence) = (world.store.clone(), charger.limits, world.fence_id);
        let buried = permits.clone();
        let burying = tokio::spawn(async move { store.bury(&buried, &limits, own_fence).await });
        while !somebody_waits(&world).await {
            assert!(!burying.is_finished(), "the burial did not wait");
        }
        if commits {
            lost.commit().await.unwrap();
        } else {
            lost.rollback().await.unwrap();
        }
        let committed = burying.await.unwrap().unwrap();
        assert_eq!(committed.len(), usize::from(commits));
        record_unsent(&world, committed).await;
        assert_eq!(world.attempts().await, ["not_sent"]);
        world
            .run_until(world.clock.now() + TimeDelta::hours(1))
            .await;
        assert_eq!(world.charges().await, ["paid"]);
        assert_eq!(world.posts(), 1);
        world.settle_up().await;
    }
}

/// A world with `count` charges that are due, whose cards settle a minute after the debit, and whose brake was just released.
async fn released(count: usize) -> World {
    let world = World::new(Script::default()).await;
    brake(&world, None, BrakeMode::Stop).await;
    for _ in 0..count {
        let card = Behaviour::settle_after(Duration::from_secs(60));
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(card))
            .await;
    }
    world.run_until_idle().await;
    assert_eq!(world.posts(), 0);
    world.release_brake().await;
    world
}

/// Where the slow start of all shops is.
async fn stage(world: &World) -> Option<i16> {
    world.one("SELECT stage FROM brakes WHERE shop = '*'").await
}

#[tokio::test]
async fn after_a_release_one_charge_is_sent_then_five_then_a_quarter_then_all() {
    let world = released(40).await;
    for (posts, of) in [(1, Some(1)), (6, Some(2)), (22, Some(3)), (40, None)] {
        world.run_until_idle().await;
        assert_eq!((world.posts(), stage(&world).await), (posts, of));
        // Time alone lets nothing through.
        world.advance(TimeDelta::seconds(50));
        world
            .workers
            .charger
            .run_once(world.clock.now())
            .await
            .unwrap();
        assert_eq!(world.posts(), posts);
        world.advance(TimeDelta::seconds(20));
    }
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"; 40]);
    world.settle_up().await;
}

#[tokio::test]
async fn two_instances_together_send_no_more_than_a_slow_start_allows() {
    let world = released(40).await;
    let others = [
        world.another_instance().await,
        world.another_instance().await,
    ];
    for posts in [1, 6, 22, 40] {
        let now = world.clock.now();
        let charged = tokio::join!(
            others[0].charger.run_once(now),
            world.workers.charger.run_once(now),
            others[1].charger.run_once(now),
        );
        charged.0.unwrap();
        charged.1.unwrap();
        charged.2.unwrap();
        assert_eq!(world.posts(), posts);
        world.advance(TimeDelta::seconds(70));
        world.simulator.deliver_due().await;
        let now = world.clock.now();
        others[0].resolver.run_once(now).await.unwrap();
    }
    assert_eq!(world.charges().await, ["paid"; 40]);
    world.settle_up().await;
}

#[tokio::test]
async fn the_slow_start_of_one_shop_is_its_own_and_a_stop_ends_it() {
    let world = World::new(Script::default()).await;
    brake(&world, Some(&main_shop()), BrakeMode::Drain).await;
    for _ in 0..3 {
        let card = Behaviour::settle_after(Duration::from_secs(60));
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(card))
            .await;
    }
    brake(&world, Some(&main_shop()), BrakeMode::Run).await;
    world.run_until_idle().await;
    assert_eq!(world.posts(), 1);
    assert_eq!(stage(&world).await, None, "all other shops go on");
    brake(&world, Some(&main_shop()), BrakeMode::Stop).await;
    world
        .run_until(world.clock.now() + TimeDelta::hours(1))
        .await;
    assert_eq!(world.posts(), 1);
    brake(&world, Some(&main_shop()), BrakeMode::Run).await;
    world.run_until_idle().await;
    assert_eq!(world.posts(), 2, "it begins again");
    world
        .run_until(world.clock.now() + TimeDelta::hours(1))
        .await;
    assert_eq!(world.charges().await, ["paid"; 3]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_first_start_is_not_slow_and_the_start_after_an_adoption_is() {
    let world = World::new(Script::default()).await;
    for _ in 0..4 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    assert_eq!(stage(&world).await, None);
    let fence_id = world.adopt(&world.store).await;
    let charger = &world.workers.charger;
    let claimed = world
        .store
        .claim(&charger.shops.names(), 10, &charger.limits, fence_id, now)
        .await
        .unwrap();
    assert!(matches!(claimed, Claim::Permits { permits, .. } if permits.len() == 1));
    let more = world
        .store
        .claim(&charger.shops.names(), 10, &charger.limits, fence_id, now)
        .await
        .unwrap();
    assert!(matches!(more, Claim::StartsSlowly), "{more:?}");
}

#[tokio::test]
async fn a_slow_start_waits_for_a_doubt_and_begins_again_when_it_lasts() {
    a_slow_start_waits_a_quarter_of_an_hour_for(Behaviour::lose_request()).await;
}

#[tokio::test]
async fn a_slow_start_does_not_wait_for_what_stays_pending() {
    a_slow_start_waits_a_quarter_of_an_hour_for(Behaviour::pending_for_ever()).await;
}

/// Eight charges are due after a release, and the first of them has no outcome.
async fn a_slow_start_waits_a_quarter_of_an_hour_for(first: Behaviour) {
    let world = World::new(Script::default()).await;
    brake(&world, None, BrakeMode::Stop).await;
    for _ in 0..8 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    world.simulator.add_rule(Rule::debits(first).times(1));
    world.release_brake().await;
    world.run_until_idle().await;
    assert_eq!(world.posts(), 1);
    world.advance(TimeDelta::minutes(14));
    world.run_until_idle().await;
    assert_eq!(world.posts(), 1);
    world.advance(TimeDelta::minutes(2));
    world.charge().await;
    assert_eq!(world.posts(), 8);
    let mut charges = world.charges().await;
    charges.sort();
    assert_eq!(charges[0], "in_flight");
    assert_eq!(charges[1..], ["paid"; 7]);
    world.settle_up().await;
}

/// One debit at a time, so that it is known which is the last before the brake comes on.
const ONE_BY_ONE: &str = "[charging]\nin_flight_max = 1";

#[tokio::test]
async fn three_doubts_among_ten_debits_pause_the_shop_on_all_instances_for_a_quarter_of_an_hour() {
    let world = World::with(Setting {
        toml: ONE_BY_ONE.to_owned(),
        ..Setting::default()
    })
    .await;
    let sick = Behaviour::error(StatusCode::SERVICE_UNAVAILABLE, ErrorBody::Html, false);
    world.simulator.add_rule(Rule::debits(sick).times(3));
    for _ in 0..9 {
        let card = Behaviour::settle_after(Duration::from_secs(60));
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(card))
            .await;
    }
    let other = world.another_instance().await;
    world.run_until_idle().await;
    assert_eq!(world.posts(), 3);
    assert_eq!(
        world.brakes().await,
        ["* run first start", "main drain mass_doubts"]
    );
    assert_eq!(world.incidents().await, ["incident.doubts"]);
    world.advance(TimeDelta::minutes(14));
    world.step(&other).await;
    world.run_until_idle().await;
    assert_eq!(world.posts(), 3);
    // Nobody releases it.
    world.advance(TimeDelta::minutes(2));
    world.step(&other).await;
    assert_eq!(world.posts(), 4, "it starts slowly");
    assert_eq!(
        world.brakes().await,
        ["* run first start", "main run the pause is over"]
    );
    let told = world
        .column(
            "SELECT payload ->> 'mode' FROM events WHERE kind = 'brake.changed' ORDER BY event_id",
        )
        .await;
    assert_eq!(told, ["drain", "run"]);
    world
        .run_until(world.clock.now() + TimeDelta::hours(1))
        .await;
    let mut charges = world.charges().await;
    charges.sort();
    assert_eq!(charges[..3], ["in_flight"; 3]);
    assert_eq!(charges[3..], ["paid"; 6]);
    world.settle_up().await;
}

#[tokio::test]
async fn many_charges_wait_while_the_channel_is_off_line() {
    let world = World::new(Script::default()).await;
    let offline = Rule::debits(Behaviour::channel_offline()).on(Call::Service);
    world.simulator.add_rule(offline);
    // For a few nobody asks.
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_until_idle().await;
    assert_eq!(world.posts(), 1);
    let many = usize::try_from(CROWD).unwrap();
    for _ in 0..many {
        world.subscribe(Agreement::monthly("2027-01-02")).await;
    }
    world
        .run_until("2027-01-02T05:14:00Z".parse().unwrap())
        .await;
    assert_eq!(world.posts(), 1);
    assert_eq!(
        world.brakes().await,
        ["* run first start", "main drain channel_offline"]
    );
    assert_eq!(world.incidents().await, ["incident.channel"]);
    world.simulator.clear_rules();
    world
        .run_until(world.clock.now() + TimeDelta::hours(1))
        .await;
    assert_eq!(
        world.brakes().await,
        ["* run first start", "main run the pause is over"]
    );
    assert_eq!(world.charges().await, vec!["paid"; many + 1]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_pause_gives_back_the_permits_that_wait_and_weakens_no_stop() {
    let world = World::new(Script::default()).await;
    let shop = main_shop();
    let now = world.clock.now();
    let trip = Trip::Doubts {
        doubts: 3,
        sends: 10,
    };
    assert!(!world.store.is_stopped(&shop).await.unwrap());
    assert!(world.store.trip(Some(&shop), trip, now).await.unwrap());
    assert!(world.store.is_stopped(&shop).await.unwrap());
    assert!(!world.store.trip(Some(&shop), trip, now).await.unwrap());
    brake(&world, None, BrakeMode::Stop).await;
    assert!(!world.store.trip(None, trip, now).await.unwrap());
    world.advance(TimeDelta::hours(1));
    world.run_until_idle().await;
    assert_eq!(
        world.brakes().await,
        ["* stop a test", "main run the pause is over"]
    );
}

#[tokio::test]
async fn ten_declines_out_of_ten_stop_the_shop_until_a_person_releases_it() {
    let world = World::with(Setting {
        toml: ONE_BY_ONE.to_owned(),
        ..Setting::default()
    })
    .await;
    let declined = Behaviour::decline_at_once("CODE_51").with_status_code_in_answer();
    for _ in 0..13 {
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(declined.clone()))
            .await;
    }
    world.run_until_idle().await;
    assert_eq!(world.posts(), 10);
    let stopped = ["* run first start", "main stop mass_declines"];
    assert_eq!(world.brakes().await, stopped);
    assert_eq!(world.incidents().await, ["incident.declines"]);
    let other = world.another_instance().await;
    world.advance(TimeDelta::days(2));
    world.step(&other).await;
    world.run_until_idle().await;
    assert_eq!(
        (world.posts(), world.brakes().await.concat()),
        (10, stopped.concat())
    );
    brake(&world, Some(&main_shop()), BrakeMode::Run).await;
    world.run_until_idle().await;
    assert!(world.posts() >= 13, "what led to it is forgotten");
    world.settle_up().await;
}

#[tokio::test]
async fn declines_that_are_told_before_anything_settles_are_counted_among_all_debits() {
    let world = World::new(Script::default()).await;
    let hours = |count: u64| Duration::from_secs(3_600 * count);
    let declined = Behaviour::decline_at_once("CODE_51").with_status_code_in_answer();
    for number in 0..30 {
        let card = match number % 3 {
            0 => declined.clone(),
            _ => Behaviour::settle_after(hours(30)),
        };
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(card))
            .await;
    }
    world.run_until_idle().await;
    assert_eq!(world.posts(), 30);
    let told = world
        .column("SELECT state::text || ' ' || count(*) FROM attempts GROUP BY state ORDER BY 1")
        .await;
    assert_eq!(told, ["pending 20", "rejected 10"]);
    assert_eq!(world.incidents().await, [""; 0]);
    // Declines that are told as late as settlements are too many all the same.
    for _ in 0..40 {
        world
            .subscribe(Agreement::monthly("2027-01-02").with_card(Behaviour::decline("CODE_51")))
            .await;
    }
    world.run_days(2).await;
    assert_eq!(world.incidents().await, ["incident.declines"]);
    world.settle_up().await;
}

#[tokio::test]
async fn what_share_of_declines_is_usual_is_counted_over_thirty_days() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.subscribe(Agreement::monthly("2027-01-02")).await;
    world
        .subscribe(Agreement::monthly("2027-01-01").with_card(Behaviour::decline("CODE_14")))
        .await;
    world.run_days(3).await;
    let usual = world.store.usual_declines(world.clock.now()).await.unwrap();
    let expected = Declines {
        declined: 1,
        debits: 3,
    };
    assert_eq!(usual[&main_shop()], expected);
    let later = world.clock.now() + TimeDelta::days(20);
    assert_eq!(world.store.usual_declines(later).await.unwrap().len(), 1);
    let much_later = world.clock.now() + TimeDelta::days(34);
    assert!(
        world
            .store
            .usual_declines(much_later)
            .await
            .unwrap()
            .is_empty()
    );
}

/// A world that lives in the present, by the system's clock.
async fn world_of_today() -> World {
    cykl::gateway::install_crypto();
    World::assemble(Parts::new(Clock::system(), Setting::default(), None).await).await
}

#[tokio::test]
async fn nothing_is_sent_while_the_clock_of_imoje_is_minutes_away() {
    let world = world_of_today().await;
    let ahead = Behaviour::default().dated_ahead(Duration::from_secs(300));
    world.simulator.add_rule(Rule::debits(ahead).times(1));
    let yesterday = (world.clock.now() - TimeDelta::days(1)).date_naive();
    let agreement = || Agreement::monthly(&yesterday.to_string());
    world.subscribe(agreement()).await;
    world.charge().await;
    assert_eq!(world.posts(), 1);
    world.subscribe(agreement()).await;
    world.charge().await;
    assert_eq!(world.posts(), 1);
    assert_eq!(world.brakes().await, ["* drain clock_disagreement"]);
    assert_eq!(world.incidents().await, ["incident.clock"]);
    // The clocks of another instance agree, and it obeys all the same.
    let other = world.another_instance().await;
    let now = world.clock.now();
    other.charger.run_once(now).await.unwrap();
    assert_eq!(world.posts(), 1);
    // Asked for the time, imoje answers with the right one.
    world.charge().await;
    assert_eq!(world.brakes().await, ["* run the pause is over"]);
    assert_eq!(world.posts(), 2);
    assert_eq!(world.charges().await, ["paid"; 2]);
    world.settle_up().await;
}

/// What a statement of `role` comes to: its SQLSTATE, or `ok`.
async fn as_role(world: &World, role: &str, statement: &str) -> String {
    let mut session = world.books.acquire().await.unwrap();
    let login = sqlx::AssertSqlSafe(format!("SET SESSION AUTHORIZATION {role}"));
    sqlx::raw_sql(login).execute(&mut *session).await.unwrap();
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
        .execute(&mut *session)
        .await;
    sqlx::raw_sql("RESET SESSION AUTHORIZATION")
        .execute(&mut *session)
        .await
        .unwrap();
    match done {
        Ok(_) => "ok".to_owned(),
        Err(error) => {
            let code = error.as_database_error().and_then(|error| error.code());
            code.unwrap().into_owned()
        }
    }
}

#[tokio::test]
async fn the_brake_is_set_from_sql_by_those_who_may_and_all_instances_obey() {
    let world = World::new(Script::default()).await;
    for _ in 0..3 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    // A role belongs to all databases of the server.
    let role = format!("operator_{}", Uuid::new_v4().simple());
    let create = format!("CREATE ROLE {role}; GRANT USAGE ON SCHEMA billing TO {role}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create))
        .execute(&world.books)
        .await
        .unwrap();
    let stop = "SELECT billing.brake('stop', 'the bank called')";
    assert_eq!(as_role(&world, &role, stop).await, "42501");
    let grant = format!("GRANT EXECUTE ON FUNCTION billing.brake TO {role}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(grant))
        .execute(&world.books)
        .await
        .unwrap();
    for wrong in [
        "SELECT billing.brake('halt', 'x')",
        "SELECT billing.brake(NULL, 'x')",
        "SELECT billing.brake('stop', ' ')",
        "SELECT billing.brake('stop', E'two\\nlines')",
        "SELECT billing.brake('stop', NULL)",
        "SELECT billing.brake('stop', 'x', 'maim')",
    ] {
        assert_eq!(as_role(&world, &role, wrong).await, "22023", "{wrong}");
    }
    assert_eq!(as_role(&world, &role, stop).await, "ok");
    let instances: [&Workers; 2] = [&world.workers, &world.another_instance().await];
    for workers in instances {
        world.step(workers).await;
    }
    assert_eq!(world.posts(), 0);
    assert_eq!(world.brakes().await, ["* stop the bank called"]);
    let mut listener = world.store.listen().await.unwrap();
    let run = "SELECT billing.brake('run', 'all is well'); SELECT billing.brake('drain', 'lunch', 'main')";
    assert_eq!(as_role(&world, &role, run).await, "ok");
    let mut hinted = Vec::new();
    while !hinted.contains(&Wake::Charger.as_str().to_owned()) {
        hinted.push(listener.recv().await.unwrap().payload().to_owned());
    }
    world.run_until_idle().await;
    assert_eq!(world.posts(), 0, "the shop's own brake is on");
    assert_eq!(
        as_role(&world, &role, "SELECT billing.brake('run', 'back', 'main')").await,
        "ok"
    );
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"; 3]);
    let told = world
        .column(
            "SELECT concat_ws(' ', payload ->> 'shop', payload ->> 'mode', payload ->> 'reason', coalesce(shop, '-'),
                 payload ->> 'actor' = (SELECT actor FROM brakes WHERE shop = '*'), is_alert, substr(event_id::text, 15, 1))
             FROM events WHERE kind = 'brake.changed' ORDER BY occurred_at",
        )
        .await;
    assert_eq!(
        told,
        [
            "* stop the bank called - t t 7",
            "* run all is well - t t 7",
            "main drain lunch main t t 7",
            "main run back main t t 7",
        ]
    );
    let actor: String = world.one("SELECT actor FROM brakes WHERE shop = '*'").await;
    assert_eq!(actor, role);
    world.settle_up().await;
}

#[tokio::test]
async fn a_brake_set_from_sql_is_told_to_the_webhook_when_there_is_one() {
    let world = World::new(Script::default()).await;
    for (has_webhook, channels) in [(false, "log"), (true, "log webhook")] {
        sqlx::query("UPDATE installation SET has_webhook = $1")
            .bind(has_webhook)
            .execute(&world.books)
            .await
            .unwrap();
        sqlx::raw_sql("TRUNCATE outbox; SELECT billing.brake('stop', 'a test')")
            .execute(&world.books)
            .await
            .unwrap();
        let told: String = world
            .one("SELECT string_agg(channel, ' ' ORDER BY channel) FROM outbox")
            .await;
        assert_eq!(told, channels);
    }
}

#[tokio::test]
async fn news_that_contradict_what_is_known_change_nothing_and_stop_everything() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    let finding = Finding {
        subscription_id: SubscriptionId::from_uuid(
            world.one("SELECT subscription_id FROM attempts").await,
        ),
        attempt_id: AttemptId::from_uuid(world.one("SELECT attempt_id FROM attempts").await),
        news: News::Read(Verdict::Rejected {
            transaction_id: TransactionId::from_uuid(
                world.one("SELECT transaction_id FROM attempts").await,
            ),
            status_code: None,
        }),
        evidence: Evidence::default(),
    };
    let now = world.clock.now();
    let policy = &world.workers.charger.policy;
    world.store.record(&[finding], policy, now).await.unwrap();
    assert_eq!(world.attempts().await, ["settled"]);
    assert_eq!(world.brakes().await, ["* stop contradicting_news"]);
    assert_eq!(world.incidents().await, ["incident.contradiction"]);
    world.settle_up().await;
}

#[tokio::test]
async fn the_metrics_tell_why_the_brake_came_on_and_where_the_slow_start_is() {
    let world = released(2).await;
    world.run_until_idle().await;
    let shop = main_shop();
    let trip = Trip::Declines(Declines {
        declined: 10,
        debits: 10,
    });
    let now = world.clock.now();
    world.store.trip(Some(&shop), trip, now).await.unwrap();
    let scrape = async || {
        let answer = reqwest::get(format!("{}/metrics", world.door))
            .await
            .unwrap();
        answer.text().await.unwrap()
    };
    let text = scrape().await;
    for sample in [
        "cykl_brake_stage{shop=\"*\"} 1",
        "cykl_brake_stage{shop=\"main\"} 0",
        "cykl_brake_tripped{shop=\"main\",reason=\"mass_declines\"} 1",
        "cykl_brake_tripped{shop=\"main\",reason=\"mass_doubts\"} 0",
        "cykl_brake_tripped{shop=\"*\",reason=\"mass_declines\"} 0",
    ] {
        assert!(text.contains(&format!("{sample}\n")), "{sample}");
    }
    brake(&world, Some(&shop), BrakeMode::Stop).await;
    let text = scrape().await;
    let set_by_a_person = "cykl_brake_tripped{shop=\"main\",reason=\"mass_declines\"} 0\n";
    assert!(text.contains(set_by_a_person), "nobody but itself trips");
}
