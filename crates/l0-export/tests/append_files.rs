//! Files to which processes append while disks fill up, files are rotated, and processes are killed: every
//! acknowledged line reads back, once and whole.
//!
//! Each case starts this program again for each writer.

#![cfg(all(unix, feature = "csv"))]

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use fs4::FileExt;
use l0_core::Telemetry;
use l0_export::{AppendFile, csv, json};

/// The size of additional content in a row: more than a page of memory, so a kill can hit a write.
const BALLAST: usize = 6_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Json,
    Csv,
}

const FORMATS: [Format; 2] = [Format::Json, Format::Csv];

fn named(id: &str) -> Telemetry {
    let mut telemetry = Telemetry::example();
    telemetry.session_id = id.to_owned();
    let ballast = "two\nlines, \"quoted\" ".repeat(BALLAST / 20);
    telemetry
        .metadata
        .insert("ballast".to_owned(), ballast.into());
    telemetry
}

/// A file in its own folder, which is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, format: Format) -> Self {
        let name = format!("l0-append-{}-{name}-{format:?}", std::process::id());
        let folder = env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("runs")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// ---- the writing process

#[test]
#[ignore = "started by the other tests"]
fn writer() {
    if env::var_os("L0_PATH").is_none() {
        return; // not started by a test
    }
    let variable = |name: &str| env::var(name).expect("set by the starting test");
    let path = PathBuf::from(variable("L0_PATH"));
    let count: usize = variable("L0_COUNT").parse().expect("a number");
    let name = variable("L0_NAME");
    type Write = Box<dyn FnMut(&Telemetry) -> Result<(), csv::Error>>;
    let mut write: Write = if variable("L0_FORMAT") == "Csv" {
        let mut rows = csv::Writer::append(path).expect("a file");
        Box::new(move |telemetry| rows.write(telemetry))
    } else {
        let mut lines = AppendFile::open(path).expect("a file");
        Box::new(move |telemetry| Ok(json::write_line(&mut lines, telemetry)?))
    };
    let mut out = io::stdout().lock();
    for number in 0..count {
        let id = format!("{name}-{number}");
        let result = match write(&named(&id)) {
            Ok(()) => "written",
            Err(csv::Error::Io(_)) => "failed",
            Err(error) => panic!("{error}"),
        };
        writeln!(out, "{result} {id}").expect("a reader");
    }
}

/// Starts a writer, with these words before its command.
fn start(before: &[&str], path: &Path, format: Format, name: &str, count: usize) -> Child {
    let program = env::current_exe().expect("this one");
    let mut words = before.iter().copied().chain(program.to_str());
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words);
    command.args(["--exact", "writer", "--ignored", "--nocapture"]);
    let variables = [
        ("L0_PATH", path.to_str().expect("UTF-8")),
        ("L0_COUNT", &count.to_string()),
        ("L0_NAME", name),
        ("L0_FORMAT", &format!("{format:?}")),
    ];
    command.envs(variables).stdout(Stdio::piped());
    command.spawn().expect("starts")
}

/// The output of a writer: the ids that it wrote, and the ids that it could not write.
#[derive(Default)]
struct Report {
    written: Vec<String>,
    failed: Vec<String>,
}

fn listen(child: &mut Child) -> Report {
    let mut report = Report::default();
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("UTF-8");
        // The test harness prints text before and after.
        if let Some((_, id)) = line.split_once("written ") {
            report.written.push(id.to_owned());
        } else if let Some((_, id)) = line.split_once("failed ") {
            report.failed.push(id.to_owned());
        }
    }
    report
}

/// Runs two writers at once until they end, and calls `meanwhile` repeatedly.
fn two_writers(
    before: &[&str],
    path: &Path,
    format: Format,
    count: usize,
    mut meanwhile: impl FnMut(),
) -> [Report; 2] {
    let children = ["a", "b"].map(|name| start(before, path, format, name, count));
    thread::scope(|scope| {
        let listeners = children.map(|mut child| {
            scope.spawn(move || {
                let report = listen(&mut child);
                assert!(child.wait().expect("ends").success());
                report
            })
        });
        while !listeners.iter().all(thread::ScopedJoinHandle::is_finished) {
            meanwhile();
            thread::sleep(Duration::from_millis(1));
        }
        listeners.map(|listener| listener.join().expect("listens"))
    })
}

/// The same without words before the command, and again if the writers ended before `meanwhile` had done its work
/// more than three times, as on a busy machine. `meanwhile` returns how often it has.
fn two_writers_while(
    path: &Path,
    format: Format,
    mut meanwhile: impl FnMut() -> usize,
) -> [Report; 2] {
    let mut reports = <[Report; 2]>::default();
    for _ in 0..20 {
        let mut times = 0;
        let more = two_writers(&[], path, format, 500, || times = meanwhile());
        for (report, more) in reports.iter_mut().zip(more) {
            report.written.extend(more.written);
            report.failed.extend(more.failed);
        }
        if times > 3 {
            break;
        }
    }
    reports
}

// ---- the content of the files

/// Returns the ids of the whole rows of a file, and the number of broken rows.
fn read(path: &Path, format: Format) -> (Vec<String>, usize) {
    let (mut whole, mut broken) = (Vec::new(), 0);
    let content = fs::read(path).expect("a file");
    let ballast = named("").metadata["ballast"].clone();
    match format {
        Format::Json => {
            for line in json::read_lines(&*content) {
                match line {
                    Ok(telemetry) => {
                        assert_eq!(telemetry.metadata["ballast"], ballast);
                        whole.push(telemetry.session_id);
                    }
                    Err(_) => broken += 1,
                }
            }
        }
        Format::Csv => {
            let mut reader = ::csv::ReaderBuilder::new();
            let mut reader = reader.flexible(true).from_reader(&*content);
            let columns = reader.headers().expect("a header").clone();
            broken += usize::from(!columns.is_empty() && &columns[0] != "sessionId");
            for row in reader.records() {
                match row {
                    Ok(row)
                        if row.len() == columns.len()
                            && row[row.len() - 1].len() > BALLAST
                            && &row[0] != "sessionId" =>
                    {
                        whole.push(row[0].to_owned());
                    }
                    _ => broken += 1,
                }
            }
        }
    }
    (whole, broken)
}

/// Checks that the files contain exactly the acknowledged rows, each once, in the order of each
/// writer.
fn check(files: &[PathBuf], format: Format, reports: &[Report]) {
    let mut by_writer = BTreeMap::<String, Vec<String>>::new();
    for file in files {
        let (whole, broken) = read(file, format);
        assert_eq!(broken, 0, "{}", file.display());
        for id in whole {
            let (writer, _) = id.split_once('-').expect("an id");
            by_writer.entry(writer.to_owned()).or_default().push(id);
        }
    }
    let found: Vec<_> = by_writer.into_values().collect();
    // A writer may have started on a disk that was already full.
    let written = reports.iter().map(|report| report.written.clone());
    let written: Vec<_> = written.filter(|written| !written.is_empty()).collect();
    for (found, written) in found.iter().zip(&written) {
        let wrong = found
            .iter()
            .zip(written)
            .find(|(found, written)| found != written);
        let counts = (found.len(), written.len());
        assert!(found == written, "{format:?}: {counts:?}, {wrong:?}");
    }
    assert_eq!(found.len(), written.len());
}

// ---- the cases

/// A limit for the length of a file stands for a full disk: both cut a write in the middle.
#[test]
fn on_a_full_disk_acknowledged_rows_are_whole_and_others_are_absent() {
    for format in FORMATS {
        let scratch = Scratch::new("full", format);
        let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 300; exec \"$@\"", "sh"];
        let reports = two_writers(&limited, &scratch.path(), format, 200, || {});
        let (written, failed) = reports.iter().fold((0, 0), |(written, failed), report| {
            (written + report.written.len(), failed + report.failed.len())
        });
        assert!(written > 10 && failed > 100, "{written} {failed}");
        check(&[scratch.path()], format, &reports);

        // The disk has space again.
        let more = two_writers(&[], &scratch.path(), format, 10, || {});
        let all = reports.into_iter().zip(more).map(|(mut report, more)| {
            report.written.extend(more.written);
            report
        });
        let all: Vec<_> = all.collect();
        check(&[scratch.path()], format, &all);
    }
}

/// The same on a file system that is full.
#[test]
fn on_a_full_tmpfs_too() {
    let program = env::current_exe().expect("this one");
    let script = "mount -t tmpfs -o size=160k l0-append-files \"$0\" && exec \"$@\"";
    for format in FORMATS {
        let scratch = Scratch::new("tmpfs", format);
        // Works without privileges where the system allows user namespaces. The mount ends with its last
        // process.
        let ran = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .args([&scratch.0, &program])
            .args(["--exact", "on_this_tmpfs", "--ignored", "--nocapture"])
            .env("L0_TMPFS", &scratch.0)
            .env("L0_FORMAT", format!("{format:?}"))
            .output();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match ran {
            Ok(ran) if text(&ran.stdout).contains("running 1 test") => {
                assert!(
                    ran.status.success(),
                    "{}{}",
                    text(&ran.stdout),
                    text(&ran.stderr)
                );
            }
            ran => {
                // The test harness would capture `eprintln`.
                let why = ran.map_or_else(|error| error.to_string(), |ran| text(&ran.stderr));
                let _ = writeln!(io::stderr(), "skipped, no tmpfs can be mounted: {why}");
                return;
            }
        }
    }
}

#[test]
#[ignore = "started by `on_a_full_tmpfs_too`, with a small tmpfs"]
fn on_this_tmpfs() {
    let Some(folder) = env::var_os("L0_TMPFS").map(PathBuf::from) else {
        return; // not started by a test
    };
    let format = if env::var("L0_FORMAT").is_ok_and(|format| format == "Csv") {
        Format::Csv
    } else {
        Format::Json
    };
    let path = folder.join("runs");
    // Another file comes and goes, and with it the space.
    let other = folder.join("other");
    let mut full = false;
    let reports = two_writers(&[], &path, format, 2_000, || {
        full = !full;
        if full {
            let _ = fs::write(&other, [0; 60_000]);
        } else {
            let _ = fs::remove_file(&other);
        }
    });
    let failed: usize = reports.iter().map(|report| report.failed.len()).sum();
    assert!(failed > 100, "{failed}");
    check(&[path], format, &reports);
}

#[test]
fn a_file_that_is_moved_away_is_followed() {
    for format in FORMATS {
        let scratch = Scratch::new("rename", format);
        let mut rotated = Vec::new();
        let reports = two_writers_while(&scratch.path(), format, || {
            let to = scratch.0.join(format!("runs.{}", rotated.len()));
            if fs::rename(scratch.path(), &to).is_ok() {
                rotated.push(to);
            }
            rotated.len()
        });
        assert!(rotated.len() > 3, "{}", rotated.len());
        rotated.extend(Some(scratch.path()).filter(|path| path.exists()));
        check(&rotated, format, &reports);
    }
}

fn copy_truncate(path: &Path, to: &Path) {
    fs::copy(path, to).expect("copies");
    let file = File::options().write(true).open(path).expect("opens");
    file.set_len(0).expect("cuts");
}

#[test]
fn a_file_that_is_copied_and_truncated_under_the_lock_loses_nothing() {
    for format in FORMATS {
        let scratch = Scratch::new("copy", format);
        let mut copies = Vec::new();
        let reports = two_writers_while(&scratch.path(), format, || {
            let Ok(file) = File::open(scratch.path()) else {
                return copies.len();
            };
            FileExt::lock(&file).expect("locks");
            let to = scratch.0.join(format!("runs.{}", copies.len()));
            copy_truncate(&scratch.path(), &to);
            copies.push(to);
            copies.len()
        });
        assert!(copies.len() > 3, "{}", copies.len());
        copies.push(scratch.path());
        check(&copies, format, &reports);
    }
}

#[test]
fn a_file_that_is_copied_and_truncated_without_the_lock_has_whole_rows_and_its_header() {
    for format in FORMATS {
        // A busy machine can stop this process between a copy and the truncation for as long as it takes to write
        // most rows.
        let mut lost = (0..20).map(|_| lost_without_the_lock(format));
        assert!(lost.any(|rows| rows < 500), "{format:?}");
    }
}

/// Returns how many of a thousand rows were written between a copy and the truncation, and so are lost.
fn lost_without_the_lock(format: Format) -> usize {
    let scratch = Scratch::new("unlocked", format);
    let mut copies = Vec::new();
    let reports = two_writers(&[], &scratch.path(), format, 500, || {
        if scratch.path().exists() {
            let to = scratch.0.join(format!("runs.{}", copies.len()));
            copy_truncate(&scratch.path(), &to);
            copies.push(to);
        }
    });
    let (found, broken) = read(&scratch.path(), format);
    assert_eq!(broken, 0);
    let mut found: HashSet<_> = found.into_iter().collect();
    // A copy may end within a row.
    found.extend(copies.iter().flat_map(|copy| read(copy, format).0));
    let written = reports.iter().flat_map(|report| &report.written);
    assert_eq!(written.clone().count(), 1_000);
    assert!(reports.iter().all(|report| report.failed.is_empty()));
    written.filter(|id| !found.contains(*id)).count()
}

#[test]
fn a_writer_that_is_killed_has_written_what_it_acknowledged() {
    for format in FORMATS {
        let scratch = Scratch::new("kill", format);
        let deadline = Instant::now() + Duration::from_secs(120);
        let mut written = Vec::new();
        let mut unfinished = 0;
        let survivor = start(&[], &scratch.path(), format, "survivor", 600);
        thread::scope(|scope| {
            let mut survivor = survivor;
            let survivor = scope.spawn(move || {
                let report = listen(&mut survivor);
                assert!(survivor.wait().expect("ends").success());
                report
            });
            for round in 0..12 {
                let name = format!("killed{round}");
                let mut child = start(&[], &scratch.path(), format, &name, usize::MAX);
                // After a number of rows and not after a time, so each kill hits another place.
                let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
                let mut acknowledged = Vec::new();
                while acknowledged.len() < 3 + round * 7 && Instant::now() < deadline {
                    let line = lines.next().expect("goes on").expect("UTF-8");
                    acknowledged.extend(line.split_once("written ").map(|(_, id)| id.to_owned()));
                }
                child.kill().expect("killed");
                child.wait().expect("ends");
                let rest = lines.map_while(Result::ok);
                // The last line may be incomplete too.
                let rest: Vec<_> = rest
                    .filter_map(|line| Some(line.split_once("written ")?.1.to_owned()))
                    .collect();
                let whole = rest.len().saturating_sub(1);
                acknowledged.extend(rest.into_iter().take(whole));
                written.extend(acknowledged);

                // A kill within a row.
                let mut file = File::options()
                    .append(true)
                    .open(scratch.path())
                    .expect("opens");
                FileExt::lock(&file).expect("locks");
                let torn: &[u8] = match format {
                    Format::Json => b"{\"timestamp\":\"2023",
                    Format::Csv => b"torn,15,\"two\nlines",
                };
                file.write_all(torn).expect("writes");
                unfinished += 1;
            }
            written.extend(survivor.join().expect("listens").written);
        });
        let mut end = start(&[], &scratch.path(), format, "end", 1);
        written.extend(listen(&mut end).written);
        assert!(end.wait().expect("ends").success());

        let (found, broken) = read(&scratch.path(), format);
        let once: HashSet<_> = found.iter().collect();
        assert_eq!(once.len(), found.len());
        let lost: Vec<_> = written.iter().filter(|id| !once.contains(id)).collect();
        assert!(lost.is_empty(), "{format:?}: {lost:?} of {}", written.len());
        // All unfinished rows, and at most one for each killed writer.
        assert!((unfinished..=2 * unfinished).contains(&broken), "{broken}");
        assert!(found.len() <= written.len() + 12 * 2, "{}", found.len());
    }
}

#[test]
fn a_write_that_does_not_end_in_a_line_end_is_an_error() {
    let scratch = Scratch::new("pieces", Format::Json);
    let mut file = AppendFile::open(scratch.path()).expect("a file");
    let error = file.write_all(b"half a line").expect_err("no line");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    file.write_all(b"").expect("nothing");
    file.write_all(b"one\ntwo\n").expect("lines");
    assert_eq!(fs::read(scratch.path()).expect("a file"), b"one\ntwo\n");
}

#[test]
fn a_replacement_file_with_another_header_is_not_changed() {
    let scratch = Scratch::new("other", Format::Csv);
    let mut rows = csv::Writer::append(scratch.path()).expect("a file");
    rows.write(&named("one")).expect("writes");
    let other = scratch.0.join("other");
    fs::write(&other, "a,b\n1,2\n").expect("a file");
    fs::rename(&other, scratch.path()).expect("moves");
    for _ in 0..2 {
        let error = rows.write(&named("two")).expect_err("another header");
        assert!(matches!(error, csv::Error::Header { .. }), "{error}");
    }
    assert_eq!(fs::read(scratch.path()).expect("a file"), b"a,b\n1,2\n");
    fs::remove_file(scratch.path()).expect("removes");
    rows.write(&named("three")).expect("writes");
    assert_eq!(read(&scratch.path(), Format::Csv).0, ["three"]);
}

#[test]
fn a_removed_folder_is_an_error_for_each_writer_and_blocks_none() {
    let scratch = Scratch::new("gone", Format::Json);
    let folder = scratch.0.join("logs");
    fs::create_dir(&folder).expect("a folder");
    let path = folder.join("runs");
    let mut one = AppendFile::open(&path).expect("a file");
    let mut other = AppendFile::open(&path).expect("a file");
    fs::rename(&folder, scratch.0.join("logs.1")).expect("moves");
    let error = one.write_all(b"one\n").expect_err("no folder");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);

    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let written = other.write_all(b"two\n").map_err(|error| error.kind());
        let _ = sender.send((written, other));
    });
    let receiver = receiver.recv_timeout(Duration::from_secs(120));
    let (written, mut other) = receiver.expect("no writer waits for another that has failed");
    assert_eq!(written, Err(io::ErrorKind::NotFound));

    fs::create_dir(&folder).expect("a folder");
    one.write_all(b"three\n").expect("writes");
    other.write_all(b"four\n").expect("writes");
    assert_eq!(fs::read(&path).expect("a file"), b"three\nfour\n");
}

/// The working directory at the time of opening counts, not a later one.
#[test]
fn a_relative_path_belongs_to_the_working_directory_at_opening() {
    let scratch = Scratch::new("folder", Format::Json);
    let program = env::current_exe().expect("this one");
    let ran = Command::new(program)
        .args(["--exact", "in_another_folder", "--ignored"])
        .env("L0_FOLDER", &scratch.0)
        .status();
    assert!(ran.expect("starts").success());
    assert!(scratch.0.join("runs").exists());
}

#[test]
#[ignore = "started by the previous test: the working directory belongs to the whole process"]
fn in_another_folder() {
    let Some(folder) = env::var_os("L0_FOLDER") else {
        return; // not started by a test
    };
    env::set_current_dir(folder).expect("a folder");
    let mut file = AppendFile::open("runs").expect("a file");
    let path = env::current_dir().expect("a folder").join("runs");
    env::set_current_dir("/").expect("a folder");
    file.write_all(b"one\n").expect("writes");
    fs::rename(&path, path.with_extension("1")).expect("moves");
    file.write_all(b"two\n").expect("writes");
    assert_eq!(fs::read(path).expect("a file"), b"two\n");
}
