//! What stops all charging: the brake, the fence, and a commit that nobody confirmed.

use std::time::Duration;

use chrono::TimeDelta;
use cykl::cli::daemon;
use cykl::domain::id::{AttemptId, SubscriptionId};
use cykl::domain::resolution::News;
use cykl::domain::shop::{Environment, ShopName};
use cykl::simulator::{Behaviour, Rule, Script};
use cykl::store::brakes::BrakeMode;
use cykl::store::installation::ShopIdentity;
use cykl::store::permits::{Claim, ClaimError, Permit};
use cykl::store::resolution::{Evidence, Finding};
use cykl::store::{Refusal, Store};
use tokio::sync::oneshot;

use crate::harness::{Agreement, Setting, World, connect, copy_of};

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
    let adopted = copy.adopt(&shops, "test", "a test", now).await.unwrap();
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
    let shops = daemon::identities(&world.config);
    world
        .store
        .adopt(&shops, "test", "a test", now)
        .await
        .unwrap();
    world.workers.scheduler.run_once(now).await.unwrap();
    let error = world.workers.charger.run_once(now).await.unwrap_err();
    assert!(error.to_string().contains("fence"), "{error:#}");
    assert_eq!(world.posts(), 0);
    assert_eq!(world.charges().await, ["planned"]);
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
    let elsewhere = connect(copy_of(&world).await, 2).await;
    let shops = daemon::identities(&world.config);
    let fence_id = elsewhere
        .adopt(&shops, "test", "a test", now)
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
        let shops = daemon::identities(&world.config);
        let fence_id = elsewhere
            .adopt(&shops, "test", "a test", now)
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
