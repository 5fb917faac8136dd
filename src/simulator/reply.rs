//! An HTTP answer before it is sent, and what a script makes of it.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    behaviour::{Answer, Behaviour, ErrorBody},
    connection::{Fault, Line},
    validation::Violation,
};

const JSON: &str = "application/json; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// What one call is answered.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    content_type: &'static str,
    location: Option<String>,
    body: String,
    after: Option<Duration>,
    date_ahead: Option<Duration>,
    delivery: Delivery,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    /// The answer is sent, subject to a fault of the connection.
    Send(Fault),
    /// The caller waits for ever.
    Never,
}

impl Reply {
    /// HTTP 200 with this JSON text.
    pub(super) fn ok(body: String) -> Self {
        Self::new(StatusCode::OK, JSON, body)
    }

    /// A page for people.
    pub(super) fn page(status: StatusCode, html: String) -> Self {
        Self::new(status, HTML, html)
    }

    /// Leads a browser on.
    pub(super) fn see_other(location: &str) -> Self {
        Self {
            location: Some(location.to_owned()),
            ..Self::new(StatusCode::SEE_OTHER, HTML, String::new())
        }
    }

    fn new(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            location: None,
            body,
            after: None,
            date_ahead: None,
            delivery: Delivery::Send(Fault::None),
        }
    }

    /// imoje's error envelope.
    pub(super) fn error(
        status: StatusCode,
        code: &str,
        message: &str,
        instance: &Value,
        errors: &[Violation],
    ) -> Self {
        #[derive(Serialize)]
        struct Envelope<'a> {
            code: &'a str,
            message: &'a str,
            instance: &'a Value,
            errors: &'a [Violation],
        }
        let envelope = Envelope {
            code,
            message,
            instance,
            errors,
        };
        Self::new(
            status,
            JSON,
            json!({ "apiErrorResponse": envelope }).to_string(),
        )
    }

    /// imoje's error envelope with the code and message that are documented for the status. Where none is, the code
    /// begins with `SIM-ERROR`, so that nobody takes it for one of imoje's.
    pub(super) fn plain_error(status: StatusCode, instance: &Value) -> Self {
        let (code, message) = documented(status);
        Self::error(status, &code, message, instance, &[])
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// What the script makes of this answer. `instance` is the body of the request, for errors to echo.
    pub(super) fn altered(mut self, behaviour: &Behaviour, instance: &Value) -> Self {
        let mut reply = match &behaviour.answer {
            None | Some(Answer::Normal | Answer::ChannelOffline) => self,
            Some(Answer::Close { .. }) => self.with(Delivery::Send(Fault::CutAfter(0))),
            Some(Answer::Reset { .. }) => self.with(Delivery::Send(Fault::Reset)),
            Some(Answer::Hang { .. }) => self.with(Delivery::Never),
            Some(Answer::Drip { every }) => self.with(Delivery::Send(Fault::Drip(*every))),
            // As many bytes as the body has get through. The headers take some of them, so the body lacks its end.
            Some(Answer::Truncated { .. }) => {
                self.status = StatusCode::OK;
                let bytes = self.body.len();
                self.with(Delivery::Send(Fault::CutAfter(bytes)))
            }
            Some(Answer::Garbage { body, .. }) => {
                let body = body
                    .clone()
                    .unwrap_or_else(|| "upstream said something odd".to_owned());
                Self::new(StatusCode::OK, JSON, body)
            }
            Some(Answer::Redirect { location }) => {
                let reply = Self::new(StatusCode::TEMPORARY_REDIRECT, HTML, String::new());
                Self {
                    location: Some(location.clone()),
                    ..reply
                }
            }
            Some(Answer::Error {
                status,
                body,
                code,
                message,
                ..
            }) => {
                let (documented_code, documented_message) = documented(*status);
                let code = code.as_deref().unwrap_or(&documented_code);
                let message = message.as_deref().unwrap_or(documented_message);
                match body {
                    ErrorBody::Object => Self::error(*status, code, message, instance, &[]),
                    ErrorBody::Empty => Self::new(*status, JSON, String::new()),
                    ErrorBody::Html => Self::new(
                        *status,
                        HTML,
                        format!("<html><body><h1>{status}</h1></body></html>"),
                    ),
                }
            }
        };
        reply.after = behaviour.answer_after;
        reply.date_ahead = behaviour.date_ahead;
        reply
    }

    fn with(self, delivery: Delivery) -> Self {
        Self { delivery, ..self }
    }

    /// Waits as long as the script says, arms the connection, and hands the answer over. When the simulator closes
    /// meanwhile, the caller gets no answer.
    pub(super) async fn send(
        self,
        line: &Line,
        now: DateTime<Utc>,
        closing: &CancellationToken,
    ) -> Response {
        let in_time = match (self.delivery, self.after) {
            (Delivery::Never, _) => {
                closing.cancelled().await;
                false
            }
            (Delivery::Send(_), Some(after)) => closing
                .run_until_cancelled(tokio::time::sleep(after))
                .await
                .is_some(),
            (Delivery::Send(_), None) => true,
        };
        let fault = match self.delivery {
            Delivery::Send(fault) if in_time => fault,
            Delivery::Send(_) | Delivery::Never => Fault::CutAfter(0),
        };
        line.arm(fault);
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content_type),
        );
        let trace_id =
            HeaderValue::try_from(Uuid::new_v4().to_string()).expect("a UUID is a header value");
        headers.insert("x-trace-id", trace_id);
        let date = self
            .date_ahead
            .and_then(|ahead| http_date(now + TimeDelta::from_std(ahead).ok()?));
        if let Some(date) = date {
            headers.insert(header::DATE, date);
        }
        if let Some(location) = self
            .location
            .and_then(|location| HeaderValue::try_from(location).ok())
        {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}

/// A time as the header `Date` has it (RFC 9110, section 5.6.7).
fn http_date(at: DateTime<Utc>) -> Option<HeaderValue> {
    HeaderValue::try_from(at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}

/// The code and message of a status. Source: imoje API, POST transaction, POST transaction/profile.
fn documented(status: StatusCode) -> (String, &'static str) {
    match status.as_u16() {
        406 => (
            "TRX-ERROR-120003".to_owned(),
            "Cannot process transaction. Not supported payment method.",
        ),
        422 => ("TRX-ERROR-120001".to_owned(), "Unprocessable Entity."),
        500 => (
            "ACQ-ERROR-130004".to_owned(),
            "Cannot process transaction. Payment method provider error.",
        ),
        number => (
            format!("SIM-ERROR-{number}"),
            status.canonical_reason().unwrap_or("Unknown error"),
        ),
    }
}
