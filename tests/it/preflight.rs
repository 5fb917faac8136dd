//! Pre-flight: a week before a card is charged, its payer hears of what would keep the charge from going through.

use chrono::{Months, NaiveDate, TimeDelta};
use cykl::simulator::{Behaviour, Call, ErrorBody, Rule, Script, SimulatedProfile};
use cykl::store::preflight::Place;
use cykl::workers::preflight::Report;
use reqwest::StatusCode;

use crate::harness::{Agreement, World};

/// A subscription that falls due at the beginning of `anchor`'s day, on a card that is good until the end of a month.
async fn subscribe(world: &World, anchor: &str, good_until: &str) -> Agreement {
    let agreement = Agreement::monthly(anchor);
    let last: NaiveDate = good_until.parse().unwrap();
    world.subscribe(agreement.clone()).await;
    world.simulator.register_profile(SimulatedProfile {
        expiry_month: chrono::Datelike::month(&last),
        expiry_year: chrono::Datelike::year(&last),
        ..agreement.profile()
    });
    agreement
}

async fn look(world: &World) -> Report {
    let preflight = &world.workers.preflight;
    preflight.run_once(world.clock.now()).await.unwrap()
}

async fn told(world: &World) -> Vec<String> {
    world
        .column(
            "SELECT concat_ws(' ', s.external_id, e.kind, e.payload->>'reason', e.payload->>'expires_on', e.payload->>'next_charge_on')
             FROM events e JOIN subscriptions s USING (subscription_id) WHERE e.kind IN ('card.expiring', 'card.inactive')
             ORDER BY s.external_id, e.sequence_no",
        )
        .await
}

const LOOKED: Report = Report {
    looked_at: 1,
    told: 0,
};

const TOLD: Report = Report {
    looked_at: 1,
    told: 1,
};

const IDLE: Report = Report {
    looked_at: 0,
    told: 0,
};

#[tokio::test]
async fn a_card_that_expires_is_told_a_week_before_its_charge_once_and_is_charged_all_the_same() {
    let world = World::new(Script::default()).await;
    let expiring = subscribe(&world, "2027-01-20", "2027-02-28").await;
    subscribe(&world, "2027-01-20", "2030-09-30").await;
    // More than a week ahead.
    assert_eq!(look(&world).await, IDLE);
    world.run_days(13).await;
    // It is the 14th, and the card is good for more than thirty days after the 20th.
    let both = Report {
        looked_at: 2,
        told: 0,
    };
    assert_eq!(look(&world).await, both);
    assert_eq!(look(&world).await, IDLE, "a week has one look");
    world.run_days(31).await;
    let one = Report {
        looked_at: 2,
        told: 1,
    };
    assert_eq!(look(&world).await, one);
    let expected = [format!(
        "{} card.expiring expiring 2027-02-28 2027-02-20",
        expiring.external_id
    )];
    assert_eq!(told(&world).await, expected);
    let concerns = world
        .column("SELECT concat_ws(' ', external_id, concern, expires_on, next_charge_on, masked_number) FROM billing.card_concerns")
        .await;
    assert_eq!(
        concerns,
        [format!(
            "{} expiring 2027-02-28 2027-02-20 ****1111",
            expiring.external_id
        )]
    );
    world.run_days(28).await;
    assert_eq!(world.charges().await, ["paid"; 4]);
    // The next month finds the same, and tells nobody again.
    let again = Report {
        looked_at: 2,
        told: 0,
    };
    assert_eq!(look(&world).await, again);
    assert_eq!(told(&world).await, expected);
    world.settle_up().await;
}

#[tokio::test]
async fn an_inactive_card_is_told_to_each_of_its_subscriptions_and_its_debit_decides() {
    let world = World::new(Script::default()).await;
    let first = Agreement::monthly("2027-01-05");
    let second = Agreement::monthly("2027-01-06").on_the_card_of(&first);
    world.subscribe(first.clone()).await;
    world.subscribe(second.clone()).await;
    world.simulator.deactivate_profile(first.profile);
    assert_eq!(look(&world).await, TOLD);
    assert_eq!(
        told(&world).await,
        [
            format!(
                "{} card.inactive inactive 2099-12-31 2027-01-05",
                first.external_id
            ),
            format!(
                "{} card.inactive inactive 2099-12-31 2027-01-06",
                second.external_id
            ),
        ]
    );
    let statuses = "SELECT status::text FROM subscriptions";
    assert_eq!(world.column(statuses).await, ["active"; 2]);
    // It is active again before the charge.
    world.simulator.register_profile(first.profile());
    world.run_days(7).await;
    assert_eq!(world.charges().await, ["paid"; 2]);
    world.run_days(26).await;
    assert_eq!(look(&world).await, LOOKED);
    let concerns = "SELECT external_id FROM billing.card_concerns";
    assert_eq!(world.column(concerns).await, Vec::<String>::new());
    world.settle_up().await;
}

#[tokio::test]
async fn while_imoje_is_away_nothing_is_told_and_the_next_hour_tells() {
    for away in [
        Behaviour::error(StatusCode::SERVICE_UNAVAILABLE, ErrorBody::Html, false),
        Behaviour::error(StatusCode::UNAUTHORIZED, ErrorBody::Object, false),
        Behaviour::error(StatusCode::NOT_FOUND, ErrorBody::Object, false),
        Behaviour::garbage("{}", false),
        Behaviour::reset(false),
    ] {
        let world = World::new(Script {
            rules: vec![Rule::debits(away).on(Call::Profile)],
            ..Script::default()
        })
        .await;
        let agreement = Agreement::monthly("2027-01-05");
        world.subscribe(agreement.clone()).await;
        world.simulator.deactivate_profile(agreement.profile);
        assert_eq!(look(&world).await, IDLE);
        world.simulator.clear_rules();
        assert_eq!(look(&world).await, IDLE, "the hour is not over");
        assert_eq!(told(&world).await, Vec::<String>::new());
        world.advance(TimeDelta::hours(1));
        assert_eq!(look(&world).await, TOLD);
        assert_eq!(world.posts(), 0);
        world.settle_up().await;
    }
}

#[tokio::test]
async fn two_daemons_that_look_at_once_tell_once() {
    let world = World::new(Script::default()).await;
    let card = Agreement::monthly("2027-01-05");
    for _ in 0..10 {
        let on_it = Agreement::monthly("2027-01-05").on_the_card_of(&card);
        world.subscribe(on_it).await;
    }
    world.simulator.deactivate_profile(card.profile);
    let other = world.another_store().await;
    let found = world
        .store
        .cards_to_look_at(
            &["main".parse().unwrap()],
            Place::after(world.clock.now()),
            world.clock.now(),
        )
        .await
        .unwrap();
    assert_eq!(found.len(), 10);
    let inactive = cykl::store::preflight::Look {
        masked_number: None,
        expires_on: None,
        concern: Some(cykl::domain::preflight::CardConcern::Inactive),
    };
    let (id, now) = (found[0].card_id, world.clock.now());
    let both = tokio::join!(
        world.store.note_look(id, inactive, now),
        other.note_look(id, inactive, now),
        world.store.note_look(id, inactive, now),
        other.note_look(id, inactive, now),
    );
    let told_by = [both.0, both.1, both.2, both.3].map(Result::unwrap);
    assert_eq!(told_by.iter().filter(|is_told| **is_told).count(), 1);
    assert_eq!(told(&world).await.len(), 10);
    world.settle_up().await;
}

#[tokio::test]
async fn cards_without_a_profile_and_those_that_are_not_charged_are_not_looked_at() {
    let world = World::new(Script::default()).await;
    let plain = Agreement::monthly("2027-01-05").without_profile();
    world.subscribe(plain).await;
    let later = NaiveDate::from_ymd_opt(2027, 1, 5).unwrap() + Months::new(1);
    world
        .subscribe(Agreement::monthly(&later.to_string()))
        .await;
    assert_eq!(look(&world).await, IDLE);
}
