//! Behaviours by name, for scripts that are written in Rust. A script in TOML writes the aspects themselves.

use std::time::Duration;

use axum::http::StatusCode;

use super::behaviour::{Answer, Behaviour, DEFAULT_DELAY, ErrorBody, Fate, Notices, WrongEcho};

/// What becomes of the money.
impl Behaviour {
    /// The answer says `settled`.
    pub fn settle_at_once() -> Self {
        Self::default().with_fate(Fate::SettleAtOnce)
    }

    /// `pending`, then `settled` after this much simulated time.
    pub fn settle_after(after: Duration) -> Self {
        Self::default().with_fate(Fate::SettleAfter(after))
    }

    /// `pending`, then `rejected` with this code after [`DEFAULT_DELAY`].
    pub fn decline(code: &str) -> Self {
        Self::decline_after(code, DEFAULT_DELAY)
    }

    /// `pending`, then `rejected` with this code after this much simulated time.
    pub fn decline_after(code: &str, after: Duration) -> Self {
        Self::default().with_fate(Fate::RejectAfter {
            code: code.to_owned(),
            after,
        })
    }

    /// The answer says `rejected`. The code stands in reads and notices; see [`Behaviour::with_status_code_in_answer`].
    pub fn decline_at_once(code: &str) -> Self {
        Self::default().with_fate(Fate::RejectAtOnce(code.to_owned()))
    }

    /// Rejected after [`DEFAULT_DELAY`], settled after all once `settle_after` has passed since the debit.
    pub fn decline_then_settle(code: &str, settle_after: Duration) -> Self {
        Self::default().with_fate(Fate::RejectThenSettle {
            code: code.to_owned(),
            after: DEFAULT_DELAY,
            settle_after,
        })
    }

    /// `pending` without an end.
    pub fn pending_for_ever() -> Self {
        Self::default().with_fate(Fate::PendingForEver)
    }

    /// This status word without an end.
    pub fn status(word: &str) -> Self {
        Self::default().with_fate(Fate::Status(word.to_owned()))
    }

    /// The profile turns inactive: HTTP 400, `TRX-ERROR-120301`.
    pub fn inactive() -> Self {
        Self::default().with_fate(Fate::Inactive)
    }
}

/// How the call is answered.
impl Behaviour {
    fn answering(answer: Answer) -> Self {
        Self {
            answer: Some(answer),
            ..Self::default()
        }
    }

    /// The connection is closed and nothing is done.
    pub fn lose_request() -> Self {
        Self::answering(Answer::Close { booked: false })
    }

    /// The debit is booked and the connection is closed without a byte of an answer.
    pub fn take_money_and_lose_answer() -> Self {
        Self::answering(Answer::Close { booked: true })
    }

    /// The connection is reset.
    pub fn reset(booked: bool) -> Self {
        Self::answering(Answer::Reset { booked })
    }

    /// No answer ever.
    pub fn hang(booked: bool) -> Self {
        Self::answering(Answer::Hang { booked })
    }

    /// This HTTP status, with imoje's error object or another body.
    pub fn error(status: StatusCode, body: ErrorBody, booked: bool) -> Self {
        Self::answering(Answer::Error {
            status,
            booked,
            body,
            code: None,
            message: None,
        })
    }

    /// HTTP 307.
    pub fn redirect(location: &str) -> Self {
        Self::answering(Answer::Redirect {
            location: location.to_owned(),
        })
    }

    /// HTTP 200 with this body.
    pub fn garbage(body: &str, booked: bool) -> Self {
        Self::answering(Answer::Garbage {
            booked,
            body: Some(body.to_owned()),
        })
    }

    /// HTTP 200 cut off in the middle of its body.
    pub fn truncated(booked: bool) -> Self {
        Self::answering(Answer::Truncated { booked })
    }

    /// The right answer, one byte every `every` of real time.
    pub fn drip(every: Duration) -> Self {
        Self::answering(Answer::Drip { every })
    }

    /// `GET service` says that the recurring channel is not on line.
    pub fn channel_offline() -> Self {
        Self::answering(Answer::ChannelOffline)
    }

    /// The same, answered after this much real time.
    pub fn answering_after(self, delay: Duration) -> Self {
        Self {
            answer_after: Some(delay),
            ..self
        }
    }

    /// The same with a `Date` that is this much later than simulated time.
    pub fn dated_ahead(self, ahead: Duration) -> Self {
        Self {
            date_ahead: Some(ahead),
            ..self
        }
    }

    /// The same with the un-wrapped transaction as the body.
    pub fn bare(self) -> Self {
        Self {
            bare: Some(true),
            ..self
        }
    }

    /// The same with amounts as strings.
    pub fn amount_as_text(self) -> Self {
        Self {
            amount_as_text: Some(true),
            ..self
        }
    }

    /// The same with one field echoed wrongly.
    pub fn echoing_wrongly(self, field: WrongEcho) -> Self {
        Self {
            wrong_echo: Some(field),
            ..self
        }
    }

    /// The same with `statusCode` in the answer to the debit.
    pub fn with_status_code_in_answer(self) -> Self {
        Self {
            status_code_in_answer: Some(true),
            ..self
        }
    }

    /// The same, while later reads lag behind by this much simulated time.
    pub fn with_read_lag(self, lag: Duration) -> Self {
        Self {
            read_lag: Some(lag),
            ..self
        }
    }

    /// The same with this fate.
    pub fn with_fate(self, fate: Fate) -> Self {
        Self {
            fate: Some(fate),
            ..self
        }
    }

    /// The same with these notices.
    pub fn with_notices(self, notices: Notices) -> Self {
        Self {
            notices: Some(notices),
            ..self
        }
    }
}
