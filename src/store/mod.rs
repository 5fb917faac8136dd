//! PostgreSQL: the books. One method is one transaction is one business fact. The only folder with SQL.
//!
//! Every method takes the time as an argument, makes ids as UUIDv7, and works on batches: hundreds of rows in one statement and
//! one commit. Dropping a future of this module in the middle of a transaction is safe for the books (PostgreSQL rolls
//! back) but wasteful; time limits are set on the server side instead.
//!
//! Nothing here knows the gateway, HTTP or the configuration.

#![expect(
    clippy::as_conversions,
    reason = "sqlx's macros name the type of a parameter as `value as Type`; no number is converted"
)]

mod candidates;
mod card_budgets;
mod copying;
mod enrolment_rows;
mod error;
mod events;
mod permit_rows;
mod readings;
mod slow_start;

pub mod adoption;
pub mod archive;
pub mod audit;
pub mod books;
pub mod brakes;
pub mod cards;
pub mod daily_cap;
pub mod enrolment;
pub mod gauges;
pub mod inbox;
pub mod installation;
pub mod outbox;
pub mod people;
pub mod permits;
pub mod planning;
pub mod polling;
pub mod preflight;
pub mod refunds;
pub mod registrations;
pub mod report;
pub mod resolution;
pub mod situation;
pub mod status;
pub mod subscriptions;
pub mod waiting;
pub mod zones;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::{ContextV7, Timestamp, Uuid};

pub use error::{Refusal, StoreError};
pub use events::Channels;

/// The schema that holds the books; `billing` holds the views that people read.
pub const SCHEMA: &str = "cykl";

/// How long a connection may be waited for.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// A connection pool to the books.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    channels: Channels,
}

/// How a [`Store`] connects.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// The most connections it opens.
    pub max_connections: u32,
    /// Where events are delivered to.
    pub channels: Channels,
}

impl Store {
    /// Connects. The connections are those of [`Store::session`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database cannot be reached.
    pub async fn connect(
        options: PgConnectOptions,
        store_options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let options = Self::session(options);
        // A pool tries for as long as its timeout to reach a server that is not there. Who asks wants to know at once.
        tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(&options))
            .await
            .map_err(|_elapsed| sqlx::Error::PoolTimedOut)??
            .close()
            .await?;
        let pool = PgPoolOptions::new()
            .max_connections(store_options.max_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options)
            .await?;
        Ok(Self {
            pool,
            channels: store_options.channels,
        })
    }

    /// How every connection to the books is opened: with time limits that PostgreSQL itself enforces, and with the planner kept to
    /// plans that stay right however large the books grow.
    pub fn session(options: PgConnectOptions) -> PgConnectOptions {
        options.application_name("cykl").options([
            ("search_path", SCHEMA),
            ("statement_timeout", "60s"),
            ("lock_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "60s"),
            ("jit", "off"),
            // Work is taken from the head of an index that is in the order of the work. A bitmap reads all of it and sorts, which
            // the planner prefers whenever its statistics are older than today's run; and it never clears away the index
            // entries of work that is done.
            ("enable_bitmapscan", "off"),
            // The rows that are worked on are few and in memory. At the default of 4.0 a look-up of a hundred of them loses against
            // reading all attempts ever made, until there are very many.
            ("random_page_cost", "1.1"),
            // Work is done in batches of hundreds against tables of millions, so every join is a look-up by index. A plan that reads
            // a table instead was made when that was small, and would be kept.
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
        ])
    }

    /// Brings the schema to this version and lets the read-only role, where it exists or may be created, read the views.
    ///
    /// # Errors
    /// [`StoreError::Migration`] when the database is of a newer or an altered version.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        sqlx::query!("CREATE SCHEMA IF NOT EXISTS cykl")
            .execute(&self.pool)
            .await?;
        MIGRATIONS.run(&self.pool).await?;
        sqlx::raw_sql(include_str!("sql/readonly_role.sql"))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Whether the schema is exactly the one this version was built with.
    ///
    /// # Errors
    /// [`StoreError::SchemaVersion`] when it is older, newer or missing.
    pub async fn check_schema(&self) -> Result<(), StoreError> {
        let expected = MIGRATIONS.iter().map(|migration| migration.version).max();
        let is_there = sqlx::query_scalar!(
            r#"SELECT to_regclass('cykl._sqlx_migrations') IS NOT NULL AS "is_there!""#
        )
        .fetch_one(&self.pool)
        .await?;
        let found = if is_there {
            sqlx::query_scalar::<_, Option<i64>>(
                "SELECT max(version) FROM cykl._sqlx_migrations WHERE success",
            )
            .fetch_one(&self.pool)
            .await?
        } else {
            None
        };
        if found == expected {
            Ok(())
        } else {
            Err(StoreError::SchemaVersion { found, expected })
        }
    }

    /// A round trip to the database.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query!("SELECT 1 AS one")
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// Notes that `worker` ran.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    pub async fn note_run(
        &self,
        worker: Wake,
        started_at: DateTime<Utc>,
        ended_at: DateTime<Utc>,
        handled: usize,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "-- note_run
            INSERT INTO worker_runs (worker, last_started_at, last_ended_at, handled) VALUES ($1, $2, $3, $4)
            ON CONFLICT (worker) DO UPDATE SET
                last_started_at = excluded.last_started_at, last_ended_at = excluded.last_ended_at,
                handled = worker_runs.handled + excluded.handled",
            worker.as_str(),
            started_at,
            ended_at,
            i64::try_from(handled).unwrap_or(i64::MAX),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Closes every connection, after what they are doing.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A listener for the wake-up hints of [`Wake`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the database does not answer.
    pub async fn listen(&self) -> Result<sqlx::postgres::PgListener, StoreError> {
        let mut listener = sqlx::postgres::PgListener::connect_with(&self.pool).await?;
        listener.listen(Wake::CHANNEL).await?;
        Ok(listener)
    }
}

/// A hint, sent on commit, that a worker has something to do. Nothing rests on it: workers look by themselves as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Subscriptions may be due.
    Scheduler,
    /// Charges may be due.
    Charger,
    /// There is a notice, or an attempt to read.
    Resolver,
    /// There is an event to deliver.
    Notifier,
    /// Nothing hints at it: it looks by itself.
    Caretaker,
}

impl Wake {
    /// The channel of `NOTIFY`.
    pub const CHANNEL: &str = "cykl_wake";

    /// All hints.
    pub const ALL: [Wake; 5] = [
        Wake::Scheduler,
        Wake::Charger,
        Wake::Resolver,
        Wake::Notifier,
        Wake::Caretaker,
    ];

    /// Whether charging needs this worker, so that it runs every few seconds.
    pub const fn is_vital(self) -> bool {
        match self {
            Wake::Scheduler | Wake::Charger | Wake::Resolver | Wake::Notifier => true,
            Wake::Caretaker => false,
        }
    }

    /// The payload of `NOTIFY`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Wake::Scheduler => "scheduler",
            Wake::Charger => "charger",
            Wake::Resolver => "resolver",
            Wake::Notifier => "notifier",
            Wake::Caretaker => "caretaker",
        }
    }
}

/// Lets the statements of `transaction` take as long as they need: it looks through all the books.
async fn take_time(transaction: &mut sqlx::PgTransaction<'_>) -> Result<(), StoreError> {
    sqlx::query!("SET LOCAL statement_timeout = '1h'")
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// Sends the hint when `transaction` commits.
async fn wake(transaction: &mut sqlx::PgTransaction<'_>, worker: Wake) -> Result<(), StoreError> {
    sqlx::query!("SELECT pg_notify($1, $2)", Wake::CHANNEL, worker.as_str())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

thread_local! {
    // One for each thread: ids that are made together stay in order, and no thread waits for another.
    static UUID_CONTEXT: ContextV7 = const { ContextV7::new() };
}

/// A new id, ordered by `now`.
fn new_id(now: DateTime<Utc>) -> Uuid {
    let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
    UUID_CONTEXT.with(|context| {
        Uuid::new_v7(Timestamp::from_unix(
            context,
            seconds,
            now.timestamp_subsec_nanos(),
        ))
    })
}

/// Rolls back and gives the error back. Whoever tries again must not find the locks of the try before, which a transaction that is only
/// dropped holds for a moment longer: it would pass over them, and find nothing to do.
async fn rolled_back<E>(transaction: sqlx::PgTransaction<'_>, error: E) -> E {
    // A connection that is gone has rolled back already.
    let _ = transaction.rollback().await;
    error
}

/// How often a transaction is tried again that lost against another (deadlock, serialisation).
const TRIES_MAX: usize = 5;

/// Runs a transaction until it does not lose against another, or has done so often enough.
async fn despite_others<T, E, F>(
    is_busy: impl Fn(&E) -> bool,
    mut transaction: impl FnMut() -> F,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut tries = 0;
    loop {
        match transaction().await {
            Err(error) if is_busy(&error) && tries < TRIES_MAX => tries += 1,
            done => return done,
        }
    }
}
