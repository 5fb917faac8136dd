//! A pretend imoje over real HTTP, for tests, for the demo, and for shops that want to try their own integration.
//!
//! It is written from imoje's documents and shares no code with the client: two independent statements of one API, so
//! that a slip in either is found. It refuses what the documents do not allow, keeps a [`Ledger`] of everything that
//! happened, and does whatever a [`Script`] says, including what no gateway should do.
//!
//! Simulated time comes from the caller and drives statuses, notices and their repetition; only delays of answers are
//! real time. Nothing here reads a clock, touches a database or leaves this machine, except for notices to addresses
//! that a caller named.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinHandle},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use url::Url;
use uuid::Uuid;

pub mod behaviour;
pub mod currency;
pub mod ledger;
pub mod links;
pub mod profile;
pub mod script;

mod agenda;
mod answers;
mod book;
mod challenge;
mod codes;
mod connection;
mod courier;
mod course;
mod debit;
mod director;
mod engine;
mod notices;
mod page;
mod payment;
mod plain;
mod recipes;
mod refund;
mod reply;
mod schema;
mod server;
mod validation;

#[cfg(test)]
mod generated_tests;
#[cfg(test)]
mod http_tests;

use engine::Engine;

pub use behaviour::{
    Algorithm, Answer, Behaviour, DEFAULT_DELAY, ErrorBody, Fate, Notices, WrongEcho,
};
pub use currency::Currency;
pub use engine::Now;
pub use ledger::{
    Ledger, Notice, Post, ProfileType, RefundPost, StatusChange, Totals, Transaction,
};
pub use links::{Link, PayersCard};
pub use profile::{DeclinesFirst, SimulatedProfile};
pub use script::{
    Call, CardData, Channel, Percent, Registration, RepeatedOrders, Rule, Script, ScriptError, When,
};

/// How long connections may take to end when the simulator goes down.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// An imoje shop that exists in the simulator.
#[derive(Clone)]
pub struct SimulatedShop {
    /// The merchant in the path of every call.
    pub merchant_id: String,
    /// `serviceId`, a UUID v4.
    pub service_id: Uuid,
    /// The bearer token.
    pub token: String,
    /// The key that signs notices.
    pub service_key: String,
    /// Where notices go when a debit names no address: the setting of imoje's panel. May be local and have a port.
    pub notify_url: Option<Url>,
}

/// Secrets stay out of logs, even pretended ones: somebody may have put real ones here.
impl std::fmt::Debug for SimulatedShop {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("SimulatedShop")
            .field("merchant_id", &self.merchant_id)
            .field("service_id", &self.service_id)
            .field("notify_url", &self.notify_url)
            .finish_non_exhaustive()
    }
}

impl Default for SimulatedShop {
    /// The shop of `cykl simulator` and of the examples.
    fn default() -> Self {
        Self {
            merchant_id: "simmerchant000000001".to_owned(),
            service_id: Uuid::from_u128(0x2b8a_4e1c_9d37_4f60_8a55_0c6e_7d1f_2a3b),
            token: "sim-token".to_owned(),
            service_key: "sim-service-key-000".to_owned(),
            notify_url: None,
        }
    }
}

/// Who delivers notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A background task, as simulated time goes on.
    Automatic,
    /// Nobody, until [`Simulator::deliver_due`] is called.
    Manual,
}

/// How to start a simulator.
pub struct SimulatorConfig {
    /// Where to listen; port 0 is any free port.
    pub listen: SocketAddr,
    /// The shops that exist.
    pub shops: Vec<SimulatedShop>,
    /// Simulated time.
    pub now: Now,
    /// Hosts of notification addresses that are really at a local address, and are posted to over plain HTTP.
    pub resolve: HashMap<String, SocketAddr>,
    /// Who delivers notices.
    pub delivery: Delivery,
    /// Decides everything that a script leaves to chance.
    pub seed: u64,
    /// What happens.
    pub script: Script,
}

impl SimulatorConfig {
    /// The default shop on any free port of the loopback interface, with manual delivery and no script.
    pub fn new(now: Now) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            shops: vec![SimulatedShop::default()],
            now,
            resolve: HashMap::new(),
            delivery: Delivery::Manual,
            seed: 0,
            script: Script::default(),
        }
    }
}

/// The simulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// Choose another address.
    #[error("couldn't listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Notices cannot be sent from this machine.
    #[error("couldn't prepare the delivery of notices")]
    Courier(#[from] reqwest::Error),
}

/// What [`Simulator::deliver_due`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryReport {
    /// Transactions that changed their status.
    pub changes: usize,
    /// Notices sent, repetitions included.
    pub sent: usize,
    /// Notices that the receiver answered with 200.
    pub accepted: usize,
}

impl DeliveryReport {
    fn add(&mut self, delivered: Option<Result<(usize, usize), JoinError>>) {
        if let Some(Ok((sent, accepted))) = delivered {
            self.sent += sent;
            self.accepted += accepted;
        }
    }
}

/// A running simulator. Dropping it ends it.
pub struct Simulator {
    engine: Arc<Engine>,
    address: SocketAddr,
    server: Mutex<Option<Server>>,
    delivering: CancellationToken,
    _end_on_drop: DropGuard,
}

/// The open port.
struct Server {
    closing: CancellationToken,
    _close_on_drop: DropGuard,
    task: JoinHandle<()>,
}

impl Simulator {
    /// Starts; when this returns, the port is open.
    pub async fn start(config: SimulatorConfig) -> Result<Self, SimulatorError> {
        let listener = listen(config.listen).await?;
        let address = listener
            .local_addr()
            .map_err(|source| SimulatorError::Listen {
                address: config.listen,
                source,
            })?;
        let courier = courier::Courier::new(config.resolve)?;
        let book = book::Book::new(config.seed, config.script);
        let engine = Arc::new(Engine::new(config.shops, config.now, book, courier));
        let delivering = CancellationToken::new();
        if config.delivery == Delivery::Automatic {
            tokio::spawn(Arc::clone(&engine).keep_delivering(delivering.clone()));
        }
        let server = Mutex::new(Some(Server::open(listener, &engine)));
        let end_on_drop = delivering.clone().drop_guard();
        Ok(Self {
            engine,
            address,
            server,
            delivering,
            _end_on_drop: end_on_drop,
        })
    }

    /// The address to give to a client, e.g. `http://127.0.0.1:8080/v1/merchant`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1/merchant", self.address)
    }

    /// The address of the open port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that happened until now. Copies; [`Simulator::totals`] is cheap.
    pub fn ledger(&self) -> Ledger {
        let now = self.engine.now();
        self.engine.book().ledger(now)
    }

    /// Counts until now.
    pub fn totals(&self) -> Totals {
        self.engine.book().totals()
    }

    /// Adds a rule after all others.
    pub fn add_rule(&self, rule: Rule) {
        self.engine.book().director().add(rule);
    }

    /// Forgets all rules. Profiles and the script's default stay.
    pub fn clear_rules(&self) {
        self.engine.book().director().clear();
    }

    /// Adds a profile, or replaces the one with its id.
    pub fn register_profile(&self, profile: SimulatedProfile) {
        self.engine.book().profiles().register(profile);
    }

    /// Makes a profile inactive.
    pub fn deactivate_profile(&self, id: Uuid) {
        self.engine.book().profiles().deactivate(id);
    }

    /// Sends every notice that is due now and waits for the receivers' answers. Notices of one transaction are sent
    /// in their order, those of different ones at the same time. The clock must not depend on this call's end.
    pub async fn deliver_due(&self) -> DeliveryReport {
        self.engine.deliver_due().await
    }

    /// The simulated time of the next change of status or notice.
    pub fn next_due_at(&self) -> Option<DateTime<Utc>> {
        self.engine.book().next_due_at()
    }

    /// Closes the port and every connection: new connections are refused. What is due stays due.
    pub async fn go_down(&self) {
        let server = self
            .server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(server) = server {
            server.close().await;
        }
    }

    /// Opens the same port again after [`Simulator::go_down`].
    pub async fn come_up(&self) -> Result<(), SimulatorError> {
        if self
            .server
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
        {
            return Ok(());
        }
        let listener = listen(self.address).await?;
        let server = Server::open(listener, &self.engine);
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }

    /// Ends the simulator and returns its ledger.
    pub async fn stop(self) -> Ledger {
        self.delivering.cancel();
        self.go_down().await;
        self.ledger()
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, SimulatorError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| SimulatorError::Listen { address, source })
}

impl Server {
    fn open(listener: TcpListener, engine: &Arc<Engine>) -> Self {
        let closing = CancellationToken::new();
        let task = tokio::spawn(server::serve(listener, Arc::clone(engine), closing.clone()));
        Self {
            _close_on_drop: closing.clone().drop_guard(),
            closing,
            task,
        }
    }

    async fn close(self) {
        self.closing.cancel();
        let abort = self.task.abort_handle();
        match tokio::time::timeout(CLOSE_WITHIN, self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the simulator's server ended badly"),
            Err(_) => {
                tracing::warn!("a connection to the simulator does not end");
                abort.abort();
            }
        }
    }
}
