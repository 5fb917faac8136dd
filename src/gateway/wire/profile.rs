//! What an answer about stored cards shows.

use serde::Deserialize;

use super::members::{Flag, Text, Whole, uuid};
use crate::domain::id::ProfileId;
use crate::gateway::answer::{Profile, ProfileKind};

/// The profile in an answer, wrapped or bare, if it has an id.
pub(in crate::gateway) fn read_profile(bytes: &[u8]) -> Option<Profile> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wrapped {
        payment_profile: ProfileMembers,
    }
    let members = match serde_json::from_slice::<Wrapped>(bytes) {
        Ok(wrapped) => wrapped.payment_profile,
        Err(_) => serde_json::from_slice(bytes).ok()?,
    };
    members.shown()
}

/// The profiles in an answer, if each of them has an id.
pub(in crate::gateway) fn read_profiles(bytes: &[u8]) -> Option<Vec<Profile>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wrapped {
        payment_profiles: Vec<ProfileMembers>,
    }
    let wrapped: Wrapped = serde_json::from_slice(bytes).ok()?;
    wrapped
        .payment_profiles
        .into_iter()
        .map(ProfileMembers::shown)
        .collect()
}

impl ProfileMembers {
    fn shown(self) -> Option<Profile> {
        Some(Profile {
            id: ProfileId::from_uuid(uuid(self.id.0.as_deref()?)?),
            is_active: self.is_active.0,
            cid: self.merchant_customer_id.0,
            masked_number: self.masked_number.0,
            month: self
                .month
                .0
                .and_then(|month| u8::try_from(month).ok())
                .filter(|month| (1..=12).contains(month)),
            year: self.year.0.and_then(full_year),
            organization: self.organization.0,
            kind: match self.profile.0.as_deref() {
                Some("RECURRING") => Some(ProfileKind::Recurring),
                Some("ONE_CLICK") => Some(ProfileKind::OneClick),
                Some(_) | None => None,
            },
            first_transaction_id: self.first_transaction_id.0,
        })
    }
}

/// Years are documented with four digits; the sandbox cards are printed with two.
fn full_year(year: i64) -> Option<u16> {
    let year = u16::try_from(year).ok()?;
    match year {
        0..=99 => Some(2000 + year),
        2000..=2999 => Some(year),
        _ => None,
    }
}

/// The members of a profile that Cykl reads. The name and the e-mail address of the payer are not among them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ProfileMembers {
    #[serde(default)]
    id: Text,
    #[serde(default)]
    is_active: Flag,
    #[serde(default)]
    merchant_customer_id: Text,
    #[serde(default)]
    masked_number: Text,
    #[serde(default)]
    month: Whole,
    #[serde(default)]
    year: Whole,
    #[serde(default)]
    organization: Text,
    #[serde(default)]
    profile: Text,
    #[serde(default)]
    first_transaction_id: Text,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_profile_is_read_in_all_its_spellings() {
        let id = "c0de0b1e-1111-4222-8333-9a4b5c6d7e8f";
        let documented = json!({
            "id": id, "merchantMid": "m", "merchantCustomerId": "cus-77", "firstName": "Anna", "email": "a@example.test",
            "maskedNumber": "****4242", "month": "09", "year": "2030", "organization": "VISA", "isActive": 1,
            "profile": "RECURRING", "firstTransactionId": "1"
        });
        let expected = Profile {
            id: id.parse().unwrap(),
            is_active: Some(true),
            cid: Some("cus-77".to_owned()),
            masked_number: Some("****4242".to_owned()),
            month: Some(9),
            year: Some(2030),
            organization: Some("VISA".to_owned()),
            kind: Some(ProfileKind::Recurring),
            first_transaction_id: Some("1".to_owned()),
        };
        for answer in [json!({"paymentProfile": documented}), documented.clone()] {
            let shown = read_profile(answer.to_string().as_bytes()).unwrap();
            assert_eq!(shown, expected);
        }
        let several = json!({"paymentProfiles": [documented, documented]}).to_string();
        assert_eq!(
            read_profiles(several.as_bytes()),
            Some(vec![expected.clone(), expected])
        );
        let one_without_id = json!({"paymentProfiles": [documented, {"isActive": 1}]}).to_string();
        assert_eq!(read_profiles(one_without_id.as_bytes()), None);
        assert_eq!(
            read_profiles(br#"{"paymentProfiles":[]}"#),
            Some(Vec::new())
        );
        for (is_active, expected) in [
            (json!(0), Some(false)),
            (json!("1"), Some(true)),
            (json!(true), Some(true)),
            (json!("false"), Some(false)),
            (json!(2), None),
            (json!("yes"), None),
            (Value::Null, None),
        ] {
            let answer = json!({"paymentProfile": {"id": id, "isActive": is_active, "month": 13, "year": 29}}).to_string();
            let profile = read_profile(answer.as_bytes()).unwrap();
            assert_eq!(
                (profile.is_active, profile.month, profile.year),
                (expected, None, Some(2029))
            );
        }
        for answer in [
            "",
            "{}",
            r#"{"paymentProfile":{}}"#,
            r#"{"paymentProfiles":[]}"#,
        ] {
            assert!(read_profile(answer.as_bytes()).is_none(), "{answer}");
        }
    }
}
