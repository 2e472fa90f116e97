//! CSV: one telemetry as a row, under a header that is written exactly once.
//!
//! The first seven columns are those of the original, in its order: `sessionId`, `duration`,
//! `tokens`, `tokensPerSecond`, `retries`, `networkErrors`, `violations`. Durations are
//! milliseconds; what is unknown is empty. `errorsByType`, `violationsByRule`, `driftTypes` and
//! `metadata` are compact JSON; `model` is that entry of the metadata. Quoting is that of RFC 4180,
//! with LF line ends.
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
use std::time::Duration;

use csv::{ReaderBuilder, StringRecord, WriterBuilder};
use l0_core::{Outcome, Telemetry, keys};
use serde::Serialize;

use crate::append_file::{AppendFile, ends_in_mid_line};
use crate::profile::{MEASURES, Profile, Stats};
use crate::values::{gaps, json, millis, printable};

/// What most rows fit into, in bytes.
const ROW_CAPACITY: usize = 1024;

/// Why CSV was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file or writer failed.
    #[error("CSV: {0}")]
    Io(#[from] io::Error),
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

/// The header and one row, each with its line end.
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
/// If a write fails in mid-row, the next one ends that row first, so that only it is lost.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    needs_header: bool,
    /// What ends the row that was not written whole.
    repair: &'static str,
}

impl<W: Write> Writer<W> {
    /// Writes to something empty, which gets a header.
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
        write_row(&mut lines, COLUMNS.iter().map(|(_, cell)| cell(telemetry)))?;

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

    /// What is written to.
    pub fn get_ref(&self) -> &W {
        &self.to
    }

    /// Gives back what is written to.
    pub fn into_inner(self) -> W {
        self.to
    }
}

impl Writer<AppendFile> {
    /// Appends to a file, which is made if it is not there. An empty file gets a header at once; in
    /// one that ends in mid-row, because a process died, that row is ended first. Several processes
    /// may append to one file: see [`AppendFile`].
    ///
    /// # Errors
    ///
    /// [`Error::Header`] if the file has another header; [`Error::Io`] if it cannot be opened for
    /// reading and appending, locked or read.
    pub fn append(path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self {
            to: AppendFile::open_with(path, prepare)?,
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

/// Sees to it that the file begins with the header and ends in a whole row.
fn prepare(file: &mut File) -> Result<(), Error> {
    /// More than any header of ours: what is longer is none.
    const MAX_HEADER: u64 = 64 * 1024;

    if file.seek(SeekFrom::End(0))? == 0 {
        file.write_all(header().as_bytes())?;
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
        return Err(Error::Header {
            found: printable(&found).take(expected.len()).collect(),
            expected,
        });
    }

    if ends_in_mid_line(file)? {
        // Seldom, so that reading all of it does not matter. Rows have an even number of quotes.
        file.rewind()?;
        let mut quoted = false;
        let mut reader = BufReader::new(&mut *file);
        loop {
            let bytes = reader.fill_buf()?;
            if bytes.is_empty() {
                break;
            }
            quoted ^= is_quoted(bytes);
            let length = bytes.len();
            reader.consume(length);
        }
        file.write_all(if quoted { b"\"\n" } else { b"\n" })?;
    }
    Ok(())
}

/// Writes a profile: a header, and a row per group. The columns are `group`, the counts of
/// [`Stats`], how many runs ended with each [`Outcome`], and mean, p50, p95, p99 and largest of
/// each quantity (`durationMean`, `durationP50`, ...).
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
    let mut row = vec![("group".to_owned(), Cow::Borrowed(group))];
    for (name, count) in [
        ("runs", stats.runs),
        ("networkErrors", stats.network_errors),
        ("retries", stats.retries),
        ("networkRetries", stats.network_retries),
        ("modelRetries", stats.model_retries),
        ("violations", stats.violations),
        ("tokens", stats.tokens),
        ("wastedTokens", stats.wasted_tokens),
    ] {
        row.push((name.to_owned(), number(Some(count))));
    }
    for outcome in Outcome::ALL {
        let count = stats.outcomes.get(&outcome).copied().unwrap_or_default();
        row.push((outcome.as_str().to_owned(), number(Some(count))));
    }
    for measure in &MEASURES {
        for (suffix, value) in (measure.numbers)(stats).in_order() {
            row.push((format!("{}{suffix}", measure.name), number(value)));
        }
    }
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
fn header() -> String {
    let mut line = COLUMNS.map(|(name, _)| name).join(",");
    line.push('\n');
    line
}

/// A column: its name, and its cell for one telemetry.
type Column = (&'static str, fn(&Telemetry) -> Cow<'_, str>);

/// The first seven are those of the original.
static COLUMNS: [Column; 35] = [
    ("sessionId", |t| t.session_id.as_str().into()),
    ("duration", |t| time(t.duration)),
    ("tokens", |t| number(Some(t.metrics.total_tokens))),
    ("tokensPerSecond", |t| rate(t.metrics.tokens_per_second)),
    ("retries", |t| number(Some(t.metrics.total_retries))),
    ("networkErrors", |t| number(Some(t.network.error_count))),
    ("violations", |t| {
        number(t.guardrails.as_ref().map(|stats| stats.violation_count))
    }),
    ("startTime", |t| number(Some(t.start_time.as_millis()))),
    ("outcome", |t| {
        t.outcome.map_or("", |outcome| outcome.as_str()).into()
    }),
    ("finishReason", |t| {
        t.finish_reason.map_or("", |reason| reason.as_str()).into()
    }),
    ("model", |t| {
        keys::text(&t.metadata, keys::MODEL).unwrap_or_default()
    }),
    ("timeToFirstToken", |t| time(t.metrics.time_to_first_token)),
    ("timeToFirstText", |t| time(t.metrics.time_to_first_text)),
    ("avgInterTokenTime", |t| {
        time(t.metrics.avg_inter_token_time)
    }),
    ("p50InterTokenTime", |t| time(gaps(t).and_then(|g| g.p50()))),
    ("p90InterTokenTime", |t| time(gaps(t).and_then(|g| g.p90()))),
    ("p99InterTokenTime", |t| time(gaps(t).and_then(|g| g.p99()))),
    ("maxInterTokenTime", |t| time(gaps(t).map(|g| g.max))),
    ("consumerHold", |t| time(t.metrics.consumer_hold)),
    ("wait", |t| time(t.metrics.wait)),
    ("outputTokensPerSecond", |t| {
        rate(t.metrics.output_tokens_per_second)
    }),
    ("wastedTokens", |t| number(Some(t.metrics.wasted_tokens))),
    ("attempts", |t| number(Some(t.metrics.attempts))),
    ("networkRetries", |t| {
        number(Some(t.metrics.network_retries))
    }),
    ("modelRetries", |t| number(Some(t.metrics.model_retries))),
    ("inputTokens", |t| number(t.usage.and_then(|u| u.input))),
    ("outputTokens", |t| number(t.usage.and_then(|u| u.output))),
    ("usageTokens", |t| number(t.usage.and_then(|u| u.total))),
    ("cachedInputTokens", |t| {
        number(t.usage.and_then(|u| u.cached_input))
    }),
    ("reasoningTokens", |t| {
        number(t.usage.and_then(|u| u.reasoning))
    }),
    ("errorsByType", |t| {
        structure(Some(&t.network.errors_by_type))
    }),
    ("violationsByRule", |t| {
        structure(t.guardrails.as_ref().map(|stats| &stats.violations_by_rule))
    }),
    ("driftDetected", |t| {
        number(t.drift.as_ref().map(|drift| drift.detected))
    }),
    ("driftTypes", |t| {
        structure(t.drift.as_ref().map(|drift| &drift.types))
    }),
    ("metadata", |t| structure(Some(&t.metadata))),
];

fn time(duration: Option<Duration>) -> Cow<'static, str> {
    number(duration.map(millis))
}

fn rate(rate: Option<f64>) -> Cow<'static, str> {
    let rate = rate.filter(|rate| rate.is_finite() && *rate >= 0.0);
    // Adding makes 0 of -0.
    number(rate.map(|rate| rate + 0.0))
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
