//! How what is not final becomes final, and that it blocks its charge until then.

use std::time::Duration;

use chrono::TimeDelta;
use cykl::simulator::{Behaviour, ErrorBody, Notices, Rule, Script, WrongEcho};
use reqwest::StatusCode;

use crate::harness::{Agreement, Setting, World};

const HOUR: Duration = Duration::from_secs(3_600);

/// A gateway that sends no notice at all.
fn silent(behaviour: Behaviour) -> Behaviour {
    behaviour.with_notices(Notices::none())
}

#[tokio::test]
async fn a_pending_debit_is_settled_by_asking_alone() {
    let world = World::new(Script::default()).await;
    let card = silent(Behaviour::settle_after(Duration::from_secs(40)));
    world
        .subscribe(Agreement::monthly("2027-01-01").with_card(card))
        .await;
    world.charge().await;
    assert_eq!(world.attempts().await, ["pending"]);
    assert_eq!(world.charges().await, ["in_flight"]);
    world
        .run_until(world.clock.now() + TimeDelta::minutes(5))
        .await;
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(
        world.one::<i64>("SELECT count(*) FROM notices").await,
        0,
        "nobody told us"
    );
    world.settle_up().await;
}

#[tokio::test]
async fn a_debit_that_stays_pending_blocks_its_period_for_ever_and_no_other() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(silent(Behaviour::pending_for_ever())).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(40).await;
    // After the time in which notices come, people are told; it is read on, and never given up by the clock.
    assert_eq!(world.charges().await, ["held", "paid"]);
    assert_eq!(world.attempts().await, ["pending", "settled"]);
    assert_eq!(world.posts(), 2);
    let told = world.column("SELECT kind FROM events WHERE is_alert").await;
    assert_eq!(told, ["case.opened"]);
    world.settle_up().await;
}

#[tokio::test]
async fn words_that_say_nothing_about_the_money_block() {
    for word in [
        "new",
        "authorized",
        "error",
        "cancelled",
        "SETTLED",
        "refused",
        "strange",
    ] {
        let world = World::new(Script::always(Behaviour::status(word))).await;
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(Behaviour::default()))
            .await;
        world.run_days(4).await;
        assert_eq!(world.attempts().await, ["pending"], "{word}");
        assert_eq!(world.charges().await, ["in_flight"], "{word}");
        assert_eq!(world.posts(), 1, "{word}");
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_lost_answer_is_found_by_a_late_notice_however_often_it_comes() {
    let world = World::new(Script::default()).await;
    let notices = Notices {
        copies: 3,
        ..Notices::late_by(90 * HOUR)
    };
    world.simulator.add_rule(Rule::debits(
        Behaviour::take_money_and_lose_answer().with_notices(notices),
    ));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world
        .run_until(world.clock.now() + TimeDelta::hours(89))
        .await;
    assert_eq!(world.attempts().await, ["in_doubt"]);
    assert_eq!(world.charges().await, ["in_flight"]);
    world
        .run_until(world.clock.now() + TimeDelta::hours(2))
        .await;
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(
        world
            .column("SELECT state || ' ' || received_count FROM notices")
            .await,
        ["done 3"]
    );
    assert_eq!(world.posts(), 1);
    world.settle_up().await;
}

#[tokio::test]
async fn a_truth_that_comes_after_the_case_or_the_write_off_still_pays_the_charge() {
    for (late, before) in [(97, "held"), (11 * 24, "failed")] {
        let world = World::new(Script::default()).await;
        world.simulator.add_rule(Rule::debits(
            Behaviour::take_money_and_lose_answer().with_notices(Notices::late_by(late * HOUR)),
        ));
        world.subscribe(Agreement::monthly("2027-01-01")).await;
        let hours = i64::from(late);
        world
            .run_until(world.clock.now() + TimeDelta::minutes(hours * 60 - 1))
            .await;
        assert_eq!(world.charges().await, [before]);
        world
            .run_until(world.clock.now() + TimeDelta::minutes(2))
            .await;
        assert_eq!(world.charges().await, ["paid"]);
        assert_eq!(world.posts(), 1);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_notice_that_overtakes_the_answer_changes_nothing_twice() {
    for behaviour in [
        Behaviour::settle_at_once().answering_after(Duration::from_millis(300)),
        Behaviour::take_money_and_lose_answer().answering_after(Duration::from_millis(300)),
    ] {
        let world = World::new(Script::default()).await;
        let early = Notices {
            before_answer: true,
            ..Notices::default()
        };
        world
            .simulator
            .add_rule(Rule::debits(behaviour.with_notices(early)));
        world.subscribe(Agreement::monthly("2027-01-01")).await;
        let now = world.clock.now();
        world.workers.scheduler.run_once(now).await.unwrap();
        // The resolver works while the debit is on its way.
        let resolving = async {
            while world.charges().await != ["paid"] {
                world.workers.resolver.run_once(now).await.unwrap();
            }
        };
        let (charged, ()) = tokio::join!(world.workers.charger.run_once(now), resolving);
        charged.unwrap();
        assert_eq!(world.attempts().await, ["settled"]);
        assert_eq!(
            world
                .column("SELECT kind FROM events WHERE charge_id IS NOT NULL AND kind <> 'attempt.in_doubt'")
                .await,
            ["charge.paid"]
        );
        world.run_days(1).await;
        assert_eq!(world.incidents().await, Vec::<String>::new());
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_pending_notice_after_the_settled_one_takes_nothing_back() {
    let world = World::new(Script::default()).await;
    let reordered = Notices {
        pending_last: true,
        copies: 2,
        ..Notices::default()
    };
    world.simulator.add_rule(Rule::debits(
        Behaviour::settle_after(Duration::from_secs(5)).with_notices(reordered),
    ));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.incidents().await, Vec::<String>::new());
    assert_eq!(world.brakes().await, ["* run first start"]);
    world.settle_up().await;
}

#[tokio::test]
async fn reads_that_lag_behind_the_notice_are_repeated_until_they_agree() {
    let lagging = Behaviour::settle_after(Duration::from_secs(5)).with_read_lag(2 * HOUR);
    for answer in [
        Behaviour::default(),
        Behaviour::take_money_and_lose_answer(),
    ] {
        let world = World::new(Script::default()).await;
        world.simulator.add_rule(Rule::debits(answer));
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(lagging.clone()))
            .await;
        world
            .run_until(world.clock.now() + TimeDelta::hours(1))
            .await;
        assert_eq!(world.attempts().await, ["pending"]);
        world
            .run_until(world.clock.now() + TimeDelta::hours(12))
            .await;
        assert_eq!(world.charges().await, ["paid"]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn reads_that_fail_are_asked_again_and_decide_nothing() {
    let failing = [
        Behaviour::error(StatusCode::NOT_FOUND, ErrorBody::Object, true),
        Behaviour::error(StatusCode::NOT_FOUND, ErrorBody::Html, true),
        Behaviour::error(StatusCode::INTERNAL_SERVER_ERROR, ErrorBody::Object, true),
        Behaviour::error(StatusCode::UNPROCESSABLE_ENTITY, ErrorBody::Object, true),
        Behaviour::error(StatusCode::TOO_MANY_REQUESTS, ErrorBody::Empty, true),
        Behaviour::garbage("{\"transaction\":{\"status\":\"rejected\"}}", true),
        Behaviour::garbage("[]", true),
        Behaviour::truncated(true),
        Behaviour::reset(true),
        Behaviour::redirect("http://127.0.0.1:1/elsewhere"),
    ];
    for behaviour in failing {
        let name = format!("{behaviour:?}");
        let world = World::new(Script::default()).await;
        world.simulator.add_rule(Rule::reads(behaviour).times(5));
        let card = silent(Behaviour::settle_after(Duration::from_secs(2)));
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(card))
            .await;
        world.charge().await;
        world
            .run_until(world.clock.now() + TimeDelta::minutes(1))
            .await;
        assert_eq!(world.attempts().await, ["pending"], "{name}");
        world.run_days(1).await;
        assert_eq!(world.charges().await, ["paid"], "{name}");
        assert_eq!(world.posts(), 1, "{name}");
        assert_eq!(world.incidents().await, Vec::<String>::new(), "{name}");
        world.settle_up().await;
    }
}

#[tokio::test]
async fn credentials_that_are_refused_for_a_read_stop_all_charging() {
    for body in [ErrorBody::Object, ErrorBody::Empty] {
        let world = World::new(Script::default()).await;
        world
            .simulator
            .add_rule(Rule::reads(Behaviour::error(StatusCode::FORBIDDEN, body, false)).times(1));
        let card = silent(Behaviour::settle_after(Duration::from_secs(2)));
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(card))
            .await;
        world.subscribe(Agreement::monthly("2027-01-02")).await;
        world.run_days(2).await;
        assert_eq!(world.charges().await, ["paid", "planned"]);
        assert_eq!(world.brakes().await, ["* stop unauthorized"]);
        world.release_brake().await;
        world.run_until_idle().await;
        assert_eq!(world.charges().await, ["paid", "paid"]);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_read_about_something_else_stops_everything_and_changes_nothing() {
    for field in [
        WrongEcho::OrderId,
        WrongEcho::Amount,
        WrongEcho::Currency,
        WrongEcho::ServiceId,
    ] {
        for fate in [
            Behaviour::settle_after(Duration::from_secs(2)),
            Behaviour::decline_after("CODE_51", Duration::from_secs(2)),
        ] {
            let world = World::new(Script::default()).await;
            world
                .simulator
                .add_rule(Rule::reads(Behaviour::default().echoing_wrongly(field)));
            world
                .subscribe(Agreement::monthly("2027-01-01").with_card(fate))
                .await;
            world.subscribe(Agreement::monthly("2027-01-02")).await;
            world.run_days(2).await;
            assert_eq!(world.attempts().await, ["pending"], "{field:?}");
            assert_eq!(world.charges().await, ["in_flight", "planned"], "{field:?}");
            assert_eq!(world.brakes().await, ["* stop answer_mismatch"]);
            assert_eq!(world.incidents().await, ["incident.mismatch"]);
            world.simulator.clear_rules();
            world.release_brake().await;
            world
                .run_until(world.clock.now() + TimeDelta::hours(12))
                .await;
            let charges = world.charges().await;
            assert!(
                charges == ["paid", "paid"] || charges == ["retry_wait", "paid"],
                "{charges:?}"
            );
            world.settle_up().await;
        }
    }
}

#[tokio::test]
async fn an_answer_about_something_else_is_no_answer_and_stops_everything() {
    let world = World::new(Script::default()).await;
    world.simulator.add_rule(
        Rule::debits(Behaviour::settle_at_once().echoing_wrongly(WrongEcho::Amount)).times(1),
    );
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.charge().await;
    assert_eq!(world.attempts().await, ["in_doubt"]);
    assert_eq!(world.brakes().await, ["* stop answer_mismatch"]);
    // The notice leads to a read, and that says it right.
    world.run_until_idle().await;
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.posts(), 1);
    world.settle_up().await;
}

#[tokio::test]
async fn a_decline_that_turns_into_a_settlement_before_the_retry_is_paid_without_another_debit() {
    for notices in [Notices::none(), Notices::default()] {
        let world = World::new(Script::default()).await;
        world.simulator.add_rule(
            Rule::debits(Behaviour::decline_then_settle("CODE_51", HOUR).with_notices(notices))
                .times(1),
        );
        world.subscribe(Agreement::monthly("2027-01-01")).await;
        world
            .run_until(world.clock.now() + TimeDelta::minutes(30))
            .await;
        assert_eq!(world.charges().await, ["retry_wait"]);
        world.run_days(2).await;
        assert_eq!(world.charges().await, ["paid"]);
        assert_eq!(world.attempts().await, ["settled"]);
        assert_eq!(world.posts(), 1);
        assert_eq!(
            world.column("SELECT status::text FROM subscriptions").await,
            ["active"]
        );
        world.settle_up().await;
    }
}

#[tokio::test]
async fn no_retry_leaves_while_the_decline_before_it_cannot_be_read_again() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(silent(Behaviour::decline_then_settle("CODE_51", HOUR))).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world
        .run_until(world.clock.now() + TimeDelta::minutes(30))
        .await;
    world.simulator.add_rule(Rule::reads(Behaviour::error(
        StatusCode::INTERNAL_SERVER_ERROR,
        ErrorBody::Object,
        false,
    )));
    world.run_days(3).await;
    assert_eq!(world.charges().await, ["retry_wait"]);
    assert_eq!(world.posts(), 1);
    world.simulator.clear_rules();
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid"]);
    assert_eq!(world.posts(), 1);
    world.settle_up().await;
}

#[tokio::test]
async fn a_decline_that_turns_into_a_settlement_after_the_retry_is_an_incident_and_stops_everything()
 {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline_then_settle("CODE_51", 72 * HOUR)).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.subscribe(Agreement::monthly("2027-01-05")).await;
    world.run_days(5).await;
    assert_eq!(world.attempts().await, ["surplus", "settled"]);
    assert_eq!(world.charges().await, ["paid", "planned"]);
    assert_eq!(world.brakes().await, ["* stop surplus_settlement"]);
    assert_eq!(world.incidents().await, ["incident.surplus"]);
    // It was the gateway that moved the money twice, and the books know both movements.
    world.compare_with_ledger().await;
    world.release_brake().await;
    world.run_days(1).await;
    assert_eq!(world.charges().await, ["paid", "paid"]);
    world.compare_with_ledger().await;
}

#[tokio::test]
async fn a_decline_that_turns_into_a_settlement_while_the_retry_is_pending_is_held_until_that_is_known()
 {
    for (retry, second, charge) in [
        (
            Behaviour::decline_after("CODE_05", 96 * HOUR),
            "rejected",
            "paid",
        ),
        (Behaviour::settle_after(96 * HOUR), "settled", "paid"),
    ] {
        let world = World::new(Script::default()).await;
        world
            .simulator
            .add_rule(Rule::debits(Behaviour::decline_then_settle("CODE_51", 48 * HOUR)).times(1));
        world.simulator.add_rule(Rule::debits(retry).times(1));
        world.subscribe(Agreement::monthly("2027-01-01")).await;
        world.run_days(3).await;
        assert_eq!(world.attempts().await, ["surplus", "pending"]);
        assert_eq!(world.charges().await, ["held"]);
        assert_eq!(world.brakes().await, ["* stop surplus_settlement"]);
        world.release_brake().await;
        world.run_days(4).await;
        assert_eq!(world.attempts().await, ["surplus", second]);
        assert_eq!(world.charges().await, [charge]);
        assert_eq!(world.posts(), 2);
        let paid_by: i64 = world
            .one(
                "SELECT count(*) FROM charges c JOIN attempts a ON a.attempt_id = c.paid_attempt_id
                  WHERE a.state IN ('settled', 'surplus')",
            )
            .await;
        assert_eq!(paid_by, 1);
    }
}

#[tokio::test]
async fn amounts_as_text_and_bare_bodies_are_read_all_the_same() {
    let shapes = [
        Behaviour::default().amount_as_text(),
        Behaviour::default().bare(),
        Behaviour::default().bare().amount_as_text(),
    ];
    for shape in shapes {
        let world = World::new(Script::default()).await;
        world.simulator.add_rule(Rule::debits(shape.clone()));
        world.simulator.add_rule(Rule::reads(shape));
        for card in [
            Behaviour::settle_at_once(),
            silent(Behaviour::settle_after(Duration::from_secs(5))),
        ] {
            world
                .subscribe(Agreement::monthly("2027-01-01").with_card(card))
                .await;
        }
        world.run_days(1).await;
        assert_eq!(world.charges().await, ["paid", "paid"]);
        assert_eq!(world.incidents().await, Vec::<String>::new());
        world.settle_up().await;
    }
}

#[tokio::test]
async fn a_decline_without_its_reason_is_read_before_anything_follows_from_it() {
    let world = World::new(Script::always(silent(Behaviour::decline_at_once(
        "CODE_43",
    ))))
    .await;
    world
        .subscribe(Agreement::monthly("2027-01-01").with_card(Behaviour::default()))
        .await;
    world.charge().await;
    assert_eq!(world.attempts().await, ["pending"]);
    world.run_days(10).await;
    assert_eq!(world.attempts().await, ["rejected"]);
    assert_eq!(
        world.column("SELECT status_reason FROM needs_card").await,
        ["card_blocked"]
    );
    assert_eq!(world.posts(), 1);
    world.settle_up().await;
}

#[tokio::test]
async fn many_in_doubt_stop_further_permits_and_are_brought_to_people_at_once() {
    let world = World::with(Setting {
        toml: "[charging]\nin_flight_max = 3\nin_doubt_max = 3\n".to_owned(),
        ..Setting::default()
    })
    .await;
    let lost = Behaviour::take_money_and_lose_answer().with_notices(Notices::late_by(30 * HOUR));
    world.simulator.add_rule(Rule::debits(lost).times(3));
    for _ in 0..8 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    world
        .run_until(world.clock.now() + TimeDelta::hours(1))
        .await;
    assert_eq!(world.posts(), 3, "a sick gateway costs three questions");
    assert_eq!(
        world.column("SELECT reason FROM held").await,
        ["in_doubt", "in_doubt", "in_doubt"]
    );
    assert_eq!(
        world
            .column("SELECT kind FROM events WHERE is_alert AND kind LIKE 'case.%'")
            .await,
        ["case.opened", "case.opened", "case.opened"]
    );
    world
        .run_until(world.clock.now() + TimeDelta::hours(28))
        .await;
    assert_eq!(world.posts(), 3);
    world
        .run_until(world.clock.now() + TimeDelta::hours(3))
        .await;
    assert_eq!(world.charges().await, ["paid"; 8]);
    assert_eq!(world.posts(), 8);
    world.settle_up().await;
}

#[tokio::test]
async fn a_written_off_charge_that_is_reopened_is_not_sent_again_and_holds_nobody_up() {
    let world = World::new(Script::default()).await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::lose_request()).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(12).await;
    assert_eq!(world.charges().await, ["failed"]);
    // Past the guard that refuses it: the claim is the second line.
    let now = world.clock.now();
    let reopened = format!(
        "ALTER TABLE charges DISABLE TRIGGER charge_goes_on;
         UPDATE charges SET state = 'retry_wait', reason = NULL, next_action_at = '{now}';
         ALTER TABLE charges ENABLE TRIGGER charge_goes_on"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(reopened))
        .execute(&world.books)
        .await
        .unwrap();
    world.subscribe(Agreement::monthly("2027-01-13")).await;
    world.run_days(3).await;
    assert_eq!(world.attempts().await, ["in_doubt", "settled"]);
    assert_eq!(world.charges().await, ["held", "paid"]);
    assert_eq!(world.posts(), 2);
    world.settle_up().await;
}

#[tokio::test]
async fn a_settlement_that_reads_show_late_is_not_missed_although_nothing_is_retried() {
    let world = World::new(Script::default()).await;
    let late = Behaviour::decline_then_settle("CODE_43", Duration::from_secs(7_200))
        .with_read_lag(Duration::from_secs(3_600));
    world.simulator.add_rule(Rule::debits(late).times(1));
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.run_days(2).await;
    assert_eq!(world.attempts().await, ["settled"]);
    assert_eq!(world.charges().await, ["paid"]);
    world.settle_up().await;
}
