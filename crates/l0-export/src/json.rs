//! JSON: one telemetry as a document, or as a line of a log.
//!
//! Durations are milliseconds, unknown values are absent, and what is written reads back equal (if
//! metadata is nested no more than 100 deep): [`Telemetry`] implements `Deserialize`. All of the
//! metadata is written, and no prompt, output or credential unless the metadata holds one.

use std::fmt::Write as _;
use std::io::{self, BufRead, Read, Write};
use std::time::SystemTime;

use l0_core::{Telemetry, Timestamp};
use serde::{Deserialize, Serialize};

use crate::values::printable;

/// One telemetry on one line, without a line end.
///
/// # Errors
///
/// None that a telemetry is known to cause; the signature is that of [`serde_json::to_string`].
pub fn to_string(telemetry: &Telemetry) -> serde_json::Result<String> {
    serde_json::to_string(telemetry)
}

/// One telemetry, indented by two spaces.
///
/// # Errors
///
/// None that a telemetry is known to cause; the signature is that of
/// [`serde_json::to_string_pretty`].
pub fn to_string_pretty(telemetry: &Telemetry) -> serde_json::Result<String> {
    serde_json::to_string_pretty(telemetry)
}

/// Writes one line of JSON Lines: `{"timestamp": ..., "telemetry": {...}}`.
///
/// The timestamp is the end of the run, in RFC 3339 with milliseconds, UTC; for a run that has not
/// ended, the time of the call. The line goes out in a single `write_all`, so that lines which
/// several processes append to one [`AppendFile`](crate::AppendFile) stay whole.
///
/// # Errors
///
/// Those of the writer; [`InvalidData`](io::ErrorKind::InvalidData) if the run ended after the
/// year 9999.
pub fn write_line(writer: &mut impl Write, telemetry: &Telemetry) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        timestamp: &'a str,
        telemetry: &'a Telemetry,
    }

    let timestamp = telemetry.end_time().unwrap_or_else(Timestamp::now);
    let mut text = String::new();
    write!(
        text,
        "{}",
        humantime::format_rfc3339_millis(SystemTime::from(timestamp))
    )
    .map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the run ended after the year 9999",
        )
    })?;
    let mut line = serde_json::to_vec(&Line {
        timestamp: &text,
        telemetry,
    })?;
    line.push(b'\n');
    writer.write_all(&line)
}

/// Reads JSON Lines: what [`write_line`] wrote, or one bare telemetry per line, as
/// [`to_string`] writes it. Memory does not grow with the number of lines.
///
/// A broken line gives an error with its number, and the lines after it are read on; empty lines
/// are skipped.
///
/// ```
/// # use l0_core::Telemetry;
/// # let mut file = Vec::new();
/// # l0_export::json::write_line(&mut file, &Telemetry::example())?;
/// # file.extend_from_slice(b"{ broken\n");
/// for telemetry in l0_export::json::read_lines(&file[..]) {
///     match telemetry {
///         Ok(telemetry) => println!("{}", telemetry.session_id),
///         Err(error) => eprintln!("{error}"),
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read_lines<R: BufRead>(reader: R) -> Lines<R> {
    Lines {
        reader,
        line: Vec::new(),
        number: 0,
        ended: false,
    }
}

/// Some editors put it in front of what they save.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The iterator that [`read_lines`] makes. It ends with the reader, or after an [`LineError::Io`].
#[derive(Debug)]
#[must_use = "iterators do nothing unless consumed"]
pub struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
    ended: bool,
}

/// Why a line of JSON Lines was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The reader failed; nothing is read after it.
    #[error("line {line}: {source}")]
    #[non_exhaustive]
    Io {
        /// The line's number, from 1.
        line: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// The line is no JSON, or not that of a telemetry.
    #[error("line {line}{}", in_line(source))]
    #[non_exhaustive]
    Json {
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with it. Its own line number is of no use: it saw one line.
        source: serde_json::Error,
    },
    /// The line is longer than [`Lines::<()>::MAX_LINE`]. It was skipped, and not kept in memory.
    #[error("line {line}: longer than {} bytes", Lines::<()>::MAX_LINE)]
    #[non_exhaustive]
    TooLong {
        /// The line's number, from 1.
        line: u64,
    },
}

/// What is wrong within a line, with the column if there is one. It may quote the line.
fn in_line(error: &serde_json::Error) -> String {
    let text: String = printable(&error.to_string()).collect();
    match text.strip_suffix(&format!(" at line 1 column {}", error.column())) {
        Some(text) => format!(", column {}: {text}", error.column()),
        None => format!(": {text}"),
    }
}

impl<R> Lines<R> {
    /// The longest line that is read, in bytes. A telemetry takes a few thousand.
    pub const MAX_LINE: usize = 16 * 1024 * 1024;
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line, without its end. `None` if there is none.
    fn next_line(&mut self) -> io::Result<Option<Result<(), LineError>>> {
        let max = Self::MAX_LINE;
        self.line.clear();
        let mut limited = Read::by_ref(&mut self.reader).take(max as u64 + 1);
        if limited.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > max {
            self.reader.skip_until(b'\n')?;
            // So long a buffer is for nothing else.
            self.line = Vec::new();
            return Ok(Some(Err(LineError::TooLong { line: self.number })));
        }
        Ok(Some(Ok(())))
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Telemetry, LineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.ended {
                return None;
            }
            match self.next_line() {
                Ok(Some(Ok(()))) if self.line.trim_ascii().is_empty() => {}
                Ok(Some(Ok(()))) => {
                    let line = self.number;
                    return Some(
                        parse(&self.line).map_err(|source| LineError::Json { line, source }),
                    );
                }
                Ok(Some(Err(error))) => return Some(Err(error)),
                Ok(None) => self.ended = true,
                Err(source) => {
                    self.ended = true;
                    let line = self.number + 1;
                    return Some(Err(LineError::Io { line, source }));
                }
            }
        }
    }
}

fn parse(line: &[u8]) -> serde_json::Result<Telemetry> {
    #[derive(Deserialize)]
    struct Line {
        telemetry: Option<Telemetry>,
    }

    let telemetry = match serde_json::from_slice::<Line>(line)?.telemetry {
        Some(telemetry) => telemetry,
        None => serde_json::from_slice(line)?,
    };
    if telemetry.session_id.is_empty() {
        // Every field has a default, so that any object would do.
        return Err(serde::de::Error::missing_field("sessionId"));
    }
    Ok(telemetry)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use serde_json::Value;

    use super::*;
    use crate::AppendFile;

    /// Counts the calls that reach it.
    #[derive(Default)]
    struct Writes(Vec<Vec<u8>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn documents_read_back_equal() {
        for telemetry in [Telemetry::example(), Telemetry::default()] {
            for text in [to_string(&telemetry), to_string_pretty(&telemetry)] {
                let read: Telemetry = serde_json::from_str(&text.unwrap()).unwrap();
                assert_eq!(read, telemetry);
            }
        }
    }

    #[test]
    fn a_line_is_one_write_with_the_end_of_the_run_as_its_timestamp() {
        let mut writes = Writes::default();
        let mut telemetry = Telemetry::example();
        telemetry
            .metadata
            .insert("note".to_owned(), "two\nlines, \"quoted\"".into());
        write_line(&mut writes, &telemetry).unwrap();

        let [line] = &writes.0[..] else {
            panic!("{} writes", writes.0.len());
        };
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
        let line: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(line["timestamp"], "2023-11-14T22:13:21.500Z");
        let read: Telemetry = serde_json::from_value(line["telemetry"].clone()).unwrap();
        assert_eq!(read, telemetry);
    }

    #[test]
    fn a_live_run_has_the_time_of_the_call() {
        let mut live = Telemetry::example();
        live.duration = None;
        let before = SystemTime::now() - Duration::from_millis(1);
        let mut line = Vec::new();
        write_line(&mut line, &live).unwrap();
        let line: Value = serde_json::from_slice(&line).unwrap();
        let written = humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).unwrap();
        assert!((before..=SystemTime::now()).contains(&written));
    }

    #[test]
    fn a_time_beyond_rfc_3339_is_an_error() {
        let mut telemetry = Telemetry::example();
        telemetry.start_time = Timestamp::from_millis(u64::MAX);
        let error = write_line(&mut Vec::new(), &telemetry).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn lines_that_many_writers_append_to_one_file_stay_whole() {
        let path = std::env::temp_dir().join(format!("l0-export-{}.jsonl", std::process::id()));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut file = AppendFile::open(&path).unwrap();
                    for _ in 0..250 {
                        write_line(&mut file, &Telemetry::example()).unwrap();
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 1_000);
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["telemetry"]["metrics"]["totalTokens"], 150);
        }
    }

    fn read(text: &[u8]) -> Vec<Result<String, String>> {
        read_lines(text)
            .map(|read| match read {
                Ok(telemetry) => Ok(telemetry.session_id),
                Err(error) => Err(error.to_string()),
            })
            .collect()
    }

    #[test]
    fn lines_read_back_equal_wrapped_and_bare() {
        let mut text = Vec::new();
        write_line(&mut text, &Telemetry::example()).unwrap();
        text.extend_from_slice(b"\n \t\r\n");
        text.extend_from_slice(to_string(&Telemetry::example()).unwrap().as_bytes());
        text.extend_from_slice(b"\r\n{\"sessionId\":\"last\"}");
        text.splice(..0, "\u{feff}".bytes());
        let read: Vec<_> = read_lines(&text[..]).map(Result::unwrap).collect();
        assert_eq!(read[..2], [Telemetry::example(), Telemetry::example()]);
        assert_eq!(read[2].session_id, "last");
        assert_eq!(read.len(), 3);
    }

    #[test]
    fn metadata_that_is_nested_100_deep_reads_back() {
        let nested = (0..100).fold(Value::Null, |value, _| Value::Array(vec![value]));
        let mut telemetry = Telemetry::example();
        telemetry.metadata.insert("nested".to_owned(), nested);
        let mut line = Vec::new();
        write_line(&mut line, &telemetry).unwrap();
        let read = read_lines(&line[..]).next().unwrap().unwrap();
        assert_eq!(read, telemetry);
    }

    #[test]
    fn a_broken_line_is_told_with_its_number_and_the_rest_is_read() {
        let long = format!(
            "{{\"sessionId\":\"{}\"}}",
            "x".repeat(Lines::<()>::MAX_LINE)
        );
        let text = [
            "{\"sessionId\":\"a\"}",
            "{\"sessionId\":\"b\"",
            "",
            "[]",
            "{}",
            "{\"telemetry\":{}}",
            "{\"telemetry\":{\"sessionId\":\"c\",\"duration\":-1}}",
            &long,
            "{\"sessionId\":\"d\"}",
            &long,
            "{\"telemetry\":{\"outcome\":\"\\u001b[2J\\u2028\"}}",
        ]
        .join("\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(b"\n\xff\n");
        let expected = [
            Ok("a"),
            Err("line 2, column 16: EOF while parsing an object"),
            Err("line 4, column 2: invalid length 0, expected struct Line with 1 element"),
            Err("line 5: missing field `sessionId`"),
            Err("line 6: missing field `sessionId`"),
            Err("line 7, column 44: -1 is no duration in milliseconds"),
            Err("line 8: longer than 16777216 bytes"),
            Ok("d"),
            Err("line 10: longer than 16777216 bytes"),
            Err(
                "line 11, column 41: unknown variant `\\u{1b}[2J\\u{2028}`, expected one of \
                 `completed`, `truncated`, `failed`, `timed_out`, `aborted`, `dropped`",
            ),
            Err("line 12, column 1: expected value"),
        ];
        let read = read(&bytes);
        let read: Vec<_> = read
            .iter()
            .map(|r| r.as_deref().map_err(|e| &**e))
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn a_line_that_a_crash_cut_costs_no_other() {
        let path = std::env::temp_dir().join(format!("l0-torn-{}.jsonl", std::process::id()));
        fs::write(&path, "{\"sessionId\":\"a\"}\n{\"sessi").unwrap();
        for _ in 0..2 {
            let mut file = AppendFile::open(&path).unwrap();
            write_line(&mut file, &Telemetry::example()).unwrap();
        }
        let text = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let read = read(&text);
        let ok: Vec<_> = read.iter().map(Result::is_ok).collect();
        assert_eq!(ok, [true, false, true, true]);
    }

    #[test]
    fn a_reader_that_fails_ends_the_lines() {
        struct Fails;
        impl Read for Fails {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let reader = io::BufReader::new(b"{\"sessionId\":\"a\"}\n".chain(Fails));
        let read: Vec<_> = read_lines(reader).collect();
        assert!(matches!(
            &read[..],
            [Ok(_), Err(LineError::Io { line: 2, source })]
                if source.kind() == io::ErrorKind::ConnectionReset
        ));
    }
}
