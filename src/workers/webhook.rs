//! The webhook: one signed POST for each event, in the way of the Standard Webhooks specification.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use url::Url;

use crate::store::outbox::Event;

/// How long the receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the shop listens.
#[derive(Clone)]
pub struct Webhook {
    http: reqwest::Client,
    url: Url,
    secret: Option<SecretString>,
}

/// Why the receiver did not take an event. It is told again.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// No HTTP client could be built.
    #[error("couldn't set up the webhook: {0}")]
    SetUp(#[source] reqwest::Error),
    /// The event could not be written as JSON.
    #[error("couldn't write the event: {0}")]
    Unwritable(#[from] serde_json::Error),
    /// It was not reached, or did not answer in time.
    #[error("the webhook was not reached: {0}")]
    Unreached(#[source] reqwest::Error),
    /// It answered with something else than success.
    #[error("the webhook answered HTTP {0}")]
    Refused(u16),
}

impl Webhook {
    /// A webhook at `url`, signed with `secret` when there is one.
    ///
    /// # Errors
    /// [`WebhookError::SetUp`] when the machine lacks what TLS needs.
    pub fn new(url: Url, secret: Option<SecretString>) -> Result<Self, WebhookError> {
        crate::gateway::install_crypto();
        let mut builder = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("cykl/", env!("CARGO_PKG_VERSION")));
        if url.scheme() == "http" {
            // A machine without a bundle of certificates can still post to a plain address.
            builder = builder.tls_certs_only(std::iter::empty());
        }
        let http = builder.build().map_err(WebhookError::SetUp)?;
        Ok(Self { http, url, secret })
    }

    /// Tells one event.
    ///
    /// # Errors
    /// [`WebhookError`]; the event is told again later.
    pub async fn post(&self, event: &Event, now: DateTime<Utc>) -> Result<(), WebhookError> {
        let body = serde_json::to_string(event)?;
        let (id, timestamp) = (event.event_id.to_string(), now.timestamp().to_string());
        let mut request = self
            .http
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", &timestamp);
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", sign(secret, &id, &timestamp, &body));
        }
        let answer = request
            .body(body)
            .send()
            .await
            .map_err(|error| WebhookError::Unreached(error.without_url()))?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(WebhookError::Refused(answer.status().as_u16()))
        }
    }
}

/// `v1,` and the HMAC-SHA256 over id, timestamp and body (Standard Webhooks, signature scheme). A secret that begins with `whsec_` is
/// base64, any other is taken as it is.
fn sign(secret: &SecretString, id: &str, timestamp: &str, body: &str) -> String {
    let secret = secret.expose_secret();
    let key = secret
        .strip_prefix("whsec_")
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .unwrap_or_else(|| secret.as_bytes().to_vec());
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("HMAC takes a key of any length");
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_the_one_of_the_specification() {
        // The example of the Standard Webhooks specification.
        let signature = sign(
            &"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
