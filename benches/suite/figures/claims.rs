//! How long it takes to claim what is due: in large tables, under a held snapshot, and after millions of charges.

use std::time::{Duration, Instant};

use anyhow::Context;
use cykl::domain::shop::ShopName;
use cykl::store::Store;
use sqlx::{ConnectOptions, Connection};

use super::charging::PLAIN;
use super::{Bench, Label};
use crate::books::{self, CLAIM};
use crate::counters::{self, Claims};
use crate::report::{Amount, Goal, Row, median};
use crate::scene::{Scene, stop_all};
use crate::world::{STORE_OPTIONS, shop_identity};

/// Claims before the first one that counts.
const WARM_UP: u64 = 5;

/// Claims of a round.
const CLAIMS: u64 = 5;

/// How often the claims are looked at while charging goes on.
const GLANCE: Duration = Duration::from_millis(250);

/// What a claim costs in a table of some size.
struct Claimed {
    size: u64,
    /// The medians of the rounds.
    times: Vec<Duration>,
    pages_per_row: Amount,
}

/// The time of a claim as the tables grow.
pub async fn claim(bench: &mut Bench) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for &size in bench.sizes.claims {
        let claimed = claim_in(bench, size).await?;
        let micros = |time: &Duration| Amount::ratio(time.as_nanos(), 1_000_000);
        bench.report.add(Row {
            figure: "claim",
            key: format!("claim_ms_{size}"),
            name: format!("claim of {CLAIM} of {size} subscriptions, ms"),
            goal: Goal::None,
            rounds: claimed.times.iter().map(micros).collect(),
            cores: Vec::new(),
        });
        if bench.world.counts_statements() {
            bench.report.add(Row {
                figure: "claim",
                key: format!("claim_pages_{size}"),
                name: "  pages per claimed row".to_owned(),
                goal: Goal::None,
                rounds: vec![claimed.pages_per_row],
                cores: Vec::new(),
            });
        }
        all.push(claimed);
    }
    let (Some(first), Some(last)) = (all.first(), all.last()) else {
        return Ok(());
    };
    let growth: Vec<Amount> = first
        .times
        .iter()
        .zip(&last.times)
        .map(|(first, last)| Amount::of_times(*last, *first))
        .collect();
    bench.report.add(Row {
        figure: "claim",
        key: "claim_growth".to_owned(),
        name: format!("claim at {} / at {}", last.size, first.size),
        goal: Goal::AtMost(1_200),
        rounds: growth,
        cores: Vec::new(),
    });
    Ok(())
}

async fn claim_in(bench: &mut Bench, size: u64) -> anyhow::Result<Claimed> {
    let mut database = bench.world.copy(size).await?;
    let rounds = u64::from(bench.sizes.rounds);
    let claims = WARM_UP + CLAIMS * rounds;
    database.release(claims * u64::from(CLAIM))?;
    let store = Store::connect(database.options.clone(), STORE_OPTIONS).await?;
    let fence_id = store
        .pass_fence(&[shop_identity()?], "bench", database.now())
        .await?;
    let shop: ShopName = shop_identity()?.shop;
    books::prepare_claims(&store, &shop, claims, database.now()).await?;
    database.checkpoint().await?;
    for _ in 0..WARM_UP {
        books::claim(&store, &shop, fence_id, database.now()).await?;
    }
    let pages = async || match bench.world.counts_statements() {
        true => counters::pages(&database.observer).await,
        false => Ok(0),
    };
    let pages_before = pages().await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let mut round = Vec::new();
        for _ in 0..CLAIMS {
            round.push(books::claim(&store, &shop, fence_id, database.now()).await?);
        }
        times.push(median(&round));
    }
    let pages = pages().await? - pages_before;
    store.close().await;
    bench.world.drop(database).await?;
    let rows = CLAIMS * rounds * u64::from(CLAIM);
    Ok(Claimed {
        size,
        times,
        pages_per_row: Amount::ratio(pages.into(), rows.into()),
    })
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
