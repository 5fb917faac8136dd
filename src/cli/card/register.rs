//! `cykl card register`: a link by which a payer registers a card, without card data ever coming near the shop; or, for a shop that may send
//! card data, a transaction that registers one by aliases of its tokenising proxy.

use std::time::Duration;

use chrono::TimeDelta;
use clap::Args;
use serde_json::Value;

use crate::cli::context::Context;
use crate::cli::output::{self, Format, OutputArgs, Row};
use crate::cli::subscription::Which;
use crate::cli::{CliError, Exit, Outcome, ReasonArgs, daemon, kept_reason};
use crate::domain::fields;
use crate::domain::id::{SubscriptionId, TransactionId};
use crate::domain::money::Money;
use crate::domain::registration::Way;
use crate::domain::shop::ReturnUrls;
use crate::gateway::{FirstDetails, LinkDetails};
use crate::store::registrations::{BeginError, EndError, Wanted, WantedPayment};
use crate::store::status::By;
use crate::workers::registrar::{
    CancelError, Invitation, Made, NewCard, RegisterError, Registered,
};
use crate::workers::resolver::NamePaymentError;

/// Arguments of `cykl card register`.
#[derive(Debug, Args)]
#[command(after_long_help = AFTER_LONG_HELP)]
pub struct RegisterArgs {
    #[command(flatten)]
    which: Which,

    /// Who pays, as {"firstName": .., "lastName": .., "email": ..}
    #[arg(long, value_name = "JSON", value_parser = json, required_unless_present_any = ["cancel", "transaction"])]
    customer: Option<Value>,

    /// Let the payer pay so many minor units as a verification, instead of the first charge
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=Money::CHARGE_MINOR_MAX))]
    verification_minor: Option<i64>,

    /// Under which name imoje keeps the card: one card, one cid [default: the id of the registration]
    #[arg(long, value_name = "CID", value_parser = cid)]
    cid: Option<String>,

    /// For how long it can be paid, from an hour to a year [default: 7d, or until the next period falls due; with --card 1h, at most 1d]
    #[arg(long, value_name = "DURATION", value_parser = valid_for)]
    valid_for: Option<TimeDelta>,

    /// What the payer reads [default: the title of the subscription]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,

    /// What the payer reads besides
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// Register this card instead of making a link: {"firstName": .., "lastName": .., "number": .., "month": .., "year": .., "cvv": ..},
    /// as aliases that gateway.card_proxy_url knows, never a card number or a security code
    #[arg(long, value_name = "JSON", requires = "browser", conflicts_with_all = ["return_url", "cart", "ksef"])]
    card: Option<String>,

    /// The payer's browser for 3-D Secure, as imoje documents additionalData.browser
    #[arg(long, value_name = "JSON", value_parser = json, requires = "card")]
    browser: Option<Value>,

    /// Where the payer goes when the outcome is open
    #[arg(long, value_name = "URL")]
    return_url: Option<String>,

    /// Where the payer goes once it is paid
    #[arg(long, value_name = "URL")]
    success_url: Option<String>,

    /// Where the payer goes when it failed
    #[arg(long, value_name = "URL")]
    failure_url: Option<String>,

    /// The payer's address for the bill, as imoje documents it
    #[arg(long, value_name = "JSON", value_parser = json)]
    billing: Option<Value>,

    /// Where things are sent, as imoje documents it
    #[arg(long, value_name = "JSON", value_parser = json)]
    shipping: Option<Value>,

    /// What is bought, as imoje documents it
    #[arg(long, value_name = "JSON", value_parser = json)]
    cart: Option<Value>,

    /// Have imoje make a payment identifier of KSeF
    #[arg(long)]
    ksef: bool,

    /// Read this transaction instead of making a link: imoje's panel shows it for an order of a registration of the subscription
    #[arg(long, value_name = "ID", conflicts_with_all = OF_AN_ORDER, conflicts_with = "cancel")]
    transaction: Option<TransactionId>,

    /// End the link of the subscription that nobody has paid, instead of making one; or give up card data that were never answered, 100
    /// hours after they were sent
    #[arg(long, conflicts_with_all = OF_AN_ORDER)]
    cancel: bool,

    #[command(flatten)]
    reason: ReasonArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// What is said only where something is ordered.
const OF_AN_ORDER: [&str; 15] = [
    "customer",
    "verification_minor",
    "cid",
    "valid_for",
    "title",
    "description",
    "return_url",
    "success_url",
    "failure_url",
    "billing",
    "shipping",
    "cart",
    "ksef",
    "card",
    "browser",
];

const AFTER_LONG_HELP: &str = "\
Of a subscription that waits for its first card (status registering) the payer pays the charge of the period that has
fallen due, or falls due first, and the subscription goes on with the next one; with --verification-minor nothing is
charged by the link, and the first period is the first that falls due from the day of the payment on. Any other subscription keeps its
periods and gets the new card, by a verification.

The running daemon finds out what the payer did, by imoje's notice or by asking, attaches the card and tells it as the
events registration.paid, card.attached and subscription.activated (docs/events.md). A link that nobody paid in time is
told as registration.expired. billing.registrations shows them all.

With --card no link is made: the card is charged at once, by a transaction with profileType FIRST that goes through the tokenising proxy
(for merchants with a PCI DSS certificate). Where the card asks for 3-D Secure, the payer's browser has to go to the url that is printed.
Debits then name the transaction instead of a profile. When imoje's answer is lost, nothing else is registered for the subscription until
it is known what became of it: a notice tells, --transaction names the transaction that imoje's panel shows, or, 100 hours later,
--cancel gives it up.";

impl Row for Made {
    const FIELDS: &'static [&'static str] = &[
        "registration_id",
        "transaction_id",
        "status",
        "url",
        "method",
        "content_type",
        "content",
        "valid_to",
        "amount_minor",
        "currency",
        "period_no",
        "cid",
        "order_id",
    ];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

impl Row for Registered {
    const FIELDS: &'static [&'static str] = &[
        "registration_id",
        "url",
        "valid_to",
        "amount_minor",
        "currency",
        "period_no",
        "cid",
        "order_id",
        "payment_id",
    ];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

fn cid(text: &str) -> Result<String, String> {
    fields::validate_cid(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn valid_for(text: &str) -> Result<TimeDelta, String> {
    const HOUR: Duration = Duration::from_secs(3_600);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if !(HOUR..=YEAR).contains(&duration) {
        return Err("it is not between an hour and a year; write it like 3d or 12h".to_owned());
    }
    TimeDelta::from_std(duration).map_err(|error| error.to_string())
}

pub(super) async fn run(args: &RegisterArgs, context: &Context) -> Outcome {
    let by = By {
        actor: &context.actor,
        reason: kept_reason(&args.reason.reason)?,
    };
    context
        .with_store(async |store| {
            store
                .record_shops(&context.shop_identities(), context.now())
                .await?;
            store.look_at_fence(&context.shop_identities()).await?;
            let row = args.which.find(store).await?;
            let registrar = daemon::registrar(&context.config, store, &context.clock)
                .map_err(CliError::config)?;
            let of_whom = format!("subscription {}", row.external_id);
            if let Some(transaction_id) = args.transaction {
                let resolver =
                    daemon::lone_resolver(&context.config, store).map_err(CliError::config)?;
                let id = row.subscription_id;
                let named = resolver
                    .name_payment(id, transaction_id, context.now())
                    .await;
                let state = named.map_err(|error| {
                    not_named(error).context(format!("couldn't take the payment for {of_whom}"))
                })?;
                let said = format!("the registration of {of_whom} is {}\n", state.as_str());
                output::write(said.as_bytes())?;
                return Ok(Exit::Ok);
            }
            if args.cancel {
                let found = store.payable_registration(row.subscription_id).await?;
                let id = found.ok_or_else(|| {
                    CliError::no(format!(
                        "{of_whom} has no registration that may still be paid"
                    ))
                })?;
                registrar.cancel(id, by).await.map_err(|error| {
                    not_cancelled(error)
                        .context(format!("couldn't end the registration of {of_whom}"))
                })?;
                output::write(format!("the registration of {of_whom} has ended\n").as_bytes())?;
                return Ok(Exit::Ok);
            }
            let explained = |error| {
                not_registered(error).context(format!("couldn't register a card for {of_whom}"))
            };
            let wanted = wanted(args, row.subscription_id, by);
            let format = args.output.output;
            match new_card(args)? {
                Some(card) => {
                    let made = registrar.register_card(&wanted, card).await;
                    print(&made.map_err(explained)?, format)
                }
                None => {
                    let registered = registrar.register(&wanted, invitation(args)).await;
                    print(&registered.map_err(explained)?, format)
                }
            }
        })
        .await
}

fn wanted<'a>(args: &'a RegisterArgs, subscription_id: SubscriptionId, by: By<'a>) -> Wanted<'a> {
    Wanted {
        subscription_id,
        cid: args.cid.as_deref(),
        payment: args
            .verification_minor
            .map_or(WantedPayment::FirstCharge, WantedPayment::Verification),
        valid_for: args.valid_for,
        card_data: None,
        by,
    }
}

fn invitation(args: &RegisterArgs) -> Invitation {
    Invitation {
        customer: args.customer.clone().unwrap_or_default(),
        title: args.title.clone(),
        details: LinkDetails {
            description: args.description.clone(),
            return_url: args.return_url.clone(),
            success_return_url: args.success_url.clone(),
            failure_return_url: args.failure_url.clone(),
            billing: args.billing.clone(),
            shipping: args.shipping.clone(),
            cart: args.cart.clone(),
            is_ksef: args.ksef,
        },
    }
}

/// The card that is registered by its data, if one is given.
fn new_card(args: &RegisterArgs) -> Result<Option<NewCard>, CliError> {
    let (Some(card), Some(browser)) = (&args.card, &args.browser) else {
        return Ok(None);
    };
    if args
        .valid_for
        .is_some_and(|valid_for| valid_for > TimeDelta::days(1))
    {
        return Err(CliError::usage("with --card, --valid-for is a day at most"));
    }
    // Read here, since what cannot be read may be a card number, and is not repeated.
    let card: Value = serde_json::from_str(card)
        .map_err(|error| CliError::usage(format!("--card is not JSON: {error}")))?;
    let return_to = match (&args.success_url, &args.failure_url) {
        (Some(success), Some(failure)) => Some(ReturnUrls {
            success: success.clone(),
            failure: failure.clone(),
        }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(CliError::usage(
                "with --card, --success-url and --failure-url go together: both or neither",
            ));
        }
    };
    Ok(Some(NewCard {
        customer: args.customer.clone().unwrap_or_default(),
        card,
        browser: browser.clone(),
        return_to,
        title: args.title.clone(),
        details: FirstDetails {
            description: args.description.clone(),
            billing: args.billing.clone(),
            shipping: args.shipping.clone(),
        },
    }))
}

fn print(registered: &impl Row, format: Format) -> Outcome {
    match format {
        Format::Table => {
            output::write(output::fields(registered, output::width())?.as_bytes())?;
        }
        Format::Json => output::json(registered)?,
        Format::Csv => output::list(format, std::slice::from_ref(registered))?,
    }
    Ok(Exit::Ok)
}

/// Why there is no link.
fn not_registered(error: RegisterError) -> CliError {
    match error {
        RegisterError::Store(error) | RegisterError::Begin(BeginError::Store(error)) => {
            error.into()
        }
        RegisterError::Begin(BeginError::NotFirst(_) | BeginError::FirstIsPaid) => {
            CliError::new(Exit::No, error)
                .hint("let the payer register a card by a verification: --verification-minor N")
        }
        RegisterError::Begin(BeginError::Open {
            way: Way::CardData, ..
        }) => CliError::new(Exit::No, error).hint(
            "the card may have been charged: billing.registrations tells once it is known; a transaction that imoje's panel shows is named with --transaction",
        ),
        RegisterError::Begin(BeginError::Open { way: Way::Link, .. }) => {
            CliError::new(Exit::No, error)
                .hint("end it first with --cancel, or wait until it has ended")
        }
        RegisterError::Begin(BeginError::PastNextPeriod { next_due_at }) => {
            CliError::new(Exit::No, error).hint(format!(
                "give a shorter --valid-for, or ask again after {}",
                output::instant(next_due_at)
            ))
        }
        RegisterError::Begin(BeginError::CidTaken(_)) => {
            CliError::new(Exit::No, error).hint("leave --cid out, and it has one of its own")
        }
        RegisterError::Begin(BeginError::Braked(_)) => CliError::new(Exit::No, error)
            .hint("`cykl status` tells why, and docs/brakes.md what to do"),
        RegisterError::InDoubt { .. } | RegisterError::Unrecorded { .. } => {
            CliError::new(Exit::TryAgain, error).hint(
                "do not repeat it: billing.registrations tells what became of it, once a notice has; a transaction that imoje's panel shows is named with --transaction",
            )
        }
        RegisterError::Ended { .. } => CliError::new(Exit::TryAgain, error)
            .hint("billing.registrations tells what became of it"),
        RegisterError::Begin(
            BeginError::Missing(_)
            | BeginError::Over(_)
            | BeginError::NothingDue
            | BeginError::Payouts,
        )
        | RegisterError::Declined { .. }
        | RegisterError::Refused { .. } => CliError::new(Exit::No, error),
        RegisterError::Begin(BeginError::Amount(_)) => CliError::new(Exit::Usage, error),
        RegisterError::Invalid(_) => CliError::bad_data(error),
        RegisterError::UnknownShop(_) | RegisterError::NoCardData(_) => CliError::config(error),
        RegisterError::NotSent(_) => {
            CliError::unavailable(error).hint("nothing was asked of imoje; try again")
        }
        RegisterError::AnswerLost => CliError::unavailable(error).hint("try again"),
        RegisterError::NotRecorded(_) => {
            CliError::unavailable(error).hint("nobody can pay by it; try again in two minutes")
        }
    }
}

/// Why a payment was not taken.
fn not_named(error: NamePaymentError) -> CliError {
    match error {
        NamePaymentError::Store(error) => error.into(),
        NamePaymentError::UnknownShop(_) => CliError::config(error),
        NamePaymentError::Unreachable(_) | NamePaymentError::Unrecorded(_) => {
            CliError::unavailable(error).hint("nothing was changed; ask again later")
        }
        NamePaymentError::NotShown | NamePaymentError::Foreign => {
            CliError::new(Exit::No, error).hint("nothing was changed")
        }
        NamePaymentError::Unfinished => CliError::new(Exit::TryAgain, error)
            .hint("the daemon follows it; billing.registrations tells what comes of it"),
    }
}

/// Why a link was not ended.
fn not_cancelled(error: CancelError) -> CliError {
    match error {
        CancelError::Store(error) | CancelError::End(EndError::Store(error)) => error.into(),
        CancelError::Missing => CliError::new(Exit::No, error),
        CancelError::TooEarly(_) => CliError::new(Exit::No, error).hint(
            "look in imoje's panel for its order id, which billing.registrations has, and name its transaction with --transaction",
        ),
        CancelError::BeingPaid => CliError::new(Exit::TryAgain, error).hint(
            "nobody else can pay by a link any more; billing.registrations tells what came of it",
        ),
        CancelError::End(EndError::Illegal(illegal)) => {
            CliError::no(format!("it is {} already", illegal.state.as_str()))
        }
        CancelError::UnknownShop(_) => CliError::config(error),
        CancelError::Gateway(_) => CliError::unavailable(error).hint(
            "it may have been paid: the daemon finds that out, and billing.registrations tells",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_can_be_paid_for_an_hour_at_least_and_a_year_at_most() {
        assert_eq!(valid_for("1h"), Ok(TimeDelta::hours(1)));
        assert_eq!(valid_for("3d"), Ok(TimeDelta::days(3)));
        for wrong in ["59m", "366d", "3", "", "-1h"] {
            assert!(valid_for(wrong).is_err(), "{wrong}");
        }
    }
}
