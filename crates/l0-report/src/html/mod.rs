//! HTML: many runs as a page in a single file.

mod costs;
mod rates;
mod slowest;
mod spreads;
mod times;

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::LazyLock;

use l0_core::{Outcome, Telemetry};
use serde::Serialize;

use self::costs::{Costs, costs};
use self::rates::Rates;
use self::slowest::{Run, Slowest};
use self::spreads::{Spread, spreads};
use self::times::{Times, TimesData};
use crate::profile::Profile;
use crate::read::Reading;
use crate::reasons::Reason;
use crate::stats::Stats;
use crate::summary::Skipped;

/// A page about many runs: when they ran and failed, how long they took, why they failed, the slowest
/// runs, and their cost.
///
/// The page is a single file that loads nothing, and its own content security policy forbids loading. It shows no
/// metadata except the entries that runs are grouped by, and the models of attempts. Memory use does not depend on
/// the number of runs.
///
/// ```
/// use l0_core::Telemetry;
/// use l0_report::Profile;
/// use l0_report::html::Page;
///
/// let mut page = Page::new(Profile::new().group_by("model"));
/// page.add(&Telemetry::example());
/// let mut html = Vec::new();
/// page.write(&mut html)?;
/// assert!(html.starts_with(b"<!doctype html>"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Page {
    profile: Profile,
    times: Times,
    rates: BTreeMap<String, Rates>,
    slowest: Slowest,
    slowest_failed: Slowest,
    inputs: Vec<String>,
    /// The number of inputs that the page does not name.
    more_inputs: u64,
    /// The number of runs that a filter excluded.
    filtered: u64,
    skipped: Vec<Skipped>,
}

impl Page {
    /// Creates an empty page, with the groups of this profile.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            profile,
            ..Self::default()
        }
    }

    /// Adds one run.
    pub fn add(&mut self, run: &Telemetry) {
        let group = self.profile.add_run(run);
        self.times.add(run);
        self.slowest.add(run, &group);
        if run.outcome.is_some_and(Outcome::is_failure) {
            self.slowest_failed.add(run, &group);
        }
        if let Some(rate) = run.metrics.output_tokens_per_second {
            let rates = self.rates.entry(group).or_default();
            rates.add(run.metrics.total_tokens, rate);
        }
    }

    /// Adds the result of reading an input: its name, the number of runs that its filter excluded, and
    /// the skipped lines with their reasons.
    pub fn add_reading(&mut self, input: impl Into<String>, reading: &Reading) {
        let input = input.into();
        self.filtered += reading.runs - reading.matched;
        self.skipped.extend(Skipped::of(&input, reading));
        if self.inputs.len() < SHOWN_INPUTS {
            self.inputs.push(input);
        } else {
            self.more_inputs += 1;
        }
    }

    /// Writes the page.
    ///
    /// # Errors
    ///
    /// Returns the errors of the writer.
    pub fn write(&self, writer: &mut impl Write) -> io::Result<()> {
        let total = self.profile.total();
        let data = self.data(&total);
        let (before, after) = PAGE.split_once(DATA).unwrap_or((PAGE, ""));
        writer.write_all(before.as_bytes())?;
        serde_json::to_writer(Escaped(&mut *writer), &data)?;
        writer.write_all(after.as_bytes())
    }

    fn data<'a>(&'a self, total: &'a Stats) -> Data<'a> {
        let mut groups: Vec<_> = self.profile.groups().collect();
        groups.sort_by_key(|(_, stats)| Reverse(stats.runs));
        let rest = groups.split_off(groups.len().min(SHOWN_GROUPS));
        Data {
            version: env!("CARGO_PKG_VERSION"),
            inputs: &self.inputs,
            more_inputs: self.more_inputs,
            filtered: self.filtered,
            skipped: &self.skipped,
            keys: self.profile.keys().collect(),
            total: Group::of(TOTAL, total),
            attempts: total.counts("attempts").values().sum(),
            retries: total.sum("retries.total"),
            tokens: total.sum("tokens.total"),
            wasted_tokens: total.sum("tokens.wasted"),
            outcomes: OUTCOMES.iter().map(|outcome| outcome.as_str()).collect(),
            failures: failures().map(Outcome::as_str).collect(),
            more_groups: rest.len(),
            more_runs: rest.iter().map(|(_, stats)| stats.runs).sum(),
            times: self.times.data(),
            spreads: spreads(&groups, total),
            rates: self.rates(&groups),
            errors: total.counts("network.errors_by_type"),
            costs: costs(&groups, total),
            slowest: self.slowest.in_order(),
            slowest_failed: self.slowest_failed.in_order(),
            groups: groups
                .iter()
                .map(|(name, stats)| Group::of(name, stats))
                .collect(),
        }
    }

    fn rates<'a>(&'a self, groups: &[(&'a str, &Stats)]) -> Vec<(&'a str, Cow<'a, Rates>)> {
        let of = |name: &'a str| Some((name, Cow::Borrowed(self.rates.get(name)?)));
        let of_groups = groups.iter().filter_map(|(name, _)| of(name));
        let all = (self.rates.len() > 1).then(|| {
            let mut all = Rates::default();
            self.rates.values().for_each(|rates| all.merge(rates));
            (TOTAL, Cow::Owned(all))
        });
        all.into_iter().chain(of_groups).collect()
    }
}

/// All possible outcomes. The last one stands for outcomes of other versions of L0, and for unfinished runs.
static OUTCOMES: LazyLock<Vec<Outcome>> = LazyLock::new(|| {
    let known = Outcome::ALL.iter().copied();
    known.chain([Outcome::Other]).collect()
});

/// Iterates over the outcomes of failed runs.
fn failures() -> impl Iterator<Item = Outcome> {
    let outcomes = OUTCOMES.iter().copied();
    outcomes.filter(|outcome| outcome.is_failure())
}

const PAGE: &str = include_str!("../page.html");
/// The placeholder for the data in the page.
const DATA: &str = "{{data}}";
/// The name of the row for all groups together.
const TOTAL: &str = "(all)";
/// The maximum number of groups with their own row.
const SHOWN_GROUPS: usize = 12;
/// The maximum number of inputs that are named.
const SHOWN_INPUTS: usize = 10;
/// The maximum number of reasons that are shown for a group.
const SHOWN_REASONS: usize = 10;

/// A writer that escapes JSON so that it cannot end the surrounding element.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| *byte == b'<') {
            self.0.write_all(&rest[..at])?;
            self.0.write_all(b"\\u003c")?;
            rest = &rest[at + 1..];
        }
        self.0.write_all(rest)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The input of the page's script. Durations are in milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    version: &'a str,
    inputs: &'a [String],
    more_inputs: u64,
    filtered: u64,
    skipped: &'a [Skipped],
    keys: Vec<&'a str>,
    total: Group<'a>,
    attempts: u64,
    retries: Option<f64>,
    tokens: Option<f64>,
    wasted_tokens: Option<f64>,
    /// All possible outcomes, in the order of the columns of `times`.
    outcomes: Vec<&'a str>,
    /// The outcomes of failed runs.
    failures: Vec<&'a str>,
    groups: Vec<Group<'a>>,
    more_groups: usize,
    more_runs: u64,
    times: TimesData<'a>,
    spreads: Vec<Spread<'a>>,
    rates: Vec<(&'a str, Cow<'a, Rates>)>,
    errors: &'a BTreeMap<String, u64>,
    costs: Vec<Costs<'a>>,
    slowest: Vec<&'a Run>,
    slowest_failed: Vec<&'a Run>,
}

#[derive(Serialize)]
struct Group<'a> {
    name: &'a str,
    runs: u64,
    outcomes: &'a BTreeMap<String, u64>,
    reasons: Vec<Reason<'a>>,
    /// The number of runs that failed for a reason that is not listed.
    others: u64,
}

impl<'a> Group<'a> {
    fn of(name: &'a str, stats: &'a Stats) -> Self {
        let mut reasons = stats.reasons();
        let others = reasons.split_off(reasons.len().min(SHOWN_REASONS));
        Self {
            name,
            runs: stats.runs,
            outcomes: stats.counts("runs"),
            reasons,
            others: others.iter().map(|reason| reason.runs).sum(),
        }
    }
}

/// Returns the cell of a number. Numbers outside the range belong to the outermost cells.
fn cell(number: f64, per_octave: f64) -> i32 {
    /// From 0.0001 to 17 billion milliseconds.
    const OCTAVES: (f64, f64) = (-13.0, 34.0);

    let octave = number.log2().clamp(OCTAVES.0, OCTAVES.1);
    (octave * per_octave).floor() as i32
}
