//! The stage of the demo: database, gateway, clock, subscriptions and workers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{DemoArgs, Faults, REAL_SECONDS};
use crate::cli::subscription::sheet::Sheet;
use crate::cli::{CliError, daemon};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::enrolment::Circumstances;
use crate::domain::shop::ShopName;
use crate::embedded::{EmbeddedConfig, EmbeddedDatabase};
use crate::http::{self, HttpState};
use crate::metrics::Metrics;
use crate::simulator::{Delivery, Script, SimulatedShop, Simulator, SimulatorConfig};
use crate::store::enrolment::Telling;
use crate::store::status::By;
use crate::store::{Channels, Store, StoreOptions};
use crate::workers::charger::Ground;
use crate::workers::crew::{Crew, Workers};

/// When the demo's time begins.
const START: &str = "2027-01-01T00:00:00Z";
/// Who stores the demo's subscriptions.
const ACTOR: &str = "cykl demo";

const SUBSCRIPTIONS: &str = include_str!("../../../config/demo/subscriptions.csv");
const GATEWAY_NONE: &str = include_str!("../../../config/demo/none.toml");
const GATEWAY_CALM: &str = include_str!("../../../config/demo/calm.toml");
const GATEWAY_ROUGH: &str = include_str!("../../../config/demo/rough.toml");

/// Everything that the demo runs on.
pub(super) struct Stage {
    pub store: Store,
    pub clock: Clock,
    pub simulator: Simulator,
    pub start: DateTime<Utc>,
    pub subscriptions: usize,
    config: Config,
    metrics: Metrics,
    database: EmbeddedDatabase,
    directory: PathBuf,
    door: CancellationToken,
}

impl Stage {
    /// Starts the database and the gateway and stores the subscriptions.
    pub async fn set(args: &DemoArgs) -> Result<Self, CliError> {
        let start: DateTime<Utc> = START.parse().expect("a time");
        let scale =
            NonZeroU32::new((args.days * 86_400).div_ceil(REAL_SECONDS)).expect("at least a day");
        let directory = directory()?;
        let database = open_database(&directory).await?;
        let store = Store::connect(
            database.connect_options(DATABASE),
            StoreOptions {
                max_connections: 8,
                channels: Channels { webhook: false },
            },
        )
        .await?;
        store.migrate().await?;
        // Time begins when everything stands.
        let clock = Clock::scaled(start, scale);
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .map_err(|error| {
                CliError::unavailable(error).context("couldn't open a port for notices")
            })?;
        let door_address = listener.local_addr().map_err(CliError::internal)?;
        let simulator = open_gateway(args, &clock, door_address).await?;
        let config = Config::from_toml(&configuration(&simulator.base_url(), scale))?;
        let metrics = daemon::metrics(&config);
        let door = CancellationToken::new();
        let (_, doors) = watch::channel(daemon::doors(&config));
        let state = HttpState {
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            doors,
            rules: daemon::notice_rules(&config),
            worker_lag_max: daemon::worker_lag_max(&config),
        };
        tokio::spawn(http::serve(listener, state, door.clone()));
        let mut stage = Self {
            store,
            clock,
            simulator,
            start,
            subscriptions: 0,
            config,
            metrics,
            database,
            directory,
            door,
        };
        stage.subscriptions = stage.enrol(args.subscriptions).await?;
        Ok(stage)
    }

    async fn enrol(&self, count: u32) -> Result<usize, CliError> {
        self.store
            .record_shops(&daemon::identities(&self.config), self.start)
            .await?;
        let shops = self.config.shops.iter();
        let circumstances = Circumstances {
            shops: shops
                .map(|(name, shop)| (name.clone(), shop.timezone))
                .collect(),
            usual_shop: self.config.shops.keys().next().cloned(),
            channels: BTreeMap::new(),
            plain_cards: BTreeSet::new(),
            has_card_proxy: false,
            is_without_card: false,
            now: self.start,
        };
        let mut subscriptions = Vec::new();
        let sheet = Sheet::read(
            csv(count).as_bytes(),
            &circumstances,
            |_| {},
            |part| subscriptions.extend(part.subscriptions),
        );
        if let Some(fault) = sheet.faults.first() {
            return Err(CliError::internal(anyhow::anyhow!(
                "config/demo/subscriptions.csv: {fault}"
            )));
        }
        let shop = self
            .config
            .shops
            .values()
            .next()
            .expect("the demo's own shop");
        let calendar = daemon::calendar(shop);
        let enrolled = self
            .store
            .enrol(
                &subscriptions,
                Telling::Nobody,
                By {
                    actor: ACTOR,
                    reason: "demo",
                },
                self.start,
                |id, new| calendar.due_at(id, new.zone, new.first.due_on),
            )
            .await
            .map_err(CliError::internal)?;
        Ok(enrolled.subscription_ids.len())
    }

    /// Lets the workers run.
    pub async fn raise_curtain(&self) -> Result<Crew, CliError> {
        let workers = self.workers().await?;
        Ok(Crew::start(
            &workers,
            &daemon::ticks(&self.config),
            &self.store,
            &self.clock,
        ))
    }

    /// Lets what was sent come to its end; nothing more is sent.
    pub async fn come_to_rest(&self, at_most: Duration) -> Result<(), CliError> {
        let workers = self.workers().await?;
        let began = Instant::now();
        while began.elapsed() < at_most {
            let now = self.clock.now();
            workers
                .resolver
                .run_once(now)
                .await
                .map_err(CliError::internal)?;
            workers
                .notifier
                .run_once(now)
                .await
                .map_err(CliError::internal)?;
            if self.store.progress().await?.unsettled == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn workers(&self) -> Result<Workers, CliError> {
        let shops = daemon::identities(&self.config);
        let fence_id = self.store.pass_fence(&shops, ACTOR, self.start).await?;
        let stop = CancellationToken::new();
        let (config, store, clock) = (&self.config, &self.store, &self.clock);
        daemon::workers(
            config,
            store,
            clock,
            &self.metrics,
            fence_id,
            &Ground::default(),
            stop,
        )
        .map_err(CliError::internal)
    }

    /// The demo's shops.
    pub fn shops(&self) -> Vec<ShopName> {
        self.config.shops.keys().cloned().collect()
    }

    /// Where the pretend imoje listens.
    pub fn gateway_address(&self) -> SocketAddr {
        self.simulator.address()
    }

    /// How to look into the books.
    pub fn psql_line(&self) -> String {
        self.database.psql_line(DATABASE)
    }

    /// Ends everything, and removes the database unless it is to be kept.
    pub async fn clear(self, keep: bool) -> Result<(), CliError> {
        self.door.cancel();
        self.simulator.stop().await;
        self.store.close().await;
        self.database.stop().await?;
        if keep {
            println!("kept: {}", self.directory.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            eprintln!("couldn't remove {}: {error}", self.directory.display());
        }
        Ok(())
    }
}

const DATABASE: &str = "cykl";

/// A new directory that the database's user can reach, as root too.
fn directory() -> Result<PathBuf, CliError> {
    let name = format!("cykl-demo-{}", &Uuid::new_v4().simple().to_string()[..8]);
    let directory = std::env::temp_dir().join(name);
    let made = std::fs::create_dir(&directory)
        .and_then(|()| std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)));
    made.map_err(|error| {
        CliError::unavailable(error).context(format!(
            "couldn't make the directory {}",
            directory.display()
        ))
    })?;
    Ok(directory)
}

async fn open_database(directory: &Path) -> Result<EmbeddedDatabase, CliError> {
    let database = EmbeddedDatabase::start(EmbeddedConfig {
        data_dir: directory.join("postgres"),
        bin_dir: None,
        durable: true,
        settings: Vec::new(),
    })
    .await?;
    database.ensure_database(DATABASE).await?;
    Ok(database)
}

async fn open_gateway(
    args: &DemoArgs,
    clock: &Clock,
    door: SocketAddr,
) -> Result<Simulator, CliError> {
    let simulated = clock.clone();
    let mut config = SimulatorConfig::new(Arc::new(move || simulated.now()));
    let notify_url = format!("http://{door}/imoje/notifications");
    config.shops = vec![SimulatedShop {
        notify_url: Some(notify_url.parse().map_err(CliError::internal)?),
        ..SimulatedShop::default()
    }];
    config.delivery = Delivery::Automatic;
    config.seed = args.seed;
    let script = match args.faults {
        Faults::None => GATEWAY_NONE,
        Faults::Calm => GATEWAY_CALM,
        Faults::Rough => GATEWAY_ROUGH,
    };
    config.script = Script::parse(script).map_err(CliError::internal)?;
    Simulator::start(config)
        .await
        .map_err(CliError::unavailable)
}

/// The configuration of the demo: the built-in one, with a shop at the simulator and loops in step with the fast clock.
fn configuration(base_url: &str, scale: NonZeroU32) -> String {
    let shop = SimulatedShop::default();
    format!(
        r#"
        [database]
        url = "embedded"
        [shops.demo]
        environment = "simulator"
        base_url = "{base_url}"
        merchant_id = "{merchant_id}"
        service_id = "{service_id}"
        token = "{token}"
        service_key = "{service_key}"
        [charging]
        connect_timeout = "2s"
        request_timeout = "3s"
        [schedule]
        scheduler = "0 0 */2 * * *"
        charger = "0 0 */2 * * *"
        resolver = "0 0 */2 * * *"
        notifier = "0 0 */6 * * *"
        [clock]
        kind = "scaled"
        start = "{START}"
        scale = {scale}
        "#,
        merchant_id = shop.merchant_id,
        service_id = shop.service_id,
        token = shop.token,
        service_key = shop.service_key,
    )
}

/// The first `count` subscriptions of the demo's file; beyond its end it is gone through again, each time with other names and
/// cards.
fn csv(count: u32) -> String {
    let mut lines = SUBSCRIPTIONS.lines();
    let header = lines.next().unwrap_or_default();
    let rows: Vec<&str> = lines.collect();
    let mut text = format!("{header}\n");
    for (number, row) in (0..count).zip(rows.iter().cycle()) {
        let round = usize::try_from(number).unwrap_or(usize::MAX) / rows.len();
        text.push_str(&renamed(row, round));
        text.push('\n');
    }
    text
}

/// A row with the names and the card of another round: the profile's first digits count the round.
fn renamed(row: &str, round: usize) -> String {
    let mut cells: Vec<String> = row.split(',').map(str::to_owned).collect();
    if let (1.., [external_id, cid, profile, ..]) = (round, cells.as_mut_slice()) {
        external_id.push_str(&format!("-{round}"));
        cid.push_str(&format!("-{round}"));
        profile.replace_range(..8, &format!("{round:08x}"));
    }
    cells.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gateway_of_the_demo_can_be_read() {
        for script in [GATEWAY_NONE, GATEWAY_CALM, GATEWAY_ROUGH] {
            Script::parse(script).unwrap();
        }
    }

    #[test]
    fn more_subscriptions_than_the_file_has_get_names_of_their_own() {
        let text = csv(1_000);
        let names: std::collections::BTreeSet<&str> = text
            .lines()
            .skip(1)
            .filter_map(|row| row.split(',').next())
            .collect();
        assert_eq!(names.len(), 1_000);
    }
}
