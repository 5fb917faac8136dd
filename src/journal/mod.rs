//! The permit journal: files beside the database that name every permit before its request leaves.
//!
//! A database that is restored from a backup has forgotten what was permitted after it. The journal has not, and it tells two
//! things: that the database went back, which nothing inside it can know, and which orders may hold money. It is never evidence
//! that money did *not* move, so a journal that is new, damaged or lost makes nothing unsafe; it only knows less.
//!
//! Each process writes a file of its own for each day, so that instances on one machine don't meet, and old ones can be
//! deleted whole. A claim's permits are written together and forced to the disk once, after their commit and before the first of their
//! requests. What imoje answered follows without being forced: should it be lost, people will be asked.

mod line;
mod reading;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use uuid::Uuid;

use crate::domain::id::{AttemptId, TransactionId};
use crate::domain::permit_record::PermitRecord;
use line::Entry;
pub use reading::{Pages, files, last_permit, newest_permits, read};

/// Why the journal cannot be used. Nothing may be sent that is not in it.
#[derive(Debug, thiserror::Error)]
#[error("couldn't {doing} {}", path.display())]
pub struct JournalError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl JournalError {
    fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// Where permits are written down. Clones write into the same file.
#[derive(Debug, Clone, Default)]
pub struct Journal(Option<Arc<Mutex<Pen>>>);

#[derive(Debug)]
struct Pen {
    folder: PathBuf,
    keep: TimeDelta,
    page: Option<Page>,
    cleared_on: Option<NaiveDate>,
}

/// The file of a day.
#[derive(Debug)]
struct Page {
    day: NaiveDate,
    path: PathBuf,
    file: File,
}

/// How the name of a file begins; the day and a number drawn for the process follow.
const PREFIX: &str = "permits-";
/// How it ends.
const SUFFIX: &str = ".journal";

impl Journal {
    /// No journal: permits are in the database alone.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Opens the journal in `folder`, which is created when it is missing. With the first permits of each day, files of more than
    /// `keep` ago are deleted.
    ///
    /// # Errors
    /// [`JournalError`] when files cannot be made there.
    pub async fn open(
        folder: PathBuf,
        keep: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Self, JournalError> {
        in_background(move || {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(|source| JournalError::new("make the folder", &folder, source))?;
            let mut pen = Pen {
                folder,
                keep,
                page: None,
                cleared_on: None,
            };
            // Made now, so that a folder that cannot be written to stops the start and not the first charge.
            pen.turn_to(now.date_naive())?;
            Ok(Self(Some(Arc::new(Mutex::new(pen)))))
        })
        .await
    }

    /// The last permit of each file, of this process and of others.
    ///
    /// # Errors
    /// [`JournalError`] when they cannot be read.
    pub async fn newest_permits(&self) -> Result<Vec<PermitRecord>, JournalError> {
        let Some(pen) = &self.0 else {
            return Ok(Vec::new());
        };
        let folder = pen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .folder
            .clone();
        newest_permits(folder).await
    }

    /// Writes permits down and waits until the disk has them.
    ///
    /// # Errors
    /// [`JournalError`]: none of them may be sent.
    pub async fn permit(
        &self,
        permits: Vec<PermitRecord>,
        now: DateTime<Utc>,
    ) -> Result<(), JournalError> {
        let entries = permits.into_iter().map(Entry::Permit).collect();
        self.write(entries, Force::Yes, now).await
    }

    /// Writes down under which transactions imoje has attempts. Does not wait for the disk.
    ///
    /// # Errors
    /// [`JournalError`]; after a restore these have to be found another way.
    pub async fn name(
        &self,
        named: Vec<(AttemptId, TransactionId)>,
        now: DateTime<Utc>,
    ) -> Result<(), JournalError> {
        let entries = named
            .into_iter()
            .map(|(attempt_id, transaction_id)| Entry::Named {
                attempt_id,
                transaction_id,
            })
            .collect();
        self.write(entries, Force::No, now).await
    }

    async fn write(
        &self,
        entries: Vec<Entry>,
        force: Force,
        now: DateTime<Utc>,
    ) -> Result<(), JournalError> {
        let Some(pen) = &self.0 else {
            return Ok(());
        };
        if entries.is_empty() {
            return Ok(());
        }
        let text: String = entries.iter().map(Entry::to_line).collect();
        let pen = Arc::clone(pen);
        in_background(move || {
            let mut pen = pen.lock().unwrap_or_else(PoisonError::into_inner);
            pen.write(text.as_bytes(), force, now.date_naive())?;
            if let Force::Yes = force {
                // Permits are given only while the clocks agree, so this is no day of a clock that went wrong.
                pen.delete_old(now.date_naive());
            }
            Ok(())
        })
        .await
    }
}

/// Whether the disk has to have it.
#[derive(Clone, Copy)]
enum Force {
    Yes,
    No,
}

impl Pen {
    fn write(&mut self, text: &[u8], force: Force, today: NaiveDate) -> Result<(), JournalError> {
        let page = self.turn_to(today)?;
        let written = page.file.write_all(text).and_then(|()| match force {
            Force::Yes => page.file.sync_data(),
            Force::No => Ok(()),
        });
        let written = written.map_err(|source| JournalError::new("write to", &page.path, source));
        if written.is_err() {
            // What is on the disk of it nobody knows: the next entry begins a file of its own.
            if page.file.metadata().is_ok_and(|file| file.len() == 0) {
                let _ = fs::remove_file(&page.path);
            }
            self.page = None;
        }
        written
    }

    /// The file of today.
    fn turn_to(&mut self, today: NaiveDate) -> Result<&mut Page, JournalError> {
        let page = match self.page.take() {
            Some(page) if page.day == today => page,
            Some(_) | None => self.new_page(today)?,
        };
        Ok(self.page.insert(page))
    }

    fn new_page(&self, day: NaiveDate) -> Result<Page, JournalError> {
        let name = format!("{PREFIX}{day}-{}{SUFFIX}", Uuid::new_v4().simple());
        let path = self.folder.join(name);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| JournalError::new("make", &path, source))?;
        // The name has to outlast a power cut as well.
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| {
                JournalError::new("force to the disk the folder", &self.folder, source)
            })?;
        Ok(Page { day, path, file })
    }

    /// What cannot be deleted now is tried again tomorrow.
    fn delete_old(&mut self, today: NaiveDate) {
        if self.cleared_on.replace(today) == Some(today) {
            return;
        }
        let Some(kept_from) = today.checked_sub_signed(self.keep) else {
            return;
        };
        let Ok(pages) = reading::pages(&self.folder) else {
            return;
        };
        for page in pages {
            if page.day < kept_from
                && let Err(error) = fs::remove_file(&page.path)
            {
                tracing::warn!(%error, path = %page.path.display(), "couldn't delete an old file of the permit journal");
            }
        }
    }
}

/// Files are read and written where waiting for the disk holds up nobody else.
async fn in_background<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("reading and writing files doesn't panic")
}

#[cfg(test)]
mod tests;
