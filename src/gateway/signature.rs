//! The signature of a notice: whether imoje wrote it.
//!
//! imoje signs with `hex(alg(body ‖ service key))` over the raw bytes of the body (imoje FRONT API, notifications), which is a
//! plain hash and no HMAC, and sends it as
//! `X-Imoje-Signature: merchantid=<id>;serviceid=<uuid>;signature=<hex>;alg=<algorithm>`.
//!
//! A signature that fits proves only that somebody has the key: it never decides about money. Nothing here parses the body,
//! and no error repeats what was received.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use subtle::{Choice, ConstantTimeEq};
use uuid::Uuid;

/// The name of the header that carries the signature; header names do not depend on case.
pub const SIGNATURE_HEADER: &str = "x-imoje-signature";

/// The same of Axepta, the platform under its other name.
pub const AXEPTA_SIGNATURE_HEADER: &str = "x-axepta-signature";

/// The longest header that is looked at. The longest real one has 260 characters.
const HEADER_LENGTH_MAX: usize = 512;

/// The hash of a signature: those that imoje's documents name, and nothing outside of SHA-2 ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `sha224`
    Sha224,
    /// `sha256`
    Sha256,
    /// `sha384`
    Sha384,
    /// `sha512`
    Sha512,
}

impl Algorithm {
    /// All of them: the allow-list unless an operator narrows it.
    pub const ALL: [Algorithm; 4] = [
        Algorithm::Sha224,
        Algorithm::Sha256,
        Algorithm::Sha384,
        Algorithm::Sha512,
    ];

    /// How imoje spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha224 => "sha224",
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }

    fn of_name(name: &str) -> Option<Self> {
        Algorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.as_str() == name)
    }

    const fn output_bytes(self) -> usize {
        match self {
            Algorithm::Sha224 => 28,
            Algorithm::Sha256 => 32,
            Algorithm::Sha384 => 48,
            Algorithm::Sha512 => 64,
        }
    }

    fn sign(self, raw_body: &[u8], key: &[u8]) -> Vec<u8> {
        fn hash<D: Digest>(raw_body: &[u8], key: &[u8]) -> Vec<u8> {
            D::new()
                .chain_update(raw_body)
                .chain_update(key)
                .finalize()
                .to_vec()
        }
        match self {
            Algorithm::Sha224 => hash::<Sha224>(raw_body, key),
            Algorithm::Sha256 => hash::<Sha256>(raw_body, key),
            Algorithm::Sha384 => hash::<Sha384>(raw_body, key),
            Algorithm::Sha512 => hash::<Sha512>(raw_body, key),
        }
    }
}

/// What a notice to one shop must be signed with.
#[derive(Debug, Clone)]
pub struct NoticeCredentials {
    /// The merchant, as in the path of every call.
    pub merchant_id: String,
    /// The shop.
    pub service_id: Uuid,
    /// The shop's key, and during a change of keys the previous one too. An empty key fits nothing.
    pub service_keys: Vec<SecretString>,
}

/// Why a notice is not imoje's. It says nothing about keys or signatures that could help a forger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoticeRejected {
    /// The header is not written as imoje writes it.
    #[error("the signature header is malformed")]
    Header,
    /// The hash is not in the allow-list.
    #[error("the signature uses an algorithm that is not allowed")]
    Algorithm,
    /// It is signed for another merchant or shop.
    #[error("the notice is signed for another merchant or shop")]
    Shop,
    /// No key of ours gives this signature: forged, damaged on the way, or signed with a key that was changed.
    #[error("the signature does not fit the body")]
    Signature,
}

/// Whether imoje signed `raw_body` for the shop of `credentials`.
///
/// `header` is the value of [`SIGNATURE_HEADER`], `raw_body` are the bytes as they came. Every key is tried whatever the others
/// give, and signatures are compared in constant time, so the answer takes equally long for every wrong signature.
///
/// # Errors
/// The first reason to refuse it, in the order header, algorithm, shop, signature.
pub fn verify_notice(
    header: &str,
    raw_body: &[u8],
    credentials: &NoticeCredentials,
    allowed: &[Algorithm],
) -> Result<(), NoticeRejected> {
    let claim = Claim::parse(header).ok_or(NoticeRejected::Header)?;
    let algorithm = Algorithm::of_name(claim.algorithm)
        .filter(|algorithm| allowed.contains(algorithm))
        .ok_or(NoticeRejected::Algorithm)?;
    let signature = signature_bytes(claim.signature, algorithm).ok_or(NoticeRejected::Header)?;
    if claim.merchant_id != credentials.merchant_id
        || claim.service_id != credentials.service_id.to_string()
    {
        return Err(NoticeRejected::Shop);
    }
    let mut fits = Choice::from(0);
    for key in &credentials.service_keys {
        let key = key.expose_secret().as_bytes();
        let usable = Choice::from(u8::from(!key.is_empty()));
        fits |= usable & algorithm.sign(raw_body, key).ct_eq(&signature);
    }
    if fits.into() {
        Ok(())
    } else {
        Err(NoticeRejected::Signature)
    }
}

/// What the header says, not yet believed.
struct Claim<'a> {
    merchant_id: &'a str,
    service_id: &'a str,
    signature: &'a str,
    algorithm: &'a str,
}

impl<'a> Claim<'a> {
    /// Reads the four fields in the documented order, each once and nothing else. Spaces after a `;` are tolerated, because
    /// proxies that fold headers add them; they carry no meaning, so they help no forger.
    fn parse(header: &'a str) -> Option<Self> {
        if header.len() > HEADER_LENGTH_MAX {
            return None;
        }
        let mut fields = header.split(';');
        let mut next = |name: &str| {
            fields
                .next()?
                .trim_start_matches(' ')
                .strip_prefix(name)?
                .strip_prefix('=')
        };
        let claim = Self {
            merchant_id: next("merchantid")?,
            service_id: next("serviceid")?,
            signature: next("signature")?,
            algorithm: next("alg")?,
        };
        fields.next().is_none().then_some(claim)
    }
}

/// The bytes of a signature in lower-case hex of exactly the length that the algorithm has.
fn signature_bytes(signature: &str, algorithm: Algorithm) -> Option<Vec<u8>> {
    if signature.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    hex::decode(signature)
        .ok()
        .filter(|bytes| bytes.len() == algorithm.output_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BODY_1: &str = r#"{"transaction":{"id":"7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01","type":"sale","status":"settled","source":"api","created":1790000000,"modified":1790000007,"notificationUrl":"https://billing.example.test/imoje/n","serviceId":"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b","amount":4900,"currency":"PLN","title":"Abonament 2026-10","orderId":"inv-1042-a1","paymentMethod":"card","paymentMethodCode":"recurring","paymentProfile":{"id":"c0de0b1e-1111-4222-8333-9a4b5c6d7e8f","merchantMid":"simmerchant000000001","merchantCustomerId":"cus-77-card-1","firstName":"Anna","lastName":"Nowak","maskedNumber":"****4242","month":"09","year":"2030","organization":"VISA","isActive":1,"profile":"RECURRING"},"statusCode":"CODE_000","statusCodeDescription":"CODE_000 - OK"},"payment":{"id":"e4b1d0aa-6f55-4b7e-a1c2-5f60718293a4","title":"Abonament 2026-10","amount":4900,"status":"settled","created":1790000000,"orderId":"inv-1042-a1","currency":"PLN","modified":1790000007,"serviceId":"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b","notificationUrl":"https://billing.example.test/imoje/n"}}"#;
    const BODY_2: &str = r#"{"payment":{"id":"e4b1d0aa-6f55-4b7e-a1c2-5f60718293a4","title":"Łódź","amount":1,"status":"cancelled","created":1790000000,"orderId":"o-1","currency":"PLN","modified":1790000001,"serviceId":"2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b","notificationUrl":"https://billing.example.test/n"}}"#;
    const SHA256_OF_1: &str = "c6aa500625d7d1edfa27e96941ef7b74a8c3893b25e5e1b3bc66ff38300f6848";
    const VECTORS: [(&str, &str, &str); 5] = [
        (BODY_1, "sha256", SHA256_OF_1),
        (
            BODY_1,
            "sha224",
            "e9c7659929f275321f26598cb2f341ce2f03c7be22efba657f76e744",
        ),
        (
            BODY_1,
            "sha384",
            "0126d74348de33779893ad4c4bebdbf8a6d6ab6324e4913f8f040582ac2bda82eb90577e5c093c160a562c4081cdd7cf",
        ),
        (
            BODY_1,
            "sha512",
            "5422e78f0b5ca1832e1205f9349644b10af64afe0b4760ed5c9d9b7ace3749e092a030d0dd5706298b58f6ffc29b457f2131d46ea574207cd7deff0752991a5b",
        ),
        (
            BODY_2,
            "sha256",
            "851dd39a58f95ceed28810a1783c242d389b6362676923693d801e2151599f04",
        ),
    ];

    fn credentials(keys: &[&str]) -> NoticeCredentials {
        NoticeCredentials {
            merchant_id: "simmerchant000000001".to_owned(),
            service_id: Uuid::parse_str("2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b").unwrap(),
            service_keys: keys.iter().map(|&key| SecretString::from(key)).collect(),
        }
    }

    fn ours() -> NoticeCredentials {
        credentials(&["sim-service-key-000"])
    }

    fn header(signature: &str, algorithm: &str) -> String {
        format!(
            "merchantid=simmerchant000000001;serviceid=2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b;signature={signature};alg={algorithm}"
        )
    }

    fn verify(header: &str, body: &[u8]) -> Result<(), NoticeRejected> {
        verify_notice(header, body, &ours(), &Algorithm::ALL)
    }

    #[test]
    fn the_test_vectors_fit() {
        for (body, algorithm, signature) in VECTORS {
            assert_eq!(
                verify(&header(signature, algorithm), body.as_bytes()),
                Ok(()),
                "{algorithm}"
            );
        }
    }

    #[test]
    fn the_current_key_and_the_previous_one_both_fit() {
        for keys in [
            ["sim-service-key-000", "another"],
            ["another", "sim-service-key-000"],
        ] {
            let header = header(SHA256_OF_1, "sha256");
            assert_eq!(
                verify_notice(
                    &header,
                    BODY_1.as_bytes(),
                    &credentials(&keys),
                    &Algorithm::ALL
                ),
                Ok(())
            );
        }
    }

    #[test]
    fn without_a_key_nothing_fits() {
        let unkeyed = hex::encode(Algorithm::Sha256.sign(BODY_1.as_bytes(), b""));
        for keys in [&[][..], &[""], &["another"]] {
            for signature in [SHA256_OF_1, &unkeyed] {
                assert_eq!(
                    verify_notice(
                        &header(signature, "sha256"),
                        BODY_1.as_bytes(),
                        &credentials(keys),
                        &Algorithm::ALL
                    ),
                    Err(NoticeRejected::Signature)
                );
            }
        }
    }

    #[test]
    fn only_allowed_algorithms_count() {
        let sha512 = header(VECTORS[3].2, "sha512");
        let allowed = [Algorithm::Sha256];
        assert_eq!(
            verify_notice(&sha512, BODY_1.as_bytes(), &ours(), &allowed),
            Err(NoticeRejected::Algorithm)
        );
        for name in ["md5", "SHA256", "sha1", "", "sha256 "] {
            assert_eq!(
                verify(&header(SHA256_OF_1, name), BODY_1.as_bytes()),
                Err(NoticeRejected::Algorithm)
            );
        }
    }

    #[test]
    fn notices_for_other_shops_are_rejected() {
        let fine = header(SHA256_OF_1, "sha256");
        for (from, to) in [
            ("simmerchant000000001", "simmerchant000000002"),
            ("2b8a4e1c", "2b8a4e1d"),
            ("2b8a4e1c", "2B8A4E1C"),
        ] {
            assert_eq!(
                verify(&fine.replace(from, to), BODY_1.as_bytes()),
                Err(NoticeRejected::Shop)
            );
        }
    }

    #[test]
    fn the_header_has_the_four_fields_in_order_once_each() {
        let fine = header(SHA256_OF_1, "sha256");
        let spaced = fine.replace(';', ";  ");
        assert_eq!(verify(&spaced, BODY_1.as_bytes()), Ok(()));
        let (ids, rest) = fine.split_once(";signature").unwrap();
        for wrong in [
            String::new(),
            format!("{fine};"),
            format!("{fine};alg=sha256"),
            format!("{fine};x=y"),
            format!(" ;{fine}"),
            ids.to_owned(),
            format!("signature{rest};{ids}"),
            fine.replace("signature=", "Signature="),
            fine.replace("signature=", "signature ="),
            fine.replace(SHA256_OF_1, &SHA256_OF_1.to_uppercase()),
            fine.replace(SHA256_OF_1, &SHA256_OF_1[2..]),
            fine.replace(SHA256_OF_1, &format!("{SHA256_OF_1}00")),
            fine.replace(SHA256_OF_1, &"zz".repeat(32)),
            fine.replace(SHA256_OF_1, ""),
            format!("{fine}{}", " ".repeat(600)),
        ] {
            assert_eq!(
                verify(&wrong, BODY_1.as_bytes()),
                Err(NoticeRejected::Header),
                "{wrong}"
            );
        }
    }

    #[test]
    fn keys_do_not_show_in_debug_output() {
        assert!(!format!("{:?}", ours()).contains("sim-service-key"));
    }

    proptest! {
        #[test]
        fn any_changed_byte_of_the_body_is_noticed(at in any::<prop::sample::Index>(), change in 1..=255u8) {
            let mut body = BODY_1.as_bytes().to_vec();
            *at.get_mut(&mut body) ^= change;
            prop_assert_eq!(
                verify(&header(SHA256_OF_1, "sha256"), &body),
                Err(NoticeRejected::Signature)
            );
        }

        #[test]
        fn any_changed_character_of_the_header_is_noticed(at in any::<prop::sample::Index>(), to in "[ -~]") {
            let fine = header(SHA256_OF_1, "sha256");
            let at = at.index(fine.len());
            prop_assume!(fine[at..=at] != to);
            let changed = format!("{}{to}{}", &fine[..at], &fine[at + 1..]);
            prop_assert!(verify(&changed, BODY_1.as_bytes()).is_err());
        }

        #[test]
        fn a_body_that_was_cut_or_extended_is_noticed(length in 0..BODY_1.len(), more in prop::collection::vec(any::<u8>(), 1..20)) {
            let fine = header(SHA256_OF_1, "sha256");
            prop_assert!(verify(&fine, &BODY_1.as_bytes()[..length]).is_err());
            prop_assert!(verify(&fine, &[BODY_1.as_bytes(), &more].concat()).is_err());
        }

        #[test]
        fn no_header_makes_the_check_panic(header in any::<String>()) {
            prop_assert!(verify(&header, b"body").is_err());
        }
    }
}
