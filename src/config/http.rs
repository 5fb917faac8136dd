//! `[http]`: what comes in.

use std::num::NonZeroU32;

use axum::http::HeaderName;
use ipnet::IpNet;
use url::Url;

use crate::config::reader::Reader;
use crate::config::{HttpConfig, parse};

/// The networks that imoje sends notices from (imoje API, notifications; the documents of its front end say the same).
const IMOJE: [&str; 5] = [
    "5.196.116.32/28",
    "51.195.95.0/28",
    "54.37.185.64/28",
    "54.37.185.80/28",
    "147.135.151.16/28",
];

pub(super) fn read(reader: &mut Reader, is_simulated: bool) -> Option<HttpConfig> {
    let listen = reader.value("http.listen", |text| {
        text.parse().map_err(|_| {
            format!("\"{text}\" is not an address with a port, such as 127.0.0.1:8480")
        })
    });
    let public_url = reader.optional("http.public_url", |text| {
        parse::base_url(text).and_then(|url| {
            if is_simulated {
                Ok(url)
            } else {
                reachable_by_imoje(url)
            }
        })
    });
    let proxy_header = reader.optional("http.proxy_header", |text| {
        text.parse::<HeaderName>()
            .map_err(|_| format!("\"{text}\" is not the name of a header, such as X-Forwarded-For"))
    });
    let networks = reader.list("http.notice_networks", notice_networks);
    if networks.is_some() && proxy_header.is_none() {
        reader.problem(
            "http.notice_networks",
            "needs http.proxy_header, the header in which the proxy in front names the sender; without it every notice is from that proxy",
        );
    }
    let notice_timeout = reader.value("http.notice_timeout", parse::timeout);
    let failed_notices_max = reader.value("http.failed_notices_max", |text| {
        parse::within(NonZeroU32::MIN..=NonZeroU32::MAX)(text)
    });
    Some(HttpConfig {
        listen: listen?,
        public_url,
        proxy_header,
        notice_networks: networks.unwrap_or_default().into_iter().flatten().collect(),
        notice_timeout: notice_timeout?,
        failed_notices_max: failed_notices_max?,
    })
}

/// imoje sends notices to public https addresses on the standard port only (imoje API, notifications).
fn reachable_by_imoje(url: Url) -> Result<Url, String> {
    if url.scheme() == "https" && url.port().is_none() && !parse::is_loopback(&url) {
        Ok(url)
    } else {
        Err(format!(
            "\"{url}\" is not an address that imoje sends notices to; it must be public, https and without a port"
        ))
    }
}

/// A network, or `imoje` for those that imoje names.
fn notice_networks(text: &str) -> Result<Vec<IpNet>, String> {
    let networks = match text {
        "imoje" => IMOJE.to_vec(),
        network => vec![network],
    };
    networks
        .into_iter()
        .map(|network| {
            network.parse().map_err(|_| {
                format!("\"{text}\" is not a network; write imoje, or for example 203.0.113.0/24")
            })
        })
        .collect()
}
