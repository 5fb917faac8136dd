//! What a person can find out about a charge, and decide: the checklist for an unknown outcome, and the commands that are possible,
//! now or later.

use std::fmt::Write;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::{CliError, output};
use crate::domain::attempt::AttemptState;
use crate::domain::charge::ChargeState;
use crate::domain::id::ChargeId;
use crate::domain::money;
use crate::domain::people::{self, Case, Declaration, GoingOn, Refused, Ruling, WriteOff};
use crate::store::books::{ChargeStory, ListedAttempt};

/// A decision that could be taken about a charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Prospect {
    /// Which.
    decision: &'static str,
    /// How to take it.
    command: String,
    /// From when on it is possible, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    possible_at: Option<DateTime<Utc>>,
    /// Why it is not possible, or what it takes besides.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// The decisions that come into question for a charge, whether they are possible or not.
pub(super) fn prospects(charge_id: ChargeId, case: &Case, context: &Context) -> Vec<Prospect> {
    Ruling::ALL
        .into_iter()
        .filter_map(|ruling| {
            let (possible_at, note) = prospect(ruling, case, context)?;
            Some(Prospect {
                decision: ruling.as_str(),
                command: command(ruling, charge_id),
                possible_at,
                note,
            })
        })
        .collect()
}

fn command(ruling: Ruling, charge_id: ChargeId) -> String {
    let verb = ruling.as_str().replace('_', "-");
    let transaction = match ruling {
        Ruling::Settle => " --transaction ID",
        Ruling::DeclareAbsent | Ruling::WriteOff | Ruling::Approve | Ruling::RetryNow => "",
    };
    format!("cykl charge {verb} {charge_id}{transaction} --reason TEXT --actor NAME")
}

/// When a decision is possible and what it takes besides, or why it is not. `None` when it does not come into question.
fn prospect(
    ruling: Ruling,
    case: &Case,
    context: &Context,
) -> Option<(Option<DateTime<Utc>>, Option<String>)> {
    let now = context.now();
    let refusal = match ruling {
        Ruling::Settle => {
            let is_open = case.charge != ChargeState::Paid && !case.attempts.is_empty();
            return is_open.then_some((Some(now), None));
        }
        Ruling::DeclareAbsent => {
            // Whoever looks may tell somebody else to declare it.
            let declared = people::declare_absent(case, "", context.config.absent_after, now);
            let by = case
                .undecided()
                .map(|attempt| attempt.declared_by.join(", "))
                .unwrap_or_default();
            match declared {
                Ok(Declaration::First(_)) => {
                    return Some((Some(now), Some("two people have to".to_owned())));
                }
                Ok(Declaration::Second(_)) => {
                    return Some((Some(now), Some(format!("{by} has declared it already"))));
                }
                Ok(Declaration::Already) => return None,
                Err(refusal) => refusal,
            }
        }
        Ruling::WriteOff => match people::write_off(case, &context.config.policy.resolver, now) {
            Ok(WriteOff::InDoubt(_) | WriteOff::Plain) => return Some((Some(now), None)),
            Ok(WriteOff::Already) => return None,
            Err(refusal) => refusal,
        },
        Ruling::Approve => match people::approve(case, now) {
            Ok(GoingOn::At(at)) => return Some((Some(now), Some(goes_out(at)))),
            Ok(GoingOn::Already) => return None,
            Err(refusal) => refusal,
        },
        Ruling::RetryNow => match people::retry_now(case, now) {
            Ok(GoingOn::At(at)) => return Some((Some(now), Some(goes_out(at)))),
            Ok(GoingOn::Already) => return None,
            Err(refusal) => refusal,
        },
    };
    let possible_at = match &refusal {
        // Not what it is for.
        Refused::State(_) | Refused::HeldFor(_) | Refused::NothingInDoubt => return None,
        Refused::NotBefore(at) | Refused::AnswerMayCome(at) => Some(*at),
        Refused::Undecided(_)
        | Refused::MoneyMoved(_)
        | Refused::NotBillable(_)
        | Refused::Card(_)
        | Refused::CardBlocked
        | Refused::HasTransaction(_)
        | Refused::NoticeCame
        | Refused::InboxSilent
        | Refused::SamePerson(_) => None,
    };
    let note = match possible_at {
        Some(_) if ruling == Ruling::DeclareAbsent => Some("two people have to".to_owned()),
        Some(_) => None,
        None => Some(refusal.to_string()),
    };
    Some((possible_at, note))
}

fn goes_out(at: DateTime<Utc>) -> String {
    format!("it goes out at {} at the earliest", output::instant(at))
}

/// The commands that come into question, with when each becomes possible.
pub(super) fn decisions(
    prospects: &[Prospect],
    zone: Tz,
    now: DateTime<Utc>,
) -> Result<String, CliError> {
    let mut text = String::new();
    for prospect in prospects {
        let when = match prospect.possible_at {
            Some(at) if at <= now => "now".to_owned(),
            Some(at) => format!("from {}", local(at, zone)),
            None => "not possible".to_owned(),
        };
        let note = prospect
            .note
            .as_ref()
            .map_or_else(String::new, |note| format!("; {note}"));
        write!(text, "  {}\n      {when}{note}\n", prospect.command).map_err(CliError::internal)?;
    }
    Ok(text)
}

/// The time around sending in which imoje's panel may show a transaction, by another clock.
const SEARCH_FROM: TimeDelta = TimeDelta::minutes(-10);
const SEARCH_TO: TimeDelta = TimeDelta::minutes(15);

/// The questions about an attempt whose outcome is unknown. The address of imoje's panel is not ours to know.
pub(super) fn questions(story: &ChargeStory, attempt: &ListedAttempt, context: &Context) -> String {
    let shop = &story.charge.shop;
    let zone = zone(story, context);
    let place = context.config.shops.get(shop).map_or_else(
        || format!("shop {shop}, which is not configured any more"),
        |configured| {
            format!(
                "shop {shop}: {}, service {}",
                configured.environment, configured.service_id
            )
        },
    );
    format!(
        "Nobody knows whether attempt {attempt_no} moved money. Nothing more is sent for the charge until that is known.\n\
         \x20 Q1. Open imoje's panel for {place}.\n\
         \x20     Search the transactions for the order id {order_id}\n\
         \x20     Is there one? Give its id to \"cykl charge settle\": imoje is asked about it, your word is not used.\n\
         \x20 Q2. If not, search by amount, card and time. They only help to find it; the order id is the only proof.\n\
         \x20     amount  {amount}\n\
         \x20     card    {card}\n\
         \x20     time    {from} to {to} ({zone})\n\
         \x20     Is there a transaction of this card that \"cykl charge list\" does not have?\n\
         \x20 Q3. With three or more in doubt: which incident number did imoje's support give, and what do they say about\n\
         \x20     these order ids?\n\
         \x20 Q4. Decide. {otherwise}\n",
        attempt_no = attempt.attempt_no,
        order_id = attempt.order_id,
        amount = money::format_minor(attempt.amount_minor, attempt.currency),
        card = attempt.card_masked.as_deref().unwrap_or("not known"),
        from = local(attempt.permitted_at + SEARCH_FROM, zone),
        to = local(attempt.permitted_at + SEARCH_TO, zone),
        otherwise = otherwise(attempt, zone, context),
    )
}

/// What happens when nobody decides.
fn otherwise(attempt: &ListedAttempt, zone: Tz, context: &Context) -> String {
    let policy = &context.config.policy.resolver;
    if attempt.state == AttemptState::Pending {
        return "imoje has the transaction and has not finished it; it is read on without end."
            .to_owned();
    }
    match attempt.next_poll_at {
        None => "The period was written off. Late news of its money still makes it paid by itself."
            .to_owned(),
        Some(_) => format!(
            "If nobody does, a notice may bring the id until {}, and the period is written off at {}:\n\
             \x20     a lost instalment is cheaper than a double debit.",
            local(attempt.permitted_at + policy.answer_window, zone),
            local(attempt.permitted_at + policy.write_off_after, zone),
        ),
    }
}

/// The zone of a charge's shop.
pub(super) fn zone(story: &ChargeStory, context: &Context) -> Tz {
    let configured = context.config.shops.get(&story.charge.shop);
    configured.map_or(Tz::UTC, |shop| shop.timezone)
}

fn local(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone)
        .to_rfc3339_opts(SecondsFormat::Secs, false)
}
