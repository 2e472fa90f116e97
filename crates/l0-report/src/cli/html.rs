//! `html`: runs as a page.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use l0_report::Profile;
use l0_report::html::Page;

use super::inputs::{Selection, read};
use super::output::Output;
use super::{Exit, Failure};

/// Writes a page with charts: when and why runs failed, how long they took, the slowest runs, and their cost.
///
/// The page is a single file that loads nothing else.
#[derive(clap::Args)]
#[command(after_long_help = super::reference())]
pub(crate) struct Arguments {
    /// Files of JSON Lines, as for `summary`.
    files: Vec<PathBuf>,

    /// Group by these metadata entries, such as `model`, or `model,tenant`. No other entry is shown.
    #[arg(
        long,
        value_name = "KEY",
        value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new(),
        default_value = "model"
    )]
    by: Vec<String>,

    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let profile = arguments.by.iter().fold(Profile::new(), Profile::group_by);
    let mut page = Page::new(profile);
    let filter = arguments.selection.filter();
    let total = read(
        &arguments.files,
        arguments.output.path(),
        &filter,
        &mut |run| page.add(run),
    )?;
    for (input, reading) in &total.readings {
        page.add_reading(input, reading);
    }
    arguments.output.write(|mut out| page.write(&mut out))?;
    Ok(total.exit())
}
