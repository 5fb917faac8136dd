//! What the daemon counts. Names are fixed by the contract; gauges that describe the books are read from them at each scrape.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// A label that is written as a plain word.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Word(String);

impl Word {
    /// The label for `word`.
    pub fn new(word: impl fmt::Display) -> Self {
        Self(word.to_string())
    }
}

impl prometheus_client::encoding::EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(&self.0)
    }
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($field:ident),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name {
            $(
                #[doc = concat!("The label `", stringify!($field), "`.")]
                pub $field: Word,
            )+
        }

        impl $name {
            /// The set of labels with these values.
            pub fn of($($field: impl fmt::Display),+) -> Self {
                Self { $($field: Word::new($field)),+ }
            }
        }
    };
}

labels! {
    /// Of a count per shop and state.
    ShopState { shop, state }
}
labels! {
    /// Of a count per shop and decline class.
    ShopClass { shop, class }
}
labels! {
    /// Of a count per shop.
    ShopOnly { shop }
}
labels! {
    /// Of a count per outcome.
    OutcomeOnly { outcome }
}
labels! {
    /// Of a duration per call to the gateway and its outcome.
    CallOutcome { call, outcome }
}
labels! {
    /// Of a figure per worker.
    WorkerOnly { worker }
}
labels! {
    /// Of the brake.
    ShopMode { shop, mode }
}
labels! {
    /// Of what the brake does by itself.
    ShopReason { shop, reason }
}
labels! {
    /// Of the build.
    Build { version }
}

/// Bounds of the gateway's answer times, in seconds.
const REQUEST_SECONDS: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0,
];

/// Makes the histograms of [`Metrics::gateway_request_seconds`].
#[derive(Clone)]
pub struct RequestSeconds;

impl MetricConstructor<Histogram> for RequestSeconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(REQUEST_SECONDS)
    }
}

/// Everything that is counted. Clones share the counts.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Charges that entered a state.
    pub charges: Family<ShopState, Counter>,
    /// Attempts that entered a state.
    pub attempts: Family<ShopState, Counter>,
    /// Declines.
    pub declines: Family<ShopClass, Counter>,
    /// Charges that fell due: what should have been charged.
    pub expected_charges: Family<ShopOnly, Counter>,
    /// How many charges were planned for today.
    pub daily_planned: Family<ShopOnly, Gauge>,
    /// How many of today's were permitted.
    pub daily_permitted: Family<ShopOnly, Gauge>,
    /// How long the gateway takes.
    pub gateway_request_seconds: Family<CallOutcome, Histogram, RequestSeconds>,
    /// Notices that came in.
    pub notices: Family<OutcomeOnly, Counter>,
    /// Attempts in doubt.
    pub in_doubt: Gauge,
    /// Refunds in doubt.
    pub refunds_in_doubt: Gauge,
    /// Charges that wait for a person.
    pub held: Gauge,
    /// How long the oldest charge that is due has been due.
    pub oldest_due_seconds: Gauge,
    /// How long ago each worker last finished.
    pub worker_lag_seconds: Family<WorkerOnly, Gauge>,
    /// 1 for the mode in force.
    pub brake: Family<ShopMode, Gauge>,
    /// 1 for the reason for which the brake came on by itself, as long as it is on.
    pub brake_tripped: Family<ShopReason, Gauge>,
    /// The stage of a slow start; 0 when everything may be sent.
    pub brake_stage: Family<ShopOnly, Gauge>,
    /// 1 while the fence that this daemon had passed is closed.
    pub fence_closed: Gauge,
    /// Events that wait to be delivered.
    pub outbox_pending: Gauge,
}

impl Metrics {
    /// All counts at zero, the known label values of `shops` present from the start.
    pub fn new<'a>(shops: impl Iterator<Item = &'a str>) -> Self {
        let mut registry = Registry::with_prefix("cykl");
        let requests = Family::new_with_constructor(RequestSeconds);
        let mut metrics = Self {
            registry: Arc::new(Registry::default()),
            charges: Family::default(),
            attempts: Family::default(),
            declines: Family::default(),
            expected_charges: Family::default(),
            daily_planned: Family::default(),
            daily_permitted: Family::default(),
            gateway_request_seconds: requests,
            notices: Family::default(),
            in_doubt: Gauge::default(),
            refunds_in_doubt: Gauge::default(),
            held: Gauge::default(),
            oldest_due_seconds: Gauge::default(),
            worker_lag_seconds: Family::default(),
            brake: Family::default(),
            brake_tripped: Family::default(),
            brake_stage: Family::default(),
            fence_closed: Gauge::default(),
            outbox_pending: Gauge::default(),
        };
        metrics.register(&mut registry);
        metrics.register_days(&mut registry);
        metrics.register_stops(&mut registry);
        metrics.registry = Arc::new(registry);
        metrics.start_at_zero(shops);
        metrics
    }

    fn register_days(&self, registry: &mut Registry) {
        registry.register(
            "daily_planned_charges",
            "Charges planned for today, in UTC",
            self.daily_planned.clone(),
        );
        registry.register(
            "daily_permitted_charges",
            "Charges permitted today, in UTC",
            self.daily_permitted.clone(),
        );
    }

    fn register_stops(&self, registry: &mut Registry) {
        registry.register(
            "brake",
            "1 for the mode of the brake that is in force",
            self.brake.clone(),
        );
        registry.register(
            "brake_tripped",
            "1 for the reason for which the brake came on by itself",
            self.brake_tripped.clone(),
        );
        registry.register(
            "brake_stage",
            "The stage of a slow start, 0 without one",
            self.brake_stage.clone(),
        );
        registry.register(
            "fence_closed",
            "1 while this daemon may not charge from its database",
            self.fence_closed.clone(),
        );
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "charges",
            "Charges that entered a state",
            self.charges.clone(),
        );
        registry.register(
            "attempts",
            "Attempts that entered a state",
            self.attempts.clone(),
        );
        registry.register(
            "declines",
            "Declined attempts by class",
            self.declines.clone(),
        );
        registry.register(
            "expected_charges",
            "Charges that fell due",
            self.expected_charges.clone(),
        );
        registry.register(
            "gateway_request_seconds",
            "How long the gateway took to answer",
            self.gateway_request_seconds.clone(),
        );
        registry.register("notices", "Notices received", self.notices.clone());
        registry.register(
            "in_doubt",
            "Attempts whose outcome is unknown",
            self.in_doubt.clone(),
        );
        registry.register(
            "refunds_in_doubt",
            "Refunds whose outcome is unknown",
            self.refunds_in_doubt.clone(),
        );
        registry.register("held", "Charges that wait for a person", self.held.clone());
        registry.register(
            "oldest_due_seconds",
            "How long the oldest due charge has been due",
            self.oldest_due_seconds.clone(),
        );
        registry.register(
            "worker_lag_seconds",
            "How long ago the worker last finished",
            self.worker_lag_seconds.clone(),
        );
        registry.register(
            "outbox_pending",
            "Events that wait to be delivered",
            self.outbox_pending.clone(),
        );
        let build_info = Family::<Build, Gauge>::default();
        build_info
            .get_or_create(&Build::of(env!("CARGO_PKG_VERSION")))
            .set(1);
        registry.register("build_info", "The running version", build_info);
    }

    /// Counters that exist only once something happened hide its first time from an alert.
    fn start_at_zero<'a>(&self, shops: impl Iterator<Item = &'a str>) {
        use crate::domain::attempt::AttemptState;
        use crate::domain::charge::ChargeState;
        use crate::domain::decline::DeclineClass;

        for shop in shops {
            for state in ChargeState::ALL {
                drop(
                    self.charges
                        .get_or_create(&ShopState::of(shop, state.as_str())),
                );
            }
            for state in AttemptState::ALL {
                drop(
                    self.attempts
                        .get_or_create(&ShopState::of(shop, state.as_str())),
                );
            }
            for class in DeclineClass::ALL {
                drop(
                    self.declines
                        .get_or_create(&ShopClass::of(shop, class.as_str())),
                );
            }
            drop(self.expected_charges.get_or_create(&ShopOnly::of(shop)));
        }
        for outcome in NoticeOutcome::ALL {
            drop(
                self.notices
                    .get_or_create(&OutcomeOnly::of(outcome.as_str())),
            );
        }
    }

    /// Counts a notice.
    pub fn count_notice(&self, outcome: NoticeOutcome) {
        self.notices
            .get_or_create(&OutcomeOnly::of(outcome.as_str()))
            .inc();
    }

    /// The text that Prometheus scrapes, as [`Metrics::CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("a String takes everything");
        text
    }

    /// The content type of [`Metrics::encode`]; Prometheus does not read it without.
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

/// What became of a notice: at the door, and, once more, when it turned out to be forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeOutcome {
    /// Stored.
    Accepted,
    /// Stored before.
    Duplicate,
    /// Its signature, or the token in its address, is wrong.
    BadSignature,
    /// Signed, but not readable.
    Unreadable,
    /// The database did not take it.
    Unavailable,
    /// From a sender that is in none of the networks that may send.
    Stranger,
    /// From a sender that has sent too much that was wrong.
    Limited,
    /// Its body did not come in in time.
    TooSlow,
    /// Taken, and imoje does not know the transaction that it names.
    UnknownTransaction,
}

impl NoticeOutcome {
    /// All outcomes.
    pub const ALL: [NoticeOutcome; 9] = [
        NoticeOutcome::Accepted,
        NoticeOutcome::Duplicate,
        NoticeOutcome::BadSignature,
        NoticeOutcome::Unreadable,
        NoticeOutcome::Unavailable,
        NoticeOutcome::Stranger,
        NoticeOutcome::Limited,
        NoticeOutcome::TooSlow,
        NoticeOutcome::UnknownTransaction,
    ];

    /// Whether a sender that means well would not have sent it.
    pub const fn is_senders_fault(self) -> bool {
        match self {
            NoticeOutcome::BadSignature | NoticeOutcome::Unreadable | NoticeOutcome::TooSlow => {
                true
            }
            NoticeOutcome::Accepted
            | NoticeOutcome::Duplicate
            | NoticeOutcome::Unavailable
            | NoticeOutcome::Stranger
            | NoticeOutcome::Limited
            | NoticeOutcome::UnknownTransaction => false,
        }
    }

    /// The value of the label `outcome`.
    pub const fn as_str(self) -> &'static str {
        match self {
            NoticeOutcome::Accepted => "accepted",
            NoticeOutcome::Duplicate => "duplicate",
            NoticeOutcome::BadSignature => "bad_signature",
            NoticeOutcome::Unreadable => "unreadable",
            NoticeOutcome::Unavailable => "unavailable",
            NoticeOutcome::Stranger => "stranger",
            NoticeOutcome::Limited => "limited",
            NoticeOutcome::TooSlow => "too_slow",
            NoticeOutcome::UnknownTransaction => "unknown_transaction",
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}
