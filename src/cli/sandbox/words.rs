//! The report for people: for each experiment what was asked, what was found, and what it means for Cykl.

use std::fmt;

use super::report::{
    Again, Answer, Finding, Repeat, RepeatKind, Report, SeenAgain, StatusAt, TakenFor, Timing,
    Wrong, WrongKind,
};
use crate::cli::output::{instant, visible};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.lines() {
            writeln!(f, "{}", visible(&line))?;
        }
        Ok(())
    }
}

impl Report {
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "shop {}, {} at {}, from {} to {}, order ids {}*",
            self.shop,
            self.environment,
            self.base_url,
            instant(self.began_at),
            instant(self.ended_at),
            self.order_ids
        )];
        if let Some(ahead) = self.clock_ahead_seconds {
            lines.push(format!(
                "imoje's clock: {ahead} s ahead of this machine's; charging stops when they are further apart than charging.clock_gap_max"
            ));
        }
        if let Some(timing) = &self.timing {
            lines.push(outcome(timing));
            lines.push(notices(timing));
        }
        lines.extend(self.repeats.iter().map(|repeat| self.repeated(repeat)));
        lines.extend(self.wrong.iter().map(wrong));
        lines.extend(self.rejected());
        lines.extend(self.again.iter().flat_map(again));
        lines
    }

    fn repeated(&self, repeat: &Repeat) -> String {
        let asked = match repeat.what {
            RepeatKind::SameAmount => "an order id twice, with the same amount",
            RepeatKind::OtherAmount => "an order id twice, with another amount",
            RepeatKind::Parallel => "an order id twice at the same time",
            RepeatKind::AfterDecline => "an order id again after a decline",
        };
        let statuses: Vec<_> = self
            .transactions
            .iter()
            .filter(|seen| seen.order_id == repeat.order_id)
            .map(|seen| seen.status.as_deref().unwrap_or("not shown"))
            .collect();
        let statuses = statuses.join(", ");
        let answers = [Some(&repeat.first), repeat.second.as_ref()];
        let (found, means) = match repeat.finding {
            Finding::TwoTransactions => (
                format!("accepted twice: two transactions ({statuses})"),
                "nothing but Cykl's own permit keeps a charge from being made twice",
            ),
            Finding::SecondMovedNothing => (
                format!("two transactions, and the second moved nothing ({statuses})"),
                "imoje seems to notice a repeated order id, but says so by a transaction; Cykl does not rely on it",
            ),
            Finding::SameTransaction => (
                format!("the same transaction both times ({statuses})"),
                "imoje takes an order id for the key of a debit; Cykl does not rely on it",
            ),
            Finding::Refused => {
                let refused = answers.into_iter().flatten();
                let refused = refused.filter(|answer| answer.transaction_id.is_none());
                let refused: Vec<_> = refused.map(told).collect();
                (
                    format!("refused: {} (the other: {statuses})", refused.join(", ")),
                    "doubts could be resolved by sending an order id again; Cykl does not do so, nor rely on it",
                )
            }
            Finding::Unclear => {
                let told: Vec<_> = answers
                    .into_iter()
                    .map(|answer| answer.map_or_else(|| "not sent".to_owned(), told))
                    .collect();
                (
                    format!("unclear: {}", told.join("; then ")),
                    "try again; Cykl does not rely on it",
                )
            }
        };
        format!("{asked}: {found}; {means}")
    }

    fn rejected(&self) -> Option<String> {
        self.timing.as_ref()?;
        let is_rejected = |status: &Option<String>| status.as_deref() == Some("rejected");
        let count = self
            .transactions
            .iter()
            .filter(|seen| is_rejected(&seen.status))
            .count();
        Some(if count == 0 {
            "whether rejected changes: no debit was declined; give --declined-payment-profile-id UUID".to_owned()
        } else {
            format!(
                "whether rejected changes: {count} of the transactions were declined; read them again in some days with --again REPORT"
            )
        })
    }
}

fn outcome(timing: &Timing) -> String {
    let read = if timing.read.is_empty() {
        "no read showed it".to_owned()
    } else {
        format!("reads showed {}", course(&timing.read))
    };
    format!(
        "from a debit to its outcome: {}; {read}; until then Cykl calls it pending",
        told(&timing.answer)
    )
}

fn notices(timing: &Timing) -> String {
    let found = match &timing.deaf_because {
        Some(reason) => format!("not measured, because {reason}"),
        None if timing.notices.is_empty() => "none came in two minutes".to_owned(),
        None => course(&timing.notices),
    };
    let unsigned = match timing.unsigned {
        0 => String::new(),
        count => format!(", and {count} that imoje did not sign"),
    };
    format!(
        "from a debit to its notices: {found}{unsigned}; a debit without an answer is found by its notice only"
    )
}

fn wrong(wrong: &Wrong) -> String {
    let asked = match wrong.what {
        WrongKind::WrongToken => "a debit with a wrong token",
        WrongKind::OtherMerchant => "a debit for another merchant",
        WrongKind::UnknownProfile => "a debit of an unknown card",
        WrongKind::InactiveProfile => "a debit of an inactive card",
        WrongKind::CutOff => "a debit that is not JSON",
        WrongKind::UnknownTransaction => "a read of an unknown transaction",
        WrongKind::UnknownPath => "a read of an unknown path",
    };
    let means = match wrong.answer.taken_for {
        TakenFor::Settled => "Cykl would take it for paid",
        TakenFor::Pending => "Cykl would take it for pending",
        TakenFor::Rejected => "Cykl would take it for a decline",
        TakenFor::Refused => "Cykl takes it for a refusal that moved nothing",
        TakenFor::Doubt => "Cykl takes it for doubt, which is never sent again",
        TakenFor::NotSent => "nothing was sent",
        TakenFor::NoDebit => "nothing follows from it but that people are told",
    };
    format!("{asked}: {}; {means}", told(&wrong.answer))
}

fn again(again: &Again) -> Vec<String> {
    let all = again.transactions.len();
    let changed: Vec<_> = again
        .transactions
        .iter()
        .filter(|seen| seen.has_changed())
        .collect();
    let unseen = again
        .transactions
        .iter()
        .filter(|seen| seen.now.status.is_none())
        .count();
    let means = if changed.iter().any(|seen| seen.was_taken_back()) {
        "rejected is no final word: Cykl reads a decline again before it tries the charge again, and books a second movement as surplus"
    } else {
        "no rejected has changed until now; Cykl reads a decline again all the same"
    };
    let mut lines = vec![format!(
        "the {all} transactions {}* since {}: {} changed, {unseen} not shown; {means}",
        again.order_ids,
        instant(again.seen_at),
        changed.len(),
    )];
    lines.extend(changed.into_iter().map(change));
    lines
}

fn change(seen: &SeenAgain) -> String {
    let word = |status: &Option<String>| status.clone().unwrap_or_default();
    format!(
        "  {} {}: {} then, {} now",
        seen.now.order_id,
        seen.now.transaction_id,
        word(&seen.before),
        word(&seen.now.status)
    )
}

/// An answer in few words.
fn told(answer: &Answer) -> String {
    let said = match (
        &answer.lost,
        answer.http_status,
        &answer.status,
        &answer.code,
    ) {
        (Some(lost), ..) => lost.clone(),
        (None, Some(http_status), Some(status), _) => format!("HTTP {http_status}, {status}"),
        (None, Some(http_status), None, Some(code)) => format!("HTTP {http_status}, {code}"),
        (None, Some(http_status), None, None) => {
            format!("HTTP {http_status} without a code of imoje's")
        }
        (None, None, ..) => "nothing".to_owned(),
    };
    format!("{said} after {}", seconds(answer.after_ms))
}

fn course(statuses: &[StatusAt]) -> String {
    let told: Vec<_> = statuses
        .iter()
        .map(|seen| format!("{} after {}", seen.status, seconds(seen.after_ms)))
        .collect();
    told.join(", ")
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}
