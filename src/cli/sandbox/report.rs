//! What experiments in a sandbox found, in the shape of the report. `docs/sandbox.md` explains it member by member.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use crate::cli::Exit;
use crate::domain::id::TransactionId;
use crate::domain::money::Currency;
use crate::domain::shop::{Environment, ShopName};

/// The shape that this version writes and reads again.
pub const FORMAT: u32 = 1;

/// A report. Times in milliseconds are Cykl's and count from just before the request was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`]
    pub format: u32,
    /// The version of Cykl that wrote it.
    pub version: String,
    /// The shop, as the configuration names it.
    pub shop: ShopName,
    /// A sandbox or a simulator.
    pub environment: Environment,
    /// Where its API is.
    pub base_url: Url,
    /// imoje's id of the shop.
    pub service_id: Uuid,
    /// What the order ids of the experiments begin with.
    pub order_ids: String,
    /// When the experiments began.
    pub began_at: DateTime<Utc>,
    /// When they had ended.
    pub ended_at: DateTime<Utc>,
    /// How many seconds imoje's clock is ahead of this machine's. Absent when imoje does not say, or Cykl's clock is not the machine's.
    pub clock_ahead_seconds: Option<i64>,
    /// How long a debit takes. Absent, like the following two, when no debit was asked for.
    pub timing: Option<Timing>,
    /// What became of order ids that were sent twice.
    pub repeats: Vec<Repeat>,
    /// What requests are answered that have something wrong.
    pub wrong: Vec<Wrong>,
    /// Every transaction that imoje named, as it was in the end.
    pub transactions: Vec<Seen>,
    /// What became of the transactions of an earlier report.
    pub again: Option<Again>,
}

/// How long a debit takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Its order id.
    pub order_id: String,
    /// What it was answered.
    pub answer: Answer,
    /// The statuses that reads showed, each when it was first seen.
    pub read: Vec<StatusAt>,
    /// The statuses that its notices told, in the order in which they came.
    pub notices: Vec<StatusAt>,
    /// How many notices came in that imoje did not sign.
    pub unsigned: u32,
    /// Why nobody listened for notices; absent when somebody did.
    pub deaf_because: Option<String>,
}

/// A status, and after how long it was heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusAt {
    /// imoje's word.
    pub status: String,
    /// Since the debit was sent.
    pub after_ms: i64,
}

/// An answer to one request, or what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When it had come.
    pub after_ms: i64,
    /// The HTTP status; absent without an answer.
    pub http_status: Option<u16>,
    /// `apiErrorResponse.code`
    pub code: Option<String>,
    /// The transaction that it names.
    pub transaction_id: Option<TransactionId>,
    /// The status of that transaction.
    pub status: Option<String>,
    /// What the daemon would take it for, if it were the answer to a debit of its own.
    pub taken_for: TakenFor,
    /// The header `x-trace-id`.
    pub trace_id: Option<String>,
    /// The body, without secrets and card numbers and at most 2,000 characters long. Absent beside a transaction, whose body names a payer.
    pub body: Option<String>,
    /// Why there is no answer.
    pub lost: Option<String>,
}

/// What the daemon takes an answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakenFor {
    /// The money moved.
    Settled,
    /// It is not over.
    Pending,
    /// The card was declined.
    Rejected,
    /// imoje refused it without touching the card.
    Refused,
    /// Nobody knows: it is followed up and never sent again.
    Doubt,
    /// Nothing was sent.
    NotSent,
    /// It was no debit.
    NoDebit,
}

/// An order id that was sent twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// How.
    pub what: RepeatKind,
    /// The order id.
    pub order_id: String,
    /// What imoje made of it.
    pub finding: Finding,
    /// What the first request was answered.
    pub first: Answer,
    /// What the second one was answered; absent when it was not sent.
    pub second: Option<Answer>,
}

/// How an order id was sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepeatKind {
    /// One after the other, with the same amount.
    SameAmount,
    /// One after the other, with another amount.
    OtherAmount,
    /// At the same time.
    Parallel,
    /// Once the first was declined.
    AfterDecline,
}

/// What imoje makes of an order id that is sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Two transactions.
    TwoTransactions,
    /// Two transactions, of which the second moved no money although the first did.
    SecondMovedNothing,
    /// The same transaction both times.
    SameTransaction,
    /// One transaction, and an error for the other request.
    Refused,
    /// None of these.
    Unclear,
}

/// A request that has something wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// What.
    pub what: WrongKind,
    /// What it was answered.
    pub answer: Answer,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongKind {
    /// A debit with a token that nobody has.
    WrongToken,
    /// A debit in the name of a merchant that there is not, with this shop's token.
    OtherMerchant,
    /// A debit of a card that there is not.
    UnknownProfile,
    /// A debit of a card that is inactive.
    InactiveProfile,
    /// A debit that is not JSON to its end.
    CutOff,
    /// A read of a transaction that there is not.
    UnknownTransaction,
    /// A read of a path that there is not.
    UnknownPath,
}

/// A transaction as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its order id.
    pub order_id: String,
    /// imoje's id of it.
    pub transaction_id: TransactionId,
    /// How much.
    pub amount_minor: i64,
    /// Of which currency.
    pub currency: Currency,
    /// Its status; absent when imoje did not show it.
    pub status: Option<String>,
    /// The issuer's code.
    pub status_code: Option<String>,
    /// When.
    pub seen_at: DateTime<Utc>,
}

/// What became of the transactions of an earlier report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// What its order ids begin with.
    pub order_ids: String,
    /// When they were seen last.
    pub seen_at: DateTime<Utc>,
    /// Each of them.
    pub transactions: Vec<SeenAgain>,
}

/// A transaction that was seen twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenAgain {
    /// Its status in the earlier report.
    pub before: Option<String>,
    /// It now.
    pub now: Seen,
}

impl SeenAgain {
    /// Whether imoje showed another status then.
    pub fn has_changed(&self) -> bool {
        self.before.is_some() && self.now.status.is_some() && self.before != self.now.status
    }

    /// Whether it was declined and is not any more.
    pub fn was_taken_back(&self) -> bool {
        self.has_changed() && self.before.as_deref() == Some("rejected")
    }
}

impl Report {
    /// 1 when an experiment with an order id said nothing, otherwise 0: a finding is no failure.
    pub fn exit(&self) -> Exit {
        let is_unclear = |repeat: &Repeat| repeat.finding == Finding::Unclear;
        if self.repeats.iter().any(is_unclear) {
            Exit::No
        } else {
            Exit::Ok
        }
    }
}

impl Answer {
    /// Whether it is an error about what was asked, which names no transaction. Errors about who asked, how often and how fast say
    /// nothing about an order id.
    pub(super) fn is_refusal(&self) -> bool {
        let is_about_order = |status| {
            (400..500).contains(&status) && ![401, 403, 404, 408, 425, 429].contains(&status)
        };
        self.transaction_id.is_none() && self.http_status.is_some_and(is_about_order)
    }
}

/// What two answers about one order id say, once the transactions that they name have become what `seen` says.
pub(super) fn finding(first: &Answer, second: Option<&Answer>, seen: &[Seen]) -> Finding {
    let Some(second) = second else {
        return Finding::Unclear;
    };
    match (first.transaction_id, second.transaction_id) {
        (Some(one), Some(other)) if one == other => Finding::SameTransaction,
        (Some(one), Some(other)) => {
            let ended = |id| {
                let found = seen.iter().find(|seen| seen.transaction_id == id);
                found.and_then(|seen| seen.status.as_deref())
            };
            match (ended(one), ended(other)) {
                (Some("settled"), Some("rejected" | "cancelled" | "error")) => {
                    Finding::SecondMovedNothing
                }
                (Some(_), Some(_)) => Finding::TwoTransactions,
                (None, _) | (_, None) => Finding::Unclear,
            }
        }
        (Some(_), None) if second.is_refusal() => Finding::Refused,
        // Of two at the same time either may be the one that is refused.
        (None, Some(_)) if first.is_refusal() => Finding::Refused,
        (Some(_), None) | (None, Some(_) | None) => Finding::Unclear,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn answer(http_status: Option<u16>, transaction: Option<u128>) -> Answer {
        Answer {
            after_ms: 120,
            http_status,
            code: None,
            transaction_id: transaction.map(id),
            status: transaction.map(|_| "pending".to_owned()),
            taken_for: TakenFor::Pending,
            trace_id: None,
            body: None,
            lost: None,
        }
    }

    fn id(number: u128) -> TransactionId {
        TransactionId::from_uuid(Uuid::from_u128(number))
    }

    fn seen(number: u128, status: Option<&str>) -> Seen {
        Seen {
            order_id: "o".to_owned(),
            transaction_id: id(number),
            amount_minor: 100,
            currency: Currency::Pln,
            status: status.map(str::to_owned),
            status_code: None,
            seen_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn two_transactions_are_told_by_what_became_of_them() {
        let [one, other] = [1, 2].map(|number| answer(Some(200), Some(number)));
        for (statuses, expected) in [
            ([Some("settled"), Some("settled")], Finding::TwoTransactions),
            (
                [Some("rejected"), Some("rejected")],
                Finding::TwoTransactions,
            ),
            ([Some("pending"), Some("pending")], Finding::TwoTransactions),
            (
                [Some("settled"), Some("rejected")],
                Finding::SecondMovedNothing,
            ),
            ([Some("settled"), None], Finding::Unclear),
        ] {
            let seen = [seen(1, statuses[0]), seen(2, statuses[1])];
            assert_eq!(finding(&one, Some(&other), &seen), expected, "{statuses:?}");
        }
        assert_eq!(
            finding(&one, Some(&one), &[seen(1, Some("settled"))]),
            Finding::SameTransaction
        );
    }

    #[test]
    fn only_an_error_of_the_caller_beside_a_transaction_is_a_refusal() {
        let made = answer(Some(200), Some(1));
        for (http_status, expected) in [
            (Some(422), Finding::Refused),
            (Some(400), Finding::Refused),
            (Some(500), Finding::Unclear),
            (Some(200), Finding::Unclear),
            (None, Finding::Unclear),
        ] {
            let other = answer(http_status, None);
            assert_eq!(finding(&made, Some(&other), &[]), expected);
            assert_eq!(finding(&other, Some(&made), &[]), expected);
            assert_eq!(finding(&other, Some(&other), &[]), Finding::Unclear);
        }
        assert_eq!(finding(&made, None, &[]), Finding::Unclear);
    }

    #[test]
    fn a_status_that_was_not_shown_is_no_change() {
        let again = |before: Option<&str>, now: Option<&str>| SeenAgain {
            before: before.map(str::to_owned),
            now: seen(1, now),
        };
        assert!(again(Some("rejected"), Some("settled")).was_taken_back());
        let changed = again(Some("pending"), Some("settled"));
        assert!(changed.has_changed() && !changed.was_taken_back());
        for (before, now) in [
            (None, Some("settled")),
            (Some("rejected"), None),
            (Some("rejected"), Some("rejected")),
        ] {
            assert!(!again(before, now).has_changed());
        }
    }
}
