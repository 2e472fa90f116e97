//! Appending rows to files.

#![cfg(feature = "csv")]

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;

use l0_core::Telemetry;
use l0_export::csv::{Error, Writer, to_string};

/// A file in its own folder, which is removed at the end.
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
fn a_file_is_appended_to_after_a_spreadsheet_or_a_crash_changed_it() {
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

/// Returns the ids of the rows that the `csv` crate reads whole.
fn whole_rows(text: &str) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.flexible(true).from_reader(text.as_bytes());
    let columns = reader.headers().expect("a header").len();
    let rows = reader.records().map(|row| row.expect("UTF-8"));
    rows.filter(|row| row.len() == columns)
        .map(|row| row[0].to_owned())
        .collect()
}

fn named(id: &str) -> Telemetry {
    let mut telemetry = Telemetry::example();
    telemetry.session_id = id.to_owned();
    telemetry
}

#[test]
fn wherever_a_crash_cuts_a_row_only_that_row_is_lost() {
    let row = header_and_row().1;
    for cut in 1..row.len() {
        let scratch = Scratch::new("cut");
        let mut writer = Writer::append(scratch.path()).expect("a file");
        writer.write(&named("one")).expect("writes");
        writer.write(&named("two")).expect("writes");
        let text = scratch.read();
        let cut = text.len() - cut.min(text.len() - text.find("two").expect("there") - 1);
        fs::write(scratch.path(), &text[..cut]).expect("cut");

        for id in ["three", "four"] {
            let mut writer = Writer::append(scratch.path()).expect("a file");
            writer.write(&named(id)).expect("writes");
        }
        let mut ids = whole_rows(&scratch.read());
        // A row that is cut within its last cell still has all cells.
        ids.retain(|id| id != "two");
        assert_eq!(ids, ["one", "three", "four"], "cut at {cut}: {text}");
    }
}

#[test]
fn wherever_a_write_fails_only_that_row_is_lost() {
    /// Accepts this many bytes, then fails once, then accepts everything.
    struct Full(Vec<u8>, Option<usize>);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let space = self
                .1
                .map_or(bytes.len(), |space| space.saturating_sub(self.0.len()));
            if space == 0 {
                self.1 = None;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(space);
            self.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let (header, row) = header_and_row();
    for space in header.len()..header.len() + 2 * row.len() {
        let mut writer = Writer::new(Full(Vec::new(), Some(space)));
        let ids = ["one", "two", "three", "four"];
        let written: Vec<_> = ids
            .into_iter()
            .filter(|id| writer.write(&named(id)).is_ok())
            .collect();
        let text = String::from_utf8(writer.into_inner().0).expect("UTF-8");
        let mut whole = whole_rows(&text);
        // A row that is cut within its last cell still has all cells.
        whole.retain(|id| written.contains(&&**id));
        assert_eq!(whole, written, "{space}: {text}");
        assert_eq!(text.matches("sessionId").count(), 1, "{space}: {text}");
    }
}

#[test]
fn a_file_with_another_header_is_not_changed() {
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
        let Error::Header {
            found, expected, ..
        } = &error
        else {
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
    // Longer than a page of memory, so a reader of the file's end could see part of a row.
    let mut long = Telemetry::example();
    long.metadata
        .insert("long".to_owned(), "x".repeat(50_000).into());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    append(&scratch).expect("appends");
                }
            });
            scope.spawn(|| {
                let mut writer = Writer::append(scratch.path()).expect("a file");
                for _ in 0..50 {
                    writer.write(&long).expect("writes");
                }
            });
        }
    });
    let (header, row) = header_and_row();
    let long = to_string(&long).expect("CSV");
    let long = long.split_once('\n').expect("two lines").1;
    let text = scratch.read();
    let rows = text.strip_prefix(&header).expect("a header");
    let mut counts = (0, 0);
    for line in rows.split_inclusive('\n') {
        counts = match line {
            line if line == row => (counts.0 + 1, counts.1),
            line if line == long => (counts.0, counts.1 + 1),
            line => panic!("{line}"),
        };
    }
    assert_eq!(counts, (200, 200));
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_with_its_cause() {
    let scratch = Scratch::new("missing");
    let error = Writer::append(scratch.0.join("no/such/folder.csv")).expect_err("no folder");
    assert!(matches!(&error, Error::Io(io) if io.kind() == io::ErrorKind::NotFound));
}

#[test]
fn a_row_is_one_write_and_a_failing_writer_is_an_error() {
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
