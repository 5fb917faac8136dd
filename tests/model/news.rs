//! What the gateway says, in the words of the program: the answers are made up here and read by its own classifier.

use cykl::domain::answer::{
    Body, Doubt, Expected, ShownTransaction, Verdict, classify_debit, classify_read,
};
use cykl::domain::id::TransactionId;
use cykl::domain::money::{Currency, Money};
use cykl::domain::resolution::News;
use uuid::Uuid;

use crate::bookkeeping::Rules;
use crate::configuration::Variant;
use crate::world::{FOREIGN, Fate, Reading, Refusal, Shown, Word};

/// imoje's code for an inactive profile (imoje API, `POST transaction/profile`).
const PROFILE_INACTIVE: &str = "TRX-ERROR-120301";

/// The issuer's word on every decline here: try again another day.
pub const DECLINE_CODE: &str = "CODE_51";

const SERVICE: &str = "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b";
const AMOUNT_MINOR: i64 = 4900;

/// The order of somebody else, which has no attempt of ours.
const FOREIGN_ORDER: u8 = 99;

/// What an instance learnt about the request of `attempt`.
pub fn of_word(attempt: u8, word: Word, rules: &Rules) -> News {
    let (http_status, body) = match word {
        Word::NotSent => return News::NotSent,
        Word::Nothing if rules.is(Variant::SilenceIsNotSent) => return News::NotSent,
        Word::Nothing => return News::Answered(Verdict::InDoubt(Doubt::NoAnswer)),
        Word::Fault if rules.is(Variant::FaultIsRefusal) => refused(Refusal::Unavailable),
        Word::Fault => (503, Body::Unreadable),
        Word::Refused(refusal) => refused(refusal),
        Word::Shown(transaction, fate) => (200, shown(attempt, transaction, fate)),
    };
    let verdict = classify_debit(http_status, &body, &expected(attempt));
    News::Answered(believed(verdict, rules))
}

/// What a read showed.
pub fn of_reading(reading: Reading, rules: &Rules) -> News {
    let (order, fate) = match reading.shown {
        Shown::Ours { order, fate } => (order, fate),
        Shown::Foreign => (FOREIGN_ORDER, Fate::DeclinedForGood),
        Shown::Invented => {
            return News::Read(Verdict::Rejected {
                transaction_id: transaction_id(FOREIGN),
                status_code: Some(DECLINE_CODE.to_owned()),
            });
        }
    };
    let expected = if rules.is(Variant::EchoNotCompared) {
        expected(order)
    } else {
        expected(reading.permit.attempt)
    };
    let asked = transaction_id(reading.transaction);
    let body = shown(order, reading.transaction, fate);
    News::Read(believed(classify_read(asked, 200, &body, &expected), rules))
}

/// imoje's id of a transaction.
pub fn transaction_id(transaction: u8) -> TransactionId {
    TransactionId::from_uuid(Uuid::from_u128(u128::from(transaction) + 1))
}

/// The transaction that has this id.
pub fn transaction_of(id: TransactionId) -> u8 {
    u8::try_from(id.as_uuid().as_u128() - 1).expect("made by `transaction_id`")
}

/// What is made of a verdict: nothing, unless that is what is broken.
fn believed(verdict: Verdict, rules: &Rules) -> Verdict {
    if let Verdict::Pending { transaction_id, .. } = verdict
        && rules.is(Variant::PendingIsPaid)
    {
        return Verdict::Settled { transaction_id };
    }
    verdict
}

fn refused(refusal: Refusal) -> (u16, Body) {
    let (http_status, code) = match refusal {
        Refusal::Unavailable => (406, "TRX-ERROR-120003"),
        Refusal::Invalid => (422, "TRX-ERROR-120001"),
        Refusal::ProfileInactive => (400, PROFILE_INACTIVE),
    };
    let code = code.to_owned();
    (
        http_status,
        Body::Error {
            code,
            message: None,
        },
    )
}

fn shown(order: u8, transaction: u8, fate: Fate) -> Body {
    let (status, status_code) = match fate {
        Fate::Open => ("pending", None),
        Fate::Settled => ("settled", None),
        Fate::Declined | Fate::DeclinedForGood => ("rejected", Some(DECLINE_CODE.to_owned())),
    };
    Body::Transaction(Box::new(ShownTransaction {
        id: Some(transaction_id(transaction)),
        kind: Some("sale".to_owned()),
        status: Some(status.to_owned()),
        order_id: Some(order_id(order)),
        amount_minor: Some(AMOUNT_MINOR),
        currency: Some(Currency::Pln.code().to_owned()),
        service_id: Some(SERVICE.to_owned()),
        status_code,
        masked_number: None,
        profile_id: None,
        first_transaction_id: None,
        created_at: None,
        refunds: None,
    }))
}

fn expected(attempt: u8) -> Expected {
    Expected {
        order_id: order_id(attempt),
        amount: Money::new(AMOUNT_MINOR, Currency::Pln).expect("49.00 PLN is an amount"),
        service_id: SERVICE.to_owned(),
    }
}

fn order_id(attempt: u8) -> String {
    format!("cykl-{attempt}")
}
