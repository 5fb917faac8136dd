//! What a report may show of a body.

use secrecy::{ExposeSecret, SecretString};

use crate::config::ShopConfig;
use crate::domain::card_number;

/// The longest body that is kept, in characters.
const CHARS_MAX: usize = 2_000;

/// What stands in a report where a secret stood.
const REPLACEMENT: &str = "[secret removed]";

/// The secrets of a shop.
pub(super) struct Secrets(Vec<SecretString>);

impl Secrets {
    pub(super) fn of(shop: &ShopConfig) -> Self {
        let secrets = [&shop.token, &shop.service_key];
        Self(
            secrets
                .into_iter()
                .chain(&shop.previous_service_key)
                .cloned()
                .collect(),
        )
    }

    /// The text without secrets and card numbers, and not longer than a report needs it.
    pub(super) fn scrubbed(&self, text: &str) -> String {
        let mut clean = text.to_owned();
        for secret in &self.0 {
            let secret = secret.expose_secret();
            // As it is, and as some writers of JSON write it.
            for written in [secret.to_owned(), secret.replace('/', "\\/")] {
                if !written.is_empty() {
                    clean = clean.replace(&written, REPLACEMENT);
                }
            }
        }
        // Cut at last: half a secret is not recognised.
        card_number::scrub(&clean).chars().take(CHARS_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_secrets_nor_card_numbers_are_kept_nor_more_than_is_needed() {
        let secrets = Secrets(["to/ken", "key", ""].map(SecretString::from).to_vec());
        assert_eq!(
            secrets.scrubbed("a to/ken, to\\/ken, a key and 4111 1111 1111 1111"),
            "a [secret removed], [secret removed], a [secret removed] and [card number removed]"
        );
        let long = format!("{}to/ken", "ż".repeat(CHARS_MAX - 3));
        let kept = secrets.scrubbed(&long);
        assert_eq!(kept.chars().count(), CHARS_MAX);
        assert!(kept.ends_with("ż[se"), "{kept}");
    }
}
