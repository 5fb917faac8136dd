//! One thing that goes wrong takes nothing else with it.

use std::time::Duration;

use chrono::TimeDelta;
use cykl::cli::daemon;
use cykl::clock::Clock;
use cykl::domain::answer::Verdict;
use cykl::domain::id::{AttemptId, SubscriptionId, TransactionId};
use cykl::domain::resolution::News;
use cykl::simulator::{Behaviour, Notices, Rule, Script};
use cykl::store::resolution::{Evidence, Finding};
use uuid::Uuid;

use crate::harness::{Agreement, Setting, World};
use crate::site::nothing_but_pauses;

/// A second shop, whose gateway nobody answers at.
const UNREACHABLE: &str = "[shops.aaa]\nenvironment = \"simulator\"\nbase_url = \"http://127.0.0.1:1/v1/merchant\"\n\
     merchant_id = \"simmerchant000000002\"\nservice_id = \"3b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b\"\ntoken = \"t\"\n\
     service_key = \"k-000000000000000\"\n";

/// Gives the first subscriptions, and their cards, to the shop `aaa`.
async fn give_away(world: &World, subscriptions: u32) {
    let statements = format!(
        "ALTER TABLE subscriptions DISABLE TRIGGER USER; ALTER TABLE cards DISABLE TRIGGER USER;
         UPDATE subscriptions SET shop = 'aaa' WHERE subscription_id IN (
             SELECT subscription_id FROM subscriptions ORDER BY subscription_id LIMIT {subscriptions});
         UPDATE cards k SET shop = 'aaa' FROM subscriptions s WHERE s.card_id = k.card_id AND s.shop = 'aaa';
         ALTER TABLE subscriptions ENABLE TRIGGER USER; ALTER TABLE cards ENABLE TRIGGER USER;"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements))
        .execute(&world.books)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_answer_that_cannot_be_recorded_takes_no_other_with_it() {
    let world = World::new(Script::default()).await;
    let quick = Behaviour::settle_at_once().with_notices(Notices::none());
    let slow = quick.clone().answering_after(Duration::from_millis(500));
    let first = world
        .subscribe(Agreement::monthly("2027-01-01").with_card(quick))
        .await;
    for _ in 0..6 {
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(slow.clone()))
            .await;
    }
    let fault = format!(
        "CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.subscription_id = '{first}' THEN RAISE EXCEPTION 'disk' USING ERRCODE = '58030'; END IF;
             RETURN NEW; END $$;
         CREATE TRIGGER fault BEFORE INSERT ON evidence FOR EACH ROW EXECUTE FUNCTION fault();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(fault))
        .execute(&world.books)
        .await
        .unwrap();
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    assert!(
        world.workers.charger.run_once(now).await.is_err(),
        "the fault is told"
    );
    sqlx::raw_sql("DROP TRIGGER fault ON evidence")
        .execute(&world.books)
        .await
        .unwrap();
    let mut states = world.attempts().await;
    states.sort();
    assert_eq!(
        states,
        [
            "in_doubt", "settled", "settled", "settled", "settled", "settled", "settled"
        ]
    );
}

#[tokio::test]
async fn an_answer_that_the_database_is_too_busy_for_is_recorded_while_others_are_on_their_way() {
    // The server takes no connection for now; the transaction lost against another, in a deadlock with it, waited too long for its
    // lock, or took too long.
    for code in ["57P03", "40001", "40P01", "55P03", "57014"] {
        let world = World::new(Script::default()).await;
        let quick = Behaviour::settle_at_once().with_notices(Notices::none());
        let slow = quick.clone().answering_after(Duration::from_millis(500));
        let first = world
            .subscribe(Agreement::monthly("2027-01-01").with_card(quick))
            .await;
        for _ in 0..6 {
            world
                .subscribe(Agreement::monthly("2027-01-01").with_card(slow.clone()))
                .await;
        }
        let fault = format!(
            "CREATE SEQUENCE faults;
             CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.subscription_id = '{first}'
                     AND EXISTS (SELECT FROM attempts WHERE subscription_id <> '{first}' AND state = 'in_doubt')
                     AND nextval('faults') = 1
                 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '{code}'; END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER fault BEFORE INSERT ON evidence FOR EACH ROW EXECUTE FUNCTION fault();"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(fault))
            .execute(&world.books)
            .await
            .unwrap();
        let now = world.clock.now();
        world.workers.scheduler.run_once(now).await.unwrap();
        let report = world.workers.charger.run_once(now).await.unwrap();
        assert_eq!((report.permitted, report.settled), (7, 7), "{code}");
        let was_raised: bool = world.one("SELECT is_called FROM faults").await;
        assert!(was_raised, "{code}");
        assert_eq!(world.attempts().await, ["settled"; 7]);
        world.run_days(1).await;
        assert_eq!(
            (world.charges().await, world.posts()),
            (vec!["paid".to_owned(); 7], 7)
        );
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_claim_behind_a_lock_that_somebody_holds_sends_nothing_and_goes_on_when_it_is_free() {
    // What a claim locks and writes, one after the other.
    for held in [
        "SELECT FROM brakes FOR UPDATE",
        "LOCK TABLE attempts IN SHARE ROW EXCLUSIVE MODE",
        "LOCK TABLE charges IN SHARE ROW EXCLUSIVE MODE",
    ] {
        let world = World::new(Script::default()).await;
        three_are_due(&world).await;
        let mut elsewhere = world.books.begin().await.unwrap();
        sqlx::raw_sql(held).execute(&mut *elsewhere).await.unwrap();
        let (charger, now) = (world.workers.charger.clone(), world.clock.now());
        let run = tokio::spawn(async move { charger.run_once(now).await.unwrap() });
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                         AND application_name = 'cykl' AND wait_event_type = 'Lock')";
        while !world.one::<bool>(waits).await {
            assert!(!run.is_finished(), "{held} is in nobody's way");
        }
        assert_eq!(world.posts(), 0, "{held}");
        elsewhere.rollback().await.unwrap();
        assert_eq!(run.await.unwrap().settled, 3, "{held}");
        world.run_days(1).await;
        assert_eq!(
            (world.charges().await, world.posts()),
            (vec!["paid".to_owned(); 3], 3),
            "{held}"
        );
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_claim_that_waits_too_long_for_a_lock_permits_nothing_and_its_charges_go_out_afterwards()
{
    let world = World::new(Script::default()).await;
    three_are_due(&world).await;
    // With its permits written, each claim waits for somebody, and not for the ten seconds that a lock may take.
    let behind = "CREATE TABLE turns ();
         INSERT INTO turns DEFAULT VALUES;
         CREATE SEQUENCE waits;
         CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = '20ms' AS $$ BEGIN
             PERFORM nextval('waits');
             PERFORM FROM turns FOR UPDATE;
             RETURN NULL; END $$;
         CREATE TRIGGER wait AFTER INSERT ON attempts FOR EACH STATEMENT EXECUTE FUNCTION wait();";
    sqlx::raw_sql(behind).execute(&world.books).await.unwrap();
    let mut elsewhere = world.books.begin().await.unwrap();
    sqlx::query("SELECT FROM turns FOR UPDATE")
        .execute(&mut *elsewhere)
        .await
        .unwrap();
    let now = world.clock.now();
    for runs in 1..=2 {
        let error = world.workers.charger.run_once(now).await.unwrap_err();
        let told = format!("{error:#}");
        assert!(told.contains("lock timeout"), "{told}");
        let waits: i64 = world.one("SELECT last_value FROM waits").await;
        assert_eq!(waits, 6 * runs, "a claim is tried again five times");
    }
    assert_eq!(
        (world.attempts().await, world.posts()),
        (Vec::<String>::new(), 0)
    );
    elsewhere.rollback().await.unwrap();
    let report = world.workers.charger.run_once(now).await.unwrap();
    assert_eq!((report.permitted, report.settled), (3, 3));
    world.run_days(1).await;
    assert_eq!(
        (world.charges().await, world.posts()),
        (vec!["paid".to_owned(); 3], 3)
    );
    world.settle_up().await;
}

/// Three charges are due, in a world whose ground was looked at.
async fn three_are_due(world: &World) {
    for _ in 0..3 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    let now = world.clock.now();
    world.workers.charger.run_once(now).await.unwrap();
    world.workers.scheduler.run_once(now).await.unwrap();
}

/// Seven debits that were pending and have settled since, each told by a notice that nobody has followed up.
async fn seven_notices_wait(world: &World) {
    let later = Behaviour::settle_after(Duration::from_secs(60));
    for _ in 0..7 {
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(later.clone()))
            .await;
    }
    world.charge().await;
    assert_eq!(world.attempts().await, ["pending"; 7]);
    world.advance(TimeDelta::minutes(2));
    world.simulator.deliver_due().await;
}

#[tokio::test]
async fn a_read_that_cannot_be_recorded_takes_no_other_with_it() {
    let world = World::new(Script::default()).await;
    seven_notices_wait(&world).await;
    let fault = "CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.kind = 'read' AND NEW.subscription_id = (SELECT min(subscription_id::text)::uuid FROM subscriptions) THEN
                 RAISE EXCEPTION 'disk' USING ERRCODE = '58030'; END IF;
             RETURN NEW; END $$;
         CREATE TRIGGER fault BEFORE INSERT ON evidence FOR EACH ROW EXECUTE FUNCTION fault();";
    sqlx::raw_sql(fault).execute(&world.books).await.unwrap();
    let now = world.clock.now();
    assert!(
        world.workers.resolver.run_once(now).await.is_err(),
        "the fault is told"
    );
    sqlx::raw_sql("DROP TRIGGER fault ON evidence")
        .execute(&world.books)
        .await
        .unwrap();
    let mut states = world.attempts().await;
    states.sort();
    assert_eq!(
        states,
        [
            "pending", "settled", "settled", "settled", "settled", "settled", "settled"
        ]
    );
    let open: i64 = world
        .one("SELECT count(DISTINCT transaction_id) FROM notices WHERE state = 'new'")
        .await;
    assert_eq!(open, 1, "what was not recorded is followed up again");
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"; 7]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_read_without_an_answer_keeps_no_other_from_being_recorded() {
    let world = World::new(Script::default()).await;
    seven_notices_wait(&world).await;
    world
        .simulator
        .add_rule(Rule::reads(Behaviour::hang(false)).times(1));
    let six_are_recorded = async {
        let settled = "SELECT count(*) FROM attempts WHERE state = 'settled'";
        while world.one::<i64>(settled).await < 6 {}
    };
    tokio::select! {
        report = world.workers.resolver.run_once(world.clock.now()) => panic!("a read never ends, but {report:?}"),
        () = six_are_recorded => {}
    }
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"; 7]);
    world.settle_up().await;
}

#[tokio::test]
async fn money_that_moved_under_our_order_by_another_transaction_keeps_the_retry_back() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline("CODE_51")).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world
        .run_until(world.clock.now() + TimeDelta::minutes(1))
        .await;
    assert_eq!(world.charges().await, ["retry_wait"]);
    // A read shows a second transaction with the order, the amount, the currency and the shop of this attempt.
    let attempt: Uuid = world.one("SELECT attempt_id FROM attempts").await;
    let subscription: Uuid = world.one("SELECT subscription_id FROM subscriptions").await;
    let second = TransactionId::from_uuid(Uuid::new_v4());
    let finding = Finding {
        subscription_id: SubscriptionId::from_uuid(subscription),
        attempt_id: AttemptId::from_uuid(attempt),
        news: News::Read(Verdict::Settled {
            transaction_id: second,
        }),
        evidence: Evidence::default(),
    };
    let now = world.clock.now();
    world
        .store
        .record(&[finding], &world.config.policy, now)
        .await
        .unwrap();
    assert_eq!(world.brakes().await, ["* stop transaction_mismatch"]);
    world.release_brake().await;
    world.run_days(20).await;
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.posts(), 1, "it is never debited again");
}

#[tokio::test]
async fn first_starts_at_the_same_moment_agree_on_one_installation() {
    let world = World::new(Script::default()).await;
    let shops = daemon::identities(&world.config);
    let (one, two) = (world.another_store().await, world.another_store().await);
    for _ in 0..20 {
        sqlx::raw_sql("DELETE FROM installation")
            .execute(&world.books)
            .await
            .unwrap();
        let now = world.clock.now();
        let (a, b) = tokio::join!(
            one.pass_fence(&shops, "a", now),
            two.pass_fence(&shops, "b", now)
        );
        assert_eq!(a.unwrap(), b.unwrap());
    }
}

#[tokio::test]
async fn a_shop_that_cannot_be_reached_keeps_no_other_waiting() {
    let world = World::with(Setting {
        toml: UNREACHABLE.to_owned(),
        ..Setting::default()
    })
    .await;
    for _ in 0..60 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    give_away(&world, 55).await;
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    world.workers.charger.run_once(now).await.unwrap();
    assert_eq!(
        world.posts(),
        5,
        "the first run charges the shop that answers"
    );
}

#[tokio::test]
async fn doubts_of_a_shop_that_is_gone_end_by_the_clock_and_let_the_others_go_on() {
    let world = World::with(Setting {
        toml: UNREACHABLE.to_owned(),
        ..Setting::default()
    })
    .await;
    let lost = Behaviour::lose_request().with_notices(Notices::none());
    for _ in 0..5 {
        world
            .subscribe(
                Agreement::monthly("2027-01-01")
                    .times(1)
                    .with_card(lost.clone()),
            )
            .await;
    }
    world.charge().await;
    give_away(&world, 5).await;
    sqlx::raw_sql(
        "ALTER TABLE attempts DISABLE TRIGGER USER; ALTER TABLE charges DISABLE TRIGGER USER;
         UPDATE attempts SET shop = 'gone'; UPDATE charges SET shop = 'gone';
         ALTER TABLE attempts ENABLE TRIGGER USER; ALTER TABLE charges ENABLE TRIGGER USER;",
    )
    .execute(&world.books)
    .await
    .unwrap();
    world.advance(TimeDelta::hours(1));
    world
        .subscribe(Agreement::monthly("2027-01-01").times(1))
        .await;
    let before = world.posts();
    world.run_days(12).await;
    assert_eq!(world.posts() - before, 1);
    let failed: i64 = world
        .one("SELECT count(*) FROM charges WHERE state = 'failed'")
        .await;
    assert_eq!(failed, 5, "written off, and told");
}

#[tokio::test]
async fn two_instances_keep_the_budget_of_a_shared_card() {
    let world = World::new(Script::default()).await;
    // Without these, most outcomes would be declines, and the shop would stop.
    for _ in 0..25 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    for _ in 0..10 {
        let one = Agreement::monthly("2027-01-01").with_card(Behaviour::decline("CODE_51"));
        let two = Agreement::monthly("2027-01-01").on_the_card_of(&one);
        world.subscribe(one).await;
        two.store(&world.books, &world.config, world.clock.now())
            .await;
    }
    world
        .run_until(world.clock.now() + TimeDelta::hours(23))
        .await;
    world.advance(TimeDelta::hours(2));
    let now = world.clock.now();
    world.workers.resolver.run_once(now).await.unwrap();
    let other = world.another_instance().await;
    let shops = world.config.shops.keys().cloned().collect::<Vec<_>>();
    let limits = world.workers.charger.limits;
    for _ in 0..30 {
        let claimed = tokio::join!(
            world.store.claim(&shops, 1, &limits, world.fence_id, now),
            other
                .charger
                .store
                .claim(&shops, 1, &limits, world.fence_id, now)
        );
        drop(claimed);
    }
    let retried: i64 = world
        .one("SELECT count(*) FROM attempts WHERE is_retry")
        .await;
    let cards: i64 = world
        .one("SELECT count(DISTINCT card_id) FROM attempts WHERE is_retry")
        .await;
    assert_eq!((retried, cards), (10, 10), "one retry a day for each card");
}

#[tokio::test]
async fn an_instance_whose_clock_was_put_back_by_hours_charges_later_and_nothing_twice() {
    const BACK: TimeDelta = TimeDelta::hours(5);
    // A test's clock is compared with no other, so charging does not pause: it has to be right without that.
    let world = World::new(Script::default()).await;
    let clock = Clock::manual(world.clock.now());
    let behind = world.another_instance_of(&world.config, &clock).await;
    for behaviour in [
        Behaviour::settle_at_once(),
        Behaviour::settle_after(Duration::from_secs(3 * 3_600)),
        Behaviour::take_money_and_lose_answer(),
    ] {
        let daily = Agreement::monthly("2027-01-01").every("P1D");
        world.subscribe(daily.with_card(behaviour)).await;
    }
    let declined = Agreement::monthly("2027-01-01");
    world.simulator.add_rule(
        Rule::debits(Behaviour::decline_at_once("CODE_51"))
            .of_profile(declined.profile)
            .times(1),
    );
    world.subscribe(declined).await;
    // Both have charged what is due by five in the afternoon. Then one of the clocks is put back to noon.
    let until_five = world.clock.now() + TimeDelta::hours(9);
    world.run_until(until_five).await;
    clock.set(world.clock.now() - BACK);
    let before = (world.posts(), world.attempts().await.len());
    while world.step_at(&behind, clock.now()).await {}
    let after = (world.posts(), world.attempts().await.len());
    assert_eq!(
        after, before,
        "the same hours again, and nothing is charged"
    );
    // For three days it works alone, then together with the other, each of them first in turn.
    for hour in 0..144 {
        world.advance(TimeDelta::hours(1));
        clock.set(world.clock.now() - BACK);
        let is_alone = hour < 72;
        for turn in 0..2 {
            if (hour + turn) % 2 == 0 {
                while world.step_at(&behind, clock.now()).await {}
            } else if !is_alone {
                while world.step(&world.workers).await {}
            }
        }
    }
    let charges = "SELECT count(*) || ' by ' || max(due_on) FROM charges";
    let charged: String = world.one(charges).await;
    assert_eq!(charged, "22 by 2027-01-07");
    let early: i64 = world
        .one("SELECT count(*) FROM attempts JOIN charges USING (charge_id) WHERE permitted_at < due_at")
        .await;
    assert_eq!(early, 0);
    world
        .run_until(world.clock.now() + TimeDelta::hours(12))
        .await;
    let periods = world.charges().await.len();
    assert_eq!(world.charges().await, vec!["paid"; periods]);
    assert_eq!(
        world.posts(),
        u64::try_from(periods).unwrap() + 1,
        "one was declined"
    );
    nothing_but_pauses(&world).await;
    world.settle_up().await;
}

#[tokio::test]
async fn a_period_that_cannot_be_planned_keeps_no_other_waiting() {
    let world = World::new(Script::default()).await;
    let first = world.subscribe(Agreement::monthly("2027-01-01")).await;
    for _ in 0..3 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    // A date that is not on its subscription's calendar, as after a change by hand.
    sqlx::query("UPDATE due_periods SET due_on = '2026-12-30' WHERE subscription_id = $1")
        .bind(first)
        .execute(&world.books)
        .await
        .unwrap();
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid", "paid", "paid"]);
    assert_eq!(world.posts(), 3);
}
