//! How long it takes to claim what is due: in large tables, under a held snapshot, and after millions of charges.

use std::time::{Duration, Instant};

use anyhow::Context;
use cykl::domain::id::FenceId;
use cykl::store::Store;
use sqlx::{ConnectOptions, Connection};

use super::charging::PLAIN;
use super::{Bench, Label};
use crate::books::{self, CLAIM};
use crate::counters::{self, Claims};
use crate::report::{Amount, Goal, Row, median};
use crate::scene::{Scene, stop_all};
use crate::world::{Database, STORE_OPTIONS, shop_identity};

/// Claims before the first one that counts.
const WARM_UP: u64 = 5;

/// Claims of a round.
const CLAIMS: u64 = 5;

/// How often the claims are looked at while charging goes on.
const GLANCE: Duration = Duration::from_millis(250);

/// A database whose claims are measured.
struct Contender {
    size: u64,
    database: Database,
    store: Store,
    fence_id: FenceId,
    times: Vec<Vec<Duration>>,
    pages_before: u64,
}

impl Contender {
    /// Makes `claims` claims ready in a copy of the database of `size` subscriptions, and takes the first [`WARM_UP`] of them.
    async fn new(bench: &mut Bench, size: u64, claims: u64) -> anyhow::Result<Self> {
        let mut database = bench.world.copy(size).await?;
        database.release((WARM_UP + claims) * u64::from(CLAIM))?;
        let store = Store::connect(database.options.clone(), STORE_OPTIONS).await?;
        let shop = shop_identity()?;
        let fence_id = store
            .pass_fence(std::slice::from_ref(&shop), "bench", database.now())
            .await?;
        books::prepare_claims(&store, &shop.shop, WARM_UP + claims, database.now()).await?;
        database.checkpoint().await?;
        let mut contender = Self {
            size,
            database,
            store,
            fence_id,
            times: Vec::new(),
            pages_before: 0,
        };
        for _ in 0..WARM_UP {
            contender.claim().await?;
        }
        if bench.world.counts_statements() {
            contender.pages_before = counters::pages(&contender.database.observer).await?;
        }
        Ok(contender)
    }

    async fn claim(&self) -> anyhow::Result<Duration> {
        let shop = shop_identity()?.shop;
        books::warm(&self.database.observer).await?;
        books::claim(&self.store, &shop, self.fence_id, self.database.now()).await
    }

    /// The median time of each round.
    fn medians(&self) -> Vec<Duration> {
        self.times.iter().map(|round| median(round)).collect()
    }
}

/// The time of a claim as the tables grow. The databases take turns, so that the machine is alike for all of them.
pub async fn claim(bench: &mut Bench) -> anyhow::Result<()> {
    let rounds = usize::try_from(bench.sizes.rounds)?;
    let claims = CLAIMS * u64::from(bench.sizes.rounds);
    let mut contenders = Vec::new();
    for &size in bench.sizes.claims {
        contenders.push(Contender::new(bench, size, claims).await?);
    }
    for round in 0..rounds {
        for contender in &mut contenders {
            contender.times.push(Vec::new());
        }
        for _ in 0..CLAIMS {
            for contender in &mut contenders {
                let time = contender.claim().await?;
                contender.times[round].push(time);
            }
        }
    }
    let mut rows = Vec::new();
    for contender in contenders {
        let medians = contender.medians();
        let micros = |time: &Duration| Amount::ratio(time.as_nanos(), 1_000_000);
        bench.report.add(row(
            &format!("claim_ms_{}", contender.size),
            format!("claim of {CLAIM} of {} subscriptions, ms", contender.size),
            Goal::None,
            medians.iter().map(micros).collect(),
        ));
        let mut pages = Amount::default();
        if bench.world.counts_statements() {
            let touched = counters::pages(&contender.database.observer).await?;
            let claimed = claims * u64::from(CLAIM);
            pages = Amount::ratio((touched - contender.pages_before).into(), claimed.into());
            bench.report.add(row(
                &format!("claim_pages_{}", contender.size),
                "  pages per claimed row".to_owned(),
                Goal::None,
                vec![pages],
            ));
        }
        contender.store.close().await;
        bench.world.drop(contender.database).await?;
        rows.push((contender.size, medians, pages));
    }
    add_growth(bench, &rows);
    Ok(())
}

/// How much more a claim costs in the largest table than in the smallest.
fn add_growth(bench: &mut Bench, rows: &[(u64, Vec<Duration>, Amount)]) {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return;
    };
    let pairs = first.1.iter().zip(&last.1);
    bench.report.add(row(
        "claim_growth",
        format!("time of a claim at {} / at {}", last.0, first.0),
        Goal::AtMost(1_200),
        pairs
            .map(|(first, last)| Amount::of_times(*last, *first))
            .collect(),
    ));
    if bench.world.counts_statements() {
        bench.report.add(row(
            "claim_pages_growth",
            format!("pages of a claim at {} / at {}", last.0, first.0),
            Goal::AtMost(1_200),
            vec![last.2.per(first.2)],
        ));
    }
}

fn row(key: &str, name: String, goal: Goal, rounds: Vec<Amount>) -> Row {
    Row {
        figure: "claim",
        key: key.to_owned(),
        name,
        goal,
        rounds,
        cores: Vec::new(),
    }
}

/// The time of a claim while somebody holds a snapshot from before it all.
pub async fn snapshot(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.world.counts_statements() {
        println!("  PostgreSQL lacks pg_stat_statements");
        return Ok(());
    }
    let count = bench.sizes.snapshot;
    let runs = bench
        .rounds(
            |_| Amount::whole(1),
            async |bench| {
                let mut scene = Scene::set(&mut bench.world, bench.sizes.small, PLAIN).await?;
                let mut holder = scene
                    .database
                    .options
                    .clone()
                    .username("observer")
                    .connect()
                    .await?;
                sqlx::raw_sql(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class",
                )
                .execute(&mut holder)
                .await?;
                let samples = charge_watched(&mut scene, count, Duration::MAX).await?;
                holder.close().await?;
                scene.close(&bench.world).await?;
                growth(&samples)
            },
        )
        .await?;
    let name = "claim under a held snapshot, last tenth / first tenth";
    let label = Label::new("snapshot", "snapshot_growth", name, Goal::AtMost(1_500));
    bench.add(label, &runs, |run| run.0, None);
    let claimed = Label::new("snapshot", "snapshot_claimed", "  charges", Goal::None);
    bench.add(claimed, &runs, |run| Amount::whole(run.1), None);
    Ok(())
}

/// The time of a claim after millions of charges in one go. Once: the database is spent then.
pub async fn soak(bench: &mut Bench) -> anyhow::Result<()> {
    if !bench.world.counts_statements() {
        println!("  PostgreSQL lacks pg_stat_statements");
        return Ok(());
    }
    let database = bench.take_large().await?;
    let count = bench.sizes.soak.min(database.unreleased());
    let mut scene = Scene::reset(&bench.world, database, PLAIN).await?;
    let samples = charge_watched(&mut scene, count, bench.sizes.soak_time).await?;
    scene.close(&bench.world).await?;
    let runs = [growth(&samples)?];
    let name = "claim in a long run, last tenth / first tenth";
    let label = Label::new("soak", "soak_growth", name, Goal::AtMost(1_500));
    bench.add(label, &runs, |run| run.0, None);
    let claimed = Label::new("soak", "soak_claimed", "  charges", Goal::None);
    bench.add(claimed, &runs, |run| Amount::whole(run.1), None);
    Ok(())
}

/// Charges `count` subscriptions, or as many as the time allows, and watches the claims.
async fn charge_watched(
    scene: &mut Scene,
    count: u64,
    time: Duration,
) -> anyhow::Result<Vec<Claims>> {
    scene.database.release(count)?;
    scene.database.checkpoint().await?;
    let observer = &scene.database.observer;
    let mut samples = vec![counters::claims(observer).await?];
    let started = Instant::now();
    let mut daemons = scene.start_daemons(1)?;
    while started.elapsed() < time {
        tokio::time::sleep(GLANCE).await;
        samples.push(counters::claims(observer).await?);
        daemons.iter_mut().try_for_each(|daemon| daemon.check())?;
        if books::is_all_done(observer, scene.database.now()).await? {
            break;
        }
    }
    stop_all(daemons).await?;
    Ok(samples)
}

/// How much longer a claim took in the last tenth of what was claimed than in the first, and how much was claimed.
fn growth(samples: &[Claims]) -> anyhow::Result<(Amount, u64)> {
    let (first, last) = (samples.first(), samples.last());
    let (first, last) = first.zip(last).context("nothing was seen")?;
    let rows = last.rows - first.rows;
    let early = samples
        .iter()
        .find(|sample| sample.rows - first.rows >= rows / 10)
        .context("nothing was claimed")?;
    let late = samples
        .iter()
        .rfind(|sample| last.rows - sample.rows >= rows / 10)
        .context("nothing was claimed")?;
    let each = |from: &Claims, to: &Claims| {
        Amount::micros_each(to.time - from.time, to.calls - from.calls)
    };
    Ok((each(late, last).per(each(first, early)), rows))
}
