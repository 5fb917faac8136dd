//! Notices: the address that each attempt has for them, and what they say.
//!
//! Every attempt has its own notification address. The token in it names the attempt and is signed with the shop's key, so a
//! notice is put to the right attempt without trusting a word of its body. A notice decides nothing: it gives an id to ask
//! imoje about.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use url::Url;
use uuid::Uuid;

use crate::domain::id::{AttemptId, TransactionId};
use crate::gateway::wire::{Text, TransactionNumber};

/// Keeps these tags apart from everything else that is ever signed with the same key.
const TOKEN_DOMAIN: &[u8] = b"cykl notification token v1\0";

/// How many bytes of the tag are kept: 128 bits, as a forger has only the live endpoint to guess at.
const TAG_BYTES: usize = 16;

/// The token of one attempt: `<attempt id>-<tag>`, each of 32 lower-case hex digits.
pub fn notice_token(attempt_id: AttemptId, key: &SecretString) -> String {
    format!(
        "{}-{}",
        attempt_id.as_uuid().simple(),
        hex::encode(tag(attempt_id, key))
    )
}

/// The attempt that `token` was made for, if it was made with one of `keys`.
///
/// Every key is tried and the comparison takes constant time. An empty key fits nothing.
pub fn verify_notice_token(token: &str, keys: &[SecretString]) -> Option<AttemptId> {
    let (attempt, claimed) = token.split_once('-')?;
    let attempt_id = AttemptId::from_uuid(Uuid::from_bytes(lower_hex(attempt)?));
    let claimed: [u8; TAG_BYTES] = lower_hex(claimed)?;
    let mut fits = Choice::from(0);
    for key in keys {
        let usable = Choice::from(u8::from(!key.expose_secret().is_empty()));
        fits |= usable & tag(attempt_id, key).ct_eq(&claimed);
    }
    bool::from(fits).then_some(attempt_id)
}

/// The address for notices about one attempt: `{public_url}/imoje/notifications/{token}`.
///
/// imoje takes it only without a port and without `localhost`, see
/// [`validate_notification_url`](crate::domain::fields::validate_notification_url).
pub fn notification_url(public_url: &Url, attempt_id: AttemptId, key: &SecretString) -> Url {
    let mut url = registration_url(public_url);
    let path = format!("{}/{}", url.path(), notice_token(attempt_id, key));
    url.set_path(&path);
    url
}

/// The address for notices about payment links, which name no attempt: `{public_url}/imoje/notifications`.
pub fn registration_url(public_url: &Url) -> Url {
    let mut url = public_url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let prefix = public_url.path().trim_end_matches('/');
    url.set_path(&format!("{prefix}/imoje/notifications"));
    url
}

fn tag(attempt_id: AttemptId, key: &SecretString) -> [u8; TAG_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(TOKEN_DOMAIN);
    mac.update(attempt_id.as_uuid().as_bytes());
    let full = mac.finalize().into_bytes();
    let (kept, _) = full.split_first_chunk().expect("SHA-256 has 32 bytes");
    *kept
}

/// Exactly 32 lower-case hex digits.
fn lower_hex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// What a notice says. None of it is believed; the id is asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParsedNotice {
    /// `orderId` of the transaction, or of the payment when there is no transaction.
    pub order_id: Option<String>,
    /// `transaction.id`; absent from notices about a payment link alone.
    pub transaction_id: Option<TransactionId>,
    /// `status` of the transaction, or of the payment when there is no transaction.
    pub status: Option<String>,
    /// `serviceId` of the transaction, or of the payment when there is no transaction.
    pub service_id: Option<String>,
    /// `originalTransactionId`: the debit that a refund is of.
    pub original_transaction_id: Option<TransactionId>,
    /// `transaction.type`; absent when there is no transaction, or a type that imoje's documents do not know.
    pub kind: Option<NoticeKind>,
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoticeKind {
    /// A debit.
    Sale,
    /// Money given back, which is a transaction of its own.
    Refund,
}

/// Why a notice cannot be read, although its signature may fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoticeUnreadable {
    /// It is not JSON, it ends too early, or a member stands in it twice.
    #[error("the notice is not readable JSON")]
    Json,
    /// It is JSON with neither a `transaction` nor a `payment` nor a `paymentProfile` object.
    #[error("the notice is about neither a transaction nor a payment nor a profile")]
    Subject,
}

/// Reads a notice: `transaction` and `payment` objects in any order, or one of them, or a `paymentProfile` alone, which tells nothing. Members that are not known are ignored and
/// unreadable ones are absent.
///
/// # Errors
/// [`NoticeUnreadable`]; such a notice is kept by its hash alone.
pub fn parse_notice(body: &[u8]) -> Result<ParsedNotice, NoticeUnreadable> {
    // The JSON reader passes over members that nobody asked for, even where they are not text.
    let json = std::str::from_utf8(body).map_err(|_| NoticeUnreadable::Json)?;
    let notice: Notice = serde_json::from_str(json).map_err(|_| NoticeUnreadable::Json)?;
    if notice.transaction.is_none() && notice.payment.is_none() && notice.payment_profile.is_none()
    {
        return Err(NoticeUnreadable::Subject);
    }
    let transaction = notice.transaction.unwrap_or_default();
    let payment = notice.payment.unwrap_or_default();
    Ok(ParsedNotice {
        order_id: transaction.order_id.0.or(payment.order_id.0),
        transaction_id: transaction.id.0,
        status: transaction.status.0.or(payment.status.0),
        service_id: transaction.service_id.0.or(payment.service_id.0),
        original_transaction_id: notice.original_transaction_id.0,
        kind: match transaction.kind.0.as_deref() {
            Some("sale") => Some(NoticeKind::Sale),
            Some("refund") => Some(NoticeKind::Refund),
            Some(_) | None => None,
        },
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notice {
    transaction: Option<Subject>,
    payment: Option<Subject>,
    payment_profile: Option<IgnoredAny>,
    #[serde(default)]
    original_transaction_id: TransactionNumber,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    id: TransactionNumber,
    #[serde(rename = "type")]
    kind: Text,
    status: Text,
    order_id: Text,
    service_id: Text,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> SecretString {
        SecretString::from(text)
    }

    fn attempt() -> AttemptId {
        AttemptId::from_uuid(Uuid::from_u128(0x0192_f0c1_a2b3_7c4d_8e5f_6071_8293_a4b5))
    }

    #[test]
    fn a_token_names_its_attempt_and_is_short_enough_for_a_path() {
        let token = notice_token(attempt(), &key("k"));
        assert!(token.starts_with("0192f0c1a2b37c4d8e5f60718293a4b5-"));
        assert_eq!(token.len(), 65);
        assert_eq!(
            verify_notice_token(&token, &[key("other"), key("k")]),
            Some(attempt())
        );
    }

    #[test]
    fn a_token_of_another_key_or_of_no_key_is_refused() {
        let token = notice_token(attempt(), &key("k"));
        assert_eq!(verify_notice_token(&token, &[key("other")]), None);
        assert_eq!(verify_notice_token(&token, &[]), None);
        let unkeyed = notice_token(attempt(), &key(""));
        assert_eq!(verify_notice_token(&unkeyed, &[key("")]), None);
    }

    #[test]
    fn the_tag_is_an_hmac_of_the_attempt_in_its_own_domain() {
        // HMAC-SHA-256 with key "k" over the prefix and the sixteen bytes of the id, computed with another program.
        let token = notice_token(attempt(), &key("k"));
        assert_eq!(
            token,
            "0192f0c1a2b37c4d8e5f60718293a4b5-518db58a23d9258e7dfef298b39fd164"
        );
    }

    #[test]
    fn the_address_of_an_attempt_keeps_the_path_of_the_public_one() {
        let token = notice_token(attempt(), &key("k"));
        for (public, expected) in [
            (
                "https://pay.example.test",
                "https://pay.example.test/imoje/notifications/",
            ),
            (
                "https://pay.example.test/",
                "https://pay.example.test/imoje/notifications/",
            ),
            (
                "https://example.test/cykl/?a=b#c",
                "https://example.test/cykl/imoje/notifications/",
            ),
        ] {
            let url = notification_url(&Url::parse(public).unwrap(), attempt(), &key("k"));
            assert_eq!(url.as_str(), format!("{expected}{token}"));
            assert_eq!(
                crate::domain::fields::validate_notification_url(url.as_str()),
                Ok(())
            );
        }
    }

    #[test]
    fn a_notice_is_read_whatever_the_order_of_its_objects() {
        let id = "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01";
        let transaction = format!(
            r#""transaction":{{"id":"{id}","type":"sale","status":"settled","orderId":"cykl-1","serviceId":"s","amount":1,"new":{{}}}}"#
        );
        let payment = r#""payment":{"id":"e4b1d0aa-6f55-4b7e-a1c2-5f60718293a4","status":"pending","orderId":"cykl-2"}"#;
        let expected = ParsedNotice {
            order_id: Some("cykl-1".to_owned()),
            transaction_id: Some(id.parse().unwrap()),
            status: Some("settled".to_owned()),
            service_id: Some("s".to_owned()),
            original_transaction_id: None,
            kind: Some(NoticeKind::Sale),
        };
        for body in [
            format!("{{{transaction},{payment}}}"),
            format!(r#"{{"action":{{}},{payment},{transaction}}}"#),
            format!("{{{transaction}}}"),
            format!(r#"{{{transaction},"payment":null}}"#),
        ] {
            assert_eq!(
                parse_notice(body.as_bytes()),
                Ok(expected.clone()),
                "{body}"
            );
        }
    }

    #[test]
    fn a_notice_about_a_payment_alone_has_no_transaction_id() {
        let body = r#"{"payment":{"id":"e4b1d0aa-6f55-4b7e-a1c2-5f60718293a4","status":"cancelled","orderId":"o-1","serviceId":"s"}}"#;
        assert_eq!(
            parse_notice(body.as_bytes()),
            Ok(ParsedNotice {
                order_id: Some("o-1".to_owned()),
                status: Some("cancelled".to_owned()),
                service_id: Some("s".to_owned()),
                ..ParsedNotice::default()
            })
        );
    }

    #[test]
    fn unreadable_members_are_absent_and_refunds_are_told_from_sales() {
        let body = r#"{"transaction":{"id":"no","type":"refund","status":7,"orderId":"4111111111111111","serviceId":null}}"#;
        assert_eq!(
            parse_notice(body.as_bytes()),
            Ok(ParsedNotice {
                kind: Some(NoticeKind::Refund),
                ..ParsedNotice::default()
            })
        );
    }

    #[test]
    fn a_refund_names_the_debit_that_it_is_of() {
        let sale = "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01";
        let refund = "9d1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e02";
        let read = |original: &str| {
            let body = format!(
                r#"{{"transaction":{{"id":"{refund}","type":"refund","status":"settled","orderId":"o-1"}},"originalTransactionId":{original}}}"#
            );
            let notice = parse_notice(body.as_bytes()).unwrap();
            (
                notice.transaction_id,
                notice.original_transaction_id,
                notice.kind,
            )
        };
        let kind = Some(NoticeKind::Refund);
        let refund = Some(refund.parse().unwrap());
        assert_eq!(
            read(&format!("{sale:?}")),
            (refund, Some(sale.parse().unwrap()), kind)
        );
        for unreadable in ["null", "7", "\"x\""] {
            assert_eq!(read(unreadable), (refund, None, kind));
        }
    }

    #[test]
    fn what_is_not_a_notice_is_said_to_be_none() {
        for body in [
            "",
            "{",
            "null",
            "ok",
            r#"{"transaction":{"id":"#,
            r#"{"transaction":1}"#,
        ] {
            assert_eq!(
                parse_notice(body.as_bytes()),
                Err(NoticeUnreadable::Json),
                "{body}"
            );
        }
        let ignored = b"{\"transaction\":{\"status\":\"settled\",\"title\":\"\xff\"}}";
        assert_eq!(parse_notice(ignored), Err(NoticeUnreadable::Json));
        let twice = r#"{"transaction":{"status":"settled","status":"rejected"}}"#;
        assert_eq!(parse_notice(twice.as_bytes()), Err(NoticeUnreadable::Json));
        let of_a_profile = parse_notice(br#"{"paymentProfile":{"id":"x","isActive":1}}"#);
        assert_eq!(of_a_profile, Ok(ParsedNotice::default()));
        for body in [
            "{}",
            r#"{"transaction":null}"#,
            r#"{"paymentProfile":null}"#,
        ] {
            assert_eq!(
                parse_notice(body.as_bytes()),
                Err(NoticeUnreadable::Subject),
                "{body}"
            );
        }
    }

    proptest! {
        #[test]
        fn tokens_are_read_back_and_no_two_attempts_share_one(one in any::<u128>(), other in any::<u128>()) {
            let [one, other] = [one, other].map(|id| AttemptId::from_uuid(Uuid::from_u128(id)));
            let keys = [key("current"), key("next")];
            for key in &keys {
                prop_assert_eq!(verify_notice_token(&notice_token(one, key), &keys), Some(one));
            }
            prop_assert_eq!(one == other, notice_token(one, &keys[0]) == notice_token(other, &keys[0]));
        }

        #[test]
        fn any_changed_character_of_a_token_is_noticed(at in 0..65usize, to in "[ -~]") {
            let token = notice_token(attempt(), &key("k"));
            prop_assume!(token[at..=at] != to);
            let changed = format!("{}{to}{}", &token[..at], &token[at + 1..]);
            prop_assert_eq!(verify_notice_token(&changed, &[key("k")]), None);
        }

        #[test]
        fn no_input_makes_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in any::<String>()) {
            let _notice = parse_notice(&bytes);
            prop_assert_eq!(verify_notice_token(&text, &[key("k")]), None);
        }
    }
}
