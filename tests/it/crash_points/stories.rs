//! The stories: every path that moves money, or says that it did not, and what people do to it.

use std::time::Duration;

use axum::http::StatusCode;
use cykl::simulator::{Behaviour, Call, ErrorBody, Notices, Rule};
use cykl::store::brakes::BrakeMode;
use cykl::store::registrations::WantedPayment;

use super::people::{Command, Deed};
use crate::harness::Agreement;

/// A story whose effects are made to fail.
#[derive(Clone, Copy)]
pub struct Story {
    pub name: &'static str,
    pub tell: fn() -> Agreement,
    pub rules: fn() -> Vec<Rule>,
    /// What people do, one after the other.
    pub people: &'static [Deed],
}

fn weekly() -> Agreement {
    Agreement::monthly("2027-01-01").every("P1W").times(2)
}

fn once() -> Agreement {
    Agreement::monthly("2027-01-01").times(1)
}

/// Its first period is found twelve days late.
fn late() -> Agreement {
    Agreement::monthly("2026-12-20").times(2)
}

/// All of them.
pub const STORIES: [Story; 31] = [
    Story {
        name: "paid at once, twice, and completed",
        tell: weekly,
        rules: Vec::new,
        people: &[],
    },
    Story {
        name: "paid after a notice",
        tell: || once().with_card(Behaviour::settle_after(Duration::from_secs(5))),
        rules: Vec::new,
        people: &[],
    },
    Story {
        name: "paid, found by reading",
        tell: || {
            let card = Behaviour::settle_after(Duration::from_secs(5));
            once().with_card(card.with_notices(Notices::none()))
        },
        rules: Vec::new,
        people: &[],
    },
    Story {
        name: "declined, and paid at the second try",
        tell: once,
        rules: || vec![Rule::debits(Behaviour::decline("CODE_51")).times(1)],
        people: &[],
    },
    Story {
        name: "declined for good",
        tell: || once().with_card(Behaviour::decline_at_once("CODE_43")),
        rules: Vec::new,
        people: &[],
    },
    Story {
        name: "the profile is inactive",
        tell: || once().with_card(Behaviour::inactive()),
        rules: Vec::new,
        people: &[],
    },
    Story {
        name: "the answer is lost, and a notice tells",
        tell: || once().with_card(Behaviour::take_money_and_lose_answer()),
        rules: Vec::new,
        people: &[],
    },
    Story {
        name: "the answer is lost, and nobody tells",
        tell: || {
            let card = Behaviour::take_money_and_lose_answer();
            once().with_card(card.with_notices(Notices::none()))
        },
        rules: Vec::new,
        people: &[],
    },
    Story {
        name: "the credentials are refused, and a person releases the brake",
        tell: once,
        rules: || {
            let refused = Behaviour::error(StatusCode::UNAUTHORIZED, ErrorBody::Object, false);
            vec![Rule::debits(refused).times(1)]
        },
        people: &[],
    },
    Story {
        name: "three periods are due together",
        tell: || Agreement::monthly("2026-12-30").every("P1D").times(3),
        rules: Vec::new,
        people: &[],
    },
    Story {
        name: "paused while the debit is pending",
        tell: || weekly().with_card(Behaviour::settle_after(Duration::from_secs(86_400))),
        rules: Vec::new,
        people: &[Deed {
            hour: 0,
            about: Some("a.state = 'pending'"),
            command: Command::Pause,
        }],
    },
    Story {
        name: "cancelled while the answer is lost",
        tell: || weekly().with_card(Behaviour::take_money_and_lose_answer()),
        rules: Vec::new,
        people: &[Deed {
            hour: 0,
            about: Some("a.state = 'in_doubt'"),
            command: Command::Cancel,
        }],
    },
    Story {
        name: "the request is lost, and two people say so",
        tell: || Agreement::monthly("2027-01-01").every("P1D").times(2),
        rules: || vec![Rule::debits(Behaviour::lose_request()).times(1)],
        people: &[
            Deed {
                hour: 100,
                about: Some("charges.state = 'held'"),
                command: Command::DeclareAbsent("jan"),
            },
            Deed {
                hour: 100,
                about: Some("charges.state = 'held'"),
                command: Command::DeclareAbsent("ewa"),
            },
        ],
    },
    Story {
        name: "the answer is lost, and a person finds the transaction",
        tell: || {
            let card = Behaviour::take_money_and_lose_answer();
            once().with_card(card.with_notices(Notices::none()))
        },
        rules: Vec::new,
        people: &[Deed {
            hour: 2,
            about: Some("a.state = 'in_doubt'"),
            command: Command::Settle,
        }],
    },
    Story {
        name: "given up by a person, and paid after all",
        tell: || {
            let card = Behaviour::take_money_and_lose_answer();
            once().with_card(card.with_notices(Notices::none()))
        },
        rules: Vec::new,
        people: &[
            Deed {
                hour: 97,
                about: Some("charges.state = 'held'"),
                command: Command::WriteOff,
            },
            Deed {
                hour: 120,
                about: Some("a.state = 'in_doubt'"),
                command: Command::Settle,
            },
        ],
    },
    Story {
        name: "paid, and given back",
        tell: once,
        rules: Vec::new,
        people: &[Deed {
            hour: 2,
            about: Some("charges.state = 'paid'"),
            command: Command::Refund,
        }],
    },
    Story {
        name: "paid, and given back slowly, of which no notice tells",
        tell: once,
        rules: || {
            let slow = Behaviour::settle_after(Duration::from_secs(86_400));
            vec![Rule::debits(slow.with_notices(Notices::none())).on(Call::Refund)]
        },
        people: &[Deed {
            hour: 2,
            about: Some("charges.state = 'paid'"),
            command: Command::Refund,
        }],
    },
    Story {
        name: "too late, and approved",
        tell: late,
        rules: Vec::new,
        people: &[Deed {
            hour: 1,
            about: Some("charges.state = 'held'"),
            command: Command::Approve,
        }],
    },
    Story {
        name: "too late, given up, and tried after all",
        tell: late,
        rules: Vec::new,
        people: &[
            Deed {
                hour: 1,
                about: Some("charges.state = 'held'"),
                command: Command::WriteOff,
            },
            Deed {
                hour: 2,
                about: Some("charges.state = 'failed'"),
                command: Command::RetryNow,
            },
        ],
    },
    Story {
        name: "declined, and a person wants the second try now",
        tell: once,
        rules: || vec![Rule::debits(Behaviour::decline_at_once("CODE_51")).times(1)],
        people: &[Deed {
            hour: 1,
            about: Some("charges.state = 'retry_wait'"),
            command: Command::RetryNow,
        }],
    },
    Story {
        name: "declined, and cancelled before the second try",
        tell: once,
        rules: || vec![Rule::debits(Behaviour::decline_at_once("CODE_51")).times(1)],
        people: &[Deed {
            hour: 1,
            about: Some("charges.state = 'retry_wait'"),
            command: Command::Cancel,
        }],
    },
    Story {
        name: "stopped by a person, and released when a period is late",
        tell: weekly,
        rules: Vec::new,
        people: &[
            Deed {
                hour: 1,
                about: Some("true"),
                command: Command::Brake(BrakeMode::Stop),
            },
            Deed {
                hour: 200,
                about: Some("charges.state = 'planned'"),
                command: Command::Brake(BrakeMode::Run),
            },
        ],
    },
    Story {
        name: "paused between two periods, and resumed",
        tell: weekly,
        rules: Vec::new,
        people: &[
            Deed {
                hour: 1,
                about: Some("charges.state = 'paid'"),
                command: Command::Pause,
            },
            Deed {
                hour: 72,
                about: Some("charges.state = 'paid'"),
                command: Command::Resume,
            },
        ],
    },
    Story {
        name: "a payer pays the first charge by a link",
        tell: || weekly().without_card(),
        rules: Vec::new,
        people: &[
            Deed {
                hour: 0,
                about: None,
                command: Command::Register(WantedPayment::FirstCharge),
            },
            Deed {
                hour: 1,
                about: None,
                command: Command::Pay,
            },
        ],
    },
    Story {
        name: "a payer verifies a card by a link, of which no notice tells",
        tell: || weekly().without_card(),
        rules: || {
            let silent = Behaviour::settle_at_once().with_notices(Notices::none());
            vec![Rule::debits(silent).on(Call::Payer)]
        },
        people: &[
            Deed {
                hour: 0,
                about: None,
                command: Command::Register(WantedPayment::Verification(100)),
            },
            Deed {
                hour: 1,
                about: None,
                command: Command::Pay,
            },
        ],
    },
    Story {
        name: "nobody pays by a link, and another is paid after the next period fell due",
        tell: || weekly().without_card(),
        rules: Vec::new,
        people: &[
            Deed {
                hour: 0,
                about: None,
                command: Command::Register(WantedPayment::FirstCharge),
            },
            Deed {
                hour: 200,
                about: None,
                command: Command::Register(WantedPayment::FirstCharge),
            },
            Deed {
                hour: 201,
                about: None,
                command: Command::Pay,
            },
        ],
    },
    Story {
        name: "a card is registered by its data",
        tell: || weekly().without_card(),
        rules: || vec![Rule::debits(Behaviour::settle_at_once())],
        people: &[Deed {
            hour: 0,
            about: None,
            command: Command::RegisterCard,
        }],
    },
    Story {
        name: "a card is registered by its data, which its payer confirms, and of which no notice tells",
        tell: || weekly().without_card(),
        rules: || {
            vec![Rule::debits(
                Behaviour::default().with_notices(Notices::none()),
            )]
        },
        people: &[
            Deed {
                hour: 0,
                about: None,
                command: Command::RegisterCard,
            },
            Deed {
                hour: 0,
                about: None,
                command: Command::Confirm,
            },
        ],
    },
    Story {
        name: "a card is registered by its data, of which no notice tells",
        tell: || weekly().without_card(),
        rules: || {
            let silent = Behaviour::settle_at_once().with_notices(Notices::none());
            vec![Rule::debits(silent)]
        },
        people: &[Deed {
            hour: 0,
            about: None,
            command: Command::RegisterCard,
        }],
    },
    Story {
        name: "a card without a profile is declined, and paid at the second try",
        tell: || once().without_profile(),
        rules: || vec![Rule::debits(Behaviour::decline("CODE_51")).times(1)],
        people: &[],
    },
    Story {
        name: "the answer to the debit of a card without a profile is lost",
        tell: || weekly().without_profile(),
        rules: || vec![Rule::debits(Behaviour::take_money_and_lose_answer()).times(1)],
        people: &[],
    },
];
