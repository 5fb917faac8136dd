//! What the answer to a request that moves money tells, or the lack of one.

use crate::domain::answer::{Doubt, Verdict};
use crate::domain::resolution::News;
use crate::gateway::{NoAnswer, NotSent, PostAnswer};
use crate::store::resolution::Evidence;
use crate::workers::count;

/// The news, and what is kept as evidence of it.
pub(super) fn told_by(answer: Result<PostAnswer, NoAnswer>) -> (News, Evidence) {
    match answer {
        Ok(answer) => {
            let evidence = Evidence::of_answer(answer.http_status, answer.error_code, answer.shown);
            (News::Answered(answer.verdict), evidence)
        }
        Err(no_answer) => {
            let evidence = Evidence::of_words(no_answer.to_string());
            let news = match no_answer {
                NoAnswer::NotSent(NotSent::Invalid(_) | NotSent::NoCardProxy) => News::Unsendable,
                NoAnswer::NotSent(_) => News::NotSent,
                NoAnswer::Unknown(_) => News::Answered(Verdict::InDoubt(Doubt::NoAnswer)),
            };
            (news, evidence)
        }
    }
}

/// The outcome of the call, for the metric of answer times.
pub(super) fn outcome_word(answer: &Result<PostAnswer, NoAnswer>) -> &'static str {
    match answer {
        Ok(answer) => count::verdict_word(&answer.verdict),
        Err(NoAnswer::NotSent(_)) => "not_sent",
        Err(NoAnswer::Unknown(_)) => "no_answer",
    }
}
