//! Where instances run: a world whose notices can be led to any of them.

use chrono::{DateTime, Utc};
use cykl::clock::Clock;
use cykl::config::Config;
use cykl::simulator::Script;

use super::relay::Relay;
use crate::harness::{Parts, START, Setting, UNUSED, World, toml};

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
        let relay = Relay::open().await;
        let setting = Setting {
            script,
            toml: sections.to_owned(),
            ..Setting::default()
        };
        let clock = Clock::manual(START.parse().unwrap());
        let mut parts = Parts::new(clock, setting, Some(relay.address())).await;
        // Connections die young here, and the plans that PostgreSQL makes for the first five runs of a statement are never used again.
        parts.database = (parts.database).options([("plan_cache_mode", "force_generic_plan")]);
        let world = World::assemble(parts).await;
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
