//! Profile the JSON Lines that `l0_export::json::write_line` writes, in the terminal.
//!
//! ```console
//! $ l0-report --by model l0.jsonl
//! ```
//!
//! Reads files, or standard input if there are none, and prints how many runs ended in which way, why
//! runs failed, what adds up (tokens, retries, ...), and how duration, time to first token, gaps and
//! rates are spread; with `--json` or `--csv` as data. Memory does not grow with the length of the
//! input. A broken line is skipped, and standard error says which one, where it begins and what is
//! wrong with it, in no words of the line; what another version of L0 wrote is not broken.
//!
//! Exit codes: 0, all was read; 1, lines were skipped; 2, an input could not be read, or the
//! arguments are wrong.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use l0_export::csv;
use l0_export::json::{LineError, read_lines};
use l0_export::profile::Profile;

/// Profiles runs from JSON Lines: how they ended, why they failed, and how long they took.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Files of JSON Lines, as `l0_export::json::write_line` writes them; `-` or none: standard
    /// input.
    files: Vec<PathBuf>,

    /// Group by this entry of the metadata, such as `model`.
    #[arg(long, value_name = "KEY")]
    by: Option<String>,

    /// Print JSON instead of a table; durations are milliseconds.
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Print CSV instead of a table, a row per group; durations are milliseconds.
    #[arg(long)]
    csv: bool,
}

/// Of how many broken lines of one input the reader is told each.
const MAX_REPORTED: u64 = 10;
/// From which length on a file is worth a progress bar, in bytes.
const LONG_FILE: u64 = 32 * 1024 * 1024;
/// How much is read at once, in bytes.
const BUFFER: usize = 256 * 1024;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut report = Report::new(arguments.by.as_deref());
    if arguments.files.is_empty() {
        report.standard_input();
    }
    for path in &arguments.files {
        if path.as_os_str() == "-" {
            report.standard_input();
        } else {
            report.file(path);
        }
    }

    match print(&report.profile, &arguments) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => {
            complain(&format_args!("standard output: {error}"));
            return ExitCode::from(2);
        }
        Ok(()) => {}
    }
    if report.unread > 0 {
        ExitCode::from(2)
    } else if report.broken > 0 {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}

/// What was read so far, and what could not be.
struct Report {
    profile: Profile,
    /// Lines that were skipped.
    broken: u64,
    /// Inputs that could not be read to their end.
    unread: u64,
}

impl Report {
    fn new(by: Option<&str>) -> Self {
        let profile = Profile::new();
        Self {
            profile: match by {
                Some(key) => profile.group_by(key),
                None => profile,
            },
            broken: 0,
            unread: 0,
        }
    }

    fn standard_input(&mut self) {
        let input = BufReader::with_capacity(BUFFER, io::stdin().lock());
        self.read("standard input", input, &ProgressBar::hidden());
    }

    fn file(&mut self, path: &Path) {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => {
                let length = file.metadata().map_or(0, |metadata| metadata.len());
                let bar = progress_bar(length, &name);
                let input = BufReader::with_capacity(BUFFER, bar.wrap_read(file));
                self.read(&name, input, &bar);
                bar.finish_and_clear();
            }
            Err(error) => {
                complain(&format_args!("{name}: {error}"));
                self.unread += 1;
            }
        }
    }

    fn read(&mut self, name: &str, input: impl BufRead, bar: &ProgressBar) {
        let mut broken = 0;
        let mut last = 0;
        for telemetry in read_lines(input) {
            match telemetry {
                Ok(telemetry) => self.profile.add(&telemetry),
                Err(error) => {
                    if matches!(error, LineError::Io { .. }) {
                        self.unread += 1;
                    } else {
                        broken += 1;
                        last = error.line();
                        if broken > MAX_REPORTED {
                            continue;
                        }
                    }
                    bar.suspend(|| complain(&format_args!("{name}, {error}")));
                }
            }
        }
        if broken > 0 {
            bar.suspend(|| {
                complain(&format_args!(
                    "{name}: {broken} broken lines skipped, the last is line {last}"
                ));
            });
        }
        self.broken += broken;
    }
}

/// A bar on standard error for a long file. It shows only on a terminal.
fn progress_bar(length: u64, name: &str) -> ProgressBar {
    if length < LONG_FILE {
        return ProgressBar::hidden();
    }
    let template = "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    let style = ProgressStyle::with_template(template);
    ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(name.to_owned())
}

fn print(profile: &Profile, arguments: &Arguments) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, profile)?;
        writeln!(out)?;
    } else if arguments.csv {
        csv::write_profile(&mut out, profile).map_err(|error| match error {
            csv::Error::Io(error) => error,
            error => io::Error::other(error),
        })?;
    } else {
        writeln!(out, "{profile}")?;
    }
    out.flush()
}

/// Tells the user, who may have closed standard error. Names of files may hold anything.
fn complain(message: &dyn std::fmt::Display) {
    let mut line = String::from("l0-report: ");
    for character in message.to_string().chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    let _ = writeln!(io::stderr(), "{line}");
}
