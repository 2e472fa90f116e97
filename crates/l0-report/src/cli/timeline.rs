//! `timeline`: runs as a trace.

use std::path::PathBuf;

use l0_report::timeline::Timeline;

use super::inputs::{Selection, read};
use super::output::Output;
use super::{Exit, Failure, complain};

/// Writes a trace for Perfetto and Chrome: runs on lanes, with their attempts, back-offs and first tokens.
#[derive(clap::Args)]
#[command(after_long_help = super::reference())]
pub(crate) struct Arguments {
    /// Files of JSON Lines, as for `summary`.
    files: Vec<PathBuf>,

    /// The maximum number of runs in the trace. The earliest runs are kept.
    #[arg(long, value_name = "NUMBER", default_value_t = Timeline::MAX_RUNS)]
    max_runs: usize,

    #[command(flatten)]
    selection: Selection,

    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut timeline = Timeline::new().max_runs(arguments.max_runs);
    let filter = arguments.selection.filter();
    let total = read(
        &arguments.files,
        arguments.output.path(),
        &filter,
        &mut |run| timeline.add(run),
    )?;
    if timeline.left_out() > 0 {
        complain(&format_args!(
            "the trace contains the earliest {} of {} runs: see `--max-runs` and `--since`",
            timeline.runs(),
            timeline.left_out().saturating_add(timeline.runs() as u64),
        ));
    }
    if timeline.without_start() > 0 {
        complain(&format_args!(
            "runs without a start time are omitted from the trace: {}",
            timeline.without_start(),
        ));
    }
    arguments.output.write(|mut out| timeline.write(&mut out))?;
    Ok(total.exit())
}
