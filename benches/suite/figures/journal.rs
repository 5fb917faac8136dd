//! What the permit journal costs: the same charges without it and with it.

use anyhow::ensure;
use cykl::journal;

use super::charging::PLAIN;
use super::{Bench, Label, cores_of};
use crate::report::{Amount, Goal};
use crate::scene::{Cost, Scene, Stage};

/// Charging without a journal and with one, one after the other.
struct Run {
    without: Cost,
    with: Cost,
    /// How often the journal was forced to the disk.
    forced: u64,
}

impl Run {
    fn cores(&self) -> Amount {
        cores_of(&self.with)
    }
}

/// Charges without a journal and with one, each in a database of its own.
pub async fn journal(bench: &mut Bench) -> anyhow::Result<()> {
    let runs = bench
        .rounds(Run::cores, async |bench| {
            let (without, _) = charge(bench, false).await?;
            let (with, forced) = charge(bench, true).await?;
            Ok(Run {
                without,
                with,
                forced,
            })
        })
        .await?;
    let label = |key, name, goal| Label::new("journal", key, name, goal);
    let cpu = |cost: &Cost| Amount::micros_each(cost.cpu(), cost.charges);
    let wall = label(
        "journal_wall_ratio",
        "time with a journal / without",
        Goal::AtMost(1_200),
    );
    let by_wall = |run: &Run| {
        let each = |cost: &Cost| Amount::micros_each(cost.wall, cost.charges);
        each(&run.with).per(each(&run.without))
    };
    bench.add(wall, &runs, by_wall, Some(Run::cores));
    let ratio = label(
        "journal_cpu_ratio",
        "CPU per charge with a journal / without",
        Goal::AtMost(1_100),
    );
    let by_cpu = |run: &Run| cpu(&run.with).per(cpu(&run.without));
    bench.add(ratio, &runs, by_cpu, Some(Run::cores));
    let with = label("journal_us_per_charge", "  with, us", Goal::None);
    bench.add(with, &runs, |run| cpu(&run.with), Some(Run::cores));
    let without = label("no_journal_us_per_charge", "  without, us", Goal::None);
    let given: fn(&Run) -> Amount = |run| cores_of(&run.without);
    bench.add(without, &runs, |run| cpu(&run.without), Some(given));
    let forced = label(
        "journal_syncs_per_charge",
        "fdatasyncs of the journal per charge",
        Goal::AtMost(20),
    );
    let each = |run: &Run| Amount::ratio(run.forced.into(), run.with.charges.into());
    bench.add(forced, &runs, each, None);
    Ok(())
}

/// What charging cost, and how often a journal was forced to the disk meanwhile.
async fn charge(bench: &mut Bench, keeps_journal: bool) -> anyhow::Result<(Cost, u64)> {
    let stage = Stage {
        keeps_journal,
        ..PLAIN
    };
    let (size, count) = (bench.sizes.claims[1], bench.sizes.some);
    let mut scene = Scene::set(&mut bench.world, size, stage).await?;
    let cost = scene.charge(count, 1).await?;
    let folder = scene.journal();
    scene.close(&bench.world).await?;
    let mut permits = Vec::new();
    for file in journal::files(folder).await? {
        permits.extend(journal::read(file).await?.permits);
    }
    ensure!(
        !keeps_journal || u64::try_from(permits.len())? >= cost.charges,
        "{} permits are in the journal, for {} charges",
        permits.len(),
        cost.charges
    );
    // The permits of a claim are written together, and bear its time.
    let claims = permits.chunk_by(|one, next| one.permitted_at == next.permitted_at);
    Ok((cost, u64::try_from(claims.count())?))
}
