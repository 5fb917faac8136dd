//! `cykl adopt`: accepts a moved, restored or copied database, after a person has compared its books with imoje.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::{Exit, Outcome, ReasonArgs};

/// Arguments of `cykl adopt`.
#[derive(Debug, Args)]
pub struct AdoptArgs {
    #[command(flatten)]
    reason: ReasonArgs,
}

pub(super) async fn run(args: &AdoptArgs, context: &Context) -> Outcome {
    context
        .with_store(async |store| {
            let fence_id = store
                .adopt(
                    &context.shop_identities(),
                    &context.actor,
                    &args.reason.reason,
                    context.now(),
                )
                .await?;
            eprintln!(
                "adopted as {fence_id}: daemons that run on this database have to be started again"
            );
            Ok(Exit::Ok)
        })
        .await
}
