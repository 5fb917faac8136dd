//! Giving money back. A refund is sent at most once for each call, like a debit.

use crate::clock::Moment;
use crate::domain::answer::{Expected, classify_refund, classify_refund_read};
use crate::domain::fields::{FieldError, validate_title};
use crate::domain::id::TransactionId;
use crate::domain::money::Money;
use crate::gateway::answer::{NoAnswer, NotSent, PostAnswer, ReadAnswer, ReadError, Refundable};
use crate::gateway::client::{self, ImojeClient, below, found, transaction_body};
use crate::gateway::transport;
use crate::gateway::wire::{self, CanRefundRequest, RefundRequest, to_json};

/// A refund of a debit, whole or in part (imoje API, `POST transaction/{id}/refund`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundOrder {
    /// The transaction that debited the card.
    pub sale: TransactionId,
    /// What that one was told as `orderId`.
    pub order_id: String,
    /// How much goes back.
    pub amount: Money,
    /// What the payer may read about it.
    pub title: Option<String>,
    /// Whether imoje writes to the payer once it is settled.
    pub is_confirmed_by_email: bool,
}

impl ImojeClient {
    /// Whether `amount` of a transaction can be refunded, as imoje sees it: `POST {merchantId}/transaction/{id}/can-refund`. It moves
    /// nothing, and may be asked again at will.
    ///
    /// # Errors
    /// As [`ImojeClient::profile`].
    pub async fn can_refund(
        &self,
        sale: TransactionId,
        amount: Money,
    ) -> Result<Refundable, ReadError> {
        let url = below(
            &self.merchant_url,
            &["transaction", &sale.to_string(), "can-refund"],
        );
        let json = to_json(&CanRefundRequest {
            amount: amount.minor(),
        });
        let received = self
            .ask(transport::json_post(&self.http, url, json))
            .await?;
        wire::read_refundable(&found(received)?).ok_or(ReadError::Unreadable)
    }

    /// Gives money back: `POST {merchantId}/transaction/{id}/refund`.
    ///
    /// `Ok` is the gateway's word, `Err(NotSent)`: no byte left, `Err(Unknown)`: it may have been executed. `permitted_at` is when the
    /// permit for this one request was committed. The request is sent once, if at all.
    ///
    /// # Errors
    /// As [`ImojeClient::debit`].
    pub async fn refund(
        &self,
        order: &RefundOrder,
        permitted_at: Moment,
    ) -> Result<PostAnswer, NoAnswer> {
        let json = self
            .refund_body(order)
            .map_err(|field| NoAnswer::NotSent(NotSent::Invalid(field)))?;
        let url = below(
            &self.merchant_url,
            &["transaction", &order.sale.to_string(), "refund"],
        );
        let received = self.send_once(url, json, permitted_at).await?;
        let body = transaction_body(&received);
        let expected = self.expected(order.order_id.clone(), order.amount);
        let verdict = classify_refund(order.sale, received.http_status, &body, &expected);
        Ok(client::post_answer(received, body, verdict))
    }

    fn refund_body(&self, order: &RefundOrder) -> Result<Vec<u8>, FieldError> {
        order.title.as_deref().map_or(Ok(()), validate_title)?;
        Ok(to_json(&RefundRequest {
            kind: "refund",
            service_id: self.service_id,
            amount: order.amount.minor(),
            title: order.title.as_deref(),
            send_refund_confirmation_email: order.is_confirmed_by_email,
        }))
    }

    /// Reads a refund: `GET {merchantId}/transaction/{id}`. As [`ImojeClient::transaction`], and what it shows has to be a refund.
    ///
    /// # Errors
    /// As [`ImojeClient::transaction`].
    pub async fn refund_transaction(
        &self,
        id: TransactionId,
        expected: &Expected,
    ) -> Result<ReadAnswer, ReadError> {
        self.classified(id, |http_status, body| {
            classify_refund_read(id, http_status, body, expected)
        })
        .await
    }
}
