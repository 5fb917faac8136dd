//! Experiments in a sandbox: requests that Cykl never makes when it charges, to see what imoje says to them.
//!
//! Everywhere else a debit needs a permit and is sent once, and its answer is told by what it means. Here an order id may be sent again,
//! and what came is kept as it came. That is why a shop with real money is refused, and why `tests/architecture.rs` lets nobody use this
//! but the command that makes the experiments.

use reqwest::Request;
use serde::Serialize;
use url::Url;

use crate::domain::answer::{Body, Expected};
use crate::domain::fields::{
    FieldError, validate_notification_url, validate_order_id, validate_profile_id,
};
use crate::domain::id::{ProfileId, TransactionId};
use crate::domain::money::Money;
use crate::domain::order_id::TrialOrderId;
use crate::domain::shop::Environment;
use crate::gateway::answer::{NoAnswer, NotSent, ReadError, Service};
use crate::gateway::client::{ImojeClient, below, no_answer};
use crate::gateway::client_config::{ClientConfig, ClientError};
use crate::gateway::transport;
use crate::gateway::wire::{self, DebitRequest, to_json};

/// Where real money moves, whatever a configuration calls it.
const PRODUCTION_HOSTS: [&str; 3] = ["api.imoje.pl", "api.pay.ing.pl", "api.axepta.pl"];

/// Why there is no client for experiments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrialError {
    /// Real money would move.
    #[error(
        "its environment or its address is production, where experiments would move real money; they are for a sandbox or a simulator"
    )]
    Production,
    /// The configuration is wrong.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// imoje for experiments with one shop.
#[derive(Debug, Clone)]
pub struct TrialClient(ImojeClient);

/// A debit of a stored card for the sake of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialDebit {
    /// Its order id, which other debits of the run may have as well.
    pub order_id: TrialOrderId,
    /// The card.
    pub profile_id: ProfileId,
    /// How much.
    pub amount: Money,
    /// Where imoje sends its notices; the shop's address in imoje's panel when absent.
    pub notification_url: Option<Url>,
}

/// An HTTP answer, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The HTTP status.
    pub http_status: u16,
    /// The header `x-trace-id`, which imoje's support asks for.
    pub trace_id: Option<String>,
    /// The body; absent when it was cut off or too long.
    pub text: Option<String>,
    /// The body as Cykl reads it.
    pub body: Body,
}

impl TrialClient {
    /// A client for the shop of `config`. It opens no connection.
    ///
    /// # Errors
    /// [`TrialError::Production`] for a shop with real money, otherwise what is wrong with the configuration.
    pub fn new(config: ClientConfig, environment: Environment) -> Result<Self, TrialError> {
        let is_real = config
            .base_url
            .host_str()
            .is_some_and(|host| PRODUCTION_HOSTS.contains(&host.trim_end_matches('.')));
        match environment {
            Environment::Sandbox | Environment::Simulator if !is_real => {
                Ok(Self(ImojeClient::new(config)?))
            }
            Environment::Production | Environment::Sandbox | Environment::Simulator => {
                Err(TrialError::Production)
            }
        }
    }

    /// As [`ImojeClient::service`].
    ///
    /// # Errors
    /// As there.
    pub async fn service(&self) -> Result<Service, ReadError> {
        self.0.service().await
    }

    /// As [`ImojeClient::expected`].
    pub fn expected(&self, order_id: TrialOrderId, amount: Money) -> Expected {
        self.0.expected(order_id.to_string(), amount)
    }

    /// Debits a card: `POST {merchantId}/transaction/profile`. Each call sends one request.
    ///
    /// # Errors
    /// As [`ImojeClient::debit`].
    pub async fn debit(&self, debit: &TrialDebit) -> Result<Said, NoAnswer> {
        let order_id = debit.order_id.to_string();
        check(debit, &order_id).map_err(|field| NoAnswer::NotSent(NotSent::Invalid(field)))?;
        self.post(&DebitRequest {
            service_id: self.0.service_id,
            payment_profile_id: debit.profile_id.as_uuid(),
            amount: debit.amount.minor(),
            currency: debit.amount.currency().code(),
            order_id: &order_id,
            title: None,
            notification_url: debit.notification_url.as_ref().map(Url::as_str),
            data: None,
            invoice: None,
        })
        .await
    }

    /// Sends something to where debits go that is not JSON to its end.
    ///
    /// # Errors
    /// As [`ImojeClient::debit`].
    pub async fn cut_off(&self) -> Result<Said, NoAnswer> {
        let url = self.0.profile_debit_url.clone();
        let json = br#"{"serviceId":"#.to_vec();
        self.exchange(transport::json_post(&self.0.http, url, json))
            .await
    }

    /// Reads a transaction: `GET {merchantId}/transaction/{id}`.
    ///
    /// # Errors
    /// [`NoAnswer`], which is harmless here.
    pub async fn transaction(&self, id: TransactionId) -> Result<Said, NoAnswer> {
        self.get(&["transaction", &id.to_string()]).await
    }

    /// Reads what is not there: a path that imoje does not document.
    ///
    /// # Errors
    /// As [`TrialClient::transaction`].
    pub async fn nowhere(&self) -> Result<Said, NoAnswer> {
        self.get(&["cykl-experiment"]).await
    }

    async fn post(&self, request: &impl Serialize) -> Result<Said, NoAnswer> {
        let url = self.0.profile_debit_url.clone();
        self.exchange(transport::json_post(&self.0.http, url, to_json(request)))
            .await
    }

    async fn get(&self, path: &[&str]) -> Result<Said, NoAnswer> {
        let url = below(&self.0.merchant_url, path);
        self.exchange(transport::get(&self.0.http, url)).await
    }

    async fn exchange(&self, request: Result<Request, String>) -> Result<Said, NoAnswer> {
        let request = request.map_err(|detail| NoAnswer::NotSent(NotSent::Unbuildable(detail)))?;
        let received = transport::send_unopened(&self.0.http, request)
            .await
            .map_err(no_answer)?;
        let text = received.body.as_deref().map(String::from_utf8_lossy);
        Ok(Said {
            http_status: received.http_status,
            trace_id: received.trace_id,
            text: text.map(|text| text.into_owned()),
            body: received.body.map_or(Body::Unreadable, |body| {
                wire::read_body(&wire::opened(body))
            }),
        })
    }
}

/// Experiments are about what imoje does with requests that it documents.
fn check(debit: &TrialDebit, order_id: &str) -> Result<(), FieldError> {
    validate_order_id(order_id)?;
    validate_profile_id(debit.profile_id)?;
    let address = debit.notification_url.as_ref().map(Url::as_str);
    address.map_or(Ok(()), validate_notification_url)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::SecretString;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn real_money_is_refused_by_its_environment_and_by_its_address() {
        crate::gateway::install_crypto();
        for (host, environment, is_refused) in [
            ("sandbox.api.imoje.pl", Environment::Sandbox, false),
            ("sandbox.api.imoje.pl", Environment::Production, true),
            ("api.imoje.pl", Environment::Sandbox, true),
            ("API.imoje.pl", Environment::Simulator, true),
            ("api.imoje.pl.", Environment::Sandbox, true),
            ("api.pay.ing.pl", Environment::Sandbox, true),
            ("api.axepta.pl", Environment::Sandbox, true),
        ] {
            let base_url = format!("https://{host}/v1/merchant");
            let config = ClientConfig {
                base_url: base_url.parse().expect("an address"),
                merchant_id: "m1".to_owned(),
                service_id: Uuid::new_v4(),
                token: SecretString::from("t"),
                return_to: None,
                card_proxy_url: None,
                connect_timeout: Duration::from_secs(1),
                request_timeout: Duration::from_secs(2),
                permit_age_max: Duration::from_secs(60),
            };
            let refused = TrialClient::new(config, environment).err();
            let expected = is_refused.then_some(TrialError::Production);
            assert_eq!(refused, expected, "{host} as {environment:?}");
        }
    }
}
