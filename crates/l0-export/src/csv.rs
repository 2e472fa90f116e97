//! CSV: one telemetry as a row, under a header that is written exactly once.
//!
//! The first seven columns are those of the original, in its order: `sessionId`, `duration`,
//! `tokens`, `tokensPerSecond`, `retries`, `networkErrors`, `violations`. Then come those that are no
//! numbers: `startTime`, `outcome`, `finishReason`, `model` (that entry of the metadata), `lastModel`,
//! `errorType`, `errorStatus`, `errorMessage`, `kept`; then every other number of [`Quantity::ALL`](l0_core::Quantity::ALL)
//! in its order, such as `wastedTokens`, but those that each attempt has; then `driftDetected`,
//! `driftTypes`, `metadata`.
//!
//! A row is a run. Of one that fell back to another model, `model` is the one that was asked first and
//! `lastModel` the one that was asked last, which gave the answer if there is one.
//!
//! Durations are milliseconds; what is unknown is empty. Counts by a label (`errorsByType`),
//! lists and maps are compact JSON. Quoting is that of RFC 4180, with LF line ends.
//!
//! A cell that a spreadsheet would take for a formula (it begins with `=`, `+`, `-`, `@`, a tab or
//! a line end) is preceded by an apostrophe, and so is one that begins with an apostrophe of its
//! own: to have the text back, take one leading apostrophe off. Cells of numbers never begin so.
//! That holds for a program which parts cells at commas; one that parts them at semicolons makes
//! cells of its own.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::LazyLock;

use csv::{ReaderBuilder, StringRecord, WriterBuilder};
use l0_core::{DriftStats, Outcome, QuantityKind, Telemetry, Unit, keys};
use serde::Serialize;

use crate::append_file::{AppendFile, ends_in_mid_line};
use crate::numbers::{Number, QUANTITIES, Scalar, Spelled, numbers_of_records};
use crate::profile::{Amounts, Profile, RUNS_BY_OUTCOME, Stats};
use crate::quantiles::Numbers;
use crate::values::{json, printable};

/// What most rows fit into, in bytes.
const ROW_CAPACITY: usize = 1024;

/// Why CSV was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file or writer failed.
    #[error("CSV: {0}")]
    Io(#[source] io::Error),
    /// The file to append to has other columns, perhaps those of another version. Nothing was
    /// written: move the file away, or append to another one.
    #[error("CSV: the file's header is `{found}`, and not that of this version, `{expected}`")]
    #[non_exhaustive]
    Header {
        /// The columns that the file has, cut and escaped to be fit for a message.
        found: String,
        /// The columns that would be written.
        expected: String,
    },
}

/// What an [`AppendFile`] says about the header comes through [`Write`].
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(Self::Io)
    }
}

/// Writes the header and one row, each with its line end.
///
/// # Errors
///
/// None that a telemetry is known to cause.
pub fn to_string(telemetry: &Telemetry) -> Result<String, Error> {
    let mut text = Vec::new();
    Writer::new(&mut text).write(telemetry)?;
    String::from_utf8(text).map_err(|error| Error::Io(io::Error::other(error)))
}

/// Writes rows, and before the first of them the header. Each row goes out in a single
/// `write_all`: there is nothing to flush, and rows that several processes append to one file stay
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
/// If a write to something else than a file fails in mid-row, the next one ends that row first, so that
/// only it is lost.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    needs_header: bool,
    /// What ends the row that was not written whole.
    repair: &'static str,
}

impl<W: Write> Writer<W> {
    /// Creates a writer to something empty, which gets a header.
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
    /// [`Error::Io`] with what the writer says. Part of the row may have been written then.
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

    /// Returns what is written to.
    pub fn get_ref(&self) -> &W {
        &self.to
    }

    /// Returns what is written to, and drops the writer.
    pub fn into_inner(self) -> W {
        self.to
    }
}

impl Writer<AppendFile> {
    /// Appends to a file, which is created if it is not there. A file that is empty gets a header, now and
    /// after each rotation; in one that ends in mid-row, because a process died, that row is ended first.
    /// Several processes may append to one file. A row that is not written whole is taken back: see
    /// [`AppendFile`].
    ///
    /// # Errors
    ///
    /// [`Error::Header`] if the file has another header, also from [`write`](Self::write), if another file
    /// was put into its place; [`Error::Io`] if it cannot be opened for reading and appending, locked or
    /// read.
    pub fn append(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self {
            to: AppendFile::open_with(path.as_ref(), before_row)?,
            needs_header: false,
            repair: "",
        })
    }
}

/// Writes all bytes, all at once if it can be, and says how many were written.
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

/// What ends a row after these bytes, which begin at a row.
fn repair(bytes: &[u8]) -> &'static str {
    match (is_quoted(bytes), bytes.last()) {
        (true, _) => "\"\n",
        (false, None | Some(b'\n')) => "",
        (false, Some(_)) => "\n",
    }
}

/// Whether what comes after these bytes is inside of quotes.
fn is_quoted(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| **byte == b'"').count() % 2 == 1
}

/// What has to stand in a file before the next row: its header, or what ends an unfinished row.
fn before_row(file: &mut File) -> io::Result<Cow<'static, [u8]>> {
    if file.seek(SeekFrom::End(0))? == 0 {
        return Ok(header().as_bytes().into());
    }
    check_header(file)?;
    if !ends_in_mid_line(file)? {
        return Ok(Cow::Borrowed(b""));
    }

    // Seldom, so that reading all of it does not matter. Rows have an even number of quotes.
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

/// Whether the file begins with the header, as we or a spreadsheet wrote it.
fn check_header(file: &mut File) -> io::Result<()> {
    /// More than any header of ours: what is longer is none.
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
        // Spreadsheets put a byte order mark in front of what they save.
        let mark = if index == 0 { "\u{feff}" } else { "" };
        column.strip_prefix(mark).unwrap_or(column)
    });
    if read.is_err() || !expected.split(',').eq(found_columns) {
        let found = found.iter().collect::<Vec<_>>().join(",");
        let found = printable(&found).take(expected.len()).collect();
        let error = Error::Header { found, expected };
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(())
}

/// Writes a profile: a header, and a row per group.
///
/// The columns are `group`, `runs`, how many runs ended with each [`Outcome`]; then, for every quantity
/// of [`Quantity::ALL`](l0_core::Quantity::ALL) in its order, its sum (`tokens`), or mean, p50, p95, p99
/// and largest (`durationMean`, `durationP50`, ...), or counts by a label (`failures`) as compact JSON;
/// and `reasons`: why runs failed, as a compact JSON list. What no run knows is empty.
///
/// # Errors
///
/// [`Error::Io`] with what the writer says.
pub fn write_profile(to: &mut impl Write, profile: &Profile) -> Result<(), Error> {
    let mut lines = Vec::new();
    let header = profile_row("", &Stats::default());
    write_row(&mut lines, header.into_iter().map(|(name, _)| name))?;
    for (group, stats) in profile.groups() {
        let row = profile_row(group, stats);
        write_row(&mut lines, row.into_iter().map(|(_, cell)| cell))?;
    }
    Ok(to.write_all(&lines)?)
}

/// The columns of a group, each with its cell.
fn profile_row<'a>(group: &'a str, stats: &Stats) -> Vec<(String, Cow<'a, str>)> {
    let mut row = vec![
        ("group".to_owned(), Cow::Borrowed(group)),
        ("runs".to_owned(), number(Some(stats.runs))),
    ];
    let outcomes = stats.counts(RUNS_BY_OUTCOME);
    // A record of another version may have ended in a way that this one does not know.
    for outcome in Outcome::ALL.iter().chain([&Outcome::Other]) {
        let count = outcomes.get(outcome.as_str()).copied().unwrap_or_default();
        row.push((outcome.as_str().to_owned(), number(Some(count))));
    }
    for Spelled {
        quantity, column, ..
    } in QUANTITIES.iter()
    {
        let name = quantity.name;
        match (quantity.is_labelled(), quantity.kind) {
            (true, _) if name == RUNS_BY_OUTCOME => {}
            (true, _) if quantity.unit == Unit::Money => {
                let amounts = stats.amounts(name);
                let known = (!amounts.is_empty()).then_some(Amounts(amounts));
                row.push((column.clone(), structure(known.as_ref())));
            }
            (true, _) => {
                let counts = stats.counts(name);
                let known = (!counts.is_empty()).then_some(counts);
                row.push((column.clone(), structure(known)));
            }
            (false, QuantityKind::Sum) => row.push((column.clone(), scalar(stats.total_of(name)))),
            (false, _) => {
                for (suffix, value) in Numbers::from(stats.sample(name)).in_order() {
                    row.push((format!("{column}{suffix}"), number(value)));
                }
            }
        }
    }
    let reasons = stats.reasons();
    let known = (!reasons.is_empty()).then_some(&reasons);
    row.push(("reasons".to_owned(), structure(known)));
    row
}

/// Appends one line, with cells that no spreadsheet runs.
fn write_row(lines: &mut Vec<u8>, cells: impl IntoIterator<Item: AsRef<str>>) -> Result<(), Error> {
    let mut csv = WriterBuilder::new()
        .buffer_capacity(ROW_CAPACITY)
        .from_writer(lines);
    for cell in cells {
        csv.write_field(&*defused(cell.as_ref()))
            .map_err(io::Error::from)?;
    }
    csv.write_record(None::<&[u8]>).map_err(io::Error::from)?;
    Ok(csv.flush()?)
}

/// The line of the columns' names, none of which needs quotes.
fn header() -> &'static str {
    static HEADER: LazyLock<String> = LazyLock::new(|| {
        let names: Vec<_> = COLUMNS.iter().map(Column::name).collect();
        names.join(",") + "\n"
    });
    &HEADER
}

/// A column of the rows of runs.
enum Column {
    /// What is no number: its name, and its cell.
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

/// The quantities of the first columns, after `sessionId`: those of the original.
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
        // Adding makes 0 of -0. No number of a run is negative.
        Some(Scalar::Real(real)) if real >= 0.0 => number(Some(real + 0.0)),
        _ => Cow::Borrowed(""),
    }
}

fn number(number: Option<impl ToString>) -> Cow<'static, str> {
    number.map_or(Cow::Borrowed(""), |number| number.to_string().into())
}

/// Lists and maps as JSON, which begins with a bracket: no spreadsheet runs it.
fn structure(value: Option<&impl Serialize>) -> Cow<'static, str> {
    value.map_or(Cow::Borrowed(""), |value| json(value).into())
}

/// A text that no spreadsheet takes for a formula.
fn defused(text: &str) -> Cow<'_, str> {
    // Some programs skip white space in front, and some read the wide forms of East Asian fonts.
    let first = text.trim_start().chars().next();
    let runs = first.is_some_and(|first| "=+-@\u{ff1d}\u{ff0b}\u{ff0d}\u{ff20}".contains(first));
    if runs || text.starts_with(['\t', '\r', '\n', '\'']) {
        format!("'{text}").into()
    } else {
        text.into()
    }
}
