//! `compare`: compares two sets of runs.

use std::io;
use std::path::PathBuf;
use std::slice;
use std::str::FromStr;

use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use l0_core::{Telemetry, keys};
use l0_report::compare::{self, Arm, Arms, CheckOutcome, Confidence, Statistic, Threshold};

use super::inputs::{Selection, read};
use super::{Exit, Failure, complain, print};

/// Compares two sets of runs: differences with intervals, and a verdict for each number.
///
/// Exits with 1 if a condition of `--fail-if` holds: if the whole interval of the difference is beyond its
/// limit.
#[derive(clap::Args)]
#[command(after_long_help = super::reference())]
pub(crate) struct Arguments {
    /// The base set and the new set, each a JSON Lines file, a pattern or `-`, as for `summary`. With `--arms`, any
    /// number of inputs.
    #[arg(value_name = "BASE NEW")]
    files: Vec<PathBuf>,

    /// Compare two values of a metadata entry, the base first, such as `variant=a,b`, instead of two
    /// files.
    #[arg(long, value_name = "KEY=BASE,NEW")]
    arms: Option<Values>,

    /// Compare each group separately, grouped by these metadata entries, such as `model`, or `model,tenant`.
    #[arg(long, value_name = "KEY", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    by: Vec<String>,

    /// Pair runs of both sets that have the same value of this metadata entry, such as a prompt id, and compare
    /// the pairs.
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pair_by: Option<String>,

    /// Exit with 1 if this condition holds with confidence in any group, such as
    /// `p95(time_to_first_token) > +10%`, `share(failures) > +2pp` or `mean(cost) > +0.001`. Exit with 4 if it cannot be
    /// evaluated in any group. Can be given several times.
    #[arg(long, value_name = "CONDITION")]
    fail_if: Vec<Threshold>,

    /// Show this statistic instead of the default ones, such as `p99(duration)` or `share(outcome=timed_out)`. Can
    /// be given several times.
    #[arg(long, value_name = "STATISTIC")]
    show: Vec<Statistic>,

    /// The confidence of each interval, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "95")]
    confidence: Confidence,

    #[command(flatten)]
    selection: Selection,

    /// The output format. In data formats, times are in milliseconds and shares are fractions of 1.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Format {
    /// A table for the terminal.
    #[default]
    Table,
    /// Tables for a pull request.
    Markdown,
    Json,
    /// A row for each number.
    Csv,
}

/// A metadata entry, and its values in base and new runs.
#[derive(Debug, Clone)]
struct Values {
    key: String,
    base: String,
    new: String,
}

impl FromStr for Values {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let parts = text.split_once('=').and_then(|(key, values)| {
            let (base, new) = values.split_once(',')?;
            let are_two = !new.contains(',') && base != new;
            (are_two && ![key, base, new].contains(&"")).then_some((key, base, new))
        });
        let (key, base, new) = parts.ok_or("write a key and two values: `variant=a,b`")?;
        Ok(Self {
            key: key.to_owned(),
            base: base.to_owned(),
            new: new.to_owned(),
        })
    }
}

impl Values {
    /// Returns the arm of a run. `None` if the run has neither value.
    fn arm(&self, run: &Telemetry) -> Option<Arm> {
        // Sources that describe themselves set these in the attempts. The last attempt ended the run.
        let last = run.attempts.last();
        let described = last.and_then(|attempt| match &*self.key {
            keys::MODEL => attempt.model.as_deref(),
            keys::PROVIDER => attempt.provider.as_deref(),
            keys::OPERATION => attempt.operation.as_deref(),
            _ => None,
        });
        let entry = keys::text(&run.metadata, &self.key);
        match described.or(entry.as_deref())? {
            value if value == self.base => Some(Arm::Base),
            value if value == self.new => Some(Arm::New),
            _ => None,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut arms = arguments.by.iter().fold(Arms::new(), Arms::group_by);
    if let Some(key) = &arguments.pair_by {
        arms = arms.pair_by(key);
    }
    arms = arms.confidence(arguments.confidence);
    for threshold in &arguments.fail_if {
        arms = arms.fail_if(threshold.clone());
    }
    for statistic in &arguments.show {
        arms = arms.statistic(statistic.clone());
    }

    let exit = match &arguments.arms {
        Some(values) => read_values(arguments, values, &mut arms)?,
        None => read_files(arguments, &mut arms)?,
    };
    let comparison = arms.compare();
    for check in &comparison.checks {
        if !matches!(
            check.outcome,
            CheckOutcome::Crossed | CheckOutcome::NotCrossed
        ) {
            complain(&format_args!(
                "{} ({}): {}",
                check.threshold, check.group, check.outcome
            ));
        }
    }
    print(|out| match arguments.format {
        Format::Table => writeln!(out, "{comparison}"),
        Format::Markdown => write!(out, "{}", comparison.to_markdown()),
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &comparison)?;
            writeln!(out)
        }
        Format::Csv => {
            let mut rows = Vec::new();
            compare::write_csv(&mut rows, &comparison).map_err(io::Error::other)?;
            out.write_all(&rows)
        }
    })?;
    // A build must not pass because no condition could be evaluated.
    let is_judged = |threshold: &Threshold| {
        let mut checks = comparison.checks.iter();
        checks.any(|check| {
            check.threshold == *threshold
                && matches!(
                    check.outcome,
                    CheckOutcome::Crossed | CheckOutcome::NotCrossed
                )
        })
    };
    Ok(match exit {
        Exit::Unread => Exit::Unread,
        _ if comparison.is_crossed() => Exit::Fails,
        _ if !arguments.fail_if.iter().all(is_judged) => Exit::Unjudged,
        exit => exit,
    })
}

/// Reads two inputs, one for each arm.
fn read_files(arguments: &Arguments, arms: &mut Arms) -> Result<Exit, Failure> {
    let [base, new] = &arguments.files[..] else {
        return Err(format!(
            "compare takes two inputs, the base and the new one, got {}; or any number with \
             `--arms KEY=BASE,NEW`",
            arguments.files.len()
        ));
    };
    if base.as_os_str() == "-" && new.as_os_str() == "-" {
        return Err("standard input cannot be both the base and the new set".to_owned());
    }
    let filter = arguments.selection.filter();
    let mut exits = Vec::new();
    for (arm, input) in [(Arm::Base, base), (Arm::New, new)] {
        let mut matched = 0_u64;
        let total = read(slice::from_ref(input), None, &filter, &mut |run| {
            matched += 1;
            arms.add(arm, run);
        })?;
        if matched == 0 {
            return Err(format!(
                "no run in {} matches `--where`, `--since` and `--until`",
                input.display()
            ));
        }
        exits.push(total.exit());
    }
    let worst = [Exit::Unread, Exit::Skipped].into_iter();
    let mut worst = worst.filter(|exit| exits.contains(exit));
    Ok(worst.next().unwrap_or(Exit::Success))
}

/// Reads inputs whose runs state their arm.
fn read_values(arguments: &Arguments, values: &Values, arms: &mut Arms) -> Result<Exit, Failure> {
    let (mut base, mut new, mut neither) = (0_u64, 0_u64, 0_u64);
    let filter = arguments.selection.filter();
    let total = read(&arguments.files, None, &filter, &mut |run| {
        let arm = values.arm(run);
        match arm {
            Some(Arm::Base) => base += 1,
            Some(Arm::New) => new += 1,
            None => neither += 1,
        }
        if let Some(arm) = arm {
            arms.add(arm, run);
        }
    })?;
    for (runs, value) in [(base, &values.base), (new, &values.new)] {
        if runs == 0 {
            return Err(format!("no run has {}={value}", values.key));
        }
    }
    if neither > 0 {
        let runs = if neither == 1 { "run has" } else { "runs have" };
        complain(&format_args!(
            "{neither} {runs} neither {key}={} nor {key}={}",
            values.base,
            values.new,
            key = values.key
        ));
    }
    Ok(total.exit())
}
