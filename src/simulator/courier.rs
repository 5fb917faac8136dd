//! Posts notices to receivers.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use reqwest::{Client, header, redirect::Policy};
use url::Url;

use super::notices::Letter;

/// imoje's own limit is not documented.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct Courier {
    client: Client,
    resolve: HashMap<String, SocketAddr>,
}

impl Courier {
    /// `resolve` maps host names to local addresses that are posted to over plain HTTP.
    pub(super) fn new(resolve: HashMap<String, SocketAddr>) -> reqwest::Result<Self> {
        install_crypto();
        // A machine without CA certificates can still deliver over plain HTTP.
        let client = builder()
            .build()
            .or_else(|_| builder().tls_certs_only([]).build())?;
        Ok(Self { client, resolve })
    }

    /// Posts a notice. Returns the receiver's HTTP status, or `None` if there was no answer.
    pub(super) async fn post(&self, letter: &Letter) -> Option<u16> {
        let (url, host) = self.destination(&letter.url)?;
        let mut request = self
            .client
            .post(url)
            .header(header::ACCEPT, "text/plain")
            .header(header::CONTENT_TYPE, "application/json; charset=UTF-8")
            .header("X-Imoje-Signature", &letter.signature)
            .body(letter.body.clone());
        if let Some(host) = host {
            request = request.header(header::HOST, host);
        }
        match request.send().await {
            Ok(response) => Some(response.status().as_u16()),
            Err(error) => {
                tracing::debug!(%error, url = letter.url, "a notice got no answer");
                None
            }
        }
    }

    /// Where to connect, and the `Host` header if that is not where the address points.
    fn destination(&self, address: &str) -> Option<(Url, Option<String>)> {
        let mut url = Url::parse(address).ok()?;
        let host = url.host_str()?.to_owned();
        let Some(local) = self.resolve.get(&host) else {
            return Some((url, None));
        };
        url.set_scheme("http").ok()?;
        url.set_ip_host(local.ip()).ok()?;
        url.set_port(Some(local.port())).ok()?;
        Some((url, Some(host)))
    }
}

fn builder() -> reqwest::ClientBuilder {
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(ANSWER_WITHIN)
        .user_agent("imoje")
}

/// TLS needs a process-wide provider; whoever comes first installs it.
fn install_crypto() {
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        tracing::trace!("a crypto provider is installed already");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolved_host_is_posted_to_over_plain_http_under_its_own_name() {
        let local = SocketAddr::from(([127, 0, 0, 1], 8480));
        let courier =
            Courier::new(HashMap::from([("billing.example.test".to_owned(), local)])).unwrap();
        let (url, host) = courier
            .destination("https://billing.example.test/imoje/n?a=1")
            .unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:8480/imoje/n?a=1");
        assert_eq!(host.as_deref(), Some("billing.example.test"));
        let (url, host) = courier.destination("http://127.0.0.1:9/n").unwrap();
        assert_eq!((url.as_str(), host), ("http://127.0.0.1:9/n", None));
    }
}
