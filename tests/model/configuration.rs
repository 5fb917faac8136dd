//! What is explored: the configurations that must hold, and the broken variants that must be caught.

use crate::properties::{ACTED_UPON, AT_MOST_ONCE, PAID_IS_SETTLED};
use crate::world::Refusal;

/// One exploration, of two instances.
#[derive(Debug, Clone, Copy)]
pub struct Configuration {
    /// As `docs/model.md` calls it.
    pub name: &'static str,
    /// How many attempts there may be.
    pub attempts: u8,
    /// Whether instances are killed, as often as it takes.
    pub has_crashes: bool,
    /// Whether commits have an unknown outcome, as often as it takes.
    pub loses_commits: bool,
    /// Whether the gateway takes declines back.
    pub takes_back: bool,
    /// Whether the gateway makes a second transaction for an order, once.
    pub has_twin: bool,
    /// Whether people are asked early, and let a charge be tried again while an attempt of it is still in doubt.
    pub has_hasty_people: bool,
    /// How the gateway may refuse a request.
    pub refusals: &'static [Refusal],
    /// Whether forged notices name somebody else's transaction.
    pub has_forger: bool,
    /// Whether a backup of the database is taken and restored.
    pub is_restored: bool,
    /// What holds a permit back when its transaction commits.
    pub guards: Guards,
    /// What is broken.
    pub variant: Option<Variant>,
}

/// The guards of the schema that refuse a permit when a charge has another attempt. Each suffices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guards {
    /// The index `one_live_attempt`.
    pub one_live_attempt: bool,
    /// The key `order_id_is_never_reused`.
    pub order_id_is_never_reused: bool,
    /// The trigger `guard_permit`: the charge waits for a permit.
    pub charge_waits: bool,
}

impl Guards {
    const ALL: Guards = Guards {
        one_live_attempt: true,
        order_id_is_never_reused: true,
        charge_waits: true,
    };
    const NONE: Guards = Guards {
        one_live_attempt: false,
        order_id_is_never_reused: false,
        charge_waits: false,
    };
}

/// Calm weather: two instances, two attempts, and nothing goes wrong by itself.
const CALM: Configuration = Configuration {
    name: "calm",
    attempts: 2,
    has_crashes: false,
    loses_commits: false,
    takes_back: false,
    has_twin: false,
    has_hasty_people: true,
    refusals: &Refusal::ALL,
    has_forger: false,
    is_restored: false,
    guards: Guards::ALL,
    variant: None,
};

/// As much as can go wrong with every configuration.
const ROUGH: Configuration = Configuration {
    has_crashes: true,
    loses_commits: true,
    has_forger: true,
    ..CALM
};

/// The explorations that must find nothing.
pub const CONFIGURATIONS: [Configuration; 7] = [
    Configuration {
        name: "three attempts",
        attempts: 3,
        refusals: &[Refusal::Invalid],
        has_hasty_people: false,
        ..ROUGH
    },
    Configuration {
        name: "declines taken back",
        takes_back: true,
        ..ROUGH
    },
    Configuration {
        name: "second transaction for an order",
        has_twin: true,
        ..ROUGH
    },
    Configuration {
        name: "restored backup behind the fence",
        is_restored: true,
        refusals: &[Refusal::Unavailable],
        has_hasty_people: false,
        has_crashes: true,
        ..CALM
    },
    Configuration {
        name: "only one_live_attempt",
        guards: Guards {
            one_live_attempt: true,
            ..Guards::NONE
        },
        ..CALM
    },
    Configuration {
        name: "only order_id_is_never_reused",
        guards: Guards {
            order_id_is_never_reused: true,
            ..Guards::NONE
        },
        ..CALM
    },
    Configuration {
        name: "only guard_permit",
        // It does not know an attempt that was written off from one that is over.
        has_hasty_people: false,
        guards: Guards {
            charge_waits: true,
            ..Guards::NONE
        },
        ..CALM
    },
];

/// A protocol with one rule broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// The HTTP client sends a request again that timed out.
    ClientRetries,
    /// An attempt without an answer counts as failed after some polls.
    FailedAfterPolls,
    /// Whether there is another attempt is looked at before the permit is written, and nothing refuses it afterwards.
    CheckThenInsert,
    /// A notice that says "rejected" is believed without a read.
    NegativeNoticeTrusted,
    /// People may declare an attempt absent before its hundred hours are over.
    AbsentTooEarly,
    /// A charge whose instance is silent is given to another one.
    RescuedAfterLease,
    /// The request leaves before the permit is committed.
    SendBeforeCommit,
    /// A 5xx counts as a refusal.
    FaultIsRefusal,
    /// A lost answer counts as proof that nothing was sent.
    SilenceIsNotSent,
    /// A commit with an unknown outcome counts as done.
    CommitErrorIgnored,
    /// A declined transaction is not read again before the retry.
    RetryWithoutReread,
    /// A restored backup may charge at once.
    NoFence,
    /// After a restore people compare settled and open transactions with the books, and not the declined ones.
    DeclinesOfTheGapIgnored,
    /// What a read shows is believed whatever order it is about.
    EchoNotCompared,
    /// A second transaction of an order is believed like the first.
    SecondTransactionBelieved,
    /// A permit may be used however old it is.
    PermitAgeIgnored,
    /// An attempt that was written off counts as absent.
    WriteOffFrees,
    /// An attempt is not looked at again unless a notice comes.
    NeverPolled,
    /// A transaction that is not finished counts as paid.
    PendingIsPaid,
}

impl Variant {
    /// All of them, in the order of `docs/model.md`.
    pub const ALL: [Variant; 19] = [
        Variant::ClientRetries,
        Variant::FailedAfterPolls,
        Variant::CheckThenInsert,
        Variant::NegativeNoticeTrusted,
        Variant::AbsentTooEarly,
        Variant::RescuedAfterLease,
        Variant::SendBeforeCommit,
        Variant::FaultIsRefusal,
        Variant::SilenceIsNotSent,
        Variant::CommitErrorIgnored,
        Variant::RetryWithoutReread,
        Variant::NoFence,
        Variant::DeclinesOfTheGapIgnored,
        Variant::EchoNotCompared,
        Variant::SecondTransactionBelieved,
        Variant::PermitAgeIgnored,
        Variant::WriteOffFrees,
        Variant::NeverPolled,
        Variant::PendingIsPaid,
    ];

    /// As `docs/model.md` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Variant::ClientRetries => "client retries on a time-out",
            Variant::FailedAfterPolls => "failed after some polls",
            Variant::CheckThenInsert => "check, then insert",
            Variant::NegativeNoticeTrusted => "negative notice trusted",
            Variant::AbsentTooEarly => "declared absent before 100 hours",
            Variant::RescuedAfterLease => "rescued after a lease",
            Variant::SendBeforeCommit => "sent before the commit",
            Variant::FaultIsRefusal => "5xx taken as a refusal",
            Variant::SilenceIsNotSent => "lost answer taken as not sent",
            Variant::CommitErrorIgnored => "commit error ignored",
            Variant::RetryWithoutReread => "retry without a read",
            Variant::NoFence => "restored backup without the fence",
            Variant::DeclinesOfTheGapIgnored => "declines of the lost time ignored",
            Variant::EchoNotCompared => "echo not compared",
            Variant::SecondTransactionBelieved => "second transaction believed",
            Variant::PermitAgeIgnored => "age of the permit ignored",
            Variant::WriteOffFrees => "write-off frees the charge",
            Variant::NeverPolled => "attempts never polled",
            Variant::PendingIsPaid => "pending taken as paid",
        }
    }

    /// The property that catches it.
    pub const fn breaks(self) -> &'static str {
        match self {
            Variant::ClientRetries
            | Variant::FailedAfterPolls
            | Variant::CheckThenInsert
            | Variant::NegativeNoticeTrusted
            | Variant::AbsentTooEarly
            | Variant::RescuedAfterLease
            | Variant::SendBeforeCommit
            | Variant::FaultIsRefusal
            | Variant::SilenceIsNotSent
            | Variant::CommitErrorIgnored
            | Variant::RetryWithoutReread
            | Variant::NoFence
            | Variant::DeclinesOfTheGapIgnored
            | Variant::EchoNotCompared
            | Variant::SecondTransactionBelieved
            | Variant::PermitAgeIgnored
            | Variant::WriteOffFrees => AT_MOST_ONCE,
            Variant::NeverPolled => ACTED_UPON,
            Variant::PendingIsPaid => PAID_IS_SETTLED,
        }
    }

    /// The least that has to go wrong besides for it to show.
    pub const fn configuration(self) -> Configuration {
        let calm = Configuration {
            name: self.name(),
            variant: Some(self),
            ..CALM
        };
        match self {
            Variant::CheckThenInsert => Configuration {
                guards: Guards::NONE,
                ..calm
            },
            Variant::SendBeforeCommit => Configuration {
                has_crashes: true,
                ..calm
            },
            Variant::CommitErrorIgnored => Configuration {
                loses_commits: true,
                ..calm
            },
            Variant::RetryWithoutReread => Configuration {
                takes_back: true,
                ..calm
            },
            Variant::NoFence | Variant::DeclinesOfTheGapIgnored => Configuration {
                is_restored: true,
                refusals: &[],
                has_hasty_people: false,
                ..calm
            },
            Variant::NegativeNoticeTrusted | Variant::EchoNotCompared => Configuration {
                has_forger: true,
                ..calm
            },
            Variant::SecondTransactionBelieved => Configuration {
                has_twin: true,
                ..calm
            },
            Variant::ClientRetries
            | Variant::FailedAfterPolls
            | Variant::AbsentTooEarly
            | Variant::RescuedAfterLease
            | Variant::FaultIsRefusal
            | Variant::SilenceIsNotSent
            | Variant::PermitAgeIgnored
            | Variant::WriteOffFrees
            | Variant::NeverPolled
            | Variant::PendingIsPaid => calm,
        }
    }
}
