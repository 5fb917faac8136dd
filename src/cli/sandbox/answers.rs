//! Answers as the report has them.

use super::experiments::PAUSE;
use super::report::{Answer, Seen, TakenFor};
use super::scrub::Secrets;
use crate::clock::Clock;
use crate::domain::answer::{Body, Expected, Verdict, classify_debit};
use crate::domain::id::TransactionId;
use crate::domain::money::Currency;
use crate::gateway::{NoAnswer, Said, TrialClient};

/// What came after this time. `expected` is what an answer to the debit would repeat; without it, it was no debit that was asked for.
pub(super) fn answer(
    after_ms: i64,
    said: Result<Said, NoAnswer>,
    expected: Option<&Expected>,
    secrets: &Secrets,
) -> Answer {
    let nothing = Answer {
        after_ms,
        http_status: None,
        code: None,
        transaction_id: None,
        status: None,
        taken_for: TakenFor::NoDebit,
        trace_id: None,
        body: None,
        lost: None,
    };
    let said = match said {
        Ok(said) => said,
        Err(error) => {
            return Answer {
                taken_for: expected.map_or(TakenFor::NoDebit, |_| of_silence(&error)),
                lost: Some(error.to_string()),
                ..nothing
            };
        }
    };
    let taken_for = expected.map_or(TakenFor::NoDebit, |expected| {
        of_verdict(&classify_debit(said.http_status, &said.body, expected))
    });
    let body = said.text.map(|text| secrets.scrubbed(&text));
    let answer = Answer {
        http_status: Some(said.http_status),
        trace_id: said.trace_id,
        taken_for,
        ..nothing
    };
    match said.body {
        Body::Transaction(shown) => Answer {
            transaction_id: shown.id,
            status: shown.status,
            ..answer
        },
        Body::Error { code, .. } => Answer {
            code: Some(secrets.scrubbed(&code)),
            body,
            ..answer
        },
        Body::Unreadable => Answer { body, ..answer },
    }
}

/// Reads a transaction once.
pub(super) async fn see(
    client: &TrialClient,
    clock: &Clock,
    order_id: &str,
    transaction_id: TransactionId,
    (amount_minor, currency): (i64, Currency),
) -> Seen {
    let said = client.transaction(transaction_id).await;
    let shown = match said {
        Ok(said) => match said.body {
            Body::Transaction(shown) if shown.id == Some(transaction_id) => Some(shown),
            Body::Transaction(_) | Body::Error { .. } | Body::Unreadable => None,
        },
        Err(_) => None,
    };
    let (status, status_code) =
        shown.map_or((None, None), |shown| (shown.status, shown.status_code));
    Seen {
        order_id: order_id.to_owned(),
        transaction_id,
        amount_minor,
        currency,
        status,
        status_code,
        seen_at: clock.now(),
    }
}

/// Reads transactions of an earlier report once more, each once, and pauses before each.
pub(super) async fn see_again(client: &TrialClient, clock: &Clock, seen: &[Seen]) -> Vec<Seen> {
    let mut again = Vec::new();
    for Seen {
        order_id,
        transaction_id,
        amount_minor,
        currency,
        ..
    } in seen
    {
        clock.sleep_until(clock.now() + PAUSE).await;
        let amount = (*amount_minor, *currency);
        again.push(see(client, clock, order_id, *transaction_id, amount).await);
    }
    again
}

fn of_silence(error: &NoAnswer) -> TakenFor {
    match error {
        NoAnswer::NotSent(_) => TakenFor::NotSent,
        NoAnswer::Unknown(_) => TakenFor::Doubt,
    }
}

fn of_verdict(verdict: &Verdict) -> TakenFor {
    match verdict {
        Verdict::Settled { .. } => TakenFor::Settled,
        Verdict::Pending { .. } => TakenFor::Pending,
        Verdict::Rejected { .. } => TakenFor::Rejected,
        Verdict::Refused(_) => TakenFor::Refused,
        Verdict::InDoubt(_) => TakenFor::Doubt,
    }
}
