//! Putting the daemon together from the configuration. `run`, `demo` and the tests all run what is assembled here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{ClockConfig, Config, ShopConfig};
use crate::domain::id::{FenceId, SubscriptionId};
use crate::domain::shop::ShopName;
use crate::gateway::{Algorithm, ClientConfig, ClientError, ImojeClient, NoticeCredentials};
use crate::http::{NoticeRules, ShopDoor};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::installation::ShopIdentity;
use crate::store::permits::Limits;
use crate::workers::caretaker::Caretaker;
use crate::workers::charger::{ChannelWatch, Charger, ClockWatch, Ground};
use crate::workers::crew::{Ticks, Workers};
use crate::workers::notifier::{Notifier, Webhook, WebhookError};
use crate::workers::preflight::Preflight;
use crate::workers::refunder::Refunder;
use crate::workers::registrar::Registrar;
use crate::workers::resolver::Resolver;
use crate::workers::scheduler::Scheduler;
use crate::workers::shops::{NoticeAddress, Shop, ShopCalendar, Shops};
use crate::workers::tripwires::Tripwires;

/// How old a permit may be when its request leaves (design, section 3).
const PERMIT_AGE_MAX: Duration = Duration::from_secs(60);
/// What an answer needs beyond the permit's age and the request's timeout.
const ANSWER_SLACK: TimeDelta = TimeDelta::seconds(30);
/// How long the gateway's word on a decline holds good for a retry, in real time.
const DECLINE_HOLDS: TimeDelta = TimeDelta::minutes(10);
/// How often the ground that charging stands on is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How long ago every worker that charging needs must have run for the daemon to be ready, in real time.
const WORKER_LAG_MAX: TimeDelta = TimeDelta::minutes(5);

/// What the daemon could not be assembled from.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// A shop's way to imoje.
    #[error("shop {shop}: {source}")]
    Gateway {
        /// The shop.
        shop: ShopName,
        /// What is wrong.
        source: ClientError,
    },
    /// The webhook.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
}

/// The workers of `config`, which charge as the installation `fence_id` until `stop` is cancelled.
///
/// # Errors
/// [`AssemblyError`] when an HTTP client cannot be built.
pub fn workers(
    config: &Config,
    store: &Store,
    clock: &Clock,
    metrics: &Metrics,
    fence_id: FenceId,
    ground: &Ground,
    stop: CancellationToken,
) -> Result<Workers, AssemblyError> {
    let shops = shops(config)?;
    let webhook = match &config.events.webhook_url {
        Some(url) => Some(Webhook::new(
            url.expose().clone(),
            config.events.webhook_secret.clone(),
        )?),
        None => None,
    };
    let tripwires = Tripwires::default();
    let caretaker = Caretaker::new(
        store.clone(),
        config.history,
        tripwires.clone(),
        stop.clone(),
    );
    let preflight = Preflight::new(store.clone(), shops.clone(), stop.clone());
    Ok(Workers {
        scheduler: Scheduler::new(store.clone(), shops.clone(), metrics.clone(), stop.clone()),
        charger: Charger {
            store: store.clone(),
            shops: shops.clone(),
            requests_max: config.charging.in_flight_max,
            limits: limits(config),
            policy: config.policy.clone(),
            fence_id,
            clock: clock.clone(),
            metrics: metrics.clone(),
            tripwires: tripwires.clone(),
            channels: ChannelWatch::default(),
            clocks: ClockWatch::default(),
            clock_gap_max: config.charging.clock_gap_max,
            ground: ground.clone(),
            look_every: LOOK_EVERY,
            stop,
        },
        resolver: resolver(config, store, shops, metrics, tripwires),
        notifier: Notifier {
            store: store.clone(),
            webhook,
        },
        caretaker,
        preflight,
    })
}

fn resolver(
    config: &Config,
    store: &Store,
    shops: Shops,
    metrics: &Metrics,
    tripwires: Tripwires,
) -> Resolver {
    Resolver {
        store: store.clone(),
        shops,
        policy: config.policy.clone(),
        in_doubt_max: config.charging.in_doubt_max,
        reads_max: config.charging.in_flight_max,
        metrics: metrics.clone(),
        tripwires,
    }
}

/// The scheduler alone, for a database that is adopted: its books have to catch up first. It plans the periods of `permitted` whatever
/// the policy for late ones says.
///
/// # Errors
/// [`AssemblyError`] when an HTTP client cannot be built.
pub fn lone_scheduler(
    config: &Config,
    store: &Store,
    permitted: BTreeSet<(SubscriptionId, u32)>,
) -> Result<Scheduler, AssemblyError> {
    let shops = shops(config)?;
    let stop = CancellationToken::new();
    Ok(Scheduler::new(store.clone(), shops, metrics(config), stop).knowing(permitted))
}

/// The resolver alone, for a person who has a question of his own.
///
/// # Errors
/// [`AssemblyError`] when an HTTP client cannot be built.
pub fn lone_resolver(config: &Config, store: &Store) -> Result<Resolver, AssemblyError> {
    let shops = shops(config)?;
    Ok(resolver(
        config,
        store,
        shops,
        &metrics(config),
        Tripwires::default(),
    ))
}

/// What gives money back, as the installation `fence_id`.
///
/// # Errors
/// [`AssemblyError`] when an HTTP client cannot be built.
pub fn refunder(
    config: &Config,
    store: &Store,
    clock: &Clock,
    fence_id: FenceId,
) -> Result<Refunder, AssemblyError> {
    Ok(Refunder {
        store: store.clone(),
        shops: shops(config)?,
        policy: config.policy.resolver.clone(),
        fence_id,
        answer_timeout: limits(config).answer_timeout,
        absent_after: config.absent_after,
        clock: clock.clone(),
    })
}

/// What makes and ends links by which payers register cards.
///
/// # Errors
/// [`AssemblyError`] when an HTTP client cannot be built.
pub fn registrar(
    config: &Config,
    store: &Store,
    clock: &Clock,
) -> Result<Registrar, AssemblyError> {
    Ok(Registrar {
        store: store.clone(),
        shops: shops(config)?,
        policy: config.policy.resolver.clone(),
        absent_after: config.absent_after,
        clock: clock.clone(),
    })
}

/// When each worker looks by itself.
pub fn ticks(config: &Config) -> Ticks {
    Ticks {
        scheduler: config.schedule.scheduler.clone(),
        charger: config.schedule.charger.clone(),
        resolver: config.schedule.resolver.clone(),
        notifier: config.schedule.notifier.clone(),
        caretaker: config.schedule.caretaker.clone(),
    }
}

/// What the notices of every shop are checked against.
pub fn doors(config: &Config) -> Arc<[ShopDoor]> {
    config
        .shops
        .iter()
        .map(|(name, shop)| ShopDoor {
            shop: name.clone(),
            credentials: NoticeCredentials {
                merchant_id: shop.merchant_id.clone(),
                service_id: shop.service_id,
                service_keys: [&shop.service_key]
                    .into_iter()
                    .chain(&shop.previous_service_key)
                    .cloned()
                    .collect(),
            },
            algorithms: Algorithm::ALL.to_vec(),
        })
        .collect()
}

/// Who may send notices.
pub fn notice_rules(config: &Config) -> NoticeRules {
    let http = &config.http;
    NoticeRules {
        proxy_header: http.proxy_header.clone(),
        networks: http.notice_networks.clone(),
        timeout: http.notice_timeout,
        failures_max: http.failed_notices_max,
    }
}

/// The shops, as the installation fence knows them.
pub fn identities(config: &Config) -> Vec<ShopIdentity> {
    config
        .shops
        .iter()
        .map(|(name, shop)| ShopIdentity {
            shop: name.clone(),
            environment: shop.environment,
            merchant_id: shop.merchant_id.clone(),
            service_id: shop.service_id.to_string(),
        })
        .collect()
}

/// The counts of every shop.
pub fn metrics(config: &Config) -> Metrics {
    Metrics::new(config.shops.keys().map(ShopName::as_str))
}

/// How long ago, in Cykl's time, every worker must have run for the daemon to be ready.
pub fn worker_lag_max(config: &Config) -> TimeDelta {
    in_cykl_time(WORKER_LAG_MAX, config)
}

/// A real duration, as long as Cykl's clock makes it.
fn in_cykl_time(real: TimeDelta, config: &Config) -> TimeDelta {
    match config.clock {
        ClockConfig::System => real,
        ClockConfig::Scaled { scale, .. } => {
            let scale = i32::try_from(scale.get()).unwrap_or(i32::MAX);
            real.checked_mul(scale).unwrap_or(TimeDelta::MAX)
        }
    }
}

/// What a permit must keep.
pub fn limits(config: &Config) -> Limits {
    let charging = &config.charging;
    let answer = TimeDelta::from_std(PERMIT_AGE_MAX + charging.request_timeout)
        .unwrap_or(TimeDelta::MAX / 2);
    Limits {
        unanswered_max: charging.in_flight_max + charging.claim_ahead,
        in_flight_max: charging.in_flight_max,
        in_doubt_max: charging.in_doubt_max,
        answer_timeout: in_cykl_time(answer + ANSWER_SLACK, config).min(TimeDelta::days(365)),
        min_gap: charging.min_gap,
        card_declines_30d: charging.card_budget_30d.into(),
        card_retries_24h: charging.card_budget_24h.into(),
        decline_holds: in_cykl_time(DECLINE_HOLDS, config),
    }
}

/// The calendar of a shop.
pub fn calendar(shop: &ShopConfig) -> ShopCalendar {
    ShopCalendar {
        charge_time: shop.charge_time,
        spread: shop.spread,
        catch_up: shop.catch_up,
        max_lateness: shop.max_lateness,
    }
}

fn shops(config: &Config) -> Result<Shops, AssemblyError> {
    let shops: Result<Vec<Shop>, AssemblyError> = config
        .shops
        .iter()
        .map(|(name, shop)| {
            let client = client(config, shop).map_err(|source| AssemblyError::Gateway {
                shop: name.clone(),
                source,
            })?;
            let notices = config
                .http
                .public_url
                .clone()
                .map(|public_url| NoticeAddress {
                    public_url,
                    key: shop.service_key.clone(),
                });
            Ok(Shop::new(
                name.clone(),
                client,
                calendar(shop),
                notices,
                shop.rate_per_second,
            ))
        })
        .collect();
    Ok(Shops::new(shops?))
}

/// The way to imoje of a shop.
///
/// # Errors
/// [`ClientError`] when its address may not be used, or this machine lacks what TLS needs.
pub fn client(config: &Config, shop: &ShopConfig) -> Result<ImojeClient, ClientError> {
    ImojeClient::new(client_config(config, shop))
}

/// How to reach imoje for a shop.
pub fn client_config(config: &Config, shop: &ShopConfig) -> ClientConfig {
    ClientConfig {
        base_url: shop.base_url.clone(),
        merchant_id: shop.merchant_id.clone(),
        service_id: shop.service_id,
        token: shop.token.clone(),
        return_to: shop.return_urls.clone(),
        card_proxy_url: config.gateway.card_proxy_url.clone(),
        connect_timeout: config.charging.connect_timeout,
        request_timeout: config.charging.request_timeout,
        permit_age_max: PERMIT_AGE_MAX,
    }
}
