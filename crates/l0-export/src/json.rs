//! JSON: one telemetry as a document, or as a line of a log.
//!
//! Durations are in milliseconds, and unknown values are absent. Documents read back equal (if
//! metadata is nested at most 100 levels deep): [`Telemetry`] implements `Deserialize`. Documents of
//! other versions read back too: an unknown label is read as `other`, and unknown fields are ignored.
//! All metadata is written. Prompts, output and credentials are not written, unless the metadata
//! contains them.

use std::fmt::Write as _;
use std::io::{self, BufRead, Read, Write};
use std::time::SystemTime;

use l0_core::{Telemetry, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

/// Writes one telemetry on one line, without a line end.
///
/// # Errors
///
/// Not expected: every telemetry can be written. The signature is that of [`serde_json::to_string`].
pub fn to_string(telemetry: &Telemetry) -> serde_json::Result<String> {
    serde_json::to_string(telemetry)
}

/// Writes one telemetry, indented by two spaces.
///
/// # Errors
///
/// Not expected: every telemetry can be written. The signature is that of
/// [`serde_json::to_string_pretty`].
pub fn to_string_pretty(telemetry: &Telemetry) -> serde_json::Result<String> {
    serde_json::to_string_pretty(telemetry)
}

/// Writes one line of JSON Lines: `{"timestamp": ..., "telemetry": {...}}`.
///
/// The timestamp is the end of the run, in RFC 3339 with milliseconds, UTC. For a run that has not
/// ended, it is the time of the call. The line is written by a single `write_all`, so lines that
/// several processes append to one [`AppendFile`](crate::AppendFile) stay whole.
///
/// # Errors
///
/// Returns the errors of the writer, and [`InvalidData`](io::ErrorKind::InvalidData) if the run ended
/// after the year 9999.
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

/// Reads JSON Lines: the output of [`write_line`], or one bare telemetry per line, as
/// [`to_string`] writes it. Memory use does not depend on the number of lines.
///
/// A broken line yields an error that states its position and what is wrong, without quoting the
/// line. Reading continues after it. Empty lines are skipped.
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
        offset: 0,
        read: 0,
        ended: false,
    }
}

/// Some editors save files with it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The iterator returned by [`read_lines`]. It ends with the reader, or after a [`LineError::Io`].
#[derive(Debug)]
#[must_use = "iterators do nothing unless consumed"]
pub struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: u64,
    /// The start of the line, in bytes.
    offset: u64,
    /// The number of bytes read so far.
    read: u64,
    ended: bool,
}

/// An error while reading a line of JSON Lines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The reader failed. No more lines are read.
    #[error("line {line} (byte {offset}): cannot be read")]
    #[non_exhaustive]
    Io {
        /// The line's number, from 1.
        line: u64,
        /// The start of the line: the number of bytes before it.
        offset: u64,
        /// The error of the reader.
        source: io::Error,
    },
    /// The line is not valid JSON, or not a telemetry.
    #[error("line {line} (byte {offset}){}", in_line(source))]
    #[non_exhaustive]
    Json {
        /// The line's number, from 1.
        line: u64,
        /// The start of the line: the number of bytes before it.
        offset: u64,
        /// The error of the parser. Unlike the text of this error, it may quote the line. Its own
        /// line number is always 1.
        source: serde_json::Error,
    },
    /// The line is longer than [`Lines::<()>::MAX_LINE`]. It was skipped and not kept in memory.
    #[error("line {line} (byte {offset}): longer than {} bytes", Lines::<()>::MAX_LINE)]
    #[non_exhaustive]
    TooLong {
        /// The line's number, from 1.
        line: u64,
        /// The start of the line: the number of bytes before it.
        offset: u64,
    },
}

impl LineError {
    /// Returns the line's number, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        let (Self::Io { line, .. } | Self::Json { line, .. } | Self::TooLong { line, .. }) = self;
        *line
    }

    /// Returns the number of bytes before the line.
    #[must_use]
    pub fn offset(&self) -> u64 {
        let (Self::Io { offset, .. } | Self::Json { offset, .. } | Self::TooLong { offset, .. }) =
            self;
        *offset
    }
}

/// Describes an error within a line, with the column, but without quoting the line: it may contain private
/// metadata.
fn in_line(error: &serde_json::Error) -> String {
    let column = error.column();
    let text = error.to_string();
    let text = text
        .strip_suffix(&format!(" at line 1 column {column}"))
        .unwrap_or(&text);
    let reason = match error.classify() {
        // These texts contain only the parser's words.
        Category::Syntax | Category::Eof | Category::Io => text.to_owned(),
        Category::Data => data_reason(text),
    };
    match column {
        0 => format!(": {reason}"),
        column => format!(", column {column}: {reason}"),
    }
}

/// Returns serde's message without the value. The message ends in the expected type.
fn data_reason(text: &str) -> String {
    let what = ["invalid type", "invalid value"];
    let expected = text
        .rsplit_once(", expected ")
        .map(|(_, expected)| expected);
    match (what.iter().find(|what| text.starts_with(**what)), expected) {
        (Some(what), Some(expected)) => format!("{what}, expected {expected}"),
        _ if text.starts_with("missing field `") => text.to_owned(),
        _ => "not a telemetry".to_owned(),
    }
}

impl<R> Lines<R> {
    /// The maximum length of a line, in bytes. A telemetry takes a few thousand.
    pub const MAX_LINE: usize = 16 * 1024 * 1024;

    /// Sets the number of lines and bytes before the reader's start. Line numbers and offsets then count from
    /// there, for a reader that starts within a file.
    pub const fn starting_after(mut self, lines: u64, bytes: u64) -> Self {
        (self.number, self.read) = (lines, bytes);
        self
    }
}

impl<R: BufRead> Lines<R> {
    /// Reads the next line, without its line end. Returns `None` at the end.
    fn next_line(&mut self) -> io::Result<Option<Result<(), LineError>>> {
        let max = Self::MAX_LINE;
        self.line.clear();
        self.offset = self.read;
        let mut limited = Read::by_ref(&mut self.reader).take(max as u64 + 1);
        match limited.read_until(b'\n', &mut self.line)? {
            0 => return Ok(None),
            read => self.read += read as u64,
        }
        self.number += 1;
        if self.number == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.line.drain(..BYTE_ORDER_MARK.len());
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > max {
            self.read += self.reader.skip_until(b'\n')? as u64;
            // Frees the large buffer, which no other line needs.
            self.line = Vec::new();
            return Ok(Some(Err(LineError::TooLong {
                line: self.number,
                offset: self.offset,
            })));
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
                    let (line, offset) = (self.number, self.offset);
                    return Some(parse(&self.line).map_err(|source| LineError::Json {
                        line,
                        offset,
                        source,
                    }));
                }
                Ok(Some(Err(error))) => return Some(Err(error)),
                Ok(None) => self.ended = true,
                Err(source) => {
                    self.ended = true;
                    let (line, offset) = (self.number + 1, self.offset);
                    return Some(Err(LineError::Io {
                        line,
                        offset,
                        source,
                    }));
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

    let telemetry = match parse_as::<Line>(line)?.telemetry {
        Some(telemetry) => telemetry,
        None => parse_as(line)?,
    };
    if telemetry.session_id.is_empty() {
        // Every field has a default, so any JSON object would parse.
        return Err(serde::de::Error::missing_field("sessionId"));
    }
    Ok(telemetry)
}

fn parse_as<T: DeserializeOwned>(line: &[u8]) -> serde_json::Result<T> {
    // Checks UTF-8 once, and not for each string. A line that is not UTF-8 may still be a telemetry, if the
    // invalid bytes are in an ignored field.
    match std::str::from_utf8(line) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(line),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use l0_core::{
        Cause, DriftReport, End, ErrorRecord, FinishReason, Monitor, Monitoring, NetworkErrorKind,
        Outcome, Severity, Violation,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::AppendFile;

    /// Records each write call.
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
    fn a_broken_line_is_reported_with_its_number_and_the_rest_is_read() {
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
            "{\"telemetry\":{\"metrics\":{\"interToken\":{\"count\":1}}}}",
            &long,
            "{\"sessionId\":\"d\"}",
            &long,
            "{\"telemetry\":{\"startTime\":\"\\u001b[2J\\u2028\"}}",
        ]
        .join("\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(b"\n\xff\n");
        let expected = [
            Ok("a"),
            Err("line 2 (byte 18), column 16: EOF while parsing an object"),
            Err("line 4 (byte 36), column 2: not a telemetry"),
            Err("line 5 (byte 39): missing field `sessionId`"),
            Err("line 6 (byte 42): missing field `sessionId`"),
            Err("line 7 (byte 59), column 50: not a telemetry"),
            Err("line 8 (byte 112): longer than 16777216 bytes"),
            Ok("d"),
            Err("line 10 (byte 16777363): longer than 16777216 bytes"),
            Err("line 11 (byte 33554596), column 43: invalid type, expected u64"),
            Err("line 12 (byte 33554642), column 1: expected value"),
        ];
        let read = read(&bytes);
        let read: Vec<_> = read
            .iter()
            .map(|r| r.as_deref().map_err(|e| &**e))
            .collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn a_record_of_a_newer_version_reads_back() {
        let newer = json!({ "timestamp": "2030-01-01T00:00:00.000Z", "schema": 9, "telemetry": {
            "sessionId": "l0_1", "startTime": 1, "endTime": 3, "duration": 2,
            "outcome": "evaporated",
            "error": { "type": "quantum_loss", "status": 599, "message": "gone", "hint": [] },
            "finishReason": "enlightened",
            "usage": { "input": 3, "thoughts": 9 },
            "metrics": { "totalTokens": 4, "timeToInsight": 1.5, "attempts": 1 },
            "network": {
                "errorCount": 5,
                "errorsByType": { "timeout": 2, "worm_hole": 1, "black_hole": 2 },
                "errors": [{
                    "type": "worm_hole", "message": "lost", "timestamp": 2, "retried": true,
                    "delay": 7, "severity": "grave",
                }],
            },
            "guardrails": {
                "violationCount": 2, "violationsByRule": { "rule-9": 2 },
                "violationsBySeverity": { "notice": 1, "warning": 1 },
                "violationsByRuleAndSeverity": { "rule-9": { "notice": 1, "warning": 1 } },
            },
            "drift": { "detected": true, "types": ["mood"], "score": 0.3 },
            "attempts": [{ "number": 1 }],
            "cost": { "amount": "0.01" },
        }});
        let lines = format!("{newer}\n{}\n", newer["telemetry"]);
        let read: Vec<_> = read_lines(lines.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(read.len(), 2);
        for telemetry in read {
            assert_eq!(telemetry.outcome, Some(Outcome::Other));
            let error = telemetry.error.as_ref().unwrap();
            let error = (&*error.error_type, error.status, &*error.message);
            assert_eq!(error, ("quantum_loss", Some(599), "gone"));
            assert_eq!(telemetry.finish_reason, Some(FinishReason::Other));
            assert_eq!(telemetry.usage.unwrap().input, Some(3));
            assert_eq!(telemetry.metrics.total_tokens, 4);
            let by_type = &telemetry.network.errors_by_type;
            let expected = [(NetworkErrorKind::Timeout, 2), (NetworkErrorKind::Other, 3)];
            assert_eq!(*by_type, expected.into());
            let [error] = telemetry.network.errors.as_deref().unwrap() else {
                panic!("{:?}", telemetry.network);
            };
            assert_eq!(error.kind, NetworkErrorKind::Other);
            assert!(error.was_retried());
            assert_eq!(error.delay(), Some(Duration::from_millis(7)));
            let guardrails = telemetry.guardrails.as_ref().unwrap();
            assert_eq!(guardrails.violation_count, 2);
            assert_eq!(guardrails.violations_by_severity.warning, 1);
            assert!(telemetry.drift.as_ref().unwrap().detected());

            // A label that was read as `other` is written as `other`.
            let mut line = Vec::new();
            write_line(&mut line, &telemetry).unwrap();
            let again = read_lines(&line[..]).next().unwrap().unwrap();
            assert_eq!(again, telemetry);
        }
    }

    /// A reader that knows only the guide's structure.
    #[test]
    fn an_older_reader_finds_the_original_structure() {
        let mut telemetry = Telemetry::example();
        let mut monitor = Monitor::new(Monitoring::new());
        monitor.record_violations(&[Violation::new("json", Severity::Error, "not JSON")]);
        monitor.record_drift(&DriftReport::new(["tone_shift"], 0.9));
        let recorded = monitor.telemetry().unwrap();
        (telemetry.guardrails, telemetry.drift) = (recorded.guardrails, recorded.drift);
        telemetry.outcome = Some(Outcome::Failed);
        telemetry.error = ErrorRecord::of(&End::of(Cause::ZeroOutput));
        let mut line = Vec::new();
        write_line(&mut line, &telemetry).unwrap();
        let line: Value = serde_json::from_slice(&line).unwrap();
        let at = |place: &str| {
            line["telemetry"]
                .pointer(place)
                .cloned()
                .unwrap_or_default()
        };
        for (place, expected) in [
            ("/sessionId", json!("l0_1700000000000_0123456789abc")),
            ("/startTime", json!(1_700_000_000_000_u64)),
            ("/endTime", json!(1_700_000_001_500_u64)),
            ("/duration", json!(1_500)),
            ("/metrics/timeToFirstToken", json!(250)),
            ("/metrics/avgInterTokenTime", json!(7.445_945)),
            ("/metrics/tokensPerSecond", json!(100.0)),
            ("/metrics/totalTokens", json!(150)),
            ("/metrics/totalRetries", json!(1)),
            ("/network/errorCount", json!(1)),
            ("/network/errorsByType", json!({ "connection_dropped": 1 })),
            ("/network/errors/0/type", json!("connection_dropped")),
            ("/network/errors/0/message", json!("broken pipe")),
            ("/network/errors/0/retried", json!(true)),
            ("/network/errors/0/delay", json!(100)),
            ("/guardrails/violationCount", json!(1)),
            ("/guardrails/violationsByRule", json!({ "json": 1 })),
            ("/guardrails/violationsBySeverity/error", json!(1)),
            ("/drift/detected", json!(true)),
            ("/drift/types", json!(["tone_shift"])),
            ("/metadata/model", json!("gpt-4")),
            // Additions to the guide's structure.
            ("/outcome", json!("failed")),
            ("/error/type", json!("zero_output")),
        ] {
            assert_eq!(at(place), expected, "{place}");
        }
    }

    #[test]
    fn a_line_that_a_crash_truncated_does_not_affect_other_lines() {
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
    fn an_error_does_not_quote_the_broken_line() {
        for broken in [
            r#"{"sessionId":1.5,"CANARY":CANARY}"#,
            r#"{"sessionId":"CANARY","startTime":"CANARY, expected CANARY"}"#,
            r#"{"sessionId":"a","startTime":{"CANARY":1}}"#,
            r#"{"sessionId":"a","metrics":"missing field `CANARY`"}"#,
            r#"{"sessionId":"a","metrics":["CANARY"]}"#,
            r#"{"sessionId":"a","duration":"CANARY"}"#,
            r#"{"sessionId":"a","network":{"errorsByType":{"CANARY":"CANARY"}}}"#,
            r#"{"sessionId":"a","sessionId":"CANARY"}"#,
            r#"{"CANARY"#,
            "CANARY",
        ] {
            let [Err(message)] = &read(broken.as_bytes())[..] else {
                panic!("{broken} was read");
            };
            assert!(message.starts_with("line 1 (byte 0)"), "{message}");
            assert!(!message.contains("CANARY"), "{broken}: {message}");
        }
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
        let [Ok(_), Err(error)] = &read[..] else {
            panic!("{read:?}");
        };
        assert_eq!(error.to_string(), "line 2 (byte 18): cannot be read");
        assert!(matches!(
            error,
            LineError::Io { line: 2, offset: 18, source }
                if source.kind() == io::ErrorKind::ConnectionReset
        ));
    }
}
