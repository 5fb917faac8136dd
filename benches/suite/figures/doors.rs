//! What comes in: notices, and subscriptions.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use tokio::io::AsyncBufReadExt;
use uuid::Uuid;

use super::charging::{IN_FLIGHT, PLAIN};
use super::{Bench, Label, cores};
use crate::books;
use crate::children::{CYKL, Process, free_address};
use crate::reference::{self, Content, Done, Posts, Task, Until};
use crate::report::{Amount, Goal};
use crate::scene::{Scene, stop_all};

/// Notices taken, and bodies echoed.
struct Taken {
    notices: Done,
    echoes: Done,
}

/// Signed notices, checked and committed, beside a server that sends the same bodies back.
pub async fn inbox(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.sizes.some;
    let given = |taken: &Taken| cores(taken.notices.cpu, taken.notices.wall);
    let runs = bench
        .rounds(given, async |bench| {
            let echoes = post_to_echo(count).await?;
            let notices = post_to_daemon(bench, count).await?;
            Ok(Taken { notices, echoes })
        })
        .await?;
    let label = |key, name, goal| Label::new("inbox", key, name, goal);
    let rate = |done: &Done| Amount::per_second(done.calls, done.wall);
    let ratio = label(
        "inbox_ratio",
        "notices per second / echoes per second",
        Goal::AtLeast(300),
    );
    let each = |taken: &Taken| rate(&taken.notices).per(rate(&taken.echoes));
    bench.add(ratio, &runs, each, Some(given));
    let notices = label("inbox_per_second", "  notices", Goal::None);
    bench.add(notices, &runs, |taken| rate(&taken.notices), Some(given));
    let echoes = label("echoes_per_second", "  echoes", Goal::None);
    bench.add(echoes, &runs, |taken| rate(&taken.echoes), None);
    Ok(())
}

fn posts(address: String, count: u64) -> Posts {
    Posts {
        address,
        content: Content::Notices,
        in_flight: IN_FLIGHT,
        until: Until::Calls(count),
    }
}

async fn post_to_echo(count: u64) -> anyhow::Result<Done> {
    let address = free_address()?;
    let mut server = reference::start(&Task::Echo(address))?;
    let mut line = String::new();
    server.output()?.read_line(&mut line).await?;
    ensure!(!line.is_empty(), "the echo does not listen");
    reference::post_all(&posts(format!("http://{address}/"), count)).await
}

async fn post_to_daemon(bench: &mut Bench, count: u64) -> anyhow::Result<Done> {
    let scene = Scene::set(&mut bench.world, bench.sizes.small, PLAIN).await?;
    let daemons = scene.start_daemons(1)?;
    scene.until_ready().await?;
    let cpu = || anyhow::Ok(daemons[0].cpu()? + scene.postgres_cpu()?);
    let before = cpu()?;
    let address = format!("http://{}/imoje/notifications", scene.door());
    let done = reference::post_all(&posts(address, count)).await?;
    let cpu = done.cpu + (cpu()? - before);
    stop_all(daemons).await?;
    let stored = books::notices(&scene.database.observer).await?;
    ensure!(stored == count, "{stored} of {count} notices are stored");
    scene.close(&bench.world).await?;
    Ok(Done { cpu, ..done })
}

/// Rows of a file, read, checked and stored.
pub async fn import(bench: &mut Bench) -> anyhow::Result<()> {
    let count = bench.sizes.many;
    let runs = bench
        .rounds(
            |_| Amount::whole(1),
            async |bench| import_once(bench, count).await,
        )
        .await?;
    let name = "rows imported per second";
    let label = Label::new(
        "import",
        "import_per_second",
        name,
        Goal::AtLeast(50_000_000),
    );
    bench.add(label, &runs, |rate| *rate, None);
    Ok(())
}

async fn import_once(bench: &mut Bench, count: u64) -> anyhow::Result<Amount> {
    let scene = Scene::set(&mut bench.world, 0, PLAIN).await?;
    let sheet = write_sheet(bench.world.directory(), count, scene.database.now())?;
    let config = scene.configure(0)?;
    let words = [sheet.to_str(), config.to_str()];
    let [Some(sheet), Some(config)] = words else {
        anyhow::bail!("the path is not UTF-8");
    };
    scene.database.checkpoint().await?;
    let started = Instant::now();
    let arguments = ["subscription", "import", sheet, "--config", config];
    Process::spawn(Path::new(CYKL), &arguments)?
        .wait()
        .await
        .context("cykl subscription import")?;
    let took = started.elapsed();
    let stored = books::subscriptions(&scene.database.observer).await?;
    ensure!(stored == count, "{stored} of {count} rows are stored");
    scene.close(&bench.world).await?;
    Ok(Amount::per_second(count, took))
}

fn write_sheet(directory: &Path, count: u64, now: DateTime<Utc>) -> anyhow::Result<PathBuf> {
    let path = directory.join("subscriptions.csv");
    let anchor = (now + TimeDelta::days(30)).date_naive();
    let mut file = BufWriter::new(File::create(&path)?);
    let header =
        "external_id,cid,payment_profile_id,amount_minor,currency,period,anchor_date,title";
    writeln!(file, "{header}")?;
    for number in 0..count {
        let profile = Uuid::new_v4();
        writeln!(
            file,
            "sub-{number},customer-{number}-card-1,{profile},4900,PLN,P1M,{anchor},Abonament"
        )?;
    }
    file.flush().context("couldn't write the sheet")?;
    Ok(path)
}
