//! Reading a CSV file that people made: RFC 4180, UTF-8, and the line of everything that is wrong.
//!
//! The file is kept in memory; it may not be larger than [`BYTES_MAX`].

use std::fs::File;
use std::io::Read;
use std::path::Path;

use csv::{ByteRecord, ReaderBuilder};

use crate::cli::CliError;

/// The largest file that is read.
pub const BYTES_MAX: u64 = 512 * 1024 * 1024;

/// What some programs begin a file with.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How many mistakes are printed unless all are asked for.
const FAULTS_SHOWN: usize = 50;

/// Something that is wrong in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub told: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.told)
    }
}

/// The records of a file, each with the line in which it begins. Empty lines are passed over.
#[derive(Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    reader: csv::Reader<&'a [u8]>,
    cells: ByteRecord,
    separator: u8,
    counted: usize,
    line: u64,
}

/// One record, until the next is read in its place.
#[derive(Debug)]
pub struct Record<'r> {
    /// The line in which it begins, from 1.
    pub line: u64,
    /// How many bytes of the file are read when it is.
    pub end: usize,
    raw: &'r [u8],
    cells: &'r ByteRecord,
    separator: u8,
}

impl<'a> Records<'a> {
    /// Those of a file without a byte order mark, whose cells are set apart by `separator`.
    pub fn new(bytes: &'a [u8], separator: u8) -> Self {
        let reader = ReaderBuilder::new()
            .delimiter(separator)
            .has_headers(false)
            .flexible(true)
            .from_reader(bytes);
        Self {
            bytes,
            reader,
            cells: ByteRecord::new(),
            separator,
            counted: 0,
            line: 1,
        }
    }

    /// The line in which the byte at `offset` stands. Offsets only grow.
    fn line_of(&mut self, offset: usize) -> u64 {
        for at in self.counted..offset {
            let is_end = match self.bytes[at] {
                b'\n' => true,
                b'\r' => self.bytes.get(at + 1) != Some(&b'\n'),
                _ => false,
            };
            self.line += u64::from(is_end);
        }
        self.counted = offset;
        self.line
    }

    fn offset(&self) -> usize {
        usize::try_from(self.reader.position().byte())
            .map_or(self.bytes.len(), |offset| offset.min(self.bytes.len()))
    }

    /// The next one, if there is one.
    pub fn advance(&mut self) -> Option<Record<'_>> {
        let before = self.offset();
        let is_there = self
            .reader
            .read_byte_record(&mut self.cells)
            .expect("reading from memory cannot fail, and records may have any length");
        if !is_there {
            return None;
        }
        // The reader stands before the rest of the last line's end, and before empty lines.
        let skipped = self.bytes[before..]
            .iter()
            .take_while(|byte| matches!(byte, b'\r' | b'\n'))
            .count();
        let (start, end) = (before + skipped, self.offset());
        Some(Record {
            line: self.line_of(start),
            end,
            raw: &self.bytes[start..end.max(start)],
            cells: &self.cells,
            separator: self.separator,
        })
    }
}

impl Record<'_> {
    /// The cells as text.
    ///
    /// # Errors
    /// Which byte is no text.
    pub fn texts(&self) -> Result<Vec<&str>, String> {
        self.cells
            .iter()
            .map(|cell| std::str::from_utf8(cell))
            .collect::<Result<_, _>>()
            .map_err(|_| self.not_utf8())
    }

    fn not_utf8(&self) -> String {
        let Err(error) = std::str::from_utf8(self.raw) else {
            return "is not UTF-8; save the file as UTF-8".to_owned();
        };
        let valid = error.valid_up_to();
        let before = &self.raw[..valid];
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |newline| newline + 1);
        let further = before.iter().filter(|byte| **byte == b'\n').count();
        let place = match further {
            0 => format!("byte {}", valid - line_start + 1),
            lines => format!(
                "byte {}, {lines} lines further down,",
                valid - line_start + 1
            ),
        };
        format!(
            "{place} is 0x{:02x}, which is not UTF-8; save the file as UTF-8",
            self.raw[valid]
        )
    }

    /// What is said of a record with `is` cells below a header with `should_be`.
    pub fn wrong_length(&self, is: usize, should_be: usize) -> String {
        let quotes = self.raw.iter().filter(|byte| **byte == b'"').count();
        let hint = match (quotes.is_multiple_of(2), self.separator) {
            (true, b';') => "a text with a semicolon stands in quotation marks",
            (true, _) => "a text with a comma stands in quotation marks",
            (false, _) => "a quotation mark is not closed",
        };
        format!("has {is} fields and the header {should_be}; {hint}")
    }
}

/// The whole of a file.
///
/// # Errors
/// [`CliError`] when it cannot be read or is too large.
pub fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    let unread = |error: std::io::Error| {
        CliError::bad_data(error).context(format!("couldn't read {}", path.display()))
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(unread)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > BYTES_MAX) {
        return Err(CliError::bad_data(anyhow::anyhow!(
            "{} is larger than {} MiB; divide it into several files",
            path.display(),
            BYTES_MAX / 1024 / 1024
        )));
    }
    Ok(bytes)
}

/// The file without the mark that it may begin with.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

/// Prints mistakes to standard error: the first ones, or all.
pub fn print(faults: &[Fault], all: bool) {
    let shown = if all { faults.len() } else { FAULTS_SHOWN };
    let mut told: String = faults
        .iter()
        .take(shown)
        .fold(String::new(), |told, fault| {
            told + &fault.to_string() + "\n"
        });
    if let Some(more) = faults.len().checked_sub(shown).filter(|more| *more > 0) {
        told += &format!("and {more} more; --all-errors prints them\n");
    }
    eprint!("{told}");
}

/// A number with its noun.
pub fn plural(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}
