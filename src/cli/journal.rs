//! The permit journal beside the database: what it says that the books do not.

use std::collections::BTreeSet;
use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::cli::CliError;
use crate::cli::context::Context;
use crate::domain::permit_record::PermitRecord;
use crate::journal::{self, JournalError, Pages};
use crate::store::Store;

/// The database has forgotten permits that were given: it was restored from a backup, or is another one.
#[derive(Debug, thiserror::Error)]
#[error(
    "the permit journal in {} names permits that this database has forgotten, such as order {order_id} of {permitted_at}: it was \
     restored from before that, or is another database. Their debits may have been made. \"cykl adopt --dry-run\" lists them",
    dir.display()
)]
pub(super) struct Gap {
    dir: PathBuf,
    order_id: String,
    permitted_at: DateTime<Utc>,
}

/// What the journal says about the books.
#[derive(Default)]
pub(super) struct Comparison {
    /// When the last permit in it was given.
    pub last_permit_at: Option<DateTime<Utc>>,
    /// Permits that the books have forgotten, and what their files say besides.
    pub pages: Pages,
}

/// Whether the database has forgotten a permit.
pub(super) async fn gap(context: &Context, store: &Store) -> Result<Option<Gap>, CliError> {
    let Some(dir) = context.config.journal.dir.clone() else {
        return Ok(None);
    };
    let newest = newest(dir.clone()).await?;
    let permits = newest.into_iter().map(|(_, permit)| permit).collect();
    let forgotten = store.forgotten(permits).await?;
    Ok(forgotten
        .into_iter()
        .max_by_key(|permit| permit.permitted_at)
        .map(|permit| Gap {
            dir,
            order_id: permit.order_id.to_string(),
            permitted_at: permit.permitted_at,
        }))
}

/// Everything that the journal says and the books do not.
pub(super) async fn compare(dir: PathBuf, store: &Store) -> Result<Comparison, CliError> {
    let newest = newest(dir).await?;
    let last_permit_at = newest.iter().map(|(_, permit)| permit.permitted_at).max();
    let permits = newest.iter().map(|(_, permit)| permit.clone()).collect();
    let forgotten: Vec<PermitRecord> = store.forgotten(permits).await?;
    // A file whose last permit is known holds nothing that is not.
    let is_behind = |permit: &PermitRecord| {
        forgotten
            .iter()
            .any(|forgotten| forgotten.attempt_id == permit.attempt_id)
    };
    let files: BTreeSet<PathBuf> = newest
        .into_iter()
        .filter(|(_, permit)| is_behind(permit))
        .map(|(path, _)| path)
        .collect();
    let mut pages = journal::read(files).await.map_err(unreadable)?;
    pages.permits = store.forgotten(pages.permits).await?;
    Ok(Comparison {
        last_permit_at,
        pages,
    })
}

async fn newest(dir: PathBuf) -> Result<Vec<(PathBuf, PermitRecord)>, CliError> {
    journal::newest_permits(dir).await.map_err(unreadable)
}

fn unreadable(error: JournalError) -> CliError {
    CliError::config(error).hint("check journal.dir, and that this user may read it")
}
