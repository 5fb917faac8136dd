//! What the gateway's words mean for the money: the classifier.
//!
//! It is a whitelist. An answer counts as a refusal only for the pairs of HTTP status and error body named here, and as
//! final only when the transaction it shows is complete and is ours; everything else is doubt, and doubt blocks.

use crate::domain::id::{ProfileId, TransactionId};
use crate::domain::money::Money;
use chrono::{DateTime, Utc};

/// What an answer must repeat to be about our attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The `orderId` that was sent.
    pub order_id: String,
    /// The amount and currency that were sent.
    pub amount: Money,
    /// The `serviceId` that was sent.
    pub service_id: String,
}

/// A transaction as an answer shows it. Each field is absent when the answer does not have it or has something unreadable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShownTransaction {
    /// `id`
    pub id: Option<TransactionId>,
    /// `type`: `sale` or `refund`
    pub kind: Option<String>,
    /// `status`
    pub status: Option<String>,
    /// `orderId`
    pub order_id: Option<String>,
    /// `amount`, in minor units
    pub amount_minor: Option<i64>,
    /// `currency`
    pub currency: Option<String>,
    /// `serviceId`
    pub service_id: Option<String>,
    /// `statusCode`, the issuer's word on a decline
    pub status_code: Option<String>,
    /// `paymentProfile.maskedNumber`
    pub masked_number: Option<String>,
    /// `paymentProfile.id`: the stored card that was charged, or stored with it.
    pub profile_id: Option<ProfileId>,
    /// `firstTransactionId`, of the transaction or of its profile: what names a card that was registered without one.
    pub first_transaction_id: Option<String>,
    /// `created`, in whole seconds.
    pub created_at: Option<DateTime<Utc>>,
    /// `refunds`: what went back, or is on its way. `None` when the list cannot be read whole.
    pub refunds: Option<Vec<ListedRefund>>,
}

/// A refund in the list of the transaction that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRefund {
    /// `id`
    pub id: TransactionId,
    /// `amount`, in minor units
    pub amount_minor: i64,
    /// `status`
    pub status: String,
}

/// The body of an answer, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A transaction, wrapped or bare.
    Transaction(Box<ShownTransaction>),
    /// imoje's error object, with its `code`.
    Error {
        /// `apiErrorResponse.code`, for example `TRX-ERROR-120301`
        code: String,
        /// `apiErrorResponse.message`, when it can be read.
        message: Option<String>,
    },
    /// Anything else: empty, HTML, cut off, not JSON, JSON of another shape.
    Unreadable,
}

/// What an answer says about an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The money moved.
    Settled {
        /// imoje's id of the movement.
        transaction_id: TransactionId,
    },
    /// imoje has the transaction and it is not final.
    Pending {
        /// imoje's id of the transaction.
        transaction_id: TransactionId,
        /// imoje's word for where it stands.
        status: String,
    },
    /// The card was declined.
    Rejected {
        /// imoje's id of the transaction.
        transaction_id: TransactionId,
        /// The issuer's reason, when the answer tells it.
        status_code: Option<String>,
    },
    /// imoje refused the request before touching the card.
    Refused(Refusal),
    /// It may or may not have moved money.
    InDoubt(Doubt),
}

impl Verdict {
    /// imoje's id of the transaction, when it told one.
    pub const fn transaction_id(&self) -> Option<TransactionId> {
        match self {
            Verdict::Settled { transaction_id }
            | Verdict::Pending { transaction_id, .. }
            | Verdict::Rejected { transaction_id, .. } => Some(*transaction_id),
            Verdict::Refused(_) | Verdict::InDoubt(_) => None,
        }
    }
}

/// A refusal from the whitelist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, which decides what happens next.
    pub reason: RefusalReason,
    /// The HTTP status.
    pub http_status: u16,
    /// imoje's error code.
    pub code: String,
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalReason {
    /// The payment profile is inactive: 400, `TRX-ERROR-120301` (imoje API, `POST transaction/profile`).
    ProfileInactive,
    /// The token is wrong or may not do this: 401, 403. Everything stops.
    Unauthorized,
    /// The shop may not send card data: "Plain card data disabled." (imoje FRONT API, FAQ; neither code nor status are documented).
    /// Everything stops, as with a token that may not do this.
    CardDataDisabled,
    /// The method is not available now: 406, `TRX-ERROR-120003` (imoje API, `POST transaction`). Tried again later.
    Unavailable,
    /// The data we sent is wrong: 400, 404, 405, 413, 415, 422. A person looks; sending it again would not help.
    Invalid,
}

/// Why an answer tells nothing for certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// No answer came, or its connection broke.
    NoAnswer,
    /// 401 or 403 without imoje's error object. Everything stops.
    Unauthorized,
    /// An HTTP status that is not on the whitelist: every 5xx, 3xx, 408, 409, 425, 429 and unknown ones.
    HttpStatus,
    /// A status of the whitelist with a body that is not imoje's error object, or not the one that goes with it.
    UnknownBody,
    /// A 2xx without a readable, complete transaction.
    Incomplete,
    /// A complete answer about another order, amount, currency or shop. Everything stops.
    Mismatch,
}

impl Doubt {
    /// How it is spelt in evidence and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Doubt::NoAnswer => "no_answer",
            Doubt::Unauthorized => "unauthorized_without_error_object",
            Doubt::HttpStatus => "http_status",
            Doubt::UnknownBody => "unknown_body",
            Doubt::Incomplete => "incomplete",
            Doubt::Mismatch => "mismatch",
        }
    }
}

/// imoje's code for an inactive payment profile (imoje API, `POST transaction/profile`, answer 400).
const PROFILE_INACTIVE: &str = "TRX-ERROR-120301";

/// imoje's code for a method that is not available now (imoje API, `POST transaction`, answer 406).
const UNAVAILABLE: &str = "TRX-ERROR-120003";

/// How the codes of errors at the acquirer begin, such as `ACQ-ERROR-130004` (imoje API, `POST transaction`, answer 500).
const ACQUIRER_ERRORS: &str = "ACQ-";

/// imoje's message when a shop sends card data that may not do so.
const CARD_DATA_DISABLED: &str = "plain card data disabled";

/// What the answer to our own debit says.
pub fn classify_debit(http_status: u16, body: &Body, expected: &Expected) -> Verdict {
    classify_answer(http_status, body, expected, is_sale)
}

/// What the answer to our own refund of the transaction `sale` says. `expected` has the order of the sale and the amount of the refund.
pub fn classify_refund(
    sale: TransactionId,
    http_status: u16,
    body: &Body,
    expected: &Expected,
) -> Verdict {
    match body {
        // A refund is "a transaction of its own" with an id of its own (imoje API, refunds).
        Body::Transaction(shown) if shown.id == Some(sale) => Verdict::InDoubt(Doubt::Mismatch),
        Body::Transaction(_) | Body::Error { .. } | Body::Unreadable => {
            classify_answer(http_status, body, expected, is_refund)
        }
    }
}

fn classify_answer(
    http_status: u16,
    body: &Body,
    expected: &Expected,
    is_kind: fn(&ShownTransaction) -> bool,
) -> Verdict {
    match body {
        Body::Transaction(shown) if http_status == 200 => {
            classify_transaction(shown, expected, is_kind)
        }
        Body::Error { code, message } => {
            match refusal_reason(http_status, code, message.as_deref()) {
                Some(reason) => Verdict::Refused(Refusal {
                    reason,
                    http_status,
                    code: code.clone(),
                }),
                None => Verdict::InDoubt(doubt_about(http_status)),
            }
        }
        Body::Transaction(_) | Body::Unreadable => Verdict::InDoubt(doubt_about(http_status)),
    }
}

/// What the answer to `GET transaction/{id}` says about the attempt we asked for, of which `asked` is the id. It is never a refusal:
/// an error here is about our question and not about the money.
pub fn classify_read(
    asked: TransactionId,
    http_status: u16,
    body: &Body,
    expected: &Expected,
) -> Verdict {
    classify_shown(asked, http_status, body, expected, is_sale)
}

/// As [`classify_read`], about the refund `asked`.
pub fn classify_refund_read(
    asked: TransactionId,
    http_status: u16,
    body: &Body,
    expected: &Expected,
) -> Verdict {
    classify_shown(asked, http_status, body, expected, is_refund)
}

fn classify_shown(
    asked: TransactionId,
    http_status: u16,
    body: &Body,
    expected: &Expected,
    is_kind: fn(&ShownTransaction) -> bool,
) -> Verdict {
    match body {
        Body::Transaction(shown) if shown.id.is_some_and(|answered| answered != asked) => {
            Verdict::InDoubt(Doubt::Mismatch)
        }
        Body::Transaction(shown) if http_status == 200 => {
            classify_transaction(shown, expected, is_kind)
        }
        Body::Transaction(_) | Body::Error { .. } | Body::Unreadable => {
            Verdict::InDoubt(doubt_about(http_status))
        }
    }
}

/// A transaction that does not say what it is is a sale: it is what was asked for.
fn is_sale(shown: &ShownTransaction) -> bool {
    shown.kind.as_deref().is_none_or(|kind| kind == "sale")
}

fn is_refund(shown: &ShownTransaction) -> bool {
    shown.kind.as_deref() == Some("refund")
}

/// The whitelist of refusals: which HTTP status, together with imoje's error object, proves that nothing was debited. An error of the
/// acquirer proves nothing under any status, since imoje had gone on to it.
fn refusal_reason(http_status: u16, code: &str, message: Option<&str>) -> Option<RefusalReason> {
    if code.starts_with(ACQUIRER_ERRORS) {
        return None;
    }
    let says_card_data =
        message.is_some_and(|message| message.to_ascii_lowercase().contains(CARD_DATA_DISABLED));
    match http_status {
        400 | 403 | 406 | 422 if says_card_data => Some(RefusalReason::CardDataDisabled),
        400 if code == PROFILE_INACTIVE => Some(RefusalReason::ProfileInactive),
        400 | 404 | 405 | 413 | 415 | 422 => Some(RefusalReason::Invalid),
        401 | 403 => Some(RefusalReason::Unauthorized),
        406 if code == UNAVAILABLE => Some(RefusalReason::Unavailable),
        _ => None,
    }
}

fn doubt_about(http_status: u16) -> Doubt {
    match http_status {
        200..=299 => Doubt::Incomplete,
        401 | 403 => Doubt::Unauthorized,
        400 | 404 | 405 | 406 | 413 | 415 | 422 => Doubt::UnknownBody,
        _ => Doubt::HttpStatus,
    }
}

fn classify_transaction(
    shown: &ShownTransaction,
    expected: &Expected,
    is_kind: fn(&ShownTransaction) -> bool,
) -> Verdict {
    let (
        Some(transaction_id),
        Some(status),
        Some(order_id),
        Some(amount),
        Some(currency),
        Some(service),
    ) = (
        shown.id,
        shown.status.as_deref(),
        shown.order_id.as_deref(),
        shown.amount_minor,
        shown.currency.as_deref(),
        shown.service_id.as_deref(),
    )
    else {
        return Verdict::InDoubt(Doubt::Incomplete);
    };
    let ours = order_id == expected.order_id
        && amount == expected.amount.minor()
        && currency == expected.amount.currency().code()
        && service == expected.service_id
        && is_kind(shown);
    if !ours {
        return Verdict::InDoubt(Doubt::Mismatch);
    }
    of_status(transaction_id, status, shown.status_code.clone())
}

/// What imoje's word for where a transaction of ours stands means.
fn of_status(transaction_id: TransactionId, status: &str, status_code: Option<String>) -> Verdict {
    match status {
        "settled" => Verdict::Settled { transaction_id },
        "rejected" => Verdict::Rejected {
            transaction_id,
            status_code,
        },
        // `new`, `pending`, `authorized`, `error`, `cancelled` and words we do not know: the transaction exists and imoje has
        // not said in writing what they mean for the money, so they block.
        unfinished => Verdict::Pending {
            transaction_id,
            status: unfinished.to_owned(),
        },
    }
}

impl ListedRefund {
    /// What the list says about it.
    pub fn verdict(&self) -> Verdict {
        of_status(self.id, &self.status, None)
    }
}

/// A fact that imoje shows otherwise than it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// imoje's name for it.
    pub field: &'static str,
    /// What it is for the attempt.
    pub expected: String,
    /// What imoje shows, if anything.
    pub shown: Option<String>,
}

/// In what the transaction that imoje shows differs from the one that a person named, and from the attempt. Nothing, when it is the
/// attempt's.
pub fn differences(
    transaction_id: TransactionId,
    expected: &Expected,
    shown: &ShownTransaction,
) -> Vec<Difference> {
    let facts = [
        (
            "id",
            transaction_id.to_string(),
            shown.id.map(|id| id.to_string()),
        ),
        ("orderId", expected.order_id.clone(), shown.order_id.clone()),
        (
            "amount",
            expected.amount.minor().to_string(),
            shown.amount_minor.map(|minor| minor.to_string()),
        ),
        (
            "currency",
            expected.amount.currency().code().to_owned(),
            shown.currency.clone(),
        ),
        (
            "serviceId",
            expected.service_id.clone(),
            shown.service_id.clone(),
        ),
    ];
    // A transaction without a type is a sale; see the classifier.
    let kind = shown.kind.clone().or_else(|| Some("sale".to_owned()));
    facts
        .into_iter()
        .chain([("type", "sale".to_owned(), kind)])
        .filter(|(_, expected, shown)| shown.as_ref() != Some(expected))
        .map(|(field, expected, shown)| Difference {
            field,
            expected,
            shown,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::domain::money::Currency;

    fn expected() -> Expected {
        Expected {
            order_id: "cykl-1".to_owned(),
            amount: Money::new(4900, Currency::Pln).unwrap(),
            service_id: "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b".to_owned(),
        }
    }

    fn id() -> TransactionId {
        TransactionId::from_uuid(Uuid::from_u128(7))
    }

    fn shown(status: &str) -> ShownTransaction {
        ShownTransaction {
            id: Some(id()),
            kind: Some("sale".to_owned()),
            status: Some(status.to_owned()),
            order_id: Some("cykl-1".to_owned()),
            amount_minor: Some(4900),
            currency: Some("PLN".to_owned()),
            service_id: Some("2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b".to_owned()),
            status_code: None,
            masked_number: None,
            profile_id: None,
            first_transaction_id: None,
            created_at: None,
            refunds: None,
        }
    }

    fn transaction(status: &str) -> Body {
        Body::Transaction(Box::new(shown(status)))
    }

    fn error(code: &str) -> Body {
        Body::Error {
            code: code.to_owned(),
            message: None,
        }
    }

    #[test]
    fn only_settled_and_rejected_are_final() {
        let verdict = |status| classify_debit(200, &transaction(status), &expected());
        assert_eq!(
            verdict("settled"),
            Verdict::Settled {
                transaction_id: id()
            }
        );
        assert_eq!(
            verdict("rejected"),
            Verdict::Rejected {
                transaction_id: id(),
                status_code: None
            }
        );
        for status in [
            "new",
            "pending",
            "authorized",
            "authorised",
            "error",
            "cancelled",
            "SETTLED",
            "",
            "submitted",
        ] {
            assert!(
                matches!(verdict(status), Verdict::Pending { .. }),
                "{status}"
            );
        }
    }

    #[test]
    fn an_answer_about_something_else_is_never_believed() {
        let spoil: [fn(&mut ShownTransaction); 5] = [
            |shown| shown.order_id = Some("cykl-2".to_owned()),
            |shown| shown.amount_minor = Some(4901),
            |shown| shown.currency = Some("EUR".to_owned()),
            |shown| shown.service_id = Some("another".to_owned()),
            |shown| shown.kind = Some("refund".to_owned()),
        ];
        for status in ["settled", "rejected", "pending"] {
            for spoil in spoil {
                let mut shown = shown(status);
                spoil(&mut shown);
                let body = Body::Transaction(Box::new(shown));
                for verdict in [
                    classify_debit(200, &body, &expected()),
                    classify_read(id(), 200, &body, &expected()),
                ] {
                    assert_eq!(verdict, Verdict::InDoubt(Doubt::Mismatch));
                }
            }
        }
    }

    #[test]
    fn a_read_that_shows_another_transaction_than_was_asked_for_is_never_believed() {
        let another = TransactionId::from_uuid(Uuid::from_u128(8));
        for status in ["settled", "rejected", "pending"] {
            for http_status in [200, 404, 500] {
                assert_eq!(
                    classify_read(another, http_status, &transaction(status), &expected()),
                    Verdict::InDoubt(Doubt::Mismatch)
                );
            }
        }
    }

    #[test]
    fn a_refund_is_told_from_the_sale_that_it_belongs_to() {
        let sale = TransactionId::from_uuid(Uuid::from_u128(8));
        let refund = |status: &str| ShownTransaction {
            kind: Some("refund".to_owned()),
            ..shown(status)
        };
        let verdict = |shown: ShownTransaction| {
            let body = Body::Transaction(Box::new(shown));
            let answered = classify_refund(sale, 200, &body, &expected());
            let read = classify_refund_read(id(), 200, &body, &expected());
            (answered, read)
        };
        let transaction_id = id();
        let settled = Verdict::Settled { transaction_id };
        assert_eq!(verdict(refund("settled")), (settled.clone(), settled));
        let (new, _) = verdict(refund("new"));
        assert!(matches!(new, Verdict::Pending { .. }));
        let mismatch = Verdict::InDoubt(Doubt::Mismatch);
        let untold = ShownTransaction {
            kind: None,
            ..refund("settled")
        };
        for other in [shown("settled"), untold] {
            assert_eq!(verdict(other), (mismatch.clone(), mismatch.clone()));
        }
        let itself = ShownTransaction {
            id: Some(sale),
            ..refund("settled")
        };
        assert_eq!(verdict(itself).0, mismatch);
        for (http_status, expected_reason) in [
            (422, RefusalReason::Invalid),
            (403, RefusalReason::Unauthorized),
        ] {
            let refused = classify_refund(sale, http_status, &error("X"), &expected());
            assert!(
                matches!(&refused, Verdict::Refused(refusal) if refusal.reason == expected_reason)
            );
        }
        let failed = classify_refund(sale, 500, &error("X"), &expected());
        assert_eq!(failed, Verdict::InDoubt(Doubt::HttpStatus));
    }

    #[test]
    fn a_transaction_with_a_missing_field_is_doubt() {
        let spoil: [fn(&mut ShownTransaction); 6] = [
            |shown| shown.id = None,
            |shown| shown.status = None,
            |shown| shown.order_id = None,
            |shown| shown.amount_minor = None,
            |shown| shown.currency = None,
            |shown| shown.service_id = None,
        ];
        for spoil in spoil {
            let mut shown = shown("rejected");
            spoil(&mut shown);
            let body = Body::Transaction(Box::new(shown));
            assert_eq!(
                classify_debit(200, &body, &expected()),
                Verdict::InDoubt(Doubt::Incomplete)
            );
        }
    }

    #[test]
    fn refusals_need_the_status_and_the_error_object() {
        let listed = [
            (400, PROFILE_INACTIVE, RefusalReason::ProfileInactive),
            (400, "TRX-ERROR-120001", RefusalReason::Invalid),
            (401, "AUTH", RefusalReason::Unauthorized),
            (403, "AUTH", RefusalReason::Unauthorized),
            (404, "X", RefusalReason::Invalid),
            (405, "X", RefusalReason::Invalid),
            (406, "TRX-ERROR-120003", RefusalReason::Unavailable),
            (413, "X", RefusalReason::Invalid),
            (415, "X", RefusalReason::Invalid),
            (422, "TRX-ERROR-120001", RefusalReason::Invalid),
        ];
        for (http_status, code, reason) in listed {
            assert_eq!(
                classify_debit(http_status, &error(code), &expected()),
                Verdict::Refused(Refusal {
                    reason,
                    http_status,
                    code: code.to_owned()
                })
            );
            for body in [
                Body::Unreadable,
                transaction("rejected"),
                transaction("settled"),
            ] {
                let verdict = classify_debit(http_status, &body, &expected());
                assert!(
                    matches!(verdict, Verdict::InDoubt(_)),
                    "{http_status} {body:?}"
                );
            }
        }
        // Only this code is sent again; and where the acquirer was asked, nobody knows what it did.
        for (http_status, code) in [
            (406, "X"),
            (406, "ACQ-ERROR-130004"),
            (422, "ACQ-ERROR-130004"),
            (400, "ACQ-ERROR-130001"),
        ] {
            let verdict = classify_debit(http_status, &error(code), &expected());
            assert_eq!(verdict, Verdict::InDoubt(Doubt::UnknownBody), "{code}");
        }
        // The code of an inactive profile means that only with its status.
        for code in [PROFILE_INACTIVE, "ACQ-ERROR-130004"] {
            let elsewhere = classify_debit(500, &error(code), &expected());
            assert_eq!(elsewhere, Verdict::InDoubt(Doubt::HttpStatus));
        }
    }

    #[test]
    fn a_shop_that_may_not_send_card_data_is_told_by_the_message_of_a_refusal() {
        let body = Body::Error {
            code: "TRX-ERROR-120001".to_owned(),
            message: Some("Cannot process transaction. Plain card data disabled.".to_owned()),
        };
        for http_status in [400, 403, 406, 422] {
            let verdict = classify_debit(http_status, &body, &expected());
            assert!(
                matches!(&verdict, Verdict::Refused(refusal) if refusal.reason == RefusalReason::CardDataDisabled),
                "{http_status}: {verdict:?}"
            );
        }
        for http_status in [200, 302, 429, 500, 503] {
            let verdict = classify_debit(http_status, &body, &expected());
            assert!(matches!(verdict, Verdict::InDoubt(_)), "{http_status}");
        }
    }

    proptest! {
        #[test]
        fn an_unlisted_pair_is_never_a_refusal(
            http_status in 100..=999u16,
            body in prop_oneof![
                Just(Body::Unreadable),
                ("[A-Z0-9-]{0,20}|ACQ-ERROR-[0-9]{6}|TRX-ERROR-120003", prop::option::of("Plain card data disabled.|[a-z ]{0,12}"))
                    .prop_map(|(code, message)| Body::Error { code, message }),
                Just(error(PROFILE_INACTIVE)),
                "[a-z]{0,12}".prop_map(|status| transaction(&status)),
                Just(transaction("settled")),
                Just(transaction("rejected")),
            ],
        ) {
            const LISTED: [u16; 10] = [400, 401, 403, 404, 405, 406, 413, 415, 422, 0];
            let verdict = classify_debit(http_status, &body, &expected());
            let listed = match &body {
                Body::Error { code, .. } if code.starts_with("ACQ-") => false,
                Body::Error { code, message } if http_status == 406 => {
                    code == "TRX-ERROR-120003" || message.as_deref() == Some("Plain card data disabled.")
                }
                Body::Error { .. } => LISTED.contains(&http_status),
                Body::Transaction(_) | Body::Unreadable => false,
            };
            prop_assert_eq!(matches!(verdict, Verdict::Refused(_)), listed);
            if http_status != 200 {
                prop_assert!(matches!(verdict, Verdict::Refused(_) | Verdict::InDoubt(_)));
            }
            prop_assert!(!matches!(classify_read(id(), http_status, &body, &expected()), Verdict::Refused(_)));
        }
    }

    #[test]
    fn a_transaction_is_the_attempts_only_when_all_of_it_is() {
        let expected = expected();
        let shown = ShownTransaction {
            id: Some(id()),
            order_id: Some("cykl-1".to_owned()),
            amount_minor: Some(4900),
            currency: Some("PLN".to_owned()),
            service_id: Some(expected.service_id.clone()),
            ..ShownTransaction::default()
        };
        assert_eq!(differences(id(), &expected, &shown), []);
        let refund = ShownTransaction {
            kind: Some("refund".to_owned()),
            amount_minor: None,
            ..shown
        };
        let fields: Vec<_> = differences(id(), &expected, &refund)
            .into_iter()
            .map(|difference| (difference.field, difference.shown))
            .collect();
        assert_eq!(
            fields,
            [("amount", None), ("type", Some("refund".to_owned()))]
        );
    }
}
