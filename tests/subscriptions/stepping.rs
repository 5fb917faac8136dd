//! `cykl subscription pause`, `resume`, `cancel` and `schedule`.

use chrono::{DateTime, Utc};
use cykl::domain::schedule::Birth;
use cykl::domain::shop::ShopName;
use cykl::store::planning::{NextPeriod, Plan};
use cykl::store::status::By;

use crate::generator::{HEADER, file_of, profile};
use crate::harness::{Desk, ended, program};

const BECAUSE: &[&str] = &["--reason", "asked for it"];

/// A desk with the subscription `daily`, due every day at 06:00 in Warsaw from 21 November 2026 on.
async fn daily() -> Desk {
    let desk = Desk::new().await;
    let row = format!("daily,cus-1,{},100,PLN,P1D,2026-11-21", profile(1));
    assert_eq!(desk.import(file_of([row.as_str()]), &[]).code, 0);
    desk
}

/// Plans what is due, as the scheduler does.
async fn plan(desk: &Desk, now: &str) -> usize {
    let now: DateTime<Utc> = now.parse().unwrap();
    let shops: [ShopName; 1] = ["main".parse().unwrap()];
    let planned = desk.store.plan_due(&shops, None, now, |due| {
        let next = due.terms.period(due.period_no + 1).map(|next| NextPeriod {
            period_no: next.period_no,
            due_on: next.due_on,
            due_at: due.due_at + chrono::TimeDelta::days(1),
        });
        Plan {
            birth: Birth::Planned,
            next,
        }
    });
    planned.await.unwrap().len()
}

fn step(desk: &Desk, verb: &str) -> crate::harness::Ended {
    desk.run(&[&[verb, "daily"], BECAUSE].concat())
}

async fn seen(desk: &Desk) -> String {
    let seen = desk
        .column("SELECT concat_ws(' ', status, status_reason, next_charge_on, next_due_at) FROM billing.subscriptions")
        .await;
    seen[0].clone()
}

#[tokio::test]
async fn pausing_voids_what_was_not_sent_and_stops_the_schedule() {
    let desk = daily().await;
    desk.set_time("2026-11-21T05:10:00Z");
    assert_eq!(plan(&desk, "2026-11-21T05:00:00Z").await, 1);
    let ended = step(&desk, "pause");
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(
        ended.out,
        "subscription daily is paused now\nnot sent and never charged: 1 charge (void)\n"
    );
    assert_eq!(seen(&desk).await, "paused asked for it");
    let charges = desk
        .column(
            "SELECT concat_ws(' ', period_no, state, reason, next_action_at) FROM billing.charges",
        )
        .await;
    assert_eq!(charges, ["0 void subscription_paused"]);
    assert_eq!(plan(&desk, "2026-12-31T05:00:00Z").await, 0);

    let again = step(&desk, "pause");
    assert_eq!(again.code, 0);
    assert_eq!(
        again.out,
        "subscription daily is paused already; nothing was changed\n"
    );
    let events = desk
        .column("SELECT concat_ws(' ', sequence_no, kind, payload ->> 'actor', payload ->> 'reason') FROM events ORDER BY sequence_no OFFSET 1")
        .await;
    assert_eq!(events, ["2 subscription.paused tester asked for it"]);
}

#[tokio::test]
async fn a_resumed_subscription_charges_nothing_of_the_time_it_was_paused() {
    let desk = daily().await;
    assert_eq!(step(&desk, "pause").code, 0);
    desk.set_time("2026-11-25T04:59:00Z");
    let ended = step(&desk, "resume");
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(
        ended.out,
        "subscription daily is active now\nnext due date: 2026-11-25, at 2026-11-25 05:00:00 UTC\n"
    );
    assert_eq!(
        seen(&desk).await,
        "active 2026-11-25 2026-11-25 05:00:00+00"
    );
    assert_eq!(plan(&desk, "2026-11-25T05:00:00Z").await, 1);
    let periods = desk.column("SELECT period_no::text FROM charges").await;
    assert_eq!(periods, ["4"]);
}

#[tokio::test]
async fn what_was_due_earlier_today_is_not_charged_after_resuming() {
    let desk = daily().await;
    assert_eq!(step(&desk, "pause").code, 0);
    desk.set_time("2026-11-25T05:00:01Z");
    assert_eq!(step(&desk, "resume").code, 0);
    assert_eq!(
        seen(&desk).await,
        "active 2026-11-26 2026-11-26 05:00:00+00"
    );
    let again = step(&desk, "resume");
    assert_eq!(
        again.out,
        "subscription daily is active already; nothing was changed\n"
    );
    assert_eq!(
        seen(&desk).await,
        "active 2026-11-26 2026-11-26 05:00:00+00"
    );
}

#[tokio::test]
async fn a_subscription_whose_last_period_passed_while_paused_is_completed() {
    let desk = Desk::new().await;
    let file = format!(
        "{HEADER},max_charges\ndaily,cus-1,{},100,PLN,P1D,2026-11-21,3\n",
        profile(1)
    );
    assert_eq!(desk.import(file, &[]).code, 0);
    assert_eq!(step(&desk, "pause").code, 0);
    desk.set_time("2026-12-01T12:00:00Z");
    let ended = step(&desk, "resume");
    assert_eq!(
        ended.out,
        "subscription daily is active now\nnothing is left to charge; it will be completed\n"
    );
    let now = "2026-12-01T12:00:00Z".parse().unwrap();
    assert_eq!(desk.store.complete_finished(now).await.unwrap(), 1);
    assert_eq!(seen(&desk).await, "completed");
}

#[tokio::test]
async fn cancelling_is_final() {
    let desk = daily().await;
    let ended = step(&desk, "cancel");
    assert_eq!(ended.out, "subscription daily is cancelled now\n");
    assert_eq!(seen(&desk).await, "cancelled asked for it");
    assert_eq!(step(&desk, "cancel").code, 0);
    for verb in ["pause", "resume"] {
        let ended = step(&desk, verb);
        assert_eq!(ended.code, 1);
        assert_eq!(
            ended.err,
            format!("error: subscription daily is cancelled and cannot be {verb}d\n")
        );
    }
    let unknown = desk.run(&[&["pause", "nobody"], BECAUSE].concat());
    assert_eq!(unknown.code, 1);
    assert_eq!(unknown.err, "error: there is no subscription \"nobody\"\n");
}

#[tokio::test]
async fn a_charge_that_is_being_planned_while_its_subscription_is_paused_becomes_void() {
    let desk = daily().await;
    // The scheduler, stopped between planning a charge and its commit.
    let mut planning = desk.books.begin().await.unwrap();
    sqlx::raw_sql(
        "UPDATE due_periods SET due_at = '2026-11-22 05:00Z', period_no = 1, due_on = '2026-11-22';
         INSERT INTO charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state,
                              next_action_at, next_due_at, planned_at)
         SELECT gen_random_uuid(), subscription_id, shop, 0, anchor_date, '2026-11-21 05:00Z', amount_minor, currency, 'planned',
                '2026-11-21 05:00Z', '2026-11-22 05:00Z', '2026-11-21 05:00Z'
         FROM subscriptions",
    )
    .execute(&mut *planning)
    .await
    .unwrap();
    let id = desk.store.find_subscriptions("daily", None).await.unwrap()[0].subscription_id;
    let store = desk.store.clone();
    let pausing = tokio::spawn(async move {
        let by = By {
            actor: "tester",
            reason: "asked for it",
        };
        let now = "2026-11-21T05:00:00Z".parse().unwrap();
        store.pause(id, by, now).await.unwrap()
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waiting)
        .fetch_one(&desk.books)
        .await
        .unwrap()
        == 0
    {
        assert!(
            !pausing.is_finished(),
            "pausing did not wait for the scheduler"
        );
        tokio::task::yield_now().await;
    }
    planning.commit().await.unwrap();
    assert_eq!(pausing.await.unwrap().voided, 1);
    assert_eq!(
        desk.column("SELECT state::text FROM charges").await,
        ["void"]
    );
}

#[tokio::test]
async fn the_schedule_of_a_stored_subscription_tells_what_became_of_each_date() {
    let desk = daily().await;
    desk.set_time("2026-11-21T05:10:00Z");
    plan(&desk, "2026-11-21T05:00:00Z").await;
    let schedule = |desk: &Desk| desk.run(&["schedule", "daily", "--next", "3", "--output", "csv"]);
    assert_eq!(
        schedule(&desk).out,
        "period_no,due_on,due_at,state\r\n\
         0,2026-11-21,2026-11-21T05:00:00Z,planned\r\n\
         1,2026-11-22,2026-11-22T05:00:00Z,scheduled\r\n\
         2,2026-11-23,2026-11-23T05:00:00Z,scheduled\r\n"
    );
    assert_eq!(step(&desk, "pause").code, 0);
    let ended = schedule(&desk);
    assert_eq!(ended.err, "the subscription is paused: nothing falls due\n");
    assert!(ended.out.ends_with(
        "0,2026-11-21,2026-11-21T05:00:00Z,void\r\n\
         1,2026-11-22,2026-11-22T05:00:00Z,paused\r\n\
         2,2026-11-23,2026-11-23T05:00:00Z,paused\r\n"
    ));
}

#[test]
fn a_schedule_over_month_ends_needs_neither_database_nor_configuration() {
    let schedule = |args: &str| {
        let args = args.split(' ');
        ended(
            program()
                .args(["subscription", "schedule"])
                .args(args)
                .output()
                .unwrap(),
        )
    };
    let ended = schedule("--anchor 2027-01-31 --period P1M --next 4 --output csv");
    assert_eq!(
        ended.out,
        "period_no,due_on,due_at,state\r\n\
         0,2027-01-31,2027-01-31T05:00:00Z,\r\n\
         1,2027-02-28,2027-02-28T05:00:00Z,\r\n\
         2,2027-03-31,2027-03-31T04:00:00Z,\r\n\
         3,2027-04-30,2027-04-30T04:00:00Z,\r\n"
    );
    let leap = schedule(
        "--anchor 2028-02-29 --period P1Y --starts-on 2029-01-01 --max-charges 3 --timezone UTC --charge-time 00:30 --output csv",
    );
    assert_eq!(
        leap.out,
        "period_no,due_on,due_at,state\r\n\
         1,2029-02-28,2029-02-28T00:30:00Z,\r\n\
         2,2030-02-28,2030-02-28T00:30:00Z,\r\n"
    );
    let wrong = schedule("--anchor 2027-02-30 --period P2Y");
    assert_eq!(wrong.code, 65);
    assert!(
        wrong.err.contains("period \"P2Y\" is not between"),
        "{}",
        wrong.err
    );
    assert!(
        wrong
            .err
            .contains("anchor_date \"2027-02-30\" is a date that no calendar has"),
        "{}",
        wrong.err
    );
    assert_eq!(schedule("--next 3").code, 2);
}
