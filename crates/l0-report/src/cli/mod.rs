//! The program: arguments, messages and exit codes for the library. Each subcommand has a file.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use l0_core::{Quantity, Unit};

mod compare;
mod html;
mod inputs;
mod output;
mod summary;
mod timeline;

/// Reports on runs from JSON Lines: outcomes, failure reasons and durations.
///
/// The default subcommand is `summary`. Write `./compare` for a file that has the name of a subcommand.
#[derive(Parser)]
#[group(skip)]
#[command(version, after_help = EXIT_CODES, after_long_help = reference(), args_conflicts_with_subcommands = true)]
struct Program {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    summary: summary::Arguments,
}

#[derive(Subcommand)]
enum Command {
    Summary(summary::Arguments),
    Compare(compare::Arguments),
    Html(html::Arguments),
    Timeline(timeline::Arguments),
}

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  a condition of `compare --fail-if` holds
  2  an input is missing, has no runs, cannot be read to its end or is also the output, or an argument is invalid
  3  broken lines were skipped
  4  a condition of `compare --fail-if` cannot be evaluated in any group, for example because of too few runs";

/// Returns the end of each subcommand's long help.
pub(crate) fn reference() -> String {
    let mut kinds = [
        ("times", vec![]),
        ("rates", vec![]),
        ("money", vec![]),
        ("numbers", vec![]),
    ];
    for quantity in Quantity::ALL {
        let kind = match quantity.unit {
            Unit::Seconds => 0,
            Unit::PerSecond(_) => 1,
            Unit::Money => 2,
            _ => 3,
        };
        kinds[kind].1.push(quantity.name);
    }
    let mut text = "Quantities, for `--where`, `--fail-if` and `--show`:\n".to_owned();
    for (kind, names) in kinds {
        text += &format!("  {kind:8} {}\n", names.join(", "));
    }
    text + "\n" + EXIT_CODES
}

/// The exit code of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Success = 0,
    /// Lines were skipped.
    Skipped = 3,
    /// A `--fail-if` condition holds.
    Fails = 1,
    /// An input could not be read.
    Unread = 2,
    /// A condition cannot be evaluated.
    Unjudged = 4,
}

/// The message of an error that prevents a report.
pub(crate) type Failure = String;

pub(crate) fn run() -> ExitCode {
    let Program { command, summary } = Program::parse();
    let ended = match command.unwrap_or(Command::Summary(summary)) {
        Command::Summary(arguments) => summary::run(&arguments),
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Html(arguments) => html::run(&arguments),
        Command::Timeline(arguments) => timeline::run(&arguments),
    };
    let exit = ended.unwrap_or_else(|failure| {
        complain(&failure);
        Exit::Unread
    });
    ExitCode::from(exit as u8)
}

/// Writes a report to standard output. A closed standard output is not an error.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}"))
        }
        _ => Ok(()),
    }
}

/// Writes a message to standard error. A closed standard error is ignored.
pub(crate) fn complain(message: &dyn std::fmt::Display) {
    let line = shown(&message.to_string());
    let _ = writeln!(io::stderr(), "l0-report: {line}");
}

/// Escapes a text for a terminal: file names can contain any characters, including those that change the
/// direction of text.
pub(crate) fn shown(text: &str) -> String {
    let mut line = String::new();
    for character in text.chars() {
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}
