//! Who may send notices: networks, a proxy that names the sender, wrong notices by the dozen, and floods.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use cykl::simulator::{Behaviour, Script};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::harness::{Agreement, Setting, World};
use crate::notices::{notice, panel_address, signature, stored};

const PROXY: &str = "[http]\nproxy_header = \"X-Forwarded-For\"\n";

async fn world(more: &str) -> World {
    World::with(Setting {
        toml: format!("{PROXY}{more}"),
        ..Setting::default()
    })
    .await
}

/// A notice that a proxy passes on, for the sender that it names.
async fn post(world: &World, sender: &str, body: &str, is_signed: bool) -> StatusCode {
    let signature = if is_signed {
        signature(body)
    } else {
        signature("something else")
    };
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client
        .post(panel_address(&world.door))
        .header("X-Imoje-Signature", signature)
        .header("X-Forwarded-For", sender)
        .body(body.to_owned())
        .send()
        .await
        .unwrap()
        .status()
}

fn counted(world: &World, outcome: &str) -> bool {
    let metric = format!("cykl_notices_total{{outcome=\"{outcome}\"}} ");
    let shown = world.metrics.encode();
    let count = shown.lines().find_map(|line| line.strip_prefix(&metric));
    count.unwrap().parse::<u64>().unwrap() > 0
}

#[tokio::test]
async fn only_the_networks_of_imoje_are_listened_to_when_that_is_wanted() {
    let world = world("notice_networks = [\"imoje\", \"2001:db8::/32\"]\n").await;
    for (sender, expected) in [
        ("5.196.116.33", StatusCode::OK),
        ("51.195.95.15", StatusCode::OK),
        ("54.37.185.64", StatusCode::OK),
        ("54.37.185.95", StatusCode::OK),
        ("147.135.151.31", StatusCode::OK),
        ("2001:db8::1", StatusCode::OK),
        ("203.0.113.7, 5.196.116.33", StatusCode::OK),
        ("5.196.116.33, 203.0.113.7", StatusCode::FORBIDDEN),
        ("147.135.151.32", StatusCode::FORBIDDEN),
        ("somebody", StatusCode::FORBIDDEN),
    ] {
        let before = stored(&world).await;
        let body = notice("inv-1", Uuid::new_v4());
        assert_eq!(
            post(&world, sender, &body, true).await,
            expected,
            "{sender}"
        );
        let is_stored = stored(&world).await > before;
        assert_eq!(is_stored, expected == StatusCode::OK, "{sender}");
    }
    assert!(counted(&world, "stranger"));
}

#[tokio::test]
async fn who_sends_wrong_notices_by_the_dozen_is_kept_out_and_imoje_is_not() {
    let world = world("failed_notices_max = 5\n").await;
    let body = notice("inv-1", Uuid::new_v4());
    for number in 0..8 {
        let expected = if number < 5 {
            StatusCode::UNAUTHORIZED
        } else {
            StatusCode::TOO_MANY_REQUESTS
        };
        assert_eq!(post(&world, "203.0.113.7", &body, false).await, expected);
    }
    // Not even with the right key, until its minute is over: nothing of it is looked at.
    let blocked = post(&world, "203.0.113.7", &body, true).await;
    assert_eq!(blocked, StatusCode::TOO_MANY_REQUESTS);
    // As many right ones as imoje likes.
    for _ in 0..20 {
        let body = notice("inv-1", Uuid::new_v4());
        assert_eq!(
            post(&world, "5.196.116.33", &body, true).await,
            StatusCode::OK
        );
    }
    assert_eq!(stored(&world).await, 20);
    assert!(counted(&world, "limited") && counted(&world, "bad_signature"));
}

/// Sends a request whose body never ends.
async fn endless(world: &World) -> TcpStream {
    let address = world.door.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /imoje/notifications HTTP/1.1\r\nHost: door\r\nContent-Length: 1000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let world = world("notice_timeout = \"200ms\"\n").await;
    let mut stream = endless(&world).await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!(counted(&world, "too_slow"));
}

/// Opens a connection on which a request begins and never gets further.
async fn beginning(world: &World) -> TcpStream {
    let address = world.door.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /imoje/notifications HTTP/1.1\r\nHost: do";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_head_that_never_ends_and_an_idle_connection_are_given_up() {
    let world = world("notice_timeout = \"200ms\"\n").await;
    let address = world.door.strip_prefix("http://").unwrap();
    let idle = TcpStream::connect(address).await.unwrap();
    for mut stream in [beginning(&world).await, idle] {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        let answer = String::from_utf8(rest).unwrap();
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
            "{answer}"
        );
    }
}

/// Every debit of this day is pending and needs a notice of its own, while strangers do what they can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_wrong_and_endless_notices_keeps_no_debit_and_no_notice_from_its_way() {
    let world = Arc::new(World::new(Script::default()).await);
    for _ in 0..40 {
        let pending = Behaviour::settle_after(Duration::from_secs(5));
        world
            .subscribe(Agreement::monthly("2027-01-01").with_card(pending))
            .await;
    }
    let mut open = Vec::new();
    for _ in 0..200 {
        open.push(endless(&world).await);
        open.push(beginning(&world).await);
    }
    let (over, refused) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let strangers: Vec<_> = (0..8)
        .map(|number: u32| {
            let (world, over, refused) = (world.clone(), over.clone(), refused.clone());
            tokio::spawn(async move {
                let sender = format!("203.0.113.{number}");
                while !over.load(Ordering::Relaxed) {
                    let body = notice("cykl-flood", Uuid::new_v4());
                    let status = post(&world, &sender, &body, false).await;
                    assert_eq!(status, StatusCode::UNAUTHORIZED);
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    world.charge().await;
    world.advance(chrono::TimeDelta::seconds(5));
    world.simulator.deliver_due().await;
    let now = world.clock.now();
    world.workers.resolver.run_once(now).await.unwrap();
    let during = refused.load(Ordering::Relaxed);
    over.store(true, Ordering::Relaxed);
    for stranger in strangers {
        stranger.await.unwrap();
    }
    assert!(during > 0, "there was no flood");
    let heard: i64 = world
        .one("SELECT count(*) FROM attempts a WHERE EXISTS (SELECT FROM notices n WHERE n.order_id = a.order_id)")
        .await;
    assert_eq!(heard, 40, "the notices of each debit were taken");
    assert_eq!(world.charges().await, ["paid"; 40]);
    drop(open);
    world.settle_up().await;
}
