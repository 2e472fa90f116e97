//! CSV: one telemetry as a row, under a header that is written exactly once.
//!
//! The columns are, in this order:
//!
//! 1. the seven columns of the TypeScript library: `sessionId`, `duration`, `tokens`, `tokensPerSecond`,
//!    `retries`, `networkErrors`, `violations`;
//! 2. the columns that are not numbers: `startTime`, `outcome`, `finishReason`, `model` (the metadata entry),
//!    `lastModel`, `errorType`, `errorStatus`, `errorMessage`, `kept`;
//! 3. every other number of [`Quantity::ALL`](l0_core::Quantity::ALL) in its order, such as `wastedTokens`,
//!    except numbers of single attempts;
//! 4. `driftDetected`, `driftTypes`, `metadata`.
//!
//! Each run has one row. If a run fell back to another model, `model` is the first model that was called,
//! and `lastModel` the last one, which gave the answer if there is one.
//!
//! Durations are in milliseconds. Unknown values are empty. Counts by a label (`errorsByType`),
//! lists and maps are compact JSON. Quoting follows RFC 4180, with LF line ends.
//!
//! A cell that a spreadsheet would read as a formula (it begins with `=`, `+`, `-`, `@`, a tab or
//! a line end) gets a leading apostrophe. So does a cell that already begins with an apostrophe: remove one
//! leading apostrophe to restore the text. Numbers, including negative ones, are not changed.
//! This protection assumes a program that splits cells at commas. A program that splits at semicolons sees
//! other cells.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::LazyLock;

use csv::{ReaderBuilder, StringRecord, WriterBuilder};
use l0_core::{DriftStats, Telemetry, keys};
use serde::Serialize;

use crate::append_file::{AppendFile, ends_in_mid_line};
use crate::numbers::{Number, Scalar, numbers_of_records};
use crate::values::json;

/// A capacity in bytes that suffices for most rows.
const ROW_CAPACITY: usize = 1024;

/// An error while writing CSV.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file or the writer failed.
    #[error("CSV: the file or the writer failed")]
    Io(#[source] io::Error),
    /// The existing file has other columns, perhaps those of another version. Nothing was
    /// written. Move the file away, or append to another one.
    #[error("CSV: the file's header is `{found}`, expected `{expected}`")]
    #[non_exhaustive]
    Header {
        /// The columns of the file, shortened and escaped for display.
        found: String,
        /// The columns of this version.
        expected: String,
    },
}

/// Restores a header error that an [`AppendFile`] returned through [`Write`].
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(Self::Io)
    }
}

/// Writes the header and one row, each with its line end.
///
/// # Errors
///
/// Not expected: every telemetry can be written.
pub fn to_string(telemetry: &Telemetry) -> Result<String, Error> {
    let mut text = Vec::new();
    Writer::new(&mut text).write(telemetry)?;
    String::from_utf8(text).map_err(|error| Error::Io(io::Error::other(error)))
}

/// A writer of rows, which writes the header before the first row. Each row is written by a single
/// `write_all`: no flush is needed, and rows that several processes append to one file stay
/// whole.
///
/// ```
/// # fn main() -> Result<(), l0_export::csv::Error> {
/// # let telemetry = l0_core::Telemetry::default();
/// # let path = std::env::temp_dir().join(format!("l0-doc-{}.csv", std::process::id()));
/// use l0_export::csv;
///
/// csv::Writer::append(&path)?.write(&telemetry)?;
/// csv::Writer::append(&path)?.write(&telemetry)?;
/// # let text = std::fs::read_to_string(&path)?;
/// # std::fs::remove_file(&path)?;
/// assert_eq!(text.lines().count(), 3); // one header
/// # Ok(())
/// # }
/// ```
///
/// If a write to a target other than an [`AppendFile`] fails within a row, the next write ends that row
/// first, so only that row is lost.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    needs_header: bool,
    /// The bytes that end an incomplete row.
    repair: &'static str,
}

impl<W: Write> Writer<W> {
    /// Creates a writer to an empty target, which gets a header.
    pub fn new(to: W) -> Self {
        Self {
            to,
            needs_header: true,
            repair: "",
        }
    }

    /// Writes one telemetry.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the writer fails. Part of the row may have been written.
    pub fn write(&mut self, telemetry: &Telemetry) -> Result<(), Error> {
        let mut lines = self.repair.as_bytes().to_vec();
        let repaired = lines.len();
        if self.needs_header {
            lines.extend_from_slice(header().as_bytes());
        }
        let before_row = lines.len();
        write_row(
            &mut lines,
            COLUMNS.iter().map(|column| column.cell(telemetry)),
        )?;

        let (written, result) = write_counted(&mut self.to, &lines);
        if written >= before_row {
            self.needs_header = false;
        }
        self.repair = match lines[..written].get(repaired..) {
            Some(rows) => repair(rows),
            None => &self.repair[written..],
        };
        Ok(result?)
    }

    /// Returns the underlying writer.
    pub fn get_ref(&self) -> &W {
        &self.to
    }

    /// Returns the underlying writer, consuming this one.
    pub fn into_inner(self) -> W {
        self.to
    }
}

impl Writer<AppendFile> {
    /// Opens a file for appending, and creates it if it does not exist. An empty file gets a header, now and
    /// after each rotation. If the file ends within a row because a process died, that row is ended first.
    /// Several processes can append to one file. An incomplete row is removed: see [`AppendFile`].
    ///
    /// # Errors
    ///
    /// [`Error::Header`] if the file has another header. [`write`](Self::write) returns it too, if the file was
    /// replaced by one with another header. [`Error::Io`] if the file cannot be opened for reading and
    /// appending, locked or read.
    pub fn append(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self {
            to: AppendFile::open_with(path.as_ref(), before_row)?,
            needs_header: false,
            repair: "",
        })
    }
}

/// Writes all bytes, in a single write if possible, and returns the number of written bytes.
fn write_counted(to: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Returns the bytes that end a row after these bytes, which start at a row.
fn repair(bytes: &[u8]) -> &'static str {
    match (is_quoted(bytes), bytes.last()) {
        (true, _) => "\"\n",
        (false, None | Some(b'\n')) => "",
        (false, Some(_)) => "\n",
    }
}

/// Returns `true` if the text after these bytes is within quotes.
fn is_quoted(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| **byte == b'"').count() % 2 == 1
}

/// Returns the bytes that must precede the next row: the header, or the end of an unfinished row.
fn before_row(file: &mut File) -> io::Result<Cow<'static, [u8]>> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(header().as_bytes().into());
    }
    check_header(file)?;
    if !ends_in_mid_line(file)? {
        return Ok(Cow::Borrowed(b""));
    }

    // Rare, so reading the whole file is acceptable. Rows have an even number of quotes.
    file.rewind()?;
    let mut quoted = false;
    let mut reader = BufReader::new(file);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        quoted ^= is_quoted(bytes);
        let length = bytes.len();
        reader.consume(length);
    }
    Ok(Cow::Borrowed(if quoted { b"\"\n" } else { b"\n" }))
}

/// Checks that the file begins with the header, as this crate or a spreadsheet wrote it.
fn check_header(file: &mut File) -> io::Result<()> {
    /// A limit above any valid header.
    const MAX_HEADER: u64 = 64 * 1024;

    let mut start = Vec::with_capacity(header().len());
    file.rewind()?;
    Read::by_ref(file)
        .take(header().len() as u64)
        .read_to_end(&mut start)?;
    if start == header().as_bytes() {
        return Ok(());
    }

    file.rewind()?;
    let mut found = StringRecord::new();
    let read = ReaderBuilder::new()
        .has_headers(false)
        .from_reader(BufReader::new(Read::by_ref(file).take(MAX_HEADER)))
        .read_record(&mut found);
    let expected = header().trim_end().to_owned();
    let found_columns = found.iter().enumerate().map(|(index, column)| {
        // Spreadsheets save files with a byte order mark.
        let mark = if index == 0 { "\u{feff}" } else { "" };
        column.strip_prefix(mark).unwrap_or(column)
    });
    if read.is_err() || !expected.split(',').eq(found_columns) {
        let found = found.iter().collect::<Vec<_>>().join(",");
        let found = found.escape_debug().take(expected.len()).collect();
        let error = Error::Header { found, expected };
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(())
}

/// Writes one line of cells, for a custom table. Cells are quoted where necessary, and protected against
/// being read as formulas.
///
/// # Errors
///
/// [`Error::Io`] if the writer fails.
pub fn write_row(
    to: &mut impl Write,
    cells: impl IntoIterator<Item: AsRef<str>>,
) -> Result<(), Error> {
    let mut csv = WriterBuilder::new()
        .buffer_capacity(ROW_CAPACITY)
        .from_writer(to);
    for cell in cells {
        csv.write_field(&*escape_formula(cell.as_ref()))
            .map_err(io::Error::from)?;
    }
    csv.write_record(None::<&[u8]>).map_err(io::Error::from)?;
    Ok(csv.flush()?)
}

/// Returns the header line. No name needs quotes.
fn header() -> &'static str {
    static HEADER: LazyLock<String> = LazyLock::new(|| {
        let names: Vec<_> = COLUMNS.iter().map(Column::name).collect();
        names.join(",") + "\n"
    });
    &HEADER
}

/// A column of the table of runs.
enum Column {
    /// A column that is not a number: its name, and its cell.
    Text(&'static str, fn(&Telemetry) -> Cow<'_, str>),
    Number(&'static Number),
}

impl Column {
    fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Text(name, _) => Cow::Borrowed(name),
            Self::Number(number) => number.column().into(),
        }
    }

    fn cell<'t>(&self, telemetry: &'t Telemetry) -> Cow<'t, str> {
        match self {
            Self::Text(_, cell) => cell(telemetry),
            Self::Number(number) => match number.in_record(telemetry) {
                None => structure(number.counts(telemetry).as_ref()),
                value => scalar(value),
            },
        }
    }
}

/// The quantities of the first columns, after `sessionId`: those of the TypeScript library.
const FIRST: [&str; 6] = [
    "duration",
    "tokens.total",
    "tokens.per_second",
    "retries.total",
    "network.errors",
    "guardrails.violations",
];

static COLUMNS: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let is_first = |number: &Number| FIRST.contains(&number.quantity().name);
    let first = FIRST.iter().flat_map(|name| {
        let numbers = numbers_of_records();
        numbers.filter(|number| number.quantity().name == *name)
    });

    let mut columns = vec![Column::Text("sessionId", |t| t.session_id.as_str().into())];
    columns.extend(first.map(Column::Number));
    columns.extend([
        Column::Text("startTime", |t| number(Some(t.start_time.as_millis()))),
        Column::Text("outcome", |t| {
            t.outcome.map_or("", |outcome| outcome.as_str()).into()
        }),
        Column::Text("finishReason", |t| {
            t.finish_reason.map_or("", |reason| reason.as_str()).into()
        }),
        Column::Text("model", |t| {
            keys::text(&t.metadata, keys::MODEL).unwrap_or_default()
        }),
        Column::Text("lastModel", |t| {
            let last = t.attempts.last();
            last.and_then(|last| last.model.as_deref())
                .unwrap_or_default()
                .into()
        }),
        Column::Text("errorType", |t| {
            let error = t.error.as_ref();
            error.map_or("", |error| &error.error_type).into()
        }),
        Column::Text("errorStatus", |t| {
            number(t.error.as_ref().and_then(|error| error.status))
        }),
        Column::Text("errorMessage", |t| {
            let error = t.error.as_ref();
            error.map_or("", |error| &error.message).into()
        }),
        Column::Text("kept", |t| t.kept.map_or("", |why| why.as_str()).into()),
    ]);
    let others = numbers_of_records().filter(|number| !is_first(number));
    columns.extend(others.map(Column::Number));
    columns.extend([
        Column::Text("driftDetected", |t| {
            number(t.drift.as_ref().map(DriftStats::detected))
        }),
        Column::Text("driftTypes", |t| {
            structure(t.drift.as_ref().map(|drift| &drift.types))
        }),
        Column::Text("metadata", |t| structure(Some(&t.metadata))),
    ]);
    columns
});

fn scalar(value: Option<Scalar>) -> Cow<'static, str> {
    match value {
        Some(Scalar::Count(count)) => number(Some(count)),
        // Adding 0 turns -0 into 0. No number of a run is negative.
        Some(Scalar::Real(real)) if real >= 0.0 => number(Some(real + 0.0)),
        _ => Cow::Borrowed(""),
    }
}

fn number(number: Option<impl ToString>) -> Cow<'static, str> {
    number.map_or(Cow::Borrowed(""), |number| number.to_string().into())
}

/// Returns a list or map as JSON. It begins with a bracket, so spreadsheets do not read it as a formula.
fn structure(value: Option<&impl Serialize>) -> Cow<'static, str> {
    value.map_or(Cow::Borrowed(""), |value| json(value).into())
}

/// Returns a text that spreadsheets do not read as a formula.
fn escape_formula(text: &str) -> Cow<'_, str> {
    // Some programs skip leading white space, and some accept the full-width forms of East Asian fonts.
    let first = text.trim_start().chars().next();
    let runs = first.is_some_and(|first| "=+-@\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}".contains(first));
    // Spreadsheets read a negative number as a number.
    let is_number = text.strip_prefix('-').is_some_and(|rest| {
        rest.starts_with(|c: char| c.is_ascii_digit()) && rest.parse::<f64>().is_ok()
    });
    if (runs && !is_number) || text.starts_with(['\t', '\r', '\n', '\'']) {
        format!("'{text}").into()
    } else {
        text.into()
    }
}
