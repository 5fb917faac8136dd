//! The server and the gateway, and what happens there while a peer works.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use cykl_bench_peers::{Assignment, Counts, Step};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use crate::figures::Figures;
use crate::plans::{Peer, Plan};
use crate::processes;
use crate::runners::Runner;

/// The simulator's own merchant, shop and token.
const MERCHANT_ID: &str = "simmerchant000000001";
const SERVICE_ID: &str = "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b";
const TOKEN: &str = "sim-token";

/// How often it is looked whether a peer has recorded its last job.
const GLANCE: Duration = Duration::from_millis(10);

/// How long a peer may take for all of its jobs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is shared by all peers.
pub struct World {
    /// A superuser of the server.
    pub server: Url,
    /// The server's first process.
    pub postmaster_pid: i32,
    /// The base URL of the gateway.
    pub gateway: Url,
    /// The gateway's process.
    pub gateway_pid: i32,
    /// How many debits a peer may have in flight.
    pub in_flight: u16,
}

/// What all have used so far.
struct Reading {
    runner_cpu: Duration,
    postgres_cpu: Duration,
    gateway_cpu: Duration,
    wal_bytes: u64,
}

impl World {
    /// What it is measured on.
    pub async fn description(&self) -> anyhow::Result<String> {
        let mut connection = connect(&self.server).await?;
        let (version, is_durable): (String, bool) = sqlx::query_as(
            "SELECT current_setting('server_version'),
                    current_setting('fsync')::bool AND current_setting('synchronous_commit') = 'on'",
        )
        .fetch_one(&mut connection)
        .await?;
        connection.close().await?;
        let cores = std::thread::available_parallelism().context("couldn't count the cores")?;
        let commits = if is_durable { "durable" } else { "NOT durable" };
        Ok(format!(
            "PostgreSQL {version}, {commits} commits; {cores} cores; up to {} debits in flight",
            self.in_flight
        ))
    }

    /// Lets a peer work on `jobs` jobs, in a database that is gone afterwards.
    pub async fn measure(&self, plan: &Plan, jobs: u32) -> anyhow::Result<Figures> {
        let name = format!("peers_{}_{}", plan.peer.name(), plan.mode).replace('-', "_");
        let mut database = self.server.clone();
        database.set_path(&name);
        self.execute(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            .await?;
        self.execute(format!("CREATE DATABASE {name}")).await?;
        let outcome = self.measure_in(&database, plan, jobs).await;
        self.execute(format!("DROP DATABASE {name} WITH (FORCE)"))
            .await?;
        outcome
    }

    async fn measure_in(&self, database: &Url, plan: &Plan, jobs: u32) -> anyhow::Result<Figures> {
        let mut assignment = Assignment {
            peer: plan.peer.name().to_owned(),
            mode: plan.mode.to_owned(),
            step: Step::Enqueue,
            database_url: database.to_string(),
            endpoint: format!("{}/{MERCHANT_ID}/transaction/profile", self.gateway),
            token: TOKEN.to_owned(),
            service_id: SERVICE_ID.to_owned(),
            profile_id: Uuid::new_v4(),
            order_prefix: Uuid::new_v4().to_string(),
            jobs,
            in_flight: self.in_flight,
        };
        let program = plan.peer.program();
        let enqueuing = Runner::start(program, &assignment)?.wait();
        timeout(PATIENCE, enqueuing)
            .await
            .context("the jobs are not enqueued in time")??;
        let mut observer = connect(database).await?;
        // What autovacuum does soon after an import, and a checkpoint that every measurement begins with.
        for statement in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
            sqlx::raw_sql(statement).execute(&mut observer).await?;
        }
        assignment.step = Step::Work;
        let mut runner = Runner::start(program, &assignment)?;
        let working = self.work(&mut observer, &mut runner, plan.peer);
        let (wall, before, after) = timeout(PATIENCE, working)
            .await
            .with_context(|| format!("{jobs} jobs do not end within {} s", PATIENCE.as_secs()))??;
        let counts = runner.stop().await?;
        let is_each_once = is_each_once(&mut observer, plan.peer, jobs, &counts).await?;
        observer.close().await?;
        Ok(Figures {
            jobs,
            wall,
            runner_cpu: after.runner_cpu.saturating_sub(before.runner_cpu),
            postgres_cpu: after.postgres_cpu.saturating_sub(before.postgres_cpu),
            gateway_cpu: after.gateway_cpu.saturating_sub(before.gateway_cpu),
            wal_bytes: after.wal_bytes.saturating_sub(before.wal_bytes),
            is_each_once,
        })
    }

    /// Waits until the runner is ready, and then for the end of the last job.
    async fn work(
        &self,
        observer: &mut PgConnection,
        runner: &mut Runner,
        peer: Peer,
    ) -> anyhow::Result<(Duration, Reading, Reading)> {
        runner.wait_until_ready().await?;
        let before = self.read(observer, runner).await?;
        let started = Instant::now();
        runner.begin().await?;
        runner.wait_until_called().await?;
        while is_unfinished(observer, peer).await? {
            runner.check()?;
            tokio::time::sleep(GLANCE).await;
        }
        let wall = started.elapsed();
        // While the runner keeps its connections: a backend that ends takes its CPU time along for a moment.
        let after = self.read(observer, runner).await?;
        Ok((wall, before, after))
    }

    async fn read(&self, observer: &mut PgConnection, runner: &Runner) -> anyhow::Result<Reading> {
        let postgres_cpu = processes::cpu_of_family(self.postmaster_pid)?;
        let runner_cpu = processes::cpu_of(runner.pid())?;
        let gateway_cpu = processes::cpu_of(self.gateway_pid)?;
        let position: i64 = sqlx::query_scalar(
            "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint",
        )
        .fetch_one(observer)
        .await?;
        Ok(Reading {
            runner_cpu,
            postgres_cpu,
            gateway_cpu,
            wal_bytes: u64::try_from(position).context("the WAL grows")?,
        })
    }

    async fn execute(&self, statement: String) -> anyhow::Result<()> {
        let mut connection = connect(&self.server).await?;
        sqlx::raw_sql(AssertSqlSafe(statement.clone()))
            .execute(&mut connection)
            .await
            .with_context(|| format!("failed: {statement}"))?;
        connection.close().await?;
        Ok(())
    }
}

async fn connect(url: &Url) -> anyhow::Result<PgConnection> {
    let options: PgConnectOptions = url.as_str().parse().context("the database's URL")?;
    options
        .connect()
        .await
        .context("couldn't connect to PostgreSQL")
}

async fn is_unfinished(observer: &mut PgConnection, peer: Peer) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar(peer.unfinished_query())
        .fetch_one(observer)
        .await?)
}

/// Whether the runner has debited every job exactly once, and the peer's tables say no less.
async fn is_each_once(
    observer: &mut PgConnection,
    peer: Peer,
    jobs: u32,
    counts: &Counts,
) -> anyhow::Result<bool> {
    let finished = match peer.finished_query() {
        Some(query) => sqlx::query_scalar(query).fetch_one(&mut *observer).await?,
        None => i64::from(jobs),
    };
    if is_unfinished(observer, peer).await? {
        bail!("a finished job came back");
    }
    let expected = u64::from(jobs);
    Ok(counts.calls == expected && counts.distinct == expected && finished == i64::from(jobs))
}
