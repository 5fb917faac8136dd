//! The permit journal beside the database: what it says that the books do not.

use std::collections::BTreeSet;
use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::cli::CliError;
use crate::cli::context::Context;
use crate::journal::{self, JournalError};
use crate::store::Store;
use crate::store::adoption::JournalNews;

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
#[derive(Debug, Default)]
pub struct Comparison {
    /// When the last permit in it was given.
    pub last_permit_at: Option<DateTime<Utc>>,
    /// What the books do not know.
    pub news: JournalNews,
    /// Lines that nobody can read any more.
    pub damaged: usize,
}

/// Whether the database has forgotten a permit.
pub(super) async fn gap(context: &Context, store: &Store) -> Result<Option<Gap>, CliError> {
    let Some(dir) = context.config.journal.dir.clone() else {
        return Ok(None);
    };
    let newest = journal::newest_permits(dir.clone())
        .await
        .map_err(unreadable)?;
    let forgotten = store.forgotten(newest).await?;
    Ok(forgotten
        .into_iter()
        .max_by_key(|permit| permit.permitted_at)
        .map(|permit| Gap {
            dir,
            order_id: permit.order_id.to_string(),
            permitted_at: permit.permitted_at,
        }))
}

/// Everything that the journal in `dir` says and the books do not. One file at a time is in memory.
///
/// # Errors
/// [`CliError`] when a file cannot be read, or the database does not answer.
pub async fn compare(dir: PathBuf, store: &Store) -> Result<Comparison, CliError> {
    let mut comparison = Comparison::default();
    let nameless = store.nameless_doubts().await?;
    for file in journal::files(dir).await.map_err(unreadable)? {
        let page = journal::read(file).await.map_err(unreadable)?;
        let last = page.permits.iter().map(|permit| permit.permitted_at).max();
        comparison.last_permit_at = comparison.last_permit_at.max(last);
        comparison.damaged += page.damaged;
        let lost = store.forgotten(page.permits).await?;
        let wanted: BTreeSet<_> = lost.iter().map(|permit| permit.attempt_id).collect();
        let named = page
            .named
            .into_iter()
            .filter(|(attempt_id, _)| wanted.contains(attempt_id) || nameless.contains(attempt_id));
        comparison.news.named.extend(named);
        comparison.news.lost.extend(lost);
    }
    Ok(comparison)
}

fn unreadable(error: JournalError) -> CliError {
    CliError::config(error).hint("check journal.dir, and that this user may read it")
}
