//! A database, a simulator and the configuration of a daemon for both: what it costs to charge what is due.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use chrono::SecondsFormat;
use nix::sys::signal::Signal;

use crate::children::{Gateway, PUBLIC_NAME, Process, Script, free_address, start_daemon};
use crate::counters::{self, Counts};
use crate::world::{Database, MERCHANT_ID, SERVICE_ID, SERVICE_KEY, TOKEN, World};
use crate::{books, processes};

/// `charging.claim_ahead`, as is recommended to whoever wants thousands of charges per second.
const CLAIM_AHEAD: u32 = 1_500;

/// How often it is looked whether all is done.
const GLANCE: Duration = Duration::from_millis(100);

/// Within this time something has to happen.
const PATIENCE: Duration = Duration::from_secs(3600);

/// How a scene is set.
#[derive(Debug, Clone, Copy)]
pub struct Stage {
    /// `charging.in_flight_max`
    pub in_flight: u32,
    /// What the simulator does.
    pub script: Script,
    /// Whether the daemons keep a permit journal, on the disk of the database.
    pub keeps_journal: bool,
}

/// A database, a simulator, and where a daemon finds both.
pub struct Scene {
    /// The database.
    pub database: Database,
    gateway: Gateway,
    door: SocketAddr,
    stage: Stage,
    database_url: String,
    directory: PathBuf,
    counts_statements: bool,
    paid_before: u64,
    settled_before: u64,
}

/// What charging cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// How many charges.
    pub charges: u64,
    /// From the start of the daemons until all were paid and told.
    pub wall: Duration,
    /// CPU time of `cykl run`, its start included.
    pub daemon_cpu: Duration,
    /// CPU time of all of PostgreSQL.
    pub postgres_cpu: Duration,
    /// CPU time of the simulator.
    pub gateway_cpu: Duration,
    /// What PostgreSQL counted.
    pub counts: Counts,
    /// The most memory that a daemon had resident.
    pub peak_rss_kib: u64,
}

impl Cost {
    /// CPU time of all processes together.
    pub fn cpu(&self) -> Duration {
        self.daemon_cpu + self.postgres_cpu + self.gateway_cpu
    }
}

impl Scene {
    /// Sets a scene in a copy of a filled database.
    pub async fn set(world: &mut World, size: u64, stage: Stage) -> anyhow::Result<Self> {
        let database = world.copy(size).await?;
        Self::reset(world, database, stage).await
    }

    /// Sets another scene in a database that has been used.
    pub async fn reset(world: &World, database: Database, stage: Stage) -> anyhow::Result<Self> {
        let door = free_address()?;
        let notices = stage.script.settles_later.then_some(door);
        let gateway = Gateway::start(world.directory(), stage.script, notices).await?;
        Ok(Self {
            paid_before: books::paid(&database.observer).await?,
            settled_before: books::settled(&database.observer).await?,
            counts_statements: world.counts_statements(),
            database_url: world.url(&database),
            directory: world.directory().to_owned(),
            database,
            gateway,
            door,
            stage,
        })
    }

    /// Where the daemon that was started first listens.
    pub fn door(&self) -> SocketAddr {
        self.door
    }

    /// Where the permit journal is, if one is kept.
    pub fn journal(&self) -> PathBuf {
        let folder = format!("{}-journal", self.database.name);
        self.directory.join(folder)
    }

    /// The file with the configuration of the daemon of this number, whose clock begins at the database's time. Number 0 is the
    /// one that notices reach.
    pub fn configure(&self, number: u32) -> anyhow::Result<PathBuf> {
        let start = self.database.now();
        let any_address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut toml = format!(
            "[database]\nurl = \"{}\"\n\
             [shops.main]\nenvironment = \"simulator\"\nbase_url = \"{}\"\nmerchant_id = \"{MERCHANT_ID}\"\n\
             service_id = \"{SERVICE_ID}\"\ntoken = \"{TOKEN}\"\nservice_key = \"{SERVICE_KEY}\"\n\
             [charging]\nin_flight_max = {}\nclaim_ahead = {CLAIM_AHEAD}\n\
             [log]\nformat = \"text\"\nfilter = \"warn,sqlx::query=error\"\n\
             [clock]\nkind = \"scaled\"\nscale = 1\nstart = {}\n\
             [http]\nlisten = \"{}\"\n",
            self.database_url,
            self.gateway.base_url(),
            self.stage.in_flight,
            start.to_rfc3339_opts(SecondsFormat::Micros, true),
            if number == 0 { self.door } else { any_address },
        );
        if self.stage.script.settles_later {
            writeln!(toml, "public_url = \"https://{PUBLIC_NAME}\"")?;
        }
        if self.stage.keeps_journal {
            writeln!(toml, "[journal]\ndir = \"{}\"", self.journal().display())?;
        }
        let file = format!("{}-{number}.toml", self.database.name);
        let path = self.directory.join(file);
        std::fs::write(&path, toml)
            .with_context(|| format!("couldn't write {}", path.display()))?;
        Ok(path)
    }

    /// Starts daemons.
    pub fn start_daemons(&self, count: u32) -> anyhow::Result<Vec<Process>> {
        (0..count)
            .map(|number| start_daemon(&self.configure(number)?))
            .collect()
    }

    /// Lets at least `count` further subscriptions fall due and `daemons` daemons charge them all, after a checkpoint.
    pub async fn charge(&mut self, count: u64, daemons: u32) -> anyhow::Result<Cost> {
        let charges = self.database.release(count)?;
        self.database.checkpoint().await?;
        let counts_before = self.counts().await?;
        let postgres_before = self.postgres_cpu()?;
        let gateway_before = self.gateway.process().cpu()?;
        let started = Instant::now();
        let mut daemons = self.start_daemons(daemons)?;
        self.until_done(&mut daemons, started).await?;
        let wall = started.elapsed();
        // While all connections are open: a backend that ends takes its CPU time along for a moment.
        let postgres_cpu = self.postgres_cpu()? - postgres_before;
        let gateway_cpu = self.gateway.process().cpu()? - gateway_before;
        let (mut daemon_cpu, mut peak_rss_kib) = (Duration::ZERO, 0);
        for daemon in &daemons {
            daemon_cpu += daemon.cpu()?;
            peak_rss_kib = peak_rss_kib.max(daemon.peak_rss_kib()?);
        }
        stop_all(daemons).await?;
        let paid = books::paid(&self.database.observer).await? - self.paid_before;
        ensure!(
            paid >= charges,
            "{paid} charges are paid instead of {charges}"
        );
        Ok(Cost {
            charges,
            wall,
            daemon_cpu,
            postgres_cpu,
            gateway_cpu,
            // Backends tell what they counted when they end, at the latest.
            counts: self.counts().await?.since(counts_before),
            peak_rss_kib,
        })
    }

    /// Waits until nothing is left to do.
    pub async fn until_done(
        &self,
        daemons: &mut [Process],
        started: Instant,
    ) -> anyhow::Result<()> {
        loop {
            tokio::time::sleep(GLANCE).await;
            for daemon in daemons.iter_mut() {
                daemon.check()?;
            }
            if books::is_all_done(&self.database.observer, self.database.now()).await? {
                return Ok(());
            }
            ensure!(started.elapsed() < PATIENCE, "the charges do not end");
        }
    }

    /// Waits until the daemon that was started first says that it can do its work.
    pub async fn until_ready(&self) -> anyhow::Result<()> {
        let address = format!("http://{}/health/ready", self.door);
        let client = reqwest::Client::builder().no_proxy().build()?;
        let started = Instant::now();
        loop {
            if let Ok(answer) = client.get(&address).send().await
                && answer.status().is_success()
            {
                return Ok(());
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "the daemon does not get ready"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// CPU time of all of PostgreSQL so far.
    pub fn postgres_cpu(&self) -> anyhow::Result<Duration> {
        processes::cpu_of_family(self.database.postmaster)
    }

    /// CPU time of the simulator so far.
    pub fn gateway_cpu(&self) -> anyhow::Result<Duration> {
        self.gateway.process().cpu()
    }

    /// What PostgreSQL has counted so far.
    pub async fn counts(&self) -> anyhow::Result<Counts> {
        counters::counts(&self.database.observer, self.counts_statements).await
    }

    /// Ends the simulator, and demands that its ledger and the books agree on as many payments, each of another charge. The daemons
    /// have ended before.
    pub async fn compare(self) -> anyhow::Result<Database> {
        let observer = &self.database.observer;
        let paid = books::paid(observer).await? - self.paid_before;
        let settled = books::settled(observer).await? - self.settled_before;
        let ledger = self.gateway.stop().await?;
        let theirs: u64 = ledger.transactions.values().sum();
        let settled_there = ledger.transactions.get("settled").copied().unwrap_or(0);
        ensure!(
            [settled, theirs, settled_there] == [paid; 3] && ledger.is_each_order_debited_once,
            "the books and the gateway differ: {paid} paid, {settled} settled transactions; the gateway has {theirs} \
             transactions, {settled_there} of them settled, each order once: {}",
            ledger.is_each_order_debited_once,
        );
        Ok(self.database)
    }

    /// Compares the books with the ledger and removes the database.
    pub async fn close(self, world: &World) -> anyhow::Result<()> {
        world.drop(self.compare().await?).await
    }
}

/// Lets daemons drain and end.
pub async fn stop_all(daemons: Vec<Process>) -> anyhow::Result<()> {
    for daemon in &daemons {
        daemon.signal(Signal::SIGTERM)?;
    }
    for mut daemon in daemons {
        daemon.wait().await.context("cykl run")?;
    }
    Ok(())
}
