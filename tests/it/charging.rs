//! What comes of a debit.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use cykl::simulator::{Behaviour, ErrorBody, Rule, Script};
use cykl::store::permits::{Claim, Following};
use reqwest::StatusCode;

use crate::fire::HeldGateway;
use crate::harness::{Agreement, Setting, World};

#[tokio::test]
async fn a_title_says_what_period_is_paid() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2026-12-31")).await;
    sqlx::query("UPDATE subscriptions SET title = '{shop} {period} no. {number}'")
        .execute(&world.books)
        .await
        .unwrap();
    world.run_days(61).await;
    let ledger = world.simulator.ledger();
    let titles: Vec<&str> = ledger
        .transactions()
        .iter()
        .map(|one| &*one.title)
        .collect();
    assert_eq!(
        titles,
        [
            "main 2026-12 no. 1",
            "main 2027-01 no. 2",
            "main 2027-02 no. 3"
        ]
    );
    world.settle_up().await;
}

#[tokio::test]
async fn a_due_subscription_is_charged_once_and_the_books_say_so() {
    let world = World::new(Script::default()).await;
    world
        .subscribe(Agreement::monthly("2027-01-01").with_card(Behaviour::default()))
        .await;
    world.run_days(2).await;
    assert_eq!(
        world
            .column("SELECT state::text FROM billing.charges")
            .await,
        ["paid"]
    );
    assert_eq!(
        world
            .column("SELECT state::text FROM billing.attempts")
            .await,
        ["settled"]
    );
    let paid: i32 = world
        .one("SELECT charges_paid FROM billing.subscriptions")
        .await;
    assert_eq!(paid, 1);
    world.settle_up().await;
}

#[tokio::test]
async fn a_claim_from_a_place_on_leaves_what_is_before_it_alone() {
    let world = World::new(Script::default()).await;
    for anchor in ["2026-12-30", "2026-12-31", "2027-01-01"] {
        world
            .subscribe(Agreement::monthly(anchor).with_card(Behaviour::default()))
            .await;
    }
    let now = world.clock.now();
    let planned = world.workers.scheduler.run_once(now).await.unwrap().planned;
    assert_eq!(planned, 3);
    // A claim from the last on leaves the others alone.
    let charger = &world.workers.charger;
    let last: DateTime<Utc> = world.one("SELECT max(send_at) FROM charges").await;
    let claimed = world
        .store
        .claim_following(
            Following {
                due_from: Some(last),
                ..Following::default()
            },
            &charger.shops.names(),
            10,
            &charger.limits,
            world.fence_id,
            now,
        )
        .await
        .unwrap();
    let Claim::Permits {
        permits,
        is_all,
        due_from,
        ..
    } = claimed
    else {
        panic!("{claimed:?}");
    };
    assert_eq!((permits.len(), is_all, due_from), (1, true, Some(last)));
}

#[tokio::test]
async fn a_run_finds_what_came_in_behind_it() {
    let world = World::new(Script::default()).await;
    let slow = Behaviour::settle_at_once().answering_after(Duration::from_millis(500));
    for anchor in ["2026-12-31", "2027-01-01"] {
        world
            .subscribe(Agreement::monthly(anchor).with_card(slow.clone()))
            .await;
    }
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    // The first is out of reach until the run is past it.
    let mut elsewhere = world.books.begin().await.unwrap();
    sqlx::query("SELECT FROM charges ORDER BY send_at LIMIT 1 FOR UPDATE")
        .execute(&mut *elsewhere)
        .await
        .unwrap();
    let mut charger = world.workers.charger.clone();
    charger.limits.unanswered_max = 1;
    let run = tokio::spawn(async move { charger.run_once(now).await.unwrap() });
    while world.posts() == 0 {
        assert!(!run.is_finished(), "nothing was sent");
        tokio::task::yield_now().await;
    }
    elsewhere.rollback().await.unwrap();
    assert_eq!(run.await.unwrap().settled, 2);
    world.settle_up().await;
}

/// A world with these limits, in which so many charges are due at a gateway that takes its time.
async fn due_at_once(limits: &str, charges: usize) -> World {
    let world = World::with(Setting {
        toml: format!("[charging]\n{limits}"),
        ..Setting::default()
    })
    .await;
    let slow = Behaviour::settle_at_once().answering_after(Duration::from_millis(50));
    for _ in 0..charges {
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(slow.clone()))
            .await;
    }
    let note = "CREATE TABLE crowds (unanswered bigint);
         CREATE FUNCTION note_crowd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO crowds SELECT count(*) FROM attempts WHERE state = 'in_doubt';
             RETURN NULL; END $$;
         CREATE TRIGGER note_crowd AFTER INSERT ON attempts FOR EACH STATEMENT EXECUTE FUNCTION note_crowd();";
    sqlx::raw_sql(note).execute(&world.books).await.unwrap();
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    world
}

/// The most attempts that were permitted and unanswered at once, as each claim left them.
async fn most_unanswered(world: &World) -> i64 {
    world.one("SELECT max(unanswered) FROM crowds").await
}

#[tokio::test]
async fn no_more_debits_are_permitted_and_unanswered_than_may_be_in_flight() {
    let world = due_at_once("in_flight_max = 3", 10).await;
    let gateway = HeldGateway::open(world.simulator.address()).await;
    let one = world.another_instance_at(&gateway.base_url()).await;
    let now = world.clock.now();
    let run = tokio::spawn(async move { one.charger.run_once(now).await.unwrap() });
    gateway.is_asked(3).await;
    // What is unanswered elsewhere leaves no room here.
    let other = world.another_instance().await;
    let report = other.charger.run_once(now).await.unwrap();
    assert_eq!(report.permitted, 0);
    gateway.let_go();
    let report = run.await.unwrap();
    assert_eq!((report.permitted, report.settled), (10, 10));
    assert_eq!(
        (most_unanswered(&world).await, gateway.most_at_once()),
        (3, 3)
    );
    assert_eq!(world.charges().await, ["paid"; 10]);
    world.settle_up().await;
}

#[tokio::test]
async fn permits_ahead_of_their_turn_are_sent_few_at_a_time() {
    let world = due_at_once("in_flight_max = 2\nclaim_ahead = 4", 10).await;
    let gateway = HeldGateway::open(world.simulator.address()).await;
    let workers = world.another_instance_at(&gateway.base_url()).await;
    gateway.let_go();
    let now = world.clock.now();
    let report = workers.charger.run_once(now).await.unwrap();
    assert_eq!((report.permitted, report.settled), (10, 10));
    assert_eq!(
        (most_unanswered(&world).await, gateway.most_at_once()),
        (6, 2)
    );
    assert_eq!(world.charges().await, ["paid"; 10]);
    world.settle_up().await;
}

#[tokio::test]
async fn a_decline_is_retried_on_its_days_until_it_settles() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline("CODE_51")).times(3));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(10).await;
    let days = world
        .column("SELECT (permitted_at AT TIME ZONE 'Europe/Warsaw')::date || ' ' || state FROM attempts ORDER BY attempt_no")
        .await;
    assert_eq!(
        days,
        [
            "2027-01-01 rejected",
            "2027-01-02 rejected",
            "2027-01-04 rejected",
            "2027-01-08 settled"
        ]
    );
    assert_eq!(
        world
            .column("SELECT status::text FROM billing.subscriptions")
            .await,
        ["active"]
    );
    world.settle_up().await;
}

#[tokio::test]
async fn when_the_retries_are_spent_the_subscription_is_deactivated() {
    let world = World::new(Script::always(Behaviour::decline("CODE_51"))).await;
    world
        .subscribe(Agreement::monthly("2027-01-01").with_card(Behaviour::default()))
        .await;
    world.run_days(20).await;
    let attempts: i16 = world.one("SELECT attempts FROM billing.charges").await;
    assert_eq!(attempts, 5);
    assert_eq!(
        world
            .column("SELECT status || ' ' || status_reason FROM needs_card")
            .await,
        ["deactivated retries_spent"]
    );
    world.run_days(60).await;
    let charges: i64 = world.one("SELECT count(*) FROM charges").await;
    assert_eq!(charges, 1, "a deactivated subscription is not billed");
    world.settle_up().await;
}

#[tokio::test]
async fn an_unknown_decline_code_is_tried_three_times_in_all() {
    let world = World::new(Script::always(Behaviour::decline("CODE_XX"))).await;
    world
        .subscribe(Agreement::monthly("2027-01-01").with_card(Behaviour::default()))
        .await;
    world.run_days(20).await;
    let attempts: i16 = world.one("SELECT attempts FROM billing.charges").await;
    assert_eq!(attempts, 3);
    world.settle_up().await;
}

#[tokio::test]
async fn a_stolen_card_is_never_tried_again() {
    for (code, reason) in [("CODE_43", "card_blocked"), ("CODE_54", "card_expired")] {
        let world = World::new(Script::always(Behaviour::decline(code))).await;
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(Behaviour::default()))
            .await;
        world.run_days(40).await;
        assert_eq!(world.simulator.ledger().posts().len(), 1, "{code}");
        assert_eq!(
            world.column("SELECT status_reason FROM needs_card").await,
            [reason]
        );
        let alerts = world
            .column("SELECT kind FROM events WHERE is_alert ORDER BY sequence_no")
            .await;
        assert_eq!(alerts, ["charge.failed", "subscription.deactivated"]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn an_inactive_profile_deactivates_its_subscription_and_holds_the_others_on_the_card() {
    let world = World::new(Script::default()).await;
    let first = Agreement::monthly("2027-01-01").with_card(Behaviour::inactive());
    let second = Agreement::monthly("2027-01-05").on_the_card_of(&first);
    world.subscribe(first).await;
    world.subscribe(second).await;
    world.run_days(10).await;
    assert_eq!(world.simulator.ledger().posts().len(), 1);
    assert_eq!(
        world.column("SELECT status::text || coalesce(' ' || status_reason, '') FROM billing.subscriptions ORDER BY subscription_id").await,
        ["deactivated profile_inactive", "active"]
    );
    assert_eq!(
        world
            .column("SELECT state || ' ' || reason FROM billing.charges ORDER BY due_on")
            .await,
        ["failed profile_inactive", "held card_inactive"]
    );
    world.settle_up().await;
}

#[tokio::test]
async fn money_taken_with_the_answer_lost_is_found_by_its_notice_and_never_sent_again() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::take_money_and_lose_answer()));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    world.workers.charger.run_once(now).await.unwrap();
    assert_eq!(
        world.column("SELECT state::text FROM attempts").await,
        ["in_doubt"]
    );
    world.run_days(3).await;
    assert_eq!(
        world
            .column("SELECT state::text FROM billing.charges")
            .await,
        ["paid"]
    );
    assert_eq!(world.simulator.ledger().posts().len(), 1);
    world.settle_up().await;
}

#[tokio::test]
async fn a_lost_request_stays_in_doubt_is_brought_to_people_and_written_off() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::lose_request()).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(3).await;
    assert_eq!(
        world
            .column("SELECT state::text FROM billing.charges")
            .await,
        ["in_flight"]
    );
    world.run_days(2).await;
    assert_eq!(world.column("SELECT reason FROM held").await, ["in_doubt"]);
    world.run_days(6).await;
    assert_eq!(
        world
            .column("SELECT state || ' ' || reason FROM billing.charges")
            .await,
        ["failed written_off_in_doubt"]
    );
    assert_eq!(
        world.column("SELECT state::text FROM attempts").await,
        ["in_doubt"]
    );
    let alerts = world
        .column("SELECT kind FROM events WHERE is_alert ORDER BY sequence_no")
        .await;
    assert_eq!(alerts, ["case.opened", "charge.written_off"]);
    // The next period is charged as always.
    world.run_days(30).await;
    assert_eq!(
        world
            .column("SELECT state::text FROM billing.charges ORDER BY period_no")
            .await,
        ["failed", "paid"]
    );
    world.settle_up().await;
}

#[tokio::test]
async fn every_kind_of_unclear_answer_leaves_the_attempt_in_doubt_and_is_never_sent_again() {
    let unclear = [
        Behaviour::reset(true),
        Behaviour::error(StatusCode::INTERNAL_SERVER_ERROR, ErrorBody::Object, true),
        Behaviour::error(StatusCode::BAD_GATEWAY, ErrorBody::Html, true),
        Behaviour::error(StatusCode::SERVICE_UNAVAILABLE, ErrorBody::Empty, true),
        Behaviour::error(StatusCode::TOO_MANY_REQUESTS, ErrorBody::Object, true),
        Behaviour::error(StatusCode::BAD_REQUEST, ErrorBody::Html, true),
        Behaviour::error(StatusCode::NOT_FOUND, ErrorBody::Empty, true),
        Behaviour::garbage("[]", true),
        Behaviour::truncated(true),
        Behaviour::redirect("http://127.0.0.1:1/elsewhere"),
    ];
    for behaviour in unclear {
        let name = format!("{behaviour:?}");
        let world = World::new(Script::default()).await;
        world.simulator.add_rule(Rule::debits(behaviour).times(1));
        world.subscribe(Agreement::monthly("2027-01-01")).await;
        let now = world.clock.now();
        world.workers.scheduler.run_once(now).await.unwrap();
        world.workers.charger.run_once(now).await.unwrap();
        assert_eq!(
            world.column("SELECT state::text FROM attempts").await,
            ["in_doubt"],
            "{name}"
        );
        world.run_days(3).await;
        let posts = world.simulator.ledger().posts().len();
        assert!(posts <= 1, "{name}: {posts} requests");
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_gateway_that_is_away_costs_nothing_and_the_charge_goes_out_when_it_is_back() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.simulator.go_down().await;
    world.run_until_idle().await;
    assert_eq!(
        world.column("SELECT state::text FROM attempts").await,
        ["not_sent"]
    );
    assert_eq!(
        world
            .column("SELECT state::text FROM billing.charges")
            .await,
        ["retry_wait"]
    );
    world.simulator.come_up().await.unwrap();
    world
        .run_until(world.clock.now() + TimeDelta::hours(1))
        .await;
    assert_eq!(
        world
            .column("SELECT state::text FROM billing.charges")
            .await,
        ["paid"]
    );
    world.settle_up().await;
}

#[tokio::test]
async fn wrong_credentials_stop_everything_at_once() {
    for body in [ErrorBody::Object, ErrorBody::Empty] {
        let world = World::new(Script::default()).await;
        world.simulator.add_rule(Rule::every_call(Behaviour::error(
            StatusCode::UNAUTHORIZED,
            body,
            false,
        )));
        world.subscribe(Agreement::monthly("2027-01-01")).await;
        world.subscribe(Agreement::monthly("2027-01-02")).await;
        world.run_days(3).await;
        assert_eq!(world.simulator.ledger().posts().len(), 1);
        assert_eq!(
            world
                .column("SELECT mode || ' ' || reason FROM brakes")
                .await,
            ["stop unauthorized"]
        );
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_charge_that_the_database_refuses_does_not_stand_in_the_way_of_the_others() {
    let world = World::new(Script::default()).await;
    world.simulator.go_down().await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_until_idle().await;
    // The count of attempts goes back, as if a row had been restored by hand: the next attempt's number is taken.
    sqlx::raw_sql(
        "SET session_replication_role = replica;
         UPDATE charges SET attempts = 0, state = 'planned', next_action_at = due_at;
         SET session_replication_role = origin;",
    )
    .execute(&world.books)
    .await
    .unwrap();
    world.simulator.come_up().await.unwrap();
    for _ in 0..3 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["planned", "paid", "paid", "paid"]);
    let put_off: i64 = world
        .one("SELECT count(*) FROM charges WHERE state = 'planned' AND next_action_at > due_at + interval '1 hour'")
        .await;
    assert_eq!(put_off, 1);
    world.compare_with_ledger().await;
}
