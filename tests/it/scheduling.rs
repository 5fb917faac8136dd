//! What falls due, and when.

use chrono::TimeDelta;
use cykl::simulator::{Behaviour, Rule, Script};
use cykl::store::Refusal;
use cykl::store::permits::{Claim, ClaimError};

use crate::harness::{Agreement, Setting, World};

#[tokio::test]
async fn a_month_end_subscription_is_charged_on_every_month_end_for_two_years() {
    let world = World::new(Script::always(Behaviour::settle_at_once())).await;
    world.subscribe(Agreement::monthly("2027-01-31")).await;
    world.run_days(730).await;
    let due = world
        .column("SELECT due_on::text FROM charges WHERE state = 'paid' ORDER BY period_no")
        .await;
    let expected: Vec<String> = (0..24)
        .map(|n| {
            let anchor: chrono::NaiveDate = "2027-01-31".parse().unwrap();
            (anchor + chrono::Months::new(n)).to_string()
        })
        .collect();
    assert_eq!(due, expected);
    assert!(due.contains(&"2027-02-28".to_owned()) && due.contains(&"2028-02-29".to_owned()));
    world.settle_up().await;
}

#[tokio::test]
async fn three_days_of_downtime_lose_nothing_and_charge_nothing_twice() {
    let world = World::new(Script::always(Behaviour::settle_at_once())).await;
    for day in 2..=5 {
        world
            .subscribe(Agreement::monthly(&format!("2027-01-{day:02}")))
            .await;
    }
    world
        .subscribe(Agreement::monthly("2027-01-02").every("P1D"))
        .await;
    // Nobody runs from the 1st to the 5th.
    world.advance(TimeDelta::days(4));
    world.run_until_idle().await;
    let paid: i64 = world
        .one("SELECT count(*) FROM charges WHERE state = 'paid'")
        .await;
    // Each monthly one, and the oldest missed day; the other days follow with min_gap between them.
    assert_eq!(paid, 5);
    world.run_days(5).await;
    let daily = world
        .column(
            "SELECT c.due_on::text FROM charges c JOIN subscriptions s USING (subscription_id)
                 WHERE s.period = 'P1D' AND c.state = 'paid' ORDER BY 1",
        )
        .await;
    assert_eq!(
        daily[..4],
        ["2027-01-02", "2027-01-03", "2027-01-04", "2027-01-05"]
    );
    let gaps: i64 = world
        .one("SELECT count(*) FROM (
                  SELECT permitted_at - lag(permitted_at) OVER (PARTITION BY subscription_id ORDER BY permitted_at) AS gap
                  FROM attempts) g WHERE gap < interval '20 hours'")
        .await;
    assert_eq!(gaps, 0);
    world.settle_up().await;
}

#[tokio::test]
async fn a_charge_that_is_a_week_late_waits_for_a_person() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-02")).await;
    world.advance(TimeDelta::days(10));
    world.run_until_idle().await;
    assert_eq!(world.column("SELECT reason FROM held").await, ["too_late"]);
    assert_eq!(world.simulator.ledger().posts().len(), 0);
    world.settle_up().await;
}

#[tokio::test]
async fn skip_old_charges_only_the_latest_missed_period() {
    let world = World::with(Setting {
        script: Script::always(Behaviour::settle_at_once()),
        shop: "catch_up = \"skip_old\"".to_owned(),
        ..Setting::default()
    })
    .await;
    world
        .subscribe(Agreement::monthly("2027-01-02").every("P1W"))
        .await;
    world.advance(TimeDelta::days(20));
    world.run_until_idle().await;
    let states = world
        .column("SELECT due_on || ' ' || state FROM charges ORDER BY period_no")
        .await;
    assert_eq!(
        states,
        [
            "2027-01-02 skipped",
            "2027-01-09 skipped",
            "2027-01-16 paid"
        ]
    );
    world.settle_up().await;
}

#[tokio::test]
async fn a_subscription_completes_after_its_last_charge() {
    let world = World::new(Script::always(Behaviour::settle_at_once())).await;
    world
        .subscribe(Agreement::monthly("2027-01-02").times(3))
        .await;
    world.run_days(200).await;
    let paid: i64 = world
        .one("SELECT count(*) FROM charges WHERE state = 'paid'")
        .await;
    assert_eq!(paid, 3);
    assert_eq!(
        world
            .column("SELECT status::text FROM billing.subscriptions")
            .await,
        ["completed"]
    );
    world.settle_up().await;
}

#[tokio::test]
async fn two_daemons_on_one_database_charge_each_period_once() {
    let world = World::new(Script::always(Behaviour::settle_at_once())).await;
    for _ in 0..200 {
        world.subscribe(Agreement::monthly("2027-01-01")).await;
    }
    let other = world.another_instance().await;
    tokio::join!(world.run_until_idle(), async {
        while world.step(&other).await {}
    });
    world.run_until_idle().await;
    let paid: i64 = world
        .one("SELECT count(*) FROM charges WHERE state = 'paid'")
        .await;
    assert_eq!(paid, 200);
    assert_eq!(world.simulator.ledger().posts().len(), 200);
    world.settle_up().await;
}

#[tokio::test]
async fn periods_that_are_due_together_keep_their_distance_whoever_claims_them() {
    let world = World::with(Setting {
        script: Script::always(Behaviour::settle_at_once()),
        shop: "catch_up = \"all_spaced\"".to_owned(),
        ..Setting::default()
    })
    .await;
    for _ in 0..30 {
        world
            .subscribe(Agreement::monthly("2026-12-30").every("P1D"))
            .await;
    }
    let now = world.clock.now();
    world.workers.scheduler.run_once(now).await.unwrap();
    assert_eq!(world.charges().await, ["planned"; 90]);
    let shops = world.workers.charger.shops.names();
    let (limits, fence_id) = (world.workers.charger.limits, world.fence_id);
    let mut instances = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = world.another_store().await;
        let shops = shops.clone();
        instances.spawn(async move {
            let mut permitted = 0;
            loop {
                match store.claim(&shops, 7, &limits, fence_id, now).await {
                    Ok(Claim::Permits { permits, .. }) => permitted += permits.len(),
                    Ok(claimed) => {
                        assert!(
                            matches!(claimed, Claim::NothingDue | Claim::Full),
                            "{claimed:?}"
                        );
                        break permitted;
                    }
                    // Another instance was faster with another period of the same subscription.
                    Err(ClaimError::Refused { source, .. }) => {
                        assert_eq!(source.refusal(), Some(Refusal::Spacing), "{source}");
                    }
                    Err(ClaimError::Failed(error)) => assert!(error.is_busy(), "{error}"),
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    let permitted: usize = instances.join_all().await.into_iter().sum();
    assert_eq!(permitted, 30, "one for each subscription");
    let subscriptions: i64 = world
        .one("SELECT count(DISTINCT subscription_id) FROM attempts")
        .await;
    assert_eq!(subscriptions, 30);
}

#[tokio::test]
async fn of_the_periods_that_wait_for_each_other_the_oldest_goes_first_declined_or_not() {
    let world = World::with(Setting {
        script: Script::always(Behaviour::settle_at_once()),
        shop: "catch_up = \"all_spaced\"".to_owned(),
        ..Setting::default()
    })
    .await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::decline_at_once("CODE_51")).times(1));
    world
        .subscribe(Agreement::monthly("2026-12-27").every("P1D"))
        .await;
    world.run_days(6).await;
    let paid = world
        .column("SELECT period_no::text FROM charges WHERE state = 'paid' ORDER BY paid_at")
        .await;
    // The first was declined on the first day and is due again on the second, when the next one has just been sent.
    assert_eq!(paid[..5], ["1", "0", "2", "3", "4"]);
    world.settle_up().await;
}
