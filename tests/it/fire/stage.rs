//! Where instances run: a world whose notices can be led to any of them.

use chrono::{DateTime, Utc};
use cykl::clock::Clock;
use cykl::config::Config;
use cykl::journal::Journal;
use cykl::simulator::Script;
use tempfile::TempDir;

use super::relay::Relay;
use crate::harness::{
    Parts, START, Setting, UNUSED, World, compare_with_journal, open_journal, toml,
};
use crate::scratch;

/// A world, and the way of its notices.
pub struct Stage {
    /// The books, the gateway, the time, and workers that nothing goes wrong with.
    pub world: World,
    /// Where notices go.
    pub relay: Relay,
    /// Where every process keeps its permit journal.
    journal: TempDir,
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
        let mut world = World::assemble(parts).await;
        let journal = tempfile::tempdir_in(scratch::directory()).unwrap();
        let base_url = world.simulator.base_url();
        world.config.gateway.card_proxy_url = Some(base_url.parse().unwrap());
        world.workers = world
            .with_journal(&world.store, world.fence_id, journal.path())
            .await;
        let stage = Self {
            world,
            relay,
            journal,
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
        // The gateway knows the aliases itself, so no proxy is before it.
        let sections = format!(
            "[gateway]\ncard_proxy_url = \"{base_url}\"\n{}",
            self.sections
        );
        Config::from_toml(&toml(UNUSED, base_url, "", &sections)).unwrap()
    }

    /// The journal of a process that begins at `now`.
    pub async fn journal(&self, now: DateTime<Utc>) -> Journal {
        open_journal(self.journal.path(), now).await
    }

    /// Whether the journal kept its promise, however the processes ended.
    pub async fn compare_with_journal(&self) {
        let (simulator, store) = (&self.world.simulator, &self.world.store);
        compare_with_journal(self.journal.path(), simulator, store, None).await;
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        self.world.clock.now()
    }
}
