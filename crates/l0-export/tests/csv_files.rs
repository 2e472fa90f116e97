//! Appending rows to files, and profiles as CSV.

#![cfg(feature = "csv")]

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;

use l0_core::Telemetry;
use l0_export::csv::{Error, Writer, to_string, write_profile};
use l0_export::profile::Profile;

/// A file in a folder of its own, which is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("l0-csv-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("runs.csv")
    }

    fn read(&self) -> String {
        fs::read_to_string(self.path()).expect("a file")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn header_and_row() -> (String, String) {
    let text = to_string(&Telemetry::example()).expect("CSV");
    let (header, row) = text.split_once('\n').expect("two lines");
    (format!("{header}\n"), row.to_owned())
}

fn append(scratch: &Scratch) -> Result<(), Error> {
    Writer::append(scratch.path())?.write(&Telemetry::example())
}

#[test]
fn the_header_is_written_once() {
    let scratch = Scratch::new("once");
    let (header, row) = header_and_row();
    for rows in 1..4 {
        append(&scratch).expect("appends");
        assert_eq!(scratch.read(), format!("{header}{}", row.repeat(rows)));
    }

    let mut writer = Writer::new(Vec::new());
    for _ in 0..2 {
        writer.write(&Telemetry::example()).expect("writes");
    }
    let written = String::from_utf8(writer.into_inner()).expect("UTF-8");
    assert_eq!(written, format!("{header}{row}{row}"));
}

#[test]
fn a_file_of_ours_is_appended_to_whatever_a_spreadsheet_or_a_crash_made_of_it() {
    let (header, row) = header_and_row();
    let quoted = header
        .trim_end()
        .split(',')
        .map(|name| format!("\"{name}\""));
    let quoted = quoted.collect::<Vec<_>>().join(",") + "\n";
    for (before, between) in [
        (header.clone(), ""),
        (header.trim_end().to_owned(), "\n"),
        (format!("{header}{row}"), ""),
        (format!("{header}l0_17000,15"), "\n"),
        (format!("\u{feff}{header}{row}"), ""),
        (header.replace('\n', "\r\n"), ""),
        (quoted, ""),
    ] {
        let scratch = Scratch::new("ours");
        fs::write(scratch.path(), &before).expect("a file");
        append(&scratch).expect("appends");
        assert_eq!(scratch.read(), format!("{before}{between}{row}"));
    }
}

#[test]
fn a_file_with_another_header_is_left_alone() {
    let (header, row) = header_and_row();
    let original = "sessionId,duration,tokens,tokensPerSecond,retries,networkErrors,violations\n";
    let long = "x".repeat(1_000_000);
    for before in [
        original.to_owned(),
        format!("{},more\n", header.trim_end()),
        header.replace("sessionId", "SessionId"),
        row,
        "\n".to_owned(),
        "{\"timestamp\":1}\n".to_owned(),
        long,
    ] {
        let scratch = Scratch::new("other");
        fs::write(scratch.path(), &before).expect("a file");
        let error = append(&scratch).expect_err("another header");
        assert_eq!(scratch.read(), before);
        let Error::Header { found, expected } = &error else {
            panic!("{error}");
        };
        assert_eq!(*expected, header.trim_end());
        assert!(found.len() <= expected.len());
        assert!(error.to_string().contains(&**found));
    }

    let scratch = Scratch::new("bytes");
    fs::write(scratch.path(), b"\xff\xfe\x00\n").expect("a file");
    assert!(matches!(append(&scratch), Err(Error::Header { .. })));
}

#[test]
fn many_writers_of_one_file_write_one_header_and_whole_rows() {
    let scratch = Scratch::new("many");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    append(&scratch).expect("appends");
                }
            });
        }
    });
    let (header, row) = header_and_row();
    assert_eq!(scratch.read(), format!("{header}{}", row.repeat(400)));
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_with_its_cause() {
    let scratch = Scratch::new("missing");
    let error = Writer::append(scratch.0.join("no/such/folder.csv")).expect_err("no folder");
    assert!(matches!(&error, Error::Io(io) if io.kind() == io::ErrorKind::NotFound));
}

#[test]
fn a_row_is_one_write_and_a_writer_that_fails_is_heard() {
    struct Writes(Vec<Vec<u8>>, bool);
    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut writer = Writer::new(Writes(Vec::new(), false));
    for _ in 0..3 {
        writer.write(&Telemetry::example()).expect("writes");
    }
    assert_eq!(writer.get_ref().0.len(), 3);

    let mut full = Writer::new(Writes(Vec::new(), true));
    let error = full.write(&Telemetry::example()).expect_err("full");
    assert!(matches!(&error, Error::Io(io) if io.kind() == io::ErrorKind::StorageFull));
}

#[test]
fn a_profile_is_a_row_per_group() {
    let mut profile = Profile::new().group_by("model");
    let mut telemetry = Telemetry::example();
    profile.add(&telemetry);
    profile.add(&telemetry);
    telemetry
        .metadata
        .insert("model".to_owned(), "=cmd()".into());
    telemetry.outcome = None;
    telemetry.metrics.time_to_first_token = None;
    profile.add(&telemetry);

    let mut written = Vec::new();
    write_profile(&mut written, &profile).expect("CSV");
    let written = String::from_utf8(written).expect("UTF-8");
    let rows: Vec<Vec<_>> = written
        .lines()
        .map(|line| line.split(',').collect())
        .collect();
    let column = |name| {
        let place = rows[0].iter().position(|column| *column == name);
        let place = place.unwrap_or_else(|| panic!("no column {name}"));
        [rows[1][place], rows[2][place]]
    };
    for (name, expected) in [
        ("group", ["'=cmd()", "gpt-4"]),
        ("runs", ["1", "2"]),
        ("completed", ["0", "2"]),
        ("timed_out", ["0", "0"]),
        ("networkErrors", ["1", "2"]),
        ("tokens", ["150", "300"]),
        ("durationMean", ["1500", "1500"]),
        ("durationMax", ["1500", "1500"]),
        ("timeToFirstTokenMax", ["", "250"]),
        ("interTokenMax", ["11", "11"]),
        ("tokensPerSecondMax", ["100", "100"]),
    ] {
        assert_eq!(column(name), expected, "{name}");
    }
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].len(), 1 + 8 + 6 + 4 * 5);
}
