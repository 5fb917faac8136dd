//! Where instances run: a world whose notices can be led to any of them.

use chrono::{DateTime, Utc};
use cykl::clock::Clock;
use cykl::config::Config;
use cykl::simulator::{Delivery, Script};
use tokio::net::TcpListener;

use super::relay::Relay;
use crate::harness::{Parts, START, World, clock_of, fresh_database, simulator, toml};

/// A world, and the way of its notices.
pub struct Stage {
    /// The books, the gateway, the time, and workers that nothing goes wrong with.
    pub world: World,
    /// Where notices go.
    pub relay: Relay,
    sections: String,
}

impl Stage {
    /// A world whose gateway behaves as `script` says, with more sections of configuration.
    pub async fn new(script: Script, sections: &str) -> Self {
        cykl::gateway::install_crypto();
        let clock = Clock::manual(START.parse().unwrap());
        let relay = Relay::open().await;
        let simulator =
            simulator(clock_of(&clock), relay.address(), script, Delivery::Manual).await;
        let config = toml(UNUSED, &simulator.base_url(), "", sections);
        let world = World::assemble(Parts {
            clock,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            simulator,
            config: Config::from_toml(&config).unwrap(),
            database: fresh_database().await,
        })
        .await;
        let stage = Self {
            world,
            relay,
            sections: sections.to_owned(),
        };
        stage.open_own_door();
        stage
    }

    /// Notices go to the world itself.
    pub fn open_own_door(&self) {
        let door = self.world.door.strip_prefix("http://").unwrap();
        self.relay.lead_to(Some(door.parse().unwrap()));
    }

    /// The configuration of an instance that reaches imoje at `base_url`.
    pub fn config(&self, base_url: &str) -> Config {
        Config::from_toml(&toml(UNUSED, base_url, "", &self.sections)).unwrap()
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        self.world.clock.now()
    }
}

/// Instances are given their connections, not an address.
const UNUSED: &str = "postgres://unused@localhost/unused";
