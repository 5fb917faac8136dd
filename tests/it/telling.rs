//! The shop's receiver of events: what it is told, and what waits for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use axum::Json;
use axum::http::StatusCode;
use axum::routing::post;
use chrono::TimeDelta;
use cykl::simulator::Behaviour;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::harness::{Agreement, Setting, World};
use crate::site::free_address;

/// A receiver that answers as it is told to, and keeps what it took.
#[derive(Clone, Default)]
struct Receiver {
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    /// Listens at `address` from now on, and takes nothing.
    async fn that_fails(address: SocketAddr) -> Self {
        let receiver = Self::default();
        receiver.answers(StatusCode::INTERNAL_SERVER_ERROR);
        let listener = TcpListener::bind(address).await.unwrap();
        let told = receiver.clone();
        let take = move |Json(event): Json<Value>| {
            let told = told.clone();
            async move { told.take(&event).await }
        };
        let router = axum::Router::new().route("/events", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    fn answers(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    async fn take(&self, event: &Value) -> StatusCode {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let status = StatusCode::from_u16(self.status.load(Ordering::Relaxed)).unwrap();
        if status.is_success() {
            let id = event["event_id"].as_str().unwrap().to_owned();
            self.taken.lock().await.push(id);
        }
        status
    }
}

/// How many events wait for each channel.
async fn waiting(world: &World) -> Vec<String> {
    world
        .column("SELECT channel || ' ' || count(*) FROM outbox GROUP BY channel")
        .await
}

#[tokio::test]
async fn a_receiver_that_was_away_is_told_everything_in_order_and_nothing_else_waited_for_it() {
    let address = free_address().await;
    let world = World::with(Setting {
        toml: format!(
            "[events]\nwebhook_url = \"http://{address}/events\"\nwebhook_secret = \"a-secret-of-some-length\"\n"
        ),
        ..Setting::default()
    })
    .await;
    for _ in 0..3 {
        world
            .subscribe(Agreement::monthly("2027-01-01").every("P1D"))
            .await;
    }
    let stolen = Agreement::monthly("2027-01-01").with_card(Behaviour::decline("CODE_43"));
    world.subscribe(stolen).await;
    // For two days nobody listens, for two more somebody does who fails. What is due is charged, and alerts are in the log.
    world.run_days(2).await;
    let events: i64 = world.one("SELECT count(*) FROM events").await;
    assert_eq!(waiting(&world).await, [format!("webhook {events}")]);
    let receiver = Receiver::that_fails(address).await;
    world.run_days(2).await;
    assert!(receiver.asked.load(Ordering::Relaxed) > 3);
    let states = "SELECT state || ' ' || count(*) FROM charges GROUP BY state ORDER BY 1";
    assert_eq!(world.column(states).await, ["failed 1", "paid 15"]);
    let alerts: i64 = world
        .one("SELECT count(*) FROM events WHERE is_alert")
        .await;
    assert_eq!(alerts, 2, "the charge that failed, and its subscription");
    let told = world
        .column("SELECT event_id::text FROM events ORDER BY event_id")
        .await;
    assert_eq!(waiting(&world).await, [format!("webhook {}", told.len())]);
    assert!(receiver.taken.lock().await.is_empty());
    // It is asked again within six hours, and takes what has waited longest first.
    receiver.answers(StatusCode::NO_CONTENT);
    world.advance(TimeDelta::hours(6));
    let now = world.clock.now();
    let report = world.workers.notifier.run_once(now).await.unwrap();
    assert_eq!((report.posted, report.refused), (told.len(), 0));
    assert_eq!(*receiver.taken.lock().await, told);
    assert_eq!(waiting(&world).await, Vec::<String>::new());
    let by_number = world
        .column(
            "SELECT event_id::text FROM events WHERE subscription_id IS NOT NULL
             ORDER BY subscription_id, sequence_no",
        )
        .await;
    let by_time = world
        .column(
            "SELECT event_id::text FROM events WHERE subscription_id IS NOT NULL
             ORDER BY subscription_id, event_id",
        )
        .await;
    assert_eq!(by_time, by_number, "the order of each subscription");
    world.settle_up().await;
}
