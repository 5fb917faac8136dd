//! The frame that Axepta (BNP Paribas), the same platform under another name, puts around what it says (Axepta API, chapter 8).
//!
//! Its documents show the frame for stored cards and for a refused debit only. What a settled debit looks like in it is taken to be the
//! same; if it is not, it cannot be read, which is doubt.

use serde::Deserialize;
use serde_json::value::RawValue;

/// What is inside of the frame, or the body itself when it has none.
pub(in crate::gateway) fn opened(body: Vec<u8>) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Framed<'a> {
        #[serde(borrow)]
        status: &'a str,
        #[serde(borrow)]
        message: Option<&'a str>,
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let Ok(framed) = serde_json::from_slice::<Framed<'_>>(&body) else {
        return body;
    };
    match framed.status {
        "SUCCESS" => framed.data.get().as_bytes().to_vec(),
        "FAIL" => refusal(framed.data, framed.message).unwrap_or(body),
        _ => body,
    }
}

/// The one refusal whose number is documented to be imoje's (`PAYMENT_PROFILE_INACTIVE`, 120301), in imoje's words.
fn refusal(data: &RawValue, message: Option<&str>) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Failure<'a> {
        error_code: &'a str,
        error_id: u32,
    }
    let failure: Failure<'_> = serde_json::from_str(data.get()).ok()?;
    if (failure.error_code, failure.error_id) != ("PAYMENT_PROFILE_INACTIVE", 120_301) {
        return None;
    }
    let error = serde_json::json!({ "apiErrorResponse": { "code": "TRX-ERROR-120301", "message": message } });
    Some(error.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::answer::Body;
    use crate::gateway::wire::{read_body, read_profile};

    fn open(body: &Value) -> Vec<u8> {
        opened(body.to_string().into_bytes())
    }

    #[test]
    fn what_is_framed_is_read_as_if_it_were_not() {
        let id = "addcabf2-5229-4d70-a175-67f7fc5728d1";
        let profile = json!({"paymentProfile": {"id": id, "isActive": 1, "profile": "RECURRING"}});
        let framed = json!({"status": "SUCCESS", "data": {"paymentProfile": profile["paymentProfile"], "qtt": "GHb"}});
        let read = read_profile(&open(&framed)).expect("a profile");
        assert_eq!(read.id, id.parse().expect("an id"));
        assert_eq!(read_profile(&open(&profile)), Some(read));
    }

    #[test]
    fn only_the_refusal_that_is_documented_is_one() {
        let refused = |code: &str, id: u32| json!({"status": "FAIL", "message": "Payment profile inactive.", "data": {"errorCode": code, "errorId": id, "bqh": "6jO"}});
        assert_eq!(
            read_body(&open(&refused("PAYMENT_PROFILE_INACTIVE", 120_301))),
            Body::Error {
                code: "TRX-ERROR-120301".to_owned(),
                message: Some("Payment profile inactive.".to_owned())
            }
        );
        for other in [
            refused("PAYMENT_PROFILE_INACTIVE", 120_302),
            refused("PAYMENT_PROFILE_NOT_FOUND", 120_301),
            json!({"status": "FAIL", "data": null}),
            json!({"status": "MAYBE", "data": {"transaction": {"id": "x"}}}),
            json!({"status": "SUCCESS"}),
        ] {
            assert_eq!(read_body(&open(&other)), Body::Unreadable, "{other}");
        }
    }

    #[test]
    fn what_has_no_frame_stays_as_it_is() {
        for body in [
            "",
            "{}",
            "[1]",
            r#"{"status":1,"data":{}}"#,
            r#"{"transaction":{"status":"settled"}}"#,
        ] {
            assert_eq!(opened(body.as_bytes().to_vec()), body.as_bytes());
        }
    }
}
