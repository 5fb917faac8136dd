//! `cykl card`: how a card is registered, what imoje knows about it, and its end.

mod register;
mod widget;

use chrono::NaiveDate;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::output::{self, OutputArgs, Row};
use crate::cli::{CliError, Exit, Outcome, ReasonArgs, daemon, kept_reason};
use crate::domain::fields;
use crate::domain::id::{ProfileId, TransactionId};
use crate::domain::shop::ShopName;
use crate::gateway::{ImojeClient, Lookup, Profile, ProfileKind, ReadError};
use crate::store::Store;
use crate::store::cards::DeactivateError;
use crate::store::status::By;

/// What to do with cards.
#[derive(Debug, Subcommand)]
pub enum CardCommand {
    /// Show what imoje knows about a card, and which subscriptions are charged to it
    Show(ShowArgs),
    /// End a card at imoje and here: nothing is ever charged to it again
    Deactivate(DeactivateArgs),
    /// Make a link by which a payer pays once and registers a card for a subscription
    Register(Box<register::RegisterArgs>),
    /// Print the signed HTML of imoje's widget, by which a payer registers a card on a page of the shop
    Widget(Box<widget::WidgetArgs>),
}

/// Arguments of `cykl card show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The card, by the id of its payment profile
    #[arg(
        value_name = "PROFILE", value_parser = profile_id, required_unless_present_any = ["cid", "transaction"],
        conflicts_with_all = ["cid", "transaction"],
    )]
    profile: Option<ProfileId>,
    /// Every card that imoje has for this cid
    #[arg(long, value_name = "CID", value_parser = cid, conflicts_with = "transaction")]
    cid: Option<String>,
    /// What imoje shows of the transaction that registered it: the first_transaction_id of a card without a profile is read here
    #[arg(long, value_name = "ID")]
    transaction: Option<TransactionId>,
    #[command(flatten)]
    shop: ShopArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `cykl card deactivate`.
#[derive(Debug, Args)]
pub struct DeactivateArgs {
    /// The card, by the id of its payment profile
    #[arg(value_name = "PROFILE", value_parser = profile_id)]
    profile: ProfileId,
    #[command(flatten)]
    shop: ShopArgs,
    #[command(flatten)]
    reason: ReasonArgs,
}

/// Whose card it is.
#[derive(Debug, Args)]
struct ShopArgs {
    /// The shop, when there are several
    #[arg(long, value_name = "NAME")]
    shop: Option<ShopName>,
}

/// A card as imoje and the books know it.
#[derive(Debug, Serialize)]
struct ShownCard {
    payment_profile_id: ProfileId,
    cid: Option<String>,
    shop: ShopName,
    /// As imoje says.
    is_active: Option<bool>,
    masked_number: Option<String>,
    organization: Option<String>,
    /// The last day on which it is good.
    expires_on: Option<NaiveDate>,
    kind: Option<&'static str>,
    first_transaction_id: Option<String>,
    /// Whether the books allow charges to it; absent when they do not have it.
    is_chargeable: Option<bool>,
    subscriptions: Vec<String>,
}

impl Row for ShownCard {
    const FIELDS: &'static [&'static str] = &[
        "payment_profile_id",
        "cid",
        "shop",
        "is_active",
        "masked_number",
        "organization",
        "expires_on",
        "kind",
        "first_transaction_id",
        "is_chargeable",
        "subscriptions",
    ];
    const SHOWN: &'static [&'static str] = &[
        "payment_profile_id",
        "cid",
        "is_active",
        "masked_number",
        "organization",
        "expires_on",
        "kind",
        "is_chargeable",
        "subscriptions",
    ];
}

/// What a transaction says about the card that it registered.
#[derive(Debug, Serialize)]
struct ShownRegistration {
    transaction_id: TransactionId,
    shop: ShopName,
    status: Option<String>,
    order_id: Option<String>,
    masked_number: Option<String>,
    /// The card, if imoje keeps a profile of it.
    payment_profile_id: Option<ProfileId>,
    /// What names the card in debits without a profile.
    first_transaction_id: Option<String>,
}

impl Row for ShownRegistration {
    const FIELDS: &'static [&'static str] = &[
        "transaction_id",
        "shop",
        "status",
        "order_id",
        "masked_number",
        "payment_profile_id",
        "first_transaction_id",
    ];
    const SHOWN: &'static [&'static str] = Self::FIELDS;
}

pub(super) async fn run(command: &CardCommand, context: &Context) -> Outcome {
    match command {
        CardCommand::Show(args) => show(args, context).await,
        CardCommand::Register(args) => register::run(args, context).await,
        CardCommand::Widget(args) => widget::run(args, context),
        CardCommand::Deactivate(args) => deactivate(args, context).await,
    }
}

async fn show(args: &ShowArgs, context: &Context) -> Outcome {
    let (shop, client) = gateway(&args.shop, context)?;
    if let Some(transaction_id) = args.transaction {
        let shown = registered(&client, transaction_id, shop).await?;
        output::list(args.output.output, &[shown])?;
        return Ok(Exit::Ok);
    }
    let profiles = match (args.profile, &args.cid) {
        (Some(profile), _) => client.profile(profile).await.map(|profile| vec![profile]),
        (None, Some(cid)) => client.profiles_of(cid).await,
        (None, None) => Ok(Vec::new()),
    };
    let profiles = profiles.map_err(|error| unanswered(error, shop))?;
    if profiles.is_empty() {
        return Err(unanswered(ReadError::NotFound, shop));
    }
    context
        .with_store(async |store| {
            let mut cards = Vec::with_capacity(profiles.len());
            for profile in profiles {
                cards.push(shown(profile, shop, store).await?);
            }
            output::list(args.output.output, &cards)?;
            Ok(Exit::Ok)
        })
        .await
}

async fn registered(
    client: &ImojeClient,
    transaction_id: TransactionId,
    shop: &ShopName,
) -> Result<ShownRegistration, CliError> {
    let unanswered = |error| {
        CliError::from(error).context(format!(
            "couldn't ask imoje about a transaction of shop {shop}"
        ))
    };
    match client
        .shown_transaction(transaction_id)
        .await
        .map_err(unanswered)?
    {
        Lookup::Shown(shown) if shown.id == Some(transaction_id) => Ok(ShownRegistration {
            transaction_id,
            shop: shop.clone(),
            status: shown.status,
            order_id: shown.order_id,
            masked_number: shown.masked_number,
            payment_profile_id: shown.profile_id,
            first_transaction_id: shown.first_transaction_id,
        }),
        Lookup::Denied => Err(CliError::no(format!(
            "imoje has no such transaction of shop {shop}"
        ))),
        Lookup::Shown(_) | Lookup::Unclear => Err(unanswered(ReadError::Unreadable)),
    }
}

async fn shown(profile: Profile, shop: &ShopName, store: &Store) -> Result<ShownCard, CliError> {
    let known = store.known_card(shop, profile.id).await?;
    let expires_on = profile.expires_on();
    Ok(ShownCard {
        payment_profile_id: profile.id,
        cid: profile.cid,
        shop: shop.clone(),
        is_active: profile.is_active,
        masked_number: profile.masked_number,
        organization: profile.organization,
        expires_on,
        kind: profile.kind.map(|kind| match kind {
            ProfileKind::Recurring => "recurring",
            ProfileKind::OneClick => "one_click",
        }),
        first_transaction_id: profile.first_transaction_id,
        is_chargeable: known.as_ref().map(|card| card.is_active),
        subscriptions: known.map(|card| card.subscriptions).unwrap_or_default(),
    })
}

async fn deactivate(args: &DeactivateArgs, context: &Context) -> Outcome {
    let by = By {
        actor: &context.actor,
        reason: kept_reason(&args.reason.reason)?,
    };
    let (shop, client) = gateway(&args.shop, context)?;
    let card = args.profile;
    context
        .with_store(async |store| {
            let before = client
                .profile(card)
                .await
                .map_err(|error| unanswered(error, shop))?;
            // First here: whatever comes of the rest, the card is not charged any more.
            let is_marked = store
                .deactivate_card(shop, card, by, context.now())
                .await
                .map_err(|error| refused(error, card))?;
            if before.is_active == Some(false) {
                let told = if is_marked {
                    "was inactive at imoje already; now it is here, too"
                } else {
                    "was inactive already; nothing was changed"
                };
                output::write(format!("card {card} {told}\n").as_bytes())?;
                return Ok(Exit::Ok);
            }
            end(&client, card, shop).await.map_err(|error| {
                error.hint("Cykl does not charge this card any more, but imoje may go on to have it; run this command again")
            })?;
            output::write(format!("card {card} is inactive\n").as_bytes())?;
            Ok(Exit::Ok)
        })
        .await
}

/// Ends the card at imoje, and looks whether it is.
async fn end(client: &ImojeClient, card: ProfileId, shop: &ShopName) -> Result<(), CliError> {
    let unanswered = |error| unanswered(error, shop);
    client.deactivate_profile(card).await.map_err(unanswered)?;
    match client.profile(card).await {
        Ok(after) if after.is_active == Some(false) => Ok(()),
        Ok(_) => Err(CliError::no(format!(
            "imoje took the order, but does not say that card {card} is inactive"
        ))),
        // What imoje shows of an ended card is not documented.
        Err(ReadError::NotFound) => Ok(()),
        Err(error) => Err(unanswered(error)),
    }
}

fn refused(error: DeactivateError, card: ProfileId) -> CliError {
    match error {
        DeactivateError::InUse(_) => CliError::new(Exit::No, error)
            .context(format!("couldn't deactivate card {card}"))
            .hint("nothing was changed; cancel these subscriptions first"),
        DeactivateError::Store(error) => error.into(),
    }
}

fn unanswered(error: ReadError, shop: &ShopName) -> CliError {
    match error {
        ReadError::NotFound => CliError::no(format!("imoje has no such card of shop {shop}")),
        ReadError::Unauthorized { .. }
        | ReadError::Unbuildable(_)
        | ReadError::Connect(_)
        | ReadError::Lost(_)
        | ReadError::Status { .. }
        | ReadError::Unreadable
        | ReadError::Mismatch => CliError::from(error)
            .context(format!("couldn't ask imoje about the card of shop {shop}")),
    }
}

/// The shop that is meant, and how to reach imoje for it.
fn gateway<'a>(
    args: &ShopArgs,
    context: &'a Context,
) -> Result<(&'a ShopName, ImojeClient), CliError> {
    let (name, shop) = context.shop(args.shop.as_ref())?;
    let client = daemon::client(&context.config, shop).map_err(CliError::config)?;
    Ok((name, client))
}

fn profile_id(text: &str) -> Result<ProfileId, String> {
    let id: ProfileId = text
        .parse()
        .map_err(|_| "it is not a UUID; copy it from imoje's panel".to_owned())?;
    fields::validate_profile_id(id).map_err(|error| error.to_string())?;
    Ok(id)
}

fn cid(text: &str) -> Result<String, String> {
    fields::validate_cid(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
