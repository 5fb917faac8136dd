//! Facts that are told to the shop and to operators.

/// What kind of fact an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A subscription was stored.
    SubscriptionCreated,
    /// A charge waits for a retry.
    SubscriptionPastDue,
    /// No charge waits for a retry any more.
    SubscriptionRecovered,
    /// A person paused it.
    SubscriptionPaused,
    /// A person lets it go on.
    SubscriptionResumed,
    /// Its card cannot be charged any more.
    SubscriptionDeactivated,
    /// A person ended it.
    SubscriptionCancelled,
    /// Its last period is closed.
    SubscriptionCompleted,
    /// It has its first card, and is billed from now on.
    SubscriptionActivated,
    /// There is a link by which a payer pays and registers a card.
    RegistrationOpened,
    /// A payer paid by such a link.
    RegistrationPaid,
    /// Nobody paid by such a link in time.
    RegistrationExpired,
    /// Such a link was ended before anybody paid.
    RegistrationCancelled,
    /// Card data were sent, and whether the card was charged is not known.
    RegistrationInDoubt,
    /// A payer paid by such a link, and no card is to be had from it.
    RegistrationCardless,
    /// A card that was registered is that of a subscription now.
    CardAttached,
    /// A person ended a card.
    CardDeactivated,
    /// A card that is to be charged within a week expires before long.
    CardExpiring,
    /// A card that is to be charged within a week cannot be, as far as the gateway shows.
    CardInactive,
    /// The money moved.
    ChargePaid,
    /// The card was declined; the charge is tried again.
    ChargeDeclined,
    /// The charge will not be tried again.
    ChargeFailed,
    /// A person has to decide about the charge.
    ChargeHeld,
    /// The period is not charged.
    ChargeSkipped,
    /// A person decided about the charge.
    ChargeDecided,
    /// The gateway's answer to a debit told nothing for certain.
    AttemptInDoubt,
    /// The outcome of an attempt is unknown for so long that a person should look.
    CaseOpened,
    /// The charge was given up although its outcome is unknown.
    ChargeWrittenOff,
    /// Money went back to the payer.
    RefundSettled,
    /// A refund came to nothing.
    RefundFailed,
    /// The gateway's answer to a refund told nothing for certain.
    RefundInDoubt,
    /// The outcome of a refund is unknown for so long that a person should look.
    RefundCaseOpened,
    /// The gateway has a refund that was not ordered here.
    RefundFound,
    /// Money moved twice for one charge, or for one registration.
    IncidentSurplus,
    /// The gateway answered about another order, amount, currency or shop.
    IncidentMismatch,
    /// News about an attempt contradicts what was established before.
    IncidentContradiction,
    /// The gateway knows a debit of ours that this database does not.
    IncidentOrphan,
    /// A signed notice names a transaction that the gateway does not know.
    IncidentUnknownTransaction,
    /// The gateway does not accept our credentials.
    IncidentUnauthorized,
    /// The database refused a permit that the charger thought legal.
    IncidentPermitRefused,
    /// Too many debits ended in doubt.
    IncidentDoubts,
    /// Far more debits than usual were declined.
    IncidentDeclines,
    /// Clocks disagree.
    IncidentClock,
    /// The gateway says that its channel for recurring debits is off line.
    IncidentChannel,
    /// Far more was to be permitted on a day than was planned for it.
    IncidentDailyCap,
    /// Constraints, indexes or triggers of the schema are missing.
    IncidentGuards,
    /// The database has forgotten a permit that the permit journal names.
    IncidentBooksBehind,
    /// The fence that a running daemon had passed is closed: the database went elsewhere, or was adopted anew.
    IncidentFence,
    /// The brake was put on, or released.
    BrakeChanged,
    /// The database was adopted by this installation.
    InstallationAdopted,
}

impl EventKind {
    /// All kinds, for the documentation and its test.
    pub const ALL: [EventKind; 50] = [
        EventKind::SubscriptionCreated,
        EventKind::SubscriptionPastDue,
        EventKind::SubscriptionRecovered,
        EventKind::SubscriptionPaused,
        EventKind::SubscriptionResumed,
        EventKind::SubscriptionDeactivated,
        EventKind::SubscriptionCancelled,
        EventKind::SubscriptionCompleted,
        EventKind::SubscriptionActivated,
        EventKind::RegistrationOpened,
        EventKind::RegistrationPaid,
        EventKind::RegistrationExpired,
        EventKind::RegistrationCancelled,
        EventKind::RegistrationInDoubt,
        EventKind::RegistrationCardless,
        EventKind::CardAttached,
        EventKind::CardDeactivated,
        EventKind::CardExpiring,
        EventKind::CardInactive,
        EventKind::ChargePaid,
        EventKind::ChargeDeclined,
        EventKind::ChargeFailed,
        EventKind::ChargeHeld,
        EventKind::ChargeSkipped,
        EventKind::ChargeDecided,
        EventKind::AttemptInDoubt,
        EventKind::CaseOpened,
        EventKind::ChargeWrittenOff,
        EventKind::RefundSettled,
        EventKind::RefundFailed,
        EventKind::RefundInDoubt,
        EventKind::RefundCaseOpened,
        EventKind::RefundFound,
        EventKind::IncidentSurplus,
        EventKind::IncidentMismatch,
        EventKind::IncidentContradiction,
        EventKind::IncidentOrphan,
        EventKind::IncidentUnknownTransaction,
        EventKind::IncidentUnauthorized,
        EventKind::IncidentPermitRefused,
        EventKind::IncidentDoubts,
        EventKind::IncidentDeclines,
        EventKind::IncidentClock,
        EventKind::IncidentChannel,
        EventKind::IncidentDailyCap,
        EventKind::IncidentGuards,
        EventKind::IncidentBooksBehind,
        EventKind::IncidentFence,
        EventKind::BrakeChanged,
        EventKind::InstallationAdopted,
    ];

    /// Its stable name, in the database, in webhooks and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::SubscriptionCreated => "subscription.created",
            EventKind::SubscriptionPastDue => "subscription.past_due",
            EventKind::SubscriptionRecovered => "subscription.recovered",
            EventKind::SubscriptionPaused => "subscription.paused",
            EventKind::SubscriptionResumed => "subscription.resumed",
            EventKind::SubscriptionDeactivated => "subscription.deactivated",
            EventKind::SubscriptionCancelled => "subscription.cancelled",
            EventKind::SubscriptionCompleted => "subscription.completed",
            EventKind::SubscriptionActivated => "subscription.activated",
            EventKind::RegistrationOpened => "registration.opened",
            EventKind::RegistrationPaid => "registration.paid",
            EventKind::RegistrationExpired => "registration.expired",
            EventKind::RegistrationCancelled => "registration.cancelled",
            EventKind::RegistrationInDoubt => "registration.in_doubt",
            EventKind::RegistrationCardless => "registration.cardless",
            EventKind::CardAttached => "card.attached",
            EventKind::CardDeactivated => "card.deactivated",
            EventKind::CardExpiring => "card.expiring",
            EventKind::CardInactive => "card.inactive",
            EventKind::ChargePaid => "charge.paid",
            EventKind::ChargeDeclined => "charge.declined",
            EventKind::ChargeFailed => "charge.failed",
            EventKind::ChargeHeld => "charge.held",
            EventKind::ChargeSkipped => "charge.skipped",
            EventKind::ChargeDecided => "charge.decided",
            EventKind::AttemptInDoubt => "attempt.in_doubt",
            EventKind::CaseOpened => "case.opened",
            EventKind::ChargeWrittenOff => "charge.written_off",
            EventKind::RefundSettled => "refund.settled",
            EventKind::RefundFailed => "refund.failed",
            EventKind::RefundInDoubt => "refund.in_doubt",
            EventKind::RefundCaseOpened => "refund.case_opened",
            EventKind::RefundFound => "refund.found",
            EventKind::IncidentSurplus => "incident.surplus",
            EventKind::IncidentMismatch => "incident.mismatch",
            EventKind::IncidentContradiction => "incident.contradiction",
            EventKind::IncidentOrphan => "incident.orphan",
            EventKind::IncidentUnknownTransaction => "incident.unknown_transaction",
            EventKind::IncidentUnauthorized => "incident.unauthorized",
            EventKind::IncidentPermitRefused => "incident.permit_refused",
            EventKind::IncidentDoubts => "incident.doubts",
            EventKind::IncidentDeclines => "incident.declines",
            EventKind::IncidentClock => "incident.clock",
            EventKind::IncidentChannel => "incident.channel",
            EventKind::IncidentDailyCap => "incident.daily_cap",
            EventKind::IncidentGuards => "incident.guards",
            EventKind::IncidentBooksBehind => "incident.books_behind",
            EventKind::IncidentFence => "incident.fence",
            EventKind::BrakeChanged => "brake.changed",
            EventKind::InstallationAdopted => "installation.adopted",
        }
    }

    /// Whether operators are alerted, besides the shop being told.
    pub const fn is_alert(self) -> bool {
        match self {
            EventKind::SubscriptionDeactivated
            | EventKind::ChargeFailed
            | EventKind::ChargeHeld
            | EventKind::CaseOpened
            | EventKind::ChargeWrittenOff
            | EventKind::RefundFailed
            | EventKind::RefundCaseOpened
            | EventKind::RegistrationInDoubt
            | EventKind::RegistrationCardless
            | EventKind::IncidentSurplus
            | EventKind::IncidentMismatch
            | EventKind::IncidentContradiction
            | EventKind::IncidentOrphan
            | EventKind::IncidentUnknownTransaction
            | EventKind::IncidentUnauthorized
            | EventKind::IncidentPermitRefused
            | EventKind::IncidentDoubts
            | EventKind::IncidentDeclines
            | EventKind::IncidentClock
            | EventKind::IncidentChannel
            | EventKind::IncidentDailyCap
            | EventKind::IncidentGuards
            | EventKind::IncidentBooksBehind
            | EventKind::IncidentFence
            | EventKind::BrakeChanged
            | EventKind::InstallationAdopted => true,
            EventKind::SubscriptionCreated
            | EventKind::SubscriptionPastDue
            | EventKind::SubscriptionRecovered
            | EventKind::SubscriptionPaused
            | EventKind::SubscriptionResumed
            | EventKind::SubscriptionCancelled
            | EventKind::SubscriptionCompleted
            | EventKind::SubscriptionActivated
            | EventKind::RegistrationOpened
            | EventKind::RegistrationPaid
            | EventKind::RegistrationExpired
            | EventKind::RegistrationCancelled
            | EventKind::CardAttached
            | EventKind::CardDeactivated
            | EventKind::CardExpiring
            | EventKind::CardInactive
            | EventKind::ChargePaid
            | EventKind::ChargeDeclined
            | EventKind::ChargeSkipped
            | EventKind::ChargeDecided
            | EventKind::RefundSettled
            | EventKind::RefundInDoubt
            | EventKind::RefundFound
            | EventKind::AttemptInDoubt => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_name() {
        let names: std::collections::BTreeSet<_> =
            EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), EventKind::ALL.len());
    }
}
