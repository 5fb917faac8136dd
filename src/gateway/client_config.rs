//! How to reach imoje for one shop, and what of that cannot be right.

use std::time::Duration;

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};
use uuid::Uuid;

use crate::domain::shop::ReturnUrls;

/// The longest merchant id that is taken; imoje's have 20 characters (imoje FRONT API).
const MERCHANT_ID_LENGTH_MAX: usize = 64;

/// How to reach imoje for one shop.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Where the API is, up to and without the merchant: `https://api.imoje.pl/v1/merchant`. `http://` is for loopback
    /// addresses only.
    pub base_url: Url,
    /// The merchant, a part of every path.
    pub merchant_id: String,
    /// The shop, a UUID v4.
    pub service_id: Uuid,
    /// The authorization token.
    pub token: SecretString,
    /// Where imoje leads payers back to, which it asks for in debits of cards without a profile as well.
    pub return_to: Option<ReturnUrls>,
    /// A tokenising proxy in front of the API, in the form of `base_url`: requests with aliases of card data go through it.
    pub card_proxy_url: Option<Url>,
    /// How long opening a connection may take.
    pub connect_timeout: Duration,
    /// How long a whole call may take, the connection included; longer than `connect_timeout`.
    pub request_timeout: Duration,
    /// How old a permit may be when its request leaves, the time in which the machine was suspended included.
    pub permit_age_max: Duration,
}

/// Why a client cannot be built. All of these are mistakes in the configuration, except [`ClientError::Build`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// `http://` to another machine would send the token in the clear.
    #[error(
        "the gateway's address must begin with https://; http:// is allowed for loopback addresses such as 127.0.0.1 only"
    )]
    PlainHttp,
    /// Not an address of an API.
    #[error(
        "the gateway's address must be an https address without user name, password, query and fragment"
    )]
    BaseUrl,
    /// It would not fit into a path.
    #[error("the merchant id must have 1 to {MERCHANT_ID_LENGTH_MAX} letters and digits")]
    MerchantId,
    /// imoje's documents demand version 4.
    #[error("the service id must be a UUID of version 4")]
    ServiceId,
    /// It is empty, or does not fit into an HTTP header.
    #[error("the token must have visible ASCII characters only, and at least one")]
    Token,
    /// With a connect timeout that long, a connection that never opened would count as doubt.
    #[error(
        "the request timeout must be longer than the connect timeout, and both longer than zero"
    )]
    Timeouts,
    /// The HTTP client could not be set up, for want of root certificates for example.
    #[error("couldn't set up the HTTP client: {0}")]
    Build(String),
}

/// Whether the address is `http://`, which only this machine may have.
pub(super) fn is_plain_http(base_url: &Url) -> Result<bool, ClientError> {
    let is_loopback = match base_url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match base_url.scheme() {
        "https" => Ok(false),
        "http" if is_loopback => Ok(true),
        "http" => Err(ClientError::PlainHttp),
        _ => Err(ClientError::BaseUrl),
    }
}

pub(super) fn merchant_url(base_url: &Url, merchant_id: &str) -> Result<Url, ClientError> {
    let has_more = base_url.query().is_some() || base_url.fragment().is_some();
    let has_user = !base_url.username().is_empty() || base_url.password().is_some();
    if has_more || has_user {
        return Err(ClientError::BaseUrl);
    }
    let fits = (1..=MERCHANT_ID_LENGTH_MAX).contains(&merchant_id.len());
    if !fits || !merchant_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(ClientError::MerchantId);
    }
    let mut url = base_url.clone();
    url.path_segments_mut()
        .map_err(|()| ClientError::BaseUrl)?
        .pop_if_empty()
        .push(merchant_id);
    Ok(url)
}

/// The header of the token, marked so that no debug output shows it.
pub(super) fn bearer(token: &SecretString) -> Result<HeaderValue, ClientError> {
    let token = token.expose_secret();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ClientError::Token);
    }
    let mut header =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
    header.set_sensitive(true);
    Ok(header)
}
