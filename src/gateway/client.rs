//! The calls that a recurring merchant makes.

use std::fmt;
use std::time::Duration;

use reqwest::{Certificate, Client, Request};
use url::Url;
use uuid::Uuid;

use crate::clock::Moment;
use crate::domain::answer::{
    Body, Expected, ShownTransaction, Verdict, classify_debit, classify_read,
};
use crate::domain::fields::is_uuid_v4;
use crate::domain::id::{ProfileId, TransactionId};
use crate::domain::money::Money;
use crate::domain::shop::ReturnUrls;
use crate::gateway::answer::{
    Lookup, NoAnswer, NotSent, PostAnswer, Profile, ReadAnswer, ReadError, Service, is_denial,
};
use crate::gateway::client_config::{self, ClientConfig, ClientError, bearer, is_plain_http};
use crate::gateway::order::{DebitOrder, Endpoint};
use crate::gateway::transport::{self, NotReceived, Received, TransportConfig};
use crate::gateway::wire::{self, to_json};

/// imoje for one shop. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct ImojeClient {
    pub(super) http: Client,
    pub(super) merchant_url: Url,
    pub(super) profile_debit_url: Url,
    plain_debit_url: Url,
    pub(super) proxied_debit_url: Option<Url>,
    pub(super) service_id: Uuid,
    pub(super) return_to: Option<ReturnUrls>,
    permit_age_max: Duration,
}

impl fmt::Debug for ImojeClient {
    /// Leaves out the HTTP client, which holds the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImojeClient")
            .field("merchant_url", &self.merchant_url.as_str())
            .field("service_id", &self.service_id)
            .finish_non_exhaustive()
    }
}

impl ImojeClient {
    /// A client for the shop of `config`. It opens no connection.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        Self::trusting(config, Vec::new())
    }

    /// As [`ImojeClient::new`], and believes what `authorities` have signed, beside those of the machine.
    pub(super) fn trusting(
        config: ClientConfig,
        authorities: Vec<Certificate>,
    ) -> Result<Self, ClientError> {
        let mut plain_http = is_plain_http(&config.base_url)?;
        if let Some(proxy) = &config.card_proxy_url {
            plain_http |= is_plain_http(proxy)?;
        }
        if !is_uuid_v4(config.service_id) {
            return Err(ClientError::ServiceId);
        }
        if config.connect_timeout.is_zero() || config.connect_timeout >= config.request_timeout {
            return Err(ClientError::Timeouts);
        }
        let merchant_url = client_config::merchant_url(&config.base_url, &config.merchant_id)?;
        let http = transport::build(TransportConfig {
            bearer: bearer(&config.token)?,
            connect_timeout: config.connect_timeout,
            request_timeout: config.request_timeout,
            plain_http,
            authorities,
        })
        .map_err(ClientError::Build)?;
        let proxied_debit_url = config
            .card_proxy_url
            .map(|proxy| client_config::merchant_url(&proxy, &config.merchant_id))
            .transpose()?
            .map(|proxy| below(&proxy, &["transaction"]));
        Ok(Self {
            http,
            profile_debit_url: below(&merchant_url, &["transaction", "profile"]),
            plain_debit_url: below(&merchant_url, &["transaction"]),
            proxied_debit_url,
            merchant_url,
            service_id: config.service_id,
            return_to: config.return_to,
            permit_age_max: config.permit_age_max,
        })
    }

    /// What an answer must repeat to be about the debit of this order.
    pub fn expected(&self, order_id: String, amount: Money) -> Expected {
        Expected {
            order_id,
            amount,
            service_id: self.service_id.to_string(),
        }
    }

    /// Debits a card: `POST {merchantId}/transaction/profile`, or, when it has no profile, `POST {merchantId}/transaction`.
    ///
    /// `Ok` is the gateway's word, `Err(NotSent)`: no byte left, `Err(Unknown)`: it may have been charged.
    ///
    /// `permitted_at` is when the permit for this one request was committed. The request is sent once, if at all. Whoever drops
    /// this future while it runs knows nothing about the debit; it is in doubt.
    ///
    /// # Errors
    /// [`NoAnswer::NotSent`] when the permit is too old just before sending, when a field is invalid, or when the connection
    /// could not be opened. [`NoAnswer::Unknown`] for everything else that ends without an HTTP status.
    pub async fn debit(
        &self,
        order: &DebitOrder,
        permitted_at: Moment,
    ) -> Result<PostAnswer, NoAnswer> {
        let not_sent = NoAnswer::NotSent;
        let body = order
            .to_body(self.service_id, self.return_to.as_ref())
            .map_err(|field| not_sent(NotSent::Invalid(field)))?;
        let url = match body.endpoint {
            Endpoint::Profile => &self.profile_debit_url,
            Endpoint::Plain => &self.plain_debit_url,
            Endpoint::PlainThroughProxy => self
                .proxied_debit_url
                .as_ref()
                .ok_or_else(|| not_sent(NotSent::NoCardProxy))?,
        };
        let received = self.send_once(url.clone(), body.json, permitted_at).await?;
        let body = transaction_body(&received);
        let expected = self.expected(order.order_id.to_string(), order.amount);
        let verdict = classify_debit(received.http_status, &body, &expected);
        Ok(post_answer(received, body, verdict))
    }

    /// Sends a request that moves money, if its permit is young enough.
    pub(super) async fn send_once(
        &self,
        url: Url,
        json: Vec<u8>,
        permitted_at: Moment,
    ) -> Result<Received, NoAnswer> {
        let not_sent = NoAnswer::NotSent;
        let request = transport::json_post(&self.http, url, json)
            .map_err(|detail| not_sent(NotSent::Unbuildable(detail)))?;
        let age = permitted_at.elapsed();
        if age >= self.permit_age_max {
            return Err(not_sent(NotSent::PermitTooOld {
                age,
                max: self.permit_age_max,
            }));
        }
        transport::send(&self.http, request)
            .await
            .map_err(no_answer)
    }

    /// Reads a transaction: `GET {merchantId}/transaction/{id}`.
    ///
    /// Every HTTP answer is `Ok`, and only a complete one about the transaction `id` and the debit `expected` is more than
    /// doubt. It may be asked again at will.
    ///
    /// # Errors
    /// [`ReadError::Connect`] and [`ReadError::Lost`] when no HTTP answer came.
    pub async fn transaction(
        &self,
        id: TransactionId,
        expected: &Expected,
    ) -> Result<ReadAnswer, ReadError> {
        self.classified(id, |http_status, body| {
            classify_read(id, http_status, body, expected)
        })
        .await
    }

    /// Reads a transaction, and says by `classify` what the answer means for the money.
    pub(super) async fn classified(
        &self,
        id: TransactionId,
        classify: impl FnOnce(u16, &Body) -> Verdict,
    ) -> Result<ReadAnswer, ReadError> {
        let received = self.read(&["transaction", &id.to_string()]).await?;
        let body = transaction_body(&received);
        let verdict = classify(received.http_status, &body);
        let (shown, error_code) = evidence(body);
        Ok(ReadAnswer {
            http_status: received.http_status,
            verdict,
            shown,
            error_code,
        })
    }

    /// Reads a transaction of which nothing is known but its id: whether imoje has it, and what it shows.
    ///
    /// # Errors
    /// As [`ImojeClient::transaction`].
    pub async fn shown_transaction(&self, id: TransactionId) -> Result<Lookup, ReadError> {
        let received = self.read(&["transaction", &id.to_string()]).await?;
        Ok(match transaction_body(&received) {
            Body::Transaction(shown) if received.http_status == 200 => Lookup::Shown(shown),
            Body::Error { .. } | Body::Unreadable if is_denial(received.http_status) => {
                Lookup::Denied
            }
            Body::Transaction(_) | Body::Error { .. } | Body::Unreadable => Lookup::Unclear,
        })
    }

    /// Reads a stored card: `GET {merchantId}/profile/id/{id}`. It may be asked again at will.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] when imoje does not know it, otherwise why there is no usable answer.
    pub async fn profile(&self, id: ProfileId) -> Result<Profile, ReadError> {
        let received = self.read(&["profile", "id", &id.to_string()]).await?;
        let body = found(received)?;
        let profile = wire::read_profile(&body).ok_or(ReadError::Unreadable)?;
        if profile.id == id {
            Ok(profile)
        } else {
            Err(ReadError::Mismatch)
        }
    }

    /// Reads the stored cards of a `cid`: `GET {merchantId}/profile/cid/{cid}`. There may be several, or none. It may be asked again
    /// at will.
    ///
    /// # Errors
    /// As [`ImojeClient::profile`]. imoje's documents do not say whether a `cid` that it does not know is an error.
    pub async fn profiles_of(&self, cid: &str) -> Result<Vec<Profile>, ReadError> {
        let received = self.read(&["profile", "cid", cid]).await?;
        let profiles = wire::read_profiles(&found(received)?).ok_or(ReadError::Unreadable)?;
        let is_asked_for = |profile: &Profile| profile.cid.as_deref() == Some(cid);
        if profiles.iter().all(is_asked_for) {
            Ok(profiles)
        } else {
            Err(ReadError::Mismatch)
        }
    }

    /// Ends a stored card: `POST {merchantId}/profile/deactivate`, and where that is not known `DELETE {merchantId}/profile/id/{id}`, its
    /// documented alternative. It may be repeated.
    ///
    /// What imoje answers is not documented. `Ok` means that it took the order; [`ImojeClient::profile`] says what became of it.
    ///
    /// # Errors
    /// As [`ImojeClient::profile`].
    pub async fn deactivate_profile(&self, id: ProfileId) -> Result<(), ReadError> {
        let url = below(&self.merchant_url, &["profile", "deactivate"]);
        let json = to_json(&wire::DeactivateRequest {
            payment_profile_id: id.as_uuid(),
        });
        let posted = self
            .ask(transport::json_post(&self.http, url, json))
            .await?;
        let received = match posted.http_status {
            404 | 405 => {
                let url = below(&self.merchant_url, &["profile", "id", &id.to_string()]);
                self.ask(transport::delete(&self.http, url)).await?
            }
            _ => posted,
        };
        match received.http_status {
            200..=299 => Ok(()),
            _ => found(received).map(drop),
        }
    }

    /// Asks imoje about the shop: `GET {merchantId}/service/{serviceId}`. An `Ok` means that the credentials are accepted.
    ///
    /// # Errors
    /// [`ReadError::Unauthorized`] when they are not, [`ReadError::NotFound`] when the merchant has no such shop, otherwise why
    /// there is no usable answer.
    pub async fn service(&self) -> Result<Service, ReadError> {
        let received = self
            .read(&["service", &self.service_id.to_string()])
            .await?;
        let sent_at = received.sent_at;
        let service = wire::read_service(&found(received)?).ok_or(ReadError::Unreadable)?;
        Ok(Service { sent_at, ..service })
    }

    pub(super) async fn read(&self, path: &[&str]) -> Result<Received, ReadError> {
        let url = below(&self.merchant_url, path);
        self.ask(transport::get(&self.http, url)).await
    }

    pub(super) async fn ask(
        &self,
        request: Result<Request, String>,
    ) -> Result<Received, ReadError> {
        let request = request.map_err(ReadError::Unbuildable)?;
        transport::send(&self.http, request)
            .await
            .map_err(|reason| match reason {
                NotReceived::NotConnected(failure) => ReadError::Connect(failure),
                NotReceived::Lost(lost) => ReadError::Lost(lost),
            })
    }
}

/// What it means for money that no HTTP answer came.
pub(super) fn no_answer(reason: NotReceived) -> NoAnswer {
    match reason {
        NotReceived::NotConnected(failure) => NoAnswer::NotSent(NotSent::Connect(failure)),
        NotReceived::Lost(lost) => NoAnswer::Unknown(lost),
    }
}

/// What an answer to a request that moves money says.
pub(super) fn post_answer(received: Received, body: Body, verdict: Verdict) -> PostAnswer {
    let (shown, error_code) = evidence(body);
    PostAnswer {
        http_status: received.http_status,
        verdict,
        shown,
        error_code,
        trace_id: received.trace_id,
        sent_at: received.sent_at,
    }
}

/// The address of `path` below the merchant.
pub(super) fn below(merchant_url: &Url, path: &[&str]) -> Url {
    let mut url = merchant_url.clone();
    url.path_segments_mut()
        .expect("an http address has a path")
        .extend(path);
    url
}

/// The body of an answer about a transaction.
pub(super) fn transaction_body(received: &Received) -> Body {
    received
        .body
        .as_deref()
        .map_or(Body::Unreadable, wire::read_body)
}

fn evidence(body: Body) -> (Option<Box<ShownTransaction>>, Option<String>) {
    match body {
        Body::Transaction(shown) => (Some(shown), None),
        Body::Error { code, .. } => (None, Some(code)),
        Body::Unreadable => (None, None),
    }
}

/// The body of a 200, or what the other statuses mean to whoever asked.
pub(super) fn found(received: Received) -> Result<Vec<u8>, ReadError> {
    let body = transaction_body(&received);
    match received.http_status {
        200 => received.body.ok_or(ReadError::Unreadable),
        http_status @ (401 | 403) => Err(ReadError::Unauthorized { http_status }),
        404 => Err(ReadError::NotFound),
        http_status => Err(ReadError::Status {
            http_status,
            code: evidence(body).1,
        }),
    }
}
