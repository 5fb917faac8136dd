//! `cykl migrate`: brings the schema to this version.

use crate::cli::context::Context;
use crate::cli::{Exit, Outcome};

pub(super) async fn run(context: &Context) -> Outcome {
    let database = context.connect().await?;
    let migrated = database.store.migrate().await;
    let closed = database.close().await;
    migrated?;
    closed?;
    eprintln!("the database schema is up to date");
    Ok(Exit::Ok)
}
