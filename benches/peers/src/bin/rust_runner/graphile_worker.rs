//! `graphile_worker`. Settings: benches/perf_test.rs of its repository, with the concurrency that was asked for; or none.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cykl_bench_peers::Assignment;
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext,
    WorkerOptions, WorkerUtils,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgPool;

use crate::debits::Debits;

/// The schema that it takes by default.
const SCHEMA: &str = "graphile_worker";

/// How many jobs are put into the queue with one statement.
const BATCH_SIZE: usize = 10_000;

/// A job's payload.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    number: u32,
}

/// What the jobs share.
#[derive(Debug, Clone)]
struct Shared(Arc<Debits>);

impl TaskHandler for Job {
    const IDENTIFIER: &'static str = "debit";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        let Some(Shared(debits)) = context.get_ext::<Shared>() else {
            return Err("the debits are missing".to_owned());
        };
        debits
            .debit(self.number)
            .await
            .map_err(|error| format!("{error:#}"))
    }
}

/// Makes the schema and the jobs.
pub async fn enqueue(assignment: &Assignment) -> anyhow::Result<()> {
    let pool = PgPool::connect(&assignment.database_url)
        .await
        .context("couldn't connect to PostgreSQL")?;
    let utils = WorkerUtils::new(pool.clone(), SCHEMA);
    utils.migrate().await?;
    let jobs: Vec<RawJobSpec> = (0..assignment.jobs)
        .map(|number| RawJobSpec {
            identifier: Job::IDENTIFIER.to_owned(),
            payload: json!({ "number": number }),
            spec: JobSpec::default(),
        })
        .collect();
    for batch in jobs.chunks(BATCH_SIZE) {
        utils.add_raw_jobs(batch).await?;
    }
    pool.close().await;
    Ok(())
}

/// Works until it is dropped.
pub async fn work(assignment: &Assignment, debits: &Arc<Debits>) -> anyhow::Result<()> {
    let plain = WorkerOptions::default()
        .database_url(&assignment.database_url)
        .schema(SCHEMA)
        .add_extension(Shared(Arc::clone(debits)))
        .define_job::<Job>();
    let options = match assignment.mode.as_str() {
        "defaults" => plain,
        "perf-test" => plain
            .concurrency(assignment.in_flight.into())
            .poll_interval(Duration::from_millis(5))
            .complete_job_batch_delay(Duration::from_millis(5))
            .local_queue(LocalQueueConfig::default().with_size(5000)),
        mode => bail!("there are no settings {mode}"),
    };
    let worker = options.init().await.context("couldn't start the worker")?;
    worker.run().await.context("the worker failed")
}
