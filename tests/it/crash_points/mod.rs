//! At each effect of a debit, a notice, a read and a person's command, the process dies or loses its connection, before and after it.
//!
//! SQLite's loop ("How SQLite Is Tested", section 3): the n-th effect fails, for every n until a run is over before its n-th effect. A
//! healthy process then goes on for as long as anything can still happen, and the books must agree with the gateway's ledger.

mod adoption;
mod people;
mod stories;

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use cykl::simulator::{CardData, Script};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::people::People;
use self::stories::{STORIES, Story};
use crate::fire::{Fault, Instance, Plan, Stage, Stepped};
use crate::harness::{START, World, drop_database};

/// The faults of processes that live one after the other: at which of its effects, and how.
type Lives = Vec<Vec<(usize, Fault)>>;

/// How long each story is followed: an attempt nobody hears of is written off after ten days, and what it was held for.
const DAYS: i64 = 45;

/// How many runs go on at once.
const RUNS_AT_ONCE: usize = 6;

/// What became of a run.
struct Told {
    effects: Vec<String>,
    struck: usize,
    charges: Vec<String>,
    people: People,
}

/// Lets processes with these faults, one after the other, live through the story, then a healthy one, and compares the books
/// with the ledger.
async fn tell(story: Story, lives: Lives) -> Told {
    let script = Script {
        card_data: CardData {
            knows_aliases: true,
            ..CardData::default()
        },
        ..Script::default()
    };
    let stage = Stage::new(script, "").await;
    for rule in (story.rules)() {
        stage.world.simulator.add_rule(rule);
    }
    let subscription_id = stage.world.subscribe((story.tell)()).await;
    let end = START.parse::<DateTime<Utc>>().unwrap() + TimeDelta::days(DAYS);
    let mut people = People::new(story.people, subscription_id);
    let mut effects = Vec::new();
    let mut struck = 0;
    for faults in lives {
        let instance = Instance::start(&stage, Plan::At(faults), TimeDelta::zero()).await;
        stage.relay.lead_to(Some(instance.door));
        let crashed = live(&stage, &instance, &mut people, end).await;
        struck += instance.effects.struck();
        effects = instance.effects.names();
        drop(instance);
        stage.relay.lead_to(None);
        if !crashed {
            break;
        }
    }
    stage.open_own_door();
    live_on(&stage, &mut people, end).await;
    stage.world.settle_up_beside_doubts(&[]).await;
    stage.world.nothing_due_is_forgotten().await;
    stage.compare_with_journal().await;
    let told = Told {
        effects,
        struck,
        charges: stage
            .world
            .column("SELECT concat_ws(' ', state, reason) FROM charges ORDER BY due_on")
            .await,
        people,
    };
    drop_database(stage.world).await;
    told
}

/// One life. Returns whether it ended by a crash.
async fn live(stage: &Stage, instance: &Instance, people: &mut People, end: DateTime<Utc>) -> bool {
    loop {
        let mut rounds = 0;
        loop {
            let stepped = instance.step(stage.now()).await;
            if stepped == Stepped::Crashed {
                return true;
            }
            let delivered = stage.world.simulator.deliver_due().await;
            if instance.effects.is_crashed() {
                return true;
            }
            let acted = people.act_in(instance, stage).await;
            if instance.effects.is_crashed() {
                return true;
            }
            if stepped == Stepped::Idle && delivered.sent == 0 && !acted {
                break;
            }
            rounds += 1;
            assert!(rounds < 200, "the workers never come to rest");
        }
        let next = next_of(stage.world.next_due().await, people, stage.now());
        match next.filter(|next| *next < end) {
            Some(next) => stage
                .world
                .clock
                .set(next.max(stage.now() + TimeDelta::seconds(1))),
            None => return false,
        }
    }
}

/// The rest of the time, with which nothing goes wrong any more.
async fn live_on(stage: &Stage, people: &mut People, end: DateTime<Utc>) {
    let world = &stage.world;
    for _ in 0..1_000 {
        world.run_until_idle().await;
        if people.act(world).await {
            continue;
        }
        let tripped = "SELECT EXISTS (SELECT FROM brakes WHERE mode <> 'run' AND actor = 'cykl')";
        if world.one::<bool>(tripped).await {
            // Somebody notices.
            world.advance(TimeDelta::minutes(5));
            world.release_brake().await;
            continue;
        }
        // What was found locked by a connection that is being cut is looked at again before long, as by a daemon that always runs.
        let left = "SELECT EXISTS (SELECT FROM charges WHERE state IN ('planned', 'retry_wait'))";
        let tomorrow = world.clock.now() + TimeDelta::days(1);
        let looked_at = world.one::<bool>(left).await.then_some(tomorrow);
        let soon = world.clock.now() + TimeDelta::seconds(1);
        let planned_at = has_unplanned(world).await.then_some(soon);
        let due = [world.next_due().await, looked_at, planned_at];
        let next = next_of(due.into_iter().flatten().min(), people, world.clock.now());
        match next.filter(|next| *next < end) {
            Some(next) => world
                .clock
                .set(next.max(world.clock.now() + TimeDelta::seconds(1))),
            None => {
                world.clock.set(end);
                return world.run_until_idle().await;
            }
        }
    }
    panic!("the story has no end");
}

/// Whether a period has fallen due that nobody has planned.
async fn has_unplanned(world: &World) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM due_periods WHERE due_at <= $1)")
        .bind(world.clock.now())
        .fetch_one(&world.books)
        .await
        .unwrap()
}

/// When something is due next, or may be done by people.
fn next_of(
    due: Option<DateTime<Utc>>,
    people: &People,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let begins = people.next_at().filter(|next| *next > now);
    [due, begins].into_iter().flatten().min()
}

/// A story, with what goes wrong in it, and how many charges it has when nothing does.
type Run = (Story, Lives, usize);

/// Tells every story of `runs` at the same time, a few at once, and returns what became of each.
async fn tell_all(runs: Vec<Run>) -> Vec<Told> {
    let turns = Arc::new(Semaphore::new(RUNS_AT_ONCE));
    let mut telling = JoinSet::new();
    for (story, lives, charges) in runs {
        let turns = Arc::clone(&turns);
        telling.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            println!("{}: {lives:?}", story.name);
            let told = tell(story, lives.clone()).await;
            assert!(
                told.charges.iter().all(|charge| ["paid", "failed", "void"]
                    .iter()
                    .any(|over| charge.starts_with(over))),
                "{} with {lives:?} leaves {:?}",
                story.name,
                told.charges
            );
            assert_eq!(told.charges.len(), charges, "{} with {lives:?}", story.name);
            told
        });
    }
    let mut all = Vec::new();
    while let Some(told) = telling.join_next().await {
        all.push(told.unwrap());
    }
    all
}

fn is_long() -> bool {
    std::env::var_os("CYKL_SOAK_SEEDS").is_some()
}

/// Which effects of a story fail. In the long run all of them; else the first of each name, and of a story with people what they do.
fn to_be_failed(untouched: &Told) -> Vec<usize> {
    let (effects, of_people) = (&untouched.effects, &untouched.people.effects);
    let is_long = is_long();
    let is_first = |number: usize| !effects[..number].contains(&effects[number]);
    (0..effects.len())
        .filter(|number| {
            is_long
                || if of_people.is_empty() {
                    is_first(*number)
                } else {
                    of_people.contains(number)
                }
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_effect_may_fail_in_every_way_and_nobody_pays_twice() {
    let mut runs = Vec::new();
    let mut visited = BTreeSet::new();
    for story in STORIES {
        let untouched = tell(story, vec![Vec::new()]).await;
        assert_eq!(
            (untouched.people.left(), &untouched.people.refused),
            (0, &Vec::new()),
            "{}",
            story.name
        );
        for number in to_be_failed(&untouched) {
            for fault in Fault::ALL {
                runs.push((story, vec![vec![(number, fault)]], untouched.charges.len()));
            }
        }
        visited.extend(untouched.effects);
    }
    let (expected, all) = (runs.len(), tell_all(runs).await);
    let struck: usize = all.iter().map(|told| told.struck).sum();
    println!("{expected} runs, {struck} faults, {} points", visited.len());
    assert_eq!(struck, expected, "a fault that never struck shows nothing");
    let visited: Vec<&str> = visited.iter().map(String::as_str).collect();
    assert_eq!(visited, POINTS, "the points at which a process can fail");
    let after: BTreeSet<_> = (all.iter().flat_map(|told| &told.effects))
        .map(String::as_str)
        .filter(|effect| !POINTS.contains(effect))
        .collect();
    let known = BTreeSet::from(POINTS_AFTER_A_FAULT);
    // A long run makes more of them fail, and may come to more.
    let is_known = after == known || is_long() && after.is_superset(&known);
    assert!(is_known, "the points that a fault leads to: {after:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_failures_in_one_debit_are_no_worse_than_one() {
    let [story, ..] = STORIES;
    // The first debit: what is planned, permitted, sent and recorded. Between the first two the scheduler looks for what is over, and
    // for plans of days that are over.
    let debit = [0, 3, 4, 5];
    let untouched = tell(story, vec![Vec::new()]).await;
    let (effects, charges) = (untouched.effects, untouched.charges.len());
    assert_eq!(
        debit.map(|number| effects[number].as_str()),
        [
            "commit insert_charges, move_on",
            "commit count_daily_permits, insert_attempts, put_in_flight",
            "send POST transaction/profile",
            "commit insert_evidence, update_attempts, update_charges, append_events",
        ]
    );
    let mut runs = Vec::new();
    for first in debit {
        for fault in Fault::ALL {
            for second in debit {
                for another in Fault::ALL {
                    if fault.kills() {
                        let lives = vec![vec![(first, fault)], vec![(second, another)]];
                        runs.push((story, lives, charges));
                    } else if second > first {
                        let lives = vec![vec![(first, fault), (second, another)]];
                        runs.push((story, lives, charges));
                    }
                }
            }
        }
    }
    let all = tell_all(runs).await;
    let struck: usize = all.iter().map(|told| told.struck).sum();
    println!("{} runs, {struck} faults", all.len());
    assert!(
        struck > all.len() * 3 / 2,
        "the second fault seldom strikes"
    );
}

/// Every effect that the stories have. One that is missing here is a new one, whose failure is tried as well as soon as it is added.
const POINTS: [&str; 57] = [
    "commit append_events",
    "commit append_events, fail_charge",
    "commit cancel_unanswered_registration, insert_registration",
    "commit close_notices",
    "commit complete_finished",
    "commit complete_finished, append_events",
    "commit count_daily_permits, count_slow_start, insert_attempts, put_in_flight",
    "commit count_daily_permits, insert_attempts, put_in_flight",
    "commit count_daily_permits, insert_attempts, put_in_flight, put_off",
    "commit count_slow_start",
    "commit delivered",
    "commit end_registration, append_events",
    "commit forget_plans",
    "commit go_on, put_off, append_events",
    "commit go_on, put_off, raise_plan, append_events",
    "commit go_on, put_off, raise_plan, append_events, set_status",
    "commit hasten_registrations",
    "commit insert_attempts, put_in_flight",
    "commit insert_charges, move_on",
    "commit insert_charges, move_on, append_events",
    "commit insert_charges, move_on, finish",
    "commit insert_evidence, update_attempts, update_charges",
    "commit insert_evidence, update_attempts, update_charges, append_events",
    "commit insert_evidence, update_attempts, update_charges, set_status, append_events",
    "commit insert_evidence, update_attempts, update_charges, unqueue_next_period, void_unsent, set_status, append_events",
    "commit insert_evidence, update_attempts, update_charges, unqueue_next_period, void_unsent, set_status, mark_cards_inactive, hold_charges_of_cards, append_events",
    "commit insert_refund_evidence, update_refund",
    "commit insert_refund_evidence, update_refund, append_events",
    "commit insert_registered_card, set_card, set_status, go_on_from, mark_attached, hasten_registration_of, append_events",
    "commit insert_registered_card, set_card, set_status, go_on_from, queue_next_period, mark_attached, hasten_registration_of, append_events",
    "commit insert_registered_card, set_card, set_status, go_on_from, queue_next_period, raise_plan, mark_attached, hasten_registration_of, append_events",
    "commit note_payment_of_registration, hasten_registration_of, append_events",
    "commit note_payment_of_registration, insert_first_charge, insert_attempt_by_link, insert_evidence_by_link, step_charge_by_link, hasten_registration_of, append_events",
    "commit note_sale, append_events",
    "commit open_registration, append_events",
    "commit permit_refund",
    "commit receive_notices",
    "commit say, append_events",
    "commit say, append_events, stage_attempt, stage_charge",
    "commit set_status, go_on_from, queue_next_period, append_events",
    "commit stage_attempt, stage_charge, append_events",
    "commit stop_looking_at_registration",
    "commit take_deliveries",
    "commit take_notices",
    "commit take_refunds",
    "commit take_registrations",
    "commit take_unresolved",
    "commit unqueue_next_period, void_unsent, set_status, append_events",
    "commit unqueue_next_period, void_unsent, set_status, hasten_registration_of, append_events",
    "send GET payment",
    "send GET profile/cid",
    "send GET transaction",
    "send POST payment",
    "send POST transaction",
    "send POST transaction/can-refund",
    "send POST transaction/profile",
    "send POST transaction/refund",
];

/// Every further effect of a process with which something goes wrong: what it makes good, and what it finds half done.
const POINTS_AFTER_A_FAULT: [&str; 6] = [
    "commit insert_attempts, count_tombstones",
    "commit insert_attempts, put_in_flight, put_off",
    "commit open_refund_case, append_events",
    "commit open_registration_case, append_events",
    "commit put_off",
    "send POST payment/cancel",
];
