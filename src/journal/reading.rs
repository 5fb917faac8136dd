//! Reading the journal back, whatever became of it meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use chrono::NaiveDate;

use super::line::Entry;
use super::{JournalError, PREFIX, SUFFIX, in_background};
use crate::domain::id::{AttemptId, TransactionId};
use crate::domain::permit_record::PermitRecord;

/// What some files of the journal say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pages {
    /// The permits, in the order in which each process gave them.
    pub permits: Vec<PermitRecord>,
    /// Under which transactions imoje has attempts.
    pub named: BTreeMap<AttemptId, TransactionId>,
    /// Lines that nobody can read any more. The last of a file may have been cut off while it was written; its request never left.
    pub damaged: usize,
}

impl Pages {
    /// Adds what a file says, from its beginning.
    ///
    /// # Errors
    /// The file cannot be read. Whatever it says is no error.
    pub fn add(&mut self, mut file: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if file.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            match whole(&line).and_then(Entry::of_line) {
                Some(Entry::Permit(permit)) => self.permits.push(permit),
                Some(Entry::Named {
                    attempt_id,
                    transaction_id,
                }) => {
                    self.named.insert(attempt_id, transaction_id);
                }
                None => self.damaged += 1,
            }
        }
    }
}

/// A file of the journal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PageName {
    pub day: NaiveDate,
    pub path: PathBuf,
}

/// The files in `folder`, oldest first.
///
/// # Errors
/// [`JournalError`] when the folder cannot be read. A folder that is missing is empty.
pub async fn files(folder: PathBuf) -> Result<Vec<PathBuf>, JournalError> {
    in_background(move || {
        let pages = pages(&folder)?;
        Ok(pages.into_iter().map(|page| page.path).collect())
    })
    .await
}

/// The last permit of each file in `folder`. A file without one has none to tell about.
///
/// A process commits its permits one after the other, each only where the database knows the one before, and writes each down after
/// that. So a database that has the last one has all the others of that file.
///
/// # Errors
/// [`JournalError`] when the folder or a file cannot be read. A folder that is missing is empty.
pub async fn newest_permits(folder: PathBuf) -> Result<Vec<PermitRecord>, JournalError> {
    in_background(move || {
        let mut newest = Vec::new();
        for page in pages(&folder)? {
            let last = File::open(&page.path)
                .and_then(last_permit)
                .map_err(|source| JournalError::new("read", &page.path, source))?;
            newest.extend(last);
        }
        Ok(newest)
    })
    .await
}

/// Everything that a file says.
///
/// # Errors
/// [`JournalError`] when it cannot be read.
pub async fn read(file: PathBuf) -> Result<Pages, JournalError> {
    in_background(move || {
        let mut pages = Pages::default();
        File::open(&file)
            .and_then(|opened| pages.add(BufReader::new(opened)))
            .map_err(|source| JournalError::new("read", &file, source))?;
        Ok(pages)
    })
    .await
}

/// The files in `folder`, oldest first.
pub(super) fn pages(folder: &Path) -> Result<Vec<PageName>, JournalError> {
    let unread = |source| JournalError::new("read the folder", folder, source);
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(unread)?,
    };
    let mut pages = Vec::new();
    for entry in entries {
        let path = entry.map_err(unread)?.path();
        if let Some(day) = day_of(&path) {
            pages.push(PageName { day, path });
        }
    }
    pages.sort();
    Ok(pages)
}

/// The day in the name of a file; `None` when it is not one of the journal.
fn day_of(path: &Path) -> Option<NaiveDate> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    // The number of the process follows the last dash.
    name.rsplit_once('-')?.0.parse().ok()
}

/// A line without its end, if it has one.
fn whole(line: &[u8]) -> Option<&[u8]> {
    line.strip_suffix(b"\n")
}

/// How much of a file's end is read at first.
const TAIL: u64 = 64 * 1024;

/// The last permit of a file that can be read, found from its end.
///
/// # Errors
/// The file cannot be read. Whatever it says is no error.
pub fn last_permit(mut file: impl Read + Seek) -> io::Result<Option<PermitRecord>> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut tail = TAIL;
    loop {
        let from = length.saturating_sub(tail);
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&mut file).take(length - from).read_to_end(&mut bytes)?;
        // What follows the last line's end was cut off; where reading began within a line, its rest is damaged and passed over.
        let found = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .rev()
            .filter_map(whole)
            .find_map(|line| match Entry::of_line(line) {
                Some(Entry::Permit(permit)) => Some(permit),
                Some(Entry::Named { .. }) | None => None,
            });
        if found.is_some() || from == 0 {
            return Ok(found);
        }
        tail *= 2;
    }
}
