//! `summary`: an overview of runs.

use std::io;
use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use l0_report::{Profile, Summary};

use super::inputs::{Selection, read};
use super::{Exit, Failure, print};

/// Summarizes runs: outcomes, failure reasons, usage and durations.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// JSON Lines files, as `l0_export::json::write_line` writes them, plain or compressed with gzip or zstd.
    /// Patterns such as `'logs/*.gz'` are allowed. `-`, or no file, reads standard input.
    files: Vec<PathBuf>,

    /// Group by these metadata entries, such as `model`, or `model,tenant`.
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    by: Vec<String>,

    /// List the ids of all failed runs.
    #[arg(long)]
    ids: bool,

    #[command(flatten)]
    selection: Selection,

    /// The output format. In data formats, durations are in milliseconds.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// A table for the terminal.
    #[default]
    Table,
    /// The same table in Markdown.
    Markdown,
    Json,
    /// A row for each group.
    Csv,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let profile = arguments.by.iter().fold(Profile::new(), Profile::group_by);
    let mut summary = Summary::new(profile);
    if arguments.ids {
        summary = summary.with_failed_ids();
    }
    let filter = arguments.selection.filter();
    let total = read(&arguments.files, None, &filter, &mut |run| summary.add(run))?;
    for (input, reading) in &total.readings {
        summary.add_reading(input, reading);
    }
    print(|out| match arguments.format {
        Format::Table => writeln!(out, "{summary}"),
        Format::Markdown => writeln!(out, "{}", summary.markdown()),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &summary)?;
            writeln!(out)
        }
        Format::Csv => {
            let mut rows = Vec::new();
            l0_report::csv::write_profile(&mut rows, summary.profile())
                .map_err(io::Error::other)?;
            out.write_all(&rows)
        }
    })?;
    Ok(total.exit())
}
