//! What an answer to a transaction asks the payer's browser to do.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::domain::card_number::looks_like_card_number;

/// The longest address that imoje's documents allow.
const ADDRESS_LENGTH_MAX: usize = 2_083;

/// The longest content that is taken: what a browser posts for 3-D Secure is a few kilobytes at most.
const CONTENT_LENGTH_MAX: usize = 65_536;

/// `action`, each member absent where it cannot be read, is empty, too long, or has a card number in it.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::gateway) struct ShownAction {
    #[serde(default, rename = "type", deserialize_with = "address")]
    pub(in crate::gateway) kind: Option<String>,
    #[serde(default, deserialize_with = "address")]
    pub(in crate::gateway) url: Option<String>,
    #[serde(default, deserialize_with = "address")]
    pub(in crate::gateway) method: Option<String>,
    #[serde(default, deserialize_with = "address")]
    pub(in crate::gateway) content_type: Option<String>,
    #[serde(default, deserialize_with = "content")]
    pub(in crate::gateway) content_body_raw: Option<String>,
}

/// The action of an answer, in the transaction, as the documents have it, or beside it, as older clients read it.
pub(in crate::gateway) fn read_action(bytes: &[u8]) -> Option<ShownAction> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(default, borrow)]
        transaction: Option<&'a RawValue>,
        #[serde(default, borrow)]
        action: Option<&'a RawValue>,
    }
    let answer: Answer<'_> = serde_json::from_slice(bytes).ok()?;
    let within = answer
        .transaction
        .and_then(|transaction| serde_json::from_str::<Answer<'_>>(transaction.get()).ok())
        .and_then(|transaction| transaction.action);
    let read = |action: &RawValue| serde_json::from_str::<Option<ShownAction>>(action.get());
    [within, answer.action]
        .into_iter()
        .flatten()
        .find_map(|action| read(action).ok().flatten())
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer, ADDRESS_LENGTH_MAX)
}

fn content<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    text(deserializer, CONTENT_LENGTH_MAX)
}

fn text<'de, D: Deserializer<'de>>(
    deserializer: D,
    length_max: usize,
) -> Result<Option<String>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    let text: Option<String> = serde_json::from_str(raw.get()).ok();
    let is_safe = |text: &String| {
        !text.is_empty() && text.chars().count() <= length_max && !looks_like_card_number(text)
    };
    Ok(text.filter(is_safe))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: &Value) -> Option<ShownAction> {
        read_action(body.to_string().as_bytes())
    }

    #[test]
    fn an_action_is_read_in_the_transaction_and_beside_it() {
        let action = json!({
            "url": "https://paywall.imoje.pl/redirect/1", "type": "redirect", "method": "POST",
            "contentType": "application/x-www-form-urlencoded", "contentBodyRaw": "creq=eyJ0", "ban": "x"
        });
        let some = |text: &str| Some(text.to_owned());
        let expected = ShownAction {
            kind: some("redirect"),
            url: some("https://paywall.imoje.pl/redirect/1"),
            method: some("POST"),
            content_type: some("application/x-www-form-urlencoded"),
            content_body_raw: some("creq=eyJ0"),
        };
        for body in [
            json!({"transaction": {"id": "x", "action": action}}),
            json!({"transaction": {"id": "x", "action": null}, "action": action}),
            json!({"transaction": {"id": "x"}, "action": action}),
        ] {
            assert_eq!(read(&body).as_ref(), Some(&expected), "{body}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        for body in [
            json!({"transaction": {"id": "x"}}),
            json!({"action": null}),
            json!({"action": "go"}),
            json!([]),
        ] {
            assert_eq!(read(&body), None, "{body}");
        }
        let long = format!("https://x/{}", "a".repeat(2_100));
        for (url, content) in [
            (json!(""), json!("")),
            (json!(long), json!(1)),
            (
                json!("https://x/4111111111111111"),
                json!("pan=4111 1111 1111 1111"),
            ),
            (json!(null), json!(null)),
        ] {
            let body = json!({"action": {"url": url, "contentBodyRaw": content}});
            assert_eq!(read(&body), Some(ShownAction::default()), "{body}");
        }
    }
}
