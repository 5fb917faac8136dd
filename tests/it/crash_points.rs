//! At each effect of a debit, a notice, a read and a person's step, the process dies or loses its connection, before and after it.
//!
//! SQLite's loop ("How SQLite Is Tested", section 3): the n-th effect fails, for every n until a run is over before its n-th effect. A
//! healthy process then goes on for as long as anything can still happen, and the books must agree with the gateway's ledger.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use cykl::domain::id::SubscriptionId;
use cykl::simulator::{Behaviour, ErrorBody, Notices, Rule, Script};
use cykl::store::Store;
use cykl::store::status::By;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::fire::{Fault, Instance, Plan, Stage, Stepped};
use crate::harness::{Agreement, START, drop_database};

/// A story whose effects are made to fail.
#[derive(Clone, Copy)]
struct Story {
    name: &'static str,
    tell: fn() -> Agreement,
    rules: fn() -> Vec<Rule>,
    /// What a person does on the first day, after the first debit.
    person: Option<Step>,
}

/// What a person does.
#[derive(Clone, Copy)]
enum Step {
    Pause,
    Cancel,
}

/// The faults of processes that live one after the other: at which of its effects, and how.
type Lives = Vec<Vec<(usize, Fault)>>;

/// How long each story is followed: an attempt nobody hears of is written off after ten days, and what it was held for.
const DAYS: i64 = 45;

/// How many runs go on at once.
const RUNS_AT_ONCE: usize = 6;

fn weekly() -> Agreement {
    Agreement::monthly("2027-01-01").every("P1W").times(2)
}

fn once() -> Agreement {
    Agreement::monthly("2027-01-01").times(1)
}

/// Every path that moves money, or says that it did not.
const STORIES: [Story; 12] = [
    Story {
        name: "paid at once, twice, and completed",
        tell: weekly,
        rules: Vec::new,
        person: None,
    },
    Story {
        name: "paid after a notice",
        tell: || once().with_card(Behaviour::settle_after(Duration::from_secs(5))),
        rules: Vec::new,
        person: None,
    },
    Story {
        name: "paid, found by reading",
        tell: || {
            let card = Behaviour::settle_after(Duration::from_secs(5));
            once().with_card(card.with_notices(Notices::none()))
        },
        rules: Vec::new,
        person: None,
    },
    Story {
        name: "declined, and paid at the second try",
        tell: once,
        rules: || vec![Rule::debits(Behaviour::decline("CODE_51")).times(1)],
        person: None,
    },
    Story {
        name: "declined for good",
        tell: || once().with_card(Behaviour::decline_at_once("CODE_43")),
        rules: Vec::new,
        person: None,
    },
    Story {
        name: "the profile is inactive",
        tell: || once().with_card(Behaviour::inactive()),
        rules: Vec::new,
        person: None,
    },
    Story {
        name: "the answer is lost, and a notice tells",
        tell: || once().with_card(Behaviour::take_money_and_lose_answer()),
        rules: Vec::new,
        person: None,
    },
    Story {
        name: "the answer is lost, and nobody tells",
        tell: || {
            let card = Behaviour::take_money_and_lose_answer();
            once().with_card(card.with_notices(Notices::none()))
        },
        rules: Vec::new,
        person: None,
    },
    Story {
        name: "the credentials are refused, and a person releases the brake",
        tell: once,
        rules: || {
            let refused = Behaviour::error(StatusCode::UNAUTHORIZED, ErrorBody::Object, false);
            vec![Rule::debits(refused).times(1)]
        },
        person: None,
    },
    Story {
        name: "three periods are due together",
        tell: || Agreement::monthly("2026-12-30").every("P1D").times(3),
        rules: Vec::new,
        person: None,
    },
    Story {
        name: "paused while the debit is pending",
        tell: || weekly().with_card(Behaviour::settle_after(Duration::from_secs(86_400))),
        rules: Vec::new,
        person: Some(Step::Pause),
    },
    Story {
        name: "cancelled while the answer is lost",
        tell: || weekly().with_card(Behaviour::take_money_and_lose_answer()),
        rules: Vec::new,
        person: Some(Step::Cancel),
    },
];

/// What became of a run.
struct Told {
    effects: Vec<String>,
    struck: usize,
    charges: Vec<String>,
}

/// Lets processes with these faults, one after the other, live through the story, then a healthy one, and compares the books
/// with the ledger.
async fn tell(story: Story, lives: Lives) -> Told {
    let stage = Stage::new(Script::default(), "").await;
    for rule in (story.rules)() {
        stage.world.simulator.add_rule(rule);
    }
    let subscription_id = stage.world.subscribe((story.tell)()).await;
    let end = START.parse::<DateTime<Utc>>().unwrap() + TimeDelta::days(DAYS);
    let mut effects = Vec::new();
    let mut struck = 0;
    let mut person = story.person;
    for faults in lives {
        let instance = Instance::start(&stage, Plan::At(faults), TimeDelta::zero()).await;
        stage.relay.lead_to(Some(instance.door));
        let crashed = live(&stage, &instance, &mut person, subscription_id, end).await;
        struck += instance.effects.struck();
        effects = instance.effects.names();
        drop(instance);
        stage.relay.lead_to(None);
        if !crashed {
            break;
        }
    }
    stage.open_own_door();
    stage.world.run_until_idle().await;
    if stage
        .world
        .one::<bool>("SELECT mode <> 'run' FROM brakes")
        .await
    {
        // Somebody notices.
        stage.world.advance(TimeDelta::minutes(5));
        stage.world.release_brake().await;
    }
    stage.world.run_until(end).await;
    if let Some(step) = person {
        // The person's command failed with the process, and is given again.
        decide(&stage.world.store, step, subscription_id, end).await;
        stage.world.run_until_idle().await;
    }
    stage.world.settle_up_beside_doubts(&[]).await;
    let told = Told {
        effects,
        struck,
        charges: stage.world.charges().await,
    };
    drop_database(stage.world).await;
    told
}

/// One life. Returns whether it ended by a crash.
async fn live(
    stage: &Stage,
    instance: &Instance,
    person: &mut Option<Step>,
    subscription_id: Uuid,
    end: DateTime<Utc>,
) -> bool {
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
            if let Some(step) = *person
                && stage.world.posts() > 0
            {
                let (store, now) = (instance.store.clone(), stage.now());
                let decided =
                    instance.run(async move { decide(&store, step, subscription_id, now).await });
                match decided.await {
                    None => return true,
                    Some(true) => *person = None,
                    Some(false) => {}
                }
            }
            if stepped == Stepped::Idle && delivered.sent == 0 {
                break;
            }
            rounds += 1;
            assert!(rounds < 200, "the workers never come to rest");
        }
        match stage.world.next_due().await.filter(|next| *next < end) {
            Some(next) => stage
                .world
                .clock
                .set(next.max(stage.now() + TimeDelta::seconds(1))),
            None => return false,
        }
    }
}

/// A person's command. Returns whether it said that it was done.
async fn decide(store: &Store, step: Step, subscription_id: Uuid, now: DateTime<Utc>) -> bool {
    let by = By {
        actor: "test",
        reason: "a customer asked for it",
    };
    let id = SubscriptionId::from_uuid(subscription_id);
    match step {
        Step::Pause => store.pause(id, by, now).await.is_ok(),
        Step::Cancel => store.cancel(id, by, now).await.is_ok(),
    }
}

/// Tells every story of `runs` at the same time, a few at once, and returns what became of each.
async fn tell_all(runs: Vec<(Story, Lives)>) -> Vec<Told> {
    let turns = Arc::new(Semaphore::new(RUNS_AT_ONCE));
    let mut telling = JoinSet::new();
    for (story, lives) in runs {
        let turns = Arc::clone(&turns);
        telling.spawn(async move {
            let _turn = turns.acquire_owned().await.unwrap();
            println!("{}: {lives:?}", story.name);
            let told = tell(story, lives.clone()).await;
            assert!(
                told.charges
                    .iter()
                    .all(|charge| ["paid", "failed", "void"].contains(&charge.as_str())),
                "{} with {lives:?} leaves {:?}",
                story.name,
                told.charges
            );
            told
        });
    }
    let mut all = Vec::new();
    while let Some(told) = telling.join_next().await {
        all.push(told.unwrap());
    }
    all
}

/// Which effects of a story fail: the first of each name, or, in the long run, all of them.
fn to_be_failed(effects: &[String]) -> Vec<usize> {
    let is_long = std::env::var_os("CYKL_SOAK_SEEDS").is_some();
    let is_first = |number: usize| !effects[..number].contains(&effects[number]);
    (0..effects.len())
        .filter(|number| is_long || is_first(*number))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_effect_may_fail_in_every_way_and_nobody_pays_twice() {
    let mut runs = Vec::new();
    let mut visited = BTreeSet::new();
    for story in STORIES {
        let untouched = tell(story, vec![Vec::new()]).await;
        for number in to_be_failed(&untouched.effects) {
            for fault in Fault::ALL {
                runs.push((story, vec![vec![(number, fault)]]));
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
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_failures_in_one_debit_are_no_worse_than_one() {
    let [story, ..] = STORIES;
    // The first debit: what is planned, permitted, sent and recorded. Between the first two the scheduler looks for what is over.
    let debit = [0, 2, 3, 4];
    let mut runs = Vec::new();
    for first in debit {
        for fault in Fault::ALL {
            for second in debit {
                for another in Fault::ALL {
                    if fault.kills() {
                        runs.push((story, vec![vec![(first, fault)], vec![(second, another)]]));
                    } else if second > first {
                        runs.push((story, vec![vec![(first, fault), (second, another)]]));
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
const POINTS: [&str; 21] = [
    "commit close_notices",
    "commit complete_finished",
    "commit complete_finished, append_events",
    "commit delivered",
    "commit insert_attempts, put_in_flight",
    "commit insert_attempts, put_in_flight, put_off",
    "commit insert_charges, move_on",
    "commit insert_charges, move_on, finish",
    "commit insert_evidence, update_attempts, update_charges",
    "commit insert_evidence, update_attempts, update_charges, append_events",
    "commit insert_evidence, update_attempts, update_charges, set_status, append_events",
    "commit insert_evidence, update_attempts, update_charges, unqueue_next_period, void_unsent, set_status, append_events",
    "commit insert_evidence, update_attempts, update_charges, unqueue_next_period, void_unsent, set_status, mark_cards_inactive, hold_charges_of_cards, append_events",
    "commit receive_notices",
    "commit stage_attempt, stage_charge, append_events",
    "commit take_deliveries",
    "commit take_notices",
    "commit take_unresolved",
    "commit unqueue_next_period, void_unsent, set_status, append_events",
    "send GET transaction",
    "send POST transaction/profile",
];
