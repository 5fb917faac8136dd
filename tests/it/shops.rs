//! Two shops in one daemon: each with its own merchant, service, token, keys, zone, brake and figures, in one set of books.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use cykl::cli::daemon;
use cykl::clock::Clock;
use cykl::config::Config;
use cykl::domain::enrolment::{Circumstances, Column, enrol};
use cykl::domain::shop::ShopName;
use cykl::simulator::{Delivery, SimulatedProfile, SimulatedShop, Simulator, SimulatorConfig};
use cykl::store::brakes::BrakeMode;
use cykl::store::enrolment::Telling;
use cykl::store::status::By;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::harness::{
    Parts, SERVICE_ID, SERVICE_KEY, START, UNUSED, World, clock_of, fresh_database, toml,
};
use crate::notices::panel_address;

const OTHER_MERCHANT: &str = "simmerchant000000002";
const OTHER_SERVICE: &str = "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e02";
const OTHER_TOKEN: &str = "another-token";
const OTHER_KEY: &str = "another-service-key-000";

/// A gateway of two merchants, and a daemon that bills for both.
async fn two_shops() -> World {
    cykl::gateway::install_crypto();
    let clock = Clock::manual(START.parse().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let simulator = gateway(&clock, listener.local_addr().unwrap()).await;
    let base_url = simulator.base_url();
    let other = format!(
        "[shops.overseas]\nenvironment = \"simulator\"\nbase_url = \"{base_url}\"\nmerchant_id = \"{OTHER_MERCHANT}\"\n\
         service_id = \"{OTHER_SERVICE}\"\ntoken = \"{OTHER_TOKEN}\"\nservice_key = \"{OTHER_KEY}\"\n\
         timezone = \"America/New_York\"\ncharge_time = \"09:00\"\nrate_per_second = 50\n"
    );
    let config = toml(UNUSED, &base_url, "", &other);
    World::assemble(Parts {
        clock,
        listener,
        simulator,
        config: Config::from_toml(&config).unwrap(),
        database: fresh_database().await,
    })
    .await
}

async fn gateway(clock: &Clock, door: SocketAddr) -> Simulator {
    let mut config = SimulatorConfig::new(clock_of(clock));
    let other = SimulatedShop {
        merchant_id: OTHER_MERCHANT.to_owned(),
        service_id: OTHER_SERVICE.parse().unwrap(),
        token: OTHER_TOKEN.to_owned(),
        service_key: OTHER_KEY.to_owned(),
        notify_url: None,
    };
    config.shops.push(other);
    for shop in &mut config.shops {
        let url = format!("http://{door}/imoje/notifications");
        shop.notify_url = Some(url.parse().unwrap());
    }
    config.delivery = Delivery::Manual;
    Simulator::start(config).await.unwrap()
}

/// Stores a subscription of a shop, due each month from 2 January on.
async fn subscribe(world: &World, shop: &str, name: &str) {
    let zone = |shop: &ShopName| world.config.shops[shop].timezone;
    let shops: BTreeMap<ShopName, Tz> = world
        .config
        .shops
        .keys()
        .map(|shop| (shop.clone(), zone(shop)))
        .collect();
    let circumstances = Circumstances {
        shops,
        usual_shop: None,
        channels: BTreeMap::new(),
        plain_cards: BTreeSet::new(),
        has_card_proxy: false,
        is_without_card: false,
        now: world.clock.now(),
    };
    let profile = Uuid::new_v4();
    let cid = format!("{shop}-{name}");
    world
        .simulator
        .register_profile(SimulatedProfile::new(profile).with_cid(&cid));
    let profile = profile.to_string();
    let fields = [
        (Column::ExternalId, name),
        (Column::Shop, shop),
        (Column::Cid, &cid),
        (Column::PaymentProfileId, &profile),
        (Column::AmountMinor, "4900"),
        (Column::Currency, "PLN"),
        (Column::Period, "P1M"),
        (Column::AnchorDate, "2027-01-02"),
    ];
    let new = enrol(&fields.into_iter().collect(), &circumstances).unwrap();
    let calendar = daemon::calendar(&world.config.shops[&new.shop]);
    let by = By {
        actor: "test",
        reason: "a test",
    };
    world
        .store
        .enrol(
            &[new],
            Telling::Everybody,
            by,
            world.clock.now(),
            |id, new| calendar.due_at(id, new.zone, new.first.due_on),
        )
        .await
        .unwrap();
}

async fn paid_by(world: &World, shop: &'static str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM charges WHERE shop = $1 AND state = 'paid'")
        .bind(shop)
        .fetch_one(&world.books)
        .await
        .unwrap()
}

#[tokio::test]
async fn each_shop_is_billed_at_its_own_hour_with_its_own_credentials() {
    let world = two_shops().await;
    // The same name in both is no conflict.
    for shop in ["main", "overseas"] {
        for name in ["S-1", "S-2", "S-3"] {
            subscribe(&world, shop, name).await;
        }
    }
    let due = world
        .column("SELECT DISTINCT s.shop || ' ' || d.due_at FROM due_periods d JOIN subscriptions s USING (subscription_id) ORDER BY 1")
        .await;
    assert_eq!(
        due,
        [
            "main 2027-01-02 05:00:00+00",
            "overseas 2027-01-02 14:00:00+00"
        ]
    );
    let noon: DateTime<Utc> = "2027-01-02T12:00:00Z".parse().unwrap();
    world.run_until(noon).await;
    assert_eq!(
        (
            paid_by(&world, "main").await,
            paid_by(&world, "overseas").await
        ),
        (3, 0)
    );
    world.run_days(1).await;
    assert_eq!(
        (
            paid_by(&world, "main").await,
            paid_by(&world, "overseas").await
        ),
        (3, 3)
    );
    // The gateway takes from each merchant its own token alone, so each debit came with that of its shop.
    let ledger = world.simulator.ledger();
    let of_other = |service: &str| {
        let service: Uuid = service.parse().unwrap();
        let all = ledger.transactions().iter();
        all.filter(|one| one.service_id() == service).count()
    };
    assert_eq!((of_other(SERVICE_ID), of_other(OTHER_SERVICE)), (3, 3));
    let metrics = world.metrics.encode();
    for shop in ["main", "overseas"] {
        let line = format!("cykl_attempts_total{{shop=\"{shop}\",state=\"settled\"}} 3\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    world.settle_up().await;
}

#[tokio::test]
async fn the_brake_of_one_shop_holds_no_other() {
    let world = two_shops().await;
    for shop in ["main", "overseas"] {
        subscribe(&world, shop, "S-1").await;
    }
    let overseas: ShopName = "overseas".parse().unwrap();
    world
        .store
        .set_brake(
            Some(&overseas),
            BrakeMode::Stop,
            "test",
            "a test",
            world.clock.now(),
        )
        .await
        .unwrap();
    world.run_days(2).await;
    assert_eq!(
        (
            paid_by(&world, "main").await,
            paid_by(&world, "overseas").await
        ),
        (1, 0)
    );
    world
        .store
        .set_brake(
            Some(&overseas),
            BrakeMode::Run,
            "test",
            "a test",
            world.clock.now(),
        )
        .await
        .unwrap();
    world.run_days(1).await;
    assert_eq!(paid_by(&world, "overseas").await, 1);
    world.settle_up().await;
}

#[tokio::test]
async fn a_notice_of_one_shop_is_not_believed_with_the_key_of_another() {
    let world = two_shops().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (merchant, service, key, expected) in [
        (OTHER_MERCHANT, OTHER_SERVICE, OTHER_KEY, StatusCode::OK),
        (
            OTHER_MERCHANT,
            OTHER_SERVICE,
            SERVICE_KEY,
            StatusCode::UNAUTHORIZED,
        ),
        (
            OTHER_MERCHANT,
            SERVICE_ID,
            OTHER_KEY,
            StatusCode::UNAUTHORIZED,
        ),
        (
            crate::harness::MERCHANT_ID,
            SERVICE_ID,
            OTHER_KEY,
            StatusCode::UNAUTHORIZED,
        ),
    ] {
        let body = json!({ "transaction": {
            "id": Uuid::new_v4(), "type": "sale", "status": "settled", "orderId": "inv-1", "amount": 4900, "currency": "PLN",
            "serviceId": service,
        }})
        .to_string();
        let hash = Sha256::new()
            .chain_update(&body)
            .chain_update(key)
            .finalize();
        let signature = format!(
            "merchantid={merchant};serviceid={service};signature={};alg=sha256",
            hex::encode(hash)
        );
        let answer = client
            .post(panel_address(&world.door))
            .header("X-Imoje-Signature", signature)
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), expected, "{merchant} {service} {key}");
    }
    let shops = world.column("SELECT shop FROM notices").await;
    assert_eq!(shops, ["overseas"]);
    world.advance(TimeDelta::hours(1));
    world.run_until_idle().await;
}
