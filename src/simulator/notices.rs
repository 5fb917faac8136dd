//! What a notice looks like, how it is signed, and when it is repeated. Source: imoje API, notifications.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use uuid::Uuid;

use super::{
    SimulatedShop,
    answers::{ProfileJson, TransactionJson},
    behaviour::Algorithm,
    book::{NoticeJob, Told},
    course::Course,
    ledger::{Notice, Transaction},
    links::Link,
    profile::ProfileNow,
};

/// Tries of one notice: 3 every 10 seconds, 5 every 5 minutes, 5 every hour, 5 every 6 hours, 5 every 12 hours.
pub(super) const TRIES: u8 = 23;

/// The time between a try and the next, or `None` after the last. The first try is made at once, so the last is made
/// 95 hours and 25 minutes later.
pub(super) fn gap_after(try_number: u8) -> Option<TimeDelta> {
    match try_number {
        0..=2 => Some(TimeDelta::seconds(10)),
        3..=7 => Some(TimeDelta::minutes(5)),
        8..=12 => Some(TimeDelta::minutes(60)),
        13..=17 => Some(TimeDelta::minutes(360)),
        18..TRIES => Some(TimeDelta::minutes(720)),
        TRIES.. => None,
    }
}

/// A notice as it goes over the wire.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) url: String,
    pub(super) signature: String,
    pub(super) body: String,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<TransactionJson<'a>>,
    payment: PaymentJson<'a>,
    #[serde(rename = "paymentProfile", skip_serializing_if = "Option::is_none")]
    payment_profile: Option<ProfileJson<'a>>,
    #[serde(
        rename = "originalTransactionId",
        skip_serializing_if = "Option::is_none"
    )]
    original_transaction_id: Option<Uuid>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PaymentJson<'a> {
    id: Uuid,
    title: &'a str,
    amount: u32,
    status: &'a str,
    created: i64,
    order_id: &'a str,
    currency: &'static str,
    modified: i64,
    service_id: Uuid,
    notification_url: &'a str,
}

/// Writes and signs a notice. `None` if there is nowhere to send it.
pub(super) fn letter(job: &NoticeJob) -> Option<Letter> {
    match &job.told {
        Told::Step {
            transaction,
            profile,
            step,
        } => about_transaction(transaction, profile, *step),
        Told::Forgery(model, profile) => about_transaction(&forge(model)?, profile, 0),
        Told::End(link) => about_link(link),
    }
}

fn about_transaction(
    transaction: &Transaction,
    profile: &ProfileNow,
    step: usize,
) -> Option<Letter> {
    let course: &Course = &transaction.course;
    let wanted = &course.notices;
    let url = transaction.notification_url()?;
    let view = TransactionJson::new(transaction, profile, step).with_status_code();
    let (view, beside) = if wanted.profile_beside {
        view.without_profile()
    } else {
        (view, None)
    };
    let payment = PaymentJson {
        id: transaction.payment_id,
        title: &transaction.title,
        amount: transaction.amount_minor,
        status: &course.step(step).status,
        created: transaction.created_at.timestamp(),
        order_id: &transaction.order_id,
        currency: transaction.currency.code(),
        modified: course.begins(step, transaction.created_at).timestamp(),
        service_id: transaction.service_id(),
        notification_url: url,
    };
    let body = Body {
        transaction: (!wanted.payment_only).then_some(view),
        payment,
        payment_profile: beside,
        original_transaction_id: transaction.refund_of,
    };
    let key = if wanted.wrong_key {
        "not-the-service-key"
    } else {
        &transaction.shop.service_key
    };
    Some(sealed(&transaction.shop, url, &body, key, wanted.algorithm))
}

/// "A notice about a link that was cancelled or has expired holds the `payment` object alone" (imoje API, notifications).
fn about_link(link: &Link) -> Option<Letter> {
    let url = link.notification_url()?;
    let payment = PaymentJson {
        id: link.id,
        title: link.text("title").unwrap_or_default(),
        amount: link.amount_minor,
        status: "cancelled",
        created: link.created_at.timestamp(),
        order_id: &link.order_id,
        currency: link.currency.code(),
        modified: link.modified_at.timestamp(),
        service_id: link.shop.service_id,
        notification_url: url,
    };
    let body = Body {
        transaction: None,
        payment,
        payment_profile: None,
        original_transaction_id: None,
    };
    let key = &link.shop.service_key;
    Some(sealed(&link.shop, url, &body, key, Algorithm::default()))
}

fn sealed(
    shop: &SimulatedShop,
    url: &str,
    body: &Body<'_>,
    key: &str,
    algorithm: Algorithm,
) -> Letter {
    let body = serde_json::to_string(body).expect("a notice has text keys only");
    Letter {
        url: url.to_owned(),
        signature: header(shop, &body, key, algorithm),
        body,
    }
}

/// A settled transaction that never was, for the order that the script names.
fn forge(model: &Transaction) -> Option<Transaction> {
    let order_id = model.course.notices.forged_order.as_deref()?;
    let settled = Course::new(
        &super::behaviour::Fate::SettleAtOnce,
        model.course.notices.clone(),
        std::time::Duration::ZERO,
    );
    Some(Transaction {
        id: Uuid::new_v4(),
        payment_id: Uuid::new_v4(),
        order_id: order_id.into(),
        course: Arc::new(settled),
        ..model.clone()
    })
}

/// The record of a notice that was sent.
pub(super) fn record(job: &NoticeJob, at: DateTime<Utc>, answer: Option<u16>) -> Notice {
    let (transaction_id, order_id, status): (_, Arc<str>, Arc<str>) = match &job.told {
        Told::Step {
            transaction, step, ..
        } => (
            Some(transaction.id),
            Arc::clone(&transaction.order_id),
            Arc::clone(&transaction.course.step(*step).status),
        ),
        Told::Forgery(model, _) => {
            let order_id = model.course.notices.forged_order.as_deref();
            let order_id = order_id.unwrap_or(&model.order_id).into();
            (None, order_id, "settled".into())
        }
        Told::End(link) => (None, Arc::clone(&link.order_id), "cancelled".into()),
    };
    Notice {
        at,
        transaction_id,
        order_id,
        status,
        try_number: job.item.try_number,
        answer,
    }
}

/// `X-Imoje-Signature`, with its fields in the order that shops' parsers rely on.
fn header(shop: &SimulatedShop, body: &str, key: &str, algorithm: Algorithm) -> String {
    format!(
        "merchantid={};serviceid={};signature={};alg={}",
        shop.merchant_id,
        shop.service_id,
        sign(body, key, algorithm),
        algorithm.name()
    )
}

/// `hex(alg(body + key))`: a plain hash with the key at the end, not an HMAC.
fn sign(body: &str, key: &str, algorithm: Algorithm) -> String {
    fn hash<D: Digest>(body: &str, key: &str) -> String {
        hex::encode(D::new().chain_update(body).chain_update(key).finalize())
    }
    match algorithm {
        Algorithm::Sha224 => hash::<Sha224>(body, key),
        Algorithm::Sha256 => hash::<Sha256>(body, key),
        Algorithm::Sha384 => hash::<Sha384>(body, key),
        Algorithm::Sha512 => hash::<Sha512>(body, key),
    }
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Sha224 => "sha224",
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::simulator::{
        agenda::{NoticeItem, Topic},
        behaviour::{Fate, Notices},
        currency::Currency,
        profile::SimulatedProfile,
    };

    const KEY: &str = "sim-service-key-000";
    const BODY: &str = r#"{"transaction":{"id":"7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01","type":"sale","status":"settled","source":"api","created":1790000000,"modified":1790000007,"notificationUrl":"https://billing.example.test/imoje/n","serviceId":"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b","amount":4900,"currency":"PLN","title":"Abonament 2026-10","orderId":"inv-1042-a1","paymentMethod":"card","paymentMethodCode":"recurring","paymentProfile":{"id":"c0de0b1e-1111-4222-8333-9a4b5c6d7e8f","merchantMid":"simmerchant000000001","merchantCustomerId":"cus-77-card-1","firstName":"Anna","lastName":"Nowak","maskedNumber":"****4242","month":"09","year":"2030","organization":"VISA","isActive":1,"profile":"RECURRING"},"statusCode":"CODE_000","statusCodeDescription":"CODE_000 - OK"},"payment":{"id":"e4b1d0aa-6f55-4b7e-a1c2-5f60718293a4","title":"Abonament 2026-10","amount":4900,"status":"settled","created":1790000000,"orderId":"inv-1042-a1","currency":"PLN","modified":1790000007,"serviceId":"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b","notificationUrl":"https://billing.example.test/imoje/n"}}"#;

    fn shop() -> SimulatedShop {
        SimulatedShop {
            merchant_id: "simmerchant000000001".to_owned(),
            service_id: "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b".parse().unwrap(),
            token: "sim-token".to_owned(),
            service_key: KEY.to_owned(),
            notify_url: None,
        }
    }

    fn job(notices: Notices, forged: bool) -> NoticeJob {
        let fate = Fate::SettleAfter(Duration::from_secs(7));
        let profile = SimulatedProfile {
            masked_number: "****4242".to_owned(),
            ..SimulatedProfile::new("c0de0b1e-1111-4222-8333-9a4b5c6d7e8f".parse().unwrap())
                .with_cid("cus-77-card-1")
                .expiring(9, 2030)
        };
        let transaction = Box::new(Transaction {
            id: "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01".parse().unwrap(),
            refund_of: None,
            payment_id: "e4b1d0aa-6f55-4b7e-a1c2-5f60718293a4".parse().unwrap(),
            payment_profile_id: profile.id,
            profile_type: None,
            is_by_link: false,
            order_id: "inv-1042-a1".into(),
            title: "Abonament 2026-10".into(),
            amount_minor: 4900,
            currency: Currency::Pln,
            created_at: DateTime::from_timestamp(1_790_000_000, 0).unwrap(),
            notification_url: Some("https://billing.example.test/imoje/n".into()),
            shop: Arc::new(shop()),
            course: Arc::new(Course::new(&fate, notices, Duration::ZERO)),
        });
        let profile = ProfileNow {
            profile: Arc::new(profile),
            is_active: true,
            debits: 0,
            is_plain: false,
        };
        let (topic, told) = if forged {
            let told = Told::Forgery(transaction, profile);
            (Topic::Forgery { position: 0 }, told)
        } else {
            let told = Told::Step {
                transaction,
                profile,
                step: 1,
            };
            (
                Topic::Step {
                    position: 0,
                    step: 1,
                },
                told,
            )
        };
        NoticeJob {
            item: NoticeItem {
                topic,
                try_number: 1,
            },
            told,
        }
    }

    #[test]
    fn signatures_match_the_test_vectors() {
        for (algorithm, expected) in [
            (
                Algorithm::Sha224,
                "e9c7659929f275321f26598cb2f341ce2f03c7be22efba657f76e744",
            ),
            (
                Algorithm::Sha256,
                "c6aa500625d7d1edfa27e96941ef7b74a8c3893b25e5e1b3bc66ff38300f6848",
            ),
            (
                Algorithm::Sha384,
                "0126d74348de33779893ad4c4bebdbf8a6d6ab6324e4913f8f040582ac2bda82eb90577e5c093c160a562c4081cdd7cf",
            ),
            (
                Algorithm::Sha512,
                "5422e78f0b5ca1832e1205f9349644b10af64afe0b4760ed5c9d9b7ace3749e092a030d0dd5706298b58f6ffc29b457f2131d46ea574207cd7deff0752991a5b",
            ),
        ] {
            assert_eq!(sign(BODY, KEY, algorithm), expected);
        }
        let payment_only = r#"{"payment":{"id":"e4b1d0aa-6f55-4b7e-a1c2-5f60718293a4","title":"Łódź","amount":1,"status":"cancelled","created":1790000000,"orderId":"o-1","currency":"PLN","modified":1790000001,"serviceId":"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b","notificationUrl":"https://billing.example.test/n"}}"#;
        assert_eq!(
            sign(payment_only, KEY, Algorithm::Sha256),
            "851dd39a58f95ceed28810a1783c242d389b6362676923693d801e2151599f04"
        );
    }

    #[test]
    fn a_notice_is_written_and_signed_as_documented() {
        let letter = letter(&job(Notices::default(), false)).unwrap();
        assert_eq!(letter.body, BODY);
        assert_eq!(letter.url, "https://billing.example.test/imoje/n");
        assert_eq!(
            letter.signature,
            "merchantid=simmerchant000000001;serviceid=2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b;\
             signature=c6aa500625d7d1edfa27e96941ef7b74a8c3893b25e5e1b3bc66ff38300f6848;alg=sha256"
        );
    }

    #[test]
    fn a_notice_can_be_signed_with_the_wrong_key_and_say_only_the_payment() {
        let notices = Notices {
            wrong_key: true,
            payment_only: true,
            ..Notices::default()
        };
        let letter = letter(&job(notices, false)).unwrap();
        assert!(letter.body.starts_with(r#"{"payment":{"id":"e4b1d0aa"#));
        assert!(
            !letter
                .signature
                .contains(&sign(&letter.body, KEY, Algorithm::Sha256))
        );
    }

    #[test]
    fn a_forged_notice_is_signed_with_the_right_key_for_an_order_nobody_debited() {
        let notices = Notices {
            forged_order: Some("ghost-1".to_owned()),
            ..Notices::default()
        };
        let letter = letter(&job(notices, true)).unwrap();
        let body: serde_json::Value = serde_json::from_str(&letter.body).unwrap();
        assert_eq!(body["transaction"]["orderId"], "ghost-1");
        assert_eq!(body["payment"]["status"], "settled");
        assert_ne!(
            body["transaction"]["id"],
            "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01"
        );
        assert!(
            letter
                .signature
                .contains(&sign(&letter.body, KEY, Algorithm::Sha256))
        );
    }

    #[test]
    fn a_notice_is_tried_23_times_over_95_hours_and_25_minutes() {
        let gaps: Vec<TimeDelta> = (1..).map_while(gap_after).collect();
        assert_eq!(gaps.len() + 1, usize::from(TRIES));
        let total: TimeDelta = gaps.iter().sum();
        assert_eq!(
            total,
            TimeDelta::hours(95) + TimeDelta::minutes(25) + TimeDelta::seconds(20)
        );
    }
}
