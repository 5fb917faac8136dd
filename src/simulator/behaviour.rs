//! What the pretend gateway can do with one call: the vocabulary of a script.
//!
//! A [`Behaviour`] has independent aspects: what becomes of the money (`fate`), how the call is answered (`answer` and
//! its modifiers), what later reads say, and which notices go out. An aspect that is left out is taken from the
//! profile, then from the script's default, then from what imoje's documents describe. The TOML form of a script is
//! read straight into these types, so the names of fields and variants are a file format.

use std::time::Duration;

use axum::http::StatusCode;
use serde::{Deserialize, Deserializer, de::Error as _};

/// The time between a pending answer and its outcome when a script does not say.
pub const DEFAULT_DELAY: Duration = Duration::from_secs(5);

/// What happens to one call. Every aspect is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Behaviour {
    /// What becomes of a debit.
    pub fate: Option<Fate>,
    /// How the call is answered.
    pub answer: Option<Answer>,
    /// Real time that passes between the effect and the answer.
    #[serde(deserialize_with = "optional_duration")]
    pub answer_after: Option<Duration>,
    /// The header `Date` of the answer is this much later than simulated time. Without it, it is the real time.
    #[serde(deserialize_with = "optional_duration")]
    pub date_ahead: Option<Duration>,
    /// Answer with the transaction itself instead of `{"transaction": ..}`, as imoje's published GET sample shows.
    pub bare: Option<bool>,
    /// Write amounts as strings, as seen in practice.
    pub amount_as_text: Option<bool>,
    /// Echo one field wrongly.
    pub wrong_echo: Option<WrongEcho>,
    /// Put `statusCode` in the answer to a debit. The documented answer has none.
    pub status_code_in_answer: Option<bool>,
    /// Reads of the transaction show it as it was this long ago, in simulated time.
    #[serde(deserialize_with = "optional_duration")]
    pub read_lag: Option<Duration>,
    /// Which notices go out.
    pub notices: Option<Notices>,
}

/// What becomes of a debit. Times are simulated and count from the debit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fate {
    /// The answer already says `settled`.
    SettleAtOnce,
    /// `pending`, then `settled`.
    SettleAfter(#[serde(deserialize_with = "duration")] Duration),
    /// The answer already says `rejected`; the status code stands in reads and notices.
    RejectAtOnce(String),
    /// `pending`, then `rejected`.
    RejectAfter {
        /// imoje's `statusCode`, e.g. `CODE_51`.
        code: String,
        /// When.
        #[serde(deserialize_with = "duration")]
        after: Duration,
    },
    /// `pending`, then `rejected`, and later `settled` after all.
    RejectThenSettle {
        /// imoje's `statusCode` while rejected.
        code: String,
        /// When it is rejected.
        #[serde(deserialize_with = "duration")]
        after: Duration,
        /// When it turns out settled.
        #[serde(deserialize_with = "duration")]
        settle_after: Duration,
    },
    /// `pending`, without an end.
    PendingForEver,
    /// This word, without an end: `error`, `cancelled`, `authorized`, `new`, or one that imoje does not have.
    Status(String),
    /// The profile turns inactive and the debit is refused with `TRX-ERROR-120301`.
    Inactive,
}

/// How a call is answered. `booked` says whether the call takes effect all the same; refusals default to no effect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// As documented.
    Normal,
    /// The connection is closed before the first byte of an answer.
    Close {
        /// Whether the call takes effect.
        #[serde(default)]
        booked: bool,
    },
    /// The connection is reset (TCP RST) before the first byte of an answer.
    Reset {
        /// Whether the call takes effect.
        #[serde(default)]
        booked: bool,
    },
    /// No answer ever; the connection stays open until the caller or the simulator goes away.
    Hang {
        /// Whether the call takes effect.
        #[serde(default)]
        booked: bool,
    },
    /// An HTTP status with a body of some kind.
    Error {
        /// The HTTP status.
        #[serde(deserialize_with = "status")]
        status: StatusCode,
        /// Whether the call takes effect.
        #[serde(default)]
        booked: bool,
        /// What the body looks like.
        #[serde(default)]
        body: ErrorBody,
        /// imoje's code, by default the documented one for the status.
        #[serde(default)]
        code: Option<String>,
        /// imoje's message, by default the documented one for the status.
        #[serde(default)]
        message: Option<String>,
    },
    /// HTTP 307 to another address; nothing is done.
    Redirect {
        /// The `Location` header.
        location: String,
    },
    /// HTTP 200 with a body that is not an answer.
    Garbage {
        /// Whether the call takes effect.
        #[serde(default)]
        booked: bool,
        /// The body; by default text that is not JSON.
        #[serde(default)]
        body: Option<String>,
    },
    /// The right answer, cut off in the middle of its body.
    Truncated {
        /// Whether the call takes effect.
        #[serde(default)]
        booked: bool,
    },
    /// The right answer, one byte at a time.
    Drip {
        /// Real time between two bytes.
        #[serde(deserialize_with = "duration")]
        every: Duration,
    },
    /// `GET service` says that the recurring channel is not on line.
    ChannelOffline,
}

/// The body of an error answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorBody {
    /// imoje's `apiErrorResponse`.
    #[default]
    Object,
    /// Nothing at all.
    Empty,
    /// A page of a proxy in between.
    Html,
}

/// The field that an answer echoes wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrongEcho {
    /// `orderId`
    OrderId,
    /// `amount`
    Amount,
    /// `currency`
    Currency,
    /// `serviceId`
    ServiceId,
    /// `paymentProfile.id`
    PaymentProfileId,
}

/// Which notices a debit causes. The default is imoje's: one genuine notice for each change of status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Notices {
    /// How many identical notices each change causes; 0 is none.
    pub copies: u8,
    /// Simulated time between a change and its notices.
    #[serde(deserialize_with = "duration")]
    pub late_by: Duration,
    /// The first notice is delivered before the debit is answered.
    pub before_answer: bool,
    /// The notice that says `pending` comes after the final one.
    pub pending_last: bool,
    /// No notice says `pending`: the first one tells the outcome.
    pub final_only: bool,
    /// Sign with a key that is not the shop's.
    pub wrong_key: bool,
    /// The hash of the signature.
    pub algorithm: Algorithm,
    /// Leave out the `transaction` object.
    pub payment_only: bool,
    /// Name the profile beside the transaction, and not in it.
    pub profile_beside: bool,
    /// Also send a `settled` notice, signed with the shop's key, for this order, which nobody ever debited.
    pub forged_order: Option<String>,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            copies: 1,
            late_by: Duration::ZERO,
            before_answer: false,
            pending_last: false,
            final_only: false,
            wrong_key: false,
            algorithm: Algorithm::Sha256,
            payment_only: false,
            profile_beside: false,
            forged_order: None,
        }
    }
}

impl Notices {
    /// No notice ever leaves.
    pub fn none() -> Self {
        Self {
            copies: 0,
            ..Self::default()
        }
    }

    /// Each notice is sent `copies` times.
    pub fn duplicated(copies: u8) -> Self {
        Self {
            copies,
            ..Self::default()
        }
    }

    /// Each notice comes this much later than its change, in simulated time.
    pub fn late_by(late_by: Duration) -> Self {
        Self {
            late_by,
            ..Self::default()
        }
    }
}

/// The hash that signs a notice, as named in `X-Imoje-Signature`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// SHA-224
    Sha224,
    /// SHA-256, which imoje's samples use.
    #[default]
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

impl Answer {
    /// Whether a call that is answered so takes effect.
    pub fn takes_effect(&self) -> bool {
        match self {
            Answer::Normal | Answer::Drip { .. } | Answer::ChannelOffline => true,
            Answer::Redirect { .. } => false,
            Answer::Close { booked }
            | Answer::Reset { booked }
            | Answer::Hang { booked }
            | Answer::Error { booked, .. }
            | Answer::Garbage { booked, .. }
            | Answer::Truncated { booked } => *booked,
        }
    }
}

impl Fate {
    /// This fate at the same pace, but declined with `code` where it would have settled.
    pub fn declined_instead(self, code: &str) -> Fate {
        match self {
            Fate::SettleAtOnce => Fate::RejectAtOnce(code.to_owned()),
            Fate::SettleAfter(after) => Fate::RejectAfter {
                code: code.to_owned(),
                after,
            },
            Fate::RejectAtOnce(_)
            | Fate::RejectAfter { .. }
            | Fate::RejectThenSettle { .. }
            | Fate::PendingForEver
            | Fate::Status(_)
            | Fate::Inactive => self,
        }
    }
}

impl Behaviour {
    /// Whether the call takes effect.
    pub(super) fn takes_effect(&self) -> bool {
        self.answer.as_ref().is_none_or(Answer::takes_effect)
    }

    /// The HTTP status that the caller is sent where it would be `normal` as documented; `None` if there is none.
    pub(super) fn status_sent(&self, normal: u16) -> Option<u16> {
        match &self.answer {
            None | Some(Answer::Normal | Answer::Drip { .. } | Answer::ChannelOffline) => {
                Some(normal)
            }
            Some(Answer::Truncated { .. } | Answer::Garbage { .. }) => Some(200),
            Some(Answer::Close { .. } | Answer::Reset { .. } | Answer::Hang { .. }) => None,
            Some(Answer::Error { status, .. }) => Some(status.as_u16()),
            Some(Answer::Redirect { .. }) => Some(307),
        }
    }

    /// This behaviour, with what it leaves out taken from `other`.
    pub(super) fn or(&self, other: &Behaviour) -> Behaviour {
        Behaviour {
            fate: self.fate.clone().or_else(|| other.fate.clone()),
            answer: self.answer.clone().or_else(|| other.answer.clone()),
            answer_after: self.answer_after.or(other.answer_after),
            date_ahead: self.date_ahead.or(other.date_ahead),
            bare: self.bare.or(other.bare),
            amount_as_text: self.amount_as_text.or(other.amount_as_text),
            wrong_echo: self.wrong_echo.or(other.wrong_echo),
            status_code_in_answer: self.status_code_in_answer.or(other.status_code_in_answer),
            read_lag: self.read_lag.or(other.read_lag),
            notices: self.notices.clone().or_else(|| other.notices.clone()),
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|error| D::Error::custom(format!("duration `{text}`: {error}")))
}

fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    let number = u16::deserialize(deserializer)?;
    match StatusCode::from_u16(number) {
        Ok(status) if number >= 200 => Ok(status),
        Ok(_) | Err(_) => Err(D::Error::custom(format!(
            "{number} is not the HTTP status of an answer"
        ))),
    }
}
