//! Answers of the gateway: what is made up, and a second, plain reading of them to compare with.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use cykl::domain::answer::{Expected, Verdict};
use cykl::domain::attempt::AttemptState;
use cykl::domain::charge::ChargeState;
use cykl::domain::decline::DeclineTable;
use cykl::domain::id::TransactionId;
use cykl::domain::money::{Currency, Money};
use cykl::domain::resolution::{News, Policy, ResolverPolicy, Standing, decide};
use cykl::domain::retry::RetryPolicy;
use cykl::domain::subscription::SubscriptionStatus;
use serde_json::value::RawValue;

use crate::script::Script;

/// The transaction that is asked for.
pub const TRANSACTION: &str = "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01";
const ORDER: &str = "cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17-2";
const SERVICE: &str = "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b";
const AMOUNT_MINOR: i64 = 4900;

/// The HTTP statuses that refuse a request, together with imoje's error object (imoje API, HTTP codes).
const REFUSALS: [u16; 9] = [400, 401, 403, 404, 405, 406, 413, 415, 422];

/// The HTTP statuses that are tried.
pub const STATUSES: [u16; 24] = [
    200, 400, 401, 403, 404, 405, 406, 413, 415, 422, 201, 204, 206, 301, 308, 408, 409, 425, 429,
    500, 502, 503, 504, 999,
];

/// Words that mean something in an answer.
pub const WORDS: [&str; 16] = [
    "rejected",
    "settled",
    "pending",
    "transaction",
    "apiErrorResponse",
    "\"status\":\"rejected\",",
    "\"apiErrorResponse\":{\"code\":\"TRX-ERROR-120301\"},",
    "\"code\":\"TRX-ERROR-120001\",",
    "\"",
    "{",
    "}",
    "null",
    ",",
    "\\u0000",
    "cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17-1",
    "4111111111111111",
];

/// What was sent.
pub fn expected() -> Expected {
    Expected {
        order_id: ORDER.to_owned(),
        amount: Money::new(AMOUNT_MINOR, Currency::Pln).expect("49.00 PLN is an amount"),
        service_id: SERVICE.to_owned(),
    }
}

/// The id that is asked for.
pub fn asked() -> TransactionId {
    TRANSACTION.parse().expect("it is a UUID")
}

/// Whether this news, about an attempt in doubt, lets another attempt be made: whether the money could move a second time if it
/// were wrong.
pub fn frees(news: &News) -> bool {
    let now: DateTime<Utc> = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
    let standing = Standing {
        attempt: AttemptState::InDoubt,
        transaction_id: None,
        permitted_at: now,
        charge: ChargeState::InFlight,
        subscription: SubscriptionStatus::Active,
        declines: 0,
        unsent: 0,
        retry_at: None,
        first_attempt_at: now,
        zone: chrono_tz::Europe::Warsaw,
        another_blocks: false,
        another_moved_money: false,
        another_is_by_link: false,
        card_replaced: false,
        transaction_taken: false,
    };
    let policy = Policy {
        retry: RetryPolicy {
            days: vec![1, 3, 7, 14],
            unknown_code_tries: 3,
            classes: DeclineTable::default(),
        },
        resolver: ResolverPolicy {
            poll: vec![TimeDelta::seconds(5)],
            answer_window: TimeDelta::hours(96),
            write_off_after: TimeDelta::days(10),
        },
    };
    !decide(&standing, news, &policy, now).attempt.blocks()
}

/// The transaction that a verdict names.
pub fn named(verdict: &Verdict) -> Option<TransactionId> {
    match verdict {
        Verdict::Settled { transaction_id }
        | Verdict::Pending { transaction_id, .. }
        | Verdict::Rejected { transaction_id, .. } => Some(*transaction_id),
        Verdict::Refused(_) | Verdict::InDoubt(_) => None,
    }
}

/// The members of an object in JSON, each as it is written. What nobody asks for may be anything that has the form of JSON.
pub fn members(json: &str) -> BTreeMap<String, &RawValue> {
    serde_json::from_str(json).unwrap_or_default()
}

/// The members of an object that is a member itself.
pub fn members_of<'j>(
    members: &BTreeMap<String, &'j RawValue>,
    name: &str,
) -> Option<BTreeMap<String, &'j RawValue>> {
    let json = members.get(name)?.get();
    (json != "null").then(|| self::members(json))
}

/// A member that is a text.
pub fn text(members: &BTreeMap<String, &RawValue>, name: &str) -> Option<String> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

/// A second, plain reading: whether an answer to the debit literally says that no money moved.
pub fn says_that_none_moved(http_status: u16, body: &[u8]) -> bool {
    let json = str::from_utf8(body).unwrap_or_default();
    let answer = members(json);
    says_declined(http_status, body, None) || {
        let error = members_of(&answer, "apiErrorResponse").unwrap_or_default();
        REFUSALS.contains(&http_status)
            && text(&error, "code").is_some_and(|code| !code.is_empty())
            && members_of(&answer, "transaction").is_none()
    }
}

/// The same for a read of the transaction `asked`, which cannot be refused.
pub fn says_declined(http_status: u16, body: &[u8], asked: Option<TransactionId>) -> bool {
    let json = str::from_utf8(body).unwrap_or_default();
    let answer = members(json);
    let has_error = members_of(&answer, "apiErrorResponse").is_some();
    let transaction = members_of(&answer, "transaction").unwrap_or(answer);
    let is = |name: &str, wanted: &str| text(&transaction, name).as_deref() == Some(wanted);
    let amount = transaction.get("amount").map_or("", |amount| amount.get());
    let shown: Option<TransactionId> = text(&transaction, "id").and_then(|id| id.parse().ok());
    http_status == 200
        && !has_error
        && is("status", "rejected")
        && is("orderId", ORDER)
        && is("currency", "PLN")
        && is("serviceId", SERVICE)
        && (amount == AMOUNT_MINOR.to_string()
            || text(&transaction, "amount").is_some_and(is_amount))
        && !is("type", "refund")
        && shown.is_some_and(|shown| asked.is_none_or(|asked| asked == shown))
}

fn is_amount(text: String) -> bool {
    text.trim_start_matches('0') == AMOUNT_MINOR.to_string()
}

/// A valid answer about our debit, member by member, so that single members can be spoilt.
pub struct Answer {
    /// The member that holds the transaction; bare without one.
    wrapper: Option<&'static str>,
    /// Names and values in JSON.
    members: Vec<(String, String)>,
}

impl Answer {
    /// A transaction that stands as `status` says.
    pub fn about(status: &str, is_wrapped: bool) -> Self {
        let text = |text: &str| format!("\"{text}\"");
        let members = [
            ("id", text(TRANSACTION)),
            ("type", text("sale")),
            ("status", text(status)),
            ("source", text("api")),
            ("created", "1790000000".to_owned()),
            ("serviceId", text(SERVICE)),
            ("amount", AMOUNT_MINOR.to_string()),
            ("currency", text("PLN")),
            ("orderId", text(ORDER)),
            ("statusCode", text("CODE_51")),
            (
                "paymentProfile",
                r#"{"maskedNumber":"****4242"}"#.to_owned(),
            ),
        ];
        Self {
            wrapper: is_wrapped.then_some("transaction"),
            members: members.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// Spoils members: leaves them out, renames them, gives them other values, says them twice.
    pub fn spoil(&mut self, script: &mut Script<'_>) {
        const NAMES: [&str; 10] = [
            "id",
            "type",
            "status",
            "serviceId",
            "amount",
            "currency",
            "orderId",
            "code",
            "transaction",
            "apiErrorResponse",
        ];
        const VALUES: [&str; 28] = [
            "\"rejected\"",
            "\"settled\"",
            "\"pending\"",
            "\"REJECTED\"",
            "\"rejected \"",
            "\"reject\\u0065d\"",
            "[\"rejected\"]",
            "null",
            "0",
            "1",
            "4901",
            "\"4900\"",
            "\"04900\"",
            "\"49.00\"",
            "4900.0",
            "-4900",
            "4.9e3",
            "99999999999999999999",
            "\"EUR\"",
            "\"pln\"",
            "\"refund\"",
            "\"sale\"",
            "true",
            "{}",
            "[]",
            "\"cykl-0192f0c1a2b37c4d8e5f60718293a4b5-17-1\"",
            "\"7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e02\"",
            "{\"code\":\"TRX-ERROR-120301\"}",
        ];
        for _ in 0..script.times() {
            let at = script.below(self.members.len());
            let value = script.pick(&VALUES).to_owned();
            let name = script.pick(&NAMES).to_owned();
            match script.below(6) {
                0 if self.members.len() > 1 => drop(self.members.remove(at)),
                1 => self.members[at].0 = name,
                2 => self.members.insert(at, (name, value)),
                3 => {
                    let twin = (self.members[at].0.clone(), value);
                    self.members.push(twin);
                }
                4 => {
                    self.wrapper = [
                        None,
                        Some("transaction"),
                        Some("apiErrorResponse"),
                        Some("payment"),
                    ][script.below(4)]
                }
                _ => self.members[at].1 = value,
            }
        }
    }

    /// Whether it says something twice, in which case it may not be believed at all.
    pub fn repeats_itself(&self) -> bool {
        const READ: [&str; 8] = [
            "id",
            "type",
            "status",
            "serviceId",
            "amount",
            "currency",
            "orderId",
            "statusCode",
        ];
        READ.iter().any(|name| {
            self.members
                .iter()
                .filter(|(known, _)| known == name)
                .count()
                > 1
        })
    }

    /// As it is sent.
    pub fn to_json(&self) -> String {
        let members: Vec<_> = self
            .members
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        let transaction = format!("{{{}}}", members.join(","));
        match self.wrapper {
            Some(wrapper) => format!("{{\"{wrapper}\":{transaction}}}"),
            None => transaction,
        }
    }
}
