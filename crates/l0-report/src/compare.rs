//! Compares two sets of runs.
//!
//! ```
//! use l0_report::compare::{Arm, Arms, CheckOutcome};
//!
//! # let mut base = vec![l0_core::Telemetry::example(); 100];
//! # let mut new = base.clone();
//! # for (index, run) in base.iter_mut().chain(&mut new).enumerate() {
//! #     run.duration = Some(std::time::Duration::from_millis(1_000 + index as u64 * 7));
//! # }
//! let mut arms = Arms::new()
//!     .group_by("model")
//!     .fail_if("p50(duration) > +10%".parse()?);
//! for run in &base {
//!     arms.add(Arm::Base, run);
//! }
//! for run in &new {
//!     arms.add(Arm::New, run);
//! }
//! let comparison = arms.compare();
//! println!("{comparison}"); // a table: each number in both sets, its change, an interval, and a verdict
//! for check in &comparison.checks {
//!     assert_eq!(check.outcome, CheckOutcome::Crossed);
//! }
//! # Ok::<(), l0_report::compare::ParseError>(())
//! ```
//!
//! [The guide](https://docs.rs/l0-core/latest/l0_core/guide/report/#compare) describes the intervals, how
//! they are computed, and their limits. No random numbers are used: the same runs give the same comparison.

#[cfg(feature = "csv")]
mod csv;
mod interval;
mod pairs;
mod sample;
mod show;
mod side;
mod statistic;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use l0_core::{Quantity, QuantityKind, Telemetry, Unit, keys};
use l0_export::by_source;
use serde::Serialize;

#[cfg(feature = "csv")]
pub use self::csv::write_csv;
pub use self::interval::Estimate;
use self::interval::{Contrast, Level, contrast, rounded, with_unseen};
use self::pairs::Pairs;
use self::side::Side;
use self::statistic::{Better, FAILURES, Kind, Limit, Of};
pub use self::statistic::{ParseError, Statistic, Threshold};
use crate::profile::{Profile, group_name};
use crate::stats::has_space;

/// The set that a run belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arm {
    /// The reference.
    Base,
    /// The set that is judged.
    New,
}

/// The probability that an interval contains the true difference. The default is 95 %.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Confidence(f64);

impl Default for Confidence {
    fn default() -> Self {
        Self(0.95)
    }
}

impl Confidence {
    /// Creates a confidence from percent. Returns `None` outside 50 to 99.99.
    #[must_use]
    pub fn percent(percent: f64) -> Option<Self> {
        (50.0..=99.99)
            .contains(&percent)
            .then_some(Self(percent / 100.0))
    }

    /// Returns the confidence as a fraction of 1.
    #[must_use]
    pub const fn as_share(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", (self.0 * 1e6).round() / 1e4)
    }
}

/// An error while parsing a [`Confidence`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("confidence must be from 50 to 99.99, in percent")]
#[non_exhaustive]
pub struct ConfidenceError;

impl FromStr for Confidence {
    type Err = ConfidenceError;

    /// Reads percent, such as `95` or `99.9%`.
    fn from_str(text: &str) -> Result<Self, ConfidenceError> {
        let percent = text.trim().trim_end_matches('%').trim_end();
        let percent = percent.parse().ok().and_then(Self::percent);
        percent.ok_or(ConfidenceError)
    }
}

/// Two sets of runs, and the statistics to compare.
///
/// Memory use does not depend on the number of runs, except with [pairs](Self::pair_by).
#[derive(Debug, Clone, Default)]
pub struct Arms {
    keys: Vec<String>,
    pair_by: Option<String>,
    confidence: Confidence,
    statistics: Vec<Statistic>,
    thresholds: Vec<Threshold>,
    groups: BTreeMap<String, Group>,
    /// The number of pairs in all groups.
    pairs: usize,
}

/// The runs of one group.
#[derive(Debug, Clone, Default)]
struct Group {
    base: Side,
    new: Side,
    pairs: Pairs,
}

impl Group {
    const fn side(&mut self, arm: Arm) -> &mut Side {
        match arm {
            Arm::Base => &mut self.base,
            Arm::New => &mut self.new,
        }
    }

    /// Returns the known quantities of money, each with its currencies.
    fn currencies(&self) -> Vec<(usize, String)> {
        let both = self.base.currencies().chain(self.new.currencies());
        let mut both: Vec<_> = both.collect();
        both.sort();
        both.dedup();
        both
    }
}

impl Arms {
    /// The minimum number of runs in each set for a verdict. A quantile may need more: see
    /// [`Verdict::TooFewRuns`].
    pub const MIN_RUNS: u64 = 30;
    /// The maximum number of pairs, of about 400 bytes each. Further runs are left out.
    pub const MAX_PAIRS: usize = 1_000_000;

    /// Creates two empty sets, in one group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Groups runs that are added later by this metadata entry, and compares each group separately, like
    /// [`Profile::group_by`].
    #[must_use]
    pub fn group_by(mut self, key: impl Into<String>) -> Self {
        self.keys.push(key.into());
        self
    }

    /// Pairs runs of both sets that have the same value of this metadata entry, such as a prompt id. Differences
    /// between prompts are then not noise, so smaller differences become visible.
    ///
    /// Only pairs are compared. If several runs of one set have the same value, the first one counts. A run
    /// belongs to the group of its last source.
    #[must_use]
    pub fn pair_by(mut self, key: impl Into<String>) -> Self {
        self.pair_by = Some(key.into());
        self
    }

    /// Sets the confidence of the intervals. The default is 95 %.
    #[must_use]
    pub const fn confidence(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }

    /// Adds a statistic to the comparison. Without any, the comparison has the mean, median and 95th percentile of
    /// times (for rates the 5th, which is the slow end), the mean of sums, and the share of
    /// failures, as far as runs have these values.
    #[must_use]
    pub fn statistic(mut self, statistic: Statistic) -> Self {
        self.statistics.push(statistic);
        self
    }

    /// Adds a threshold that is checked in each group. The comparison includes its statistic.
    #[must_use]
    pub fn fail_if(mut self, threshold: Threshold) -> Self {
        self.thresholds.push(threshold);
        self
    }

    /// Adds one run.
    pub fn add(&mut self, arm: Arm, run: &Telemetry) {
        if let Some(key) = &self.pair_by {
            let mut name = Profile::ALL.to_owned();
            if !self.keys.is_empty() {
                by_source(run, &mut |part, metadata| {
                    if part.is_last {
                        name = group_name(&self.keys, metadata).into_owned();
                    }
                });
            }
            let key = keys::text(&run.metadata, key).map(std::borrow::Cow::into_owned);
            let has_space = self.pairs < Self::MAX_PAIRS;
            let group = self.group(&name);
            let is_new = group.pairs.add(arm, key.as_deref(), run, has_space);
            self.pairs += usize::from(is_new);
        } else if self.keys.is_empty() {
            self.group(Profile::ALL).side(arm).add(run, true);
        } else {
            by_source(run, &mut |part, metadata| {
                let name = group_name(&self.keys, metadata).into_owned();
                let side = self.group(&name).side(arm);
                side.add(part.telemetry, part.is_last);
            });
        }
    }

    fn group(&mut self, name: &str) -> &mut Group {
        let always = [Profile::NONE, Profile::OTHER];
        let fits = has_space(&self.groups, name, &always, Profile::MAX_GROUPS);
        let name = if fits { name } else { Profile::OTHER };
        self.groups.entry(name.to_owned()).or_default()
    }

    /// Compares the two sets.
    #[must_use]
    pub fn compare(&self) -> Comparison {
        let level = Level::of(self.confidence.as_share());
        let mut comparison = Comparison {
            confidence: self.confidence,
            pair_by: self.pair_by.clone(),
            groups: Vec::new(),
            checks: Vec::new(),
        };
        for (name, group) in &self.groups {
            let (base_runs, new_runs) = match self.pair_by {
                None => (group.base.runs(), group.new.runs()),
                Some(_) => group.pairs.runs(),
            };
            let row = |statistic: &Statistic| match self.pair_by {
                None => unpaired(group, statistic, level),
                Some(_) => paired(&group.pairs, statistic, level),
            };
            let mut rows = Vec::<Row>::new();
            for threshold in &self.thresholds {
                let row = row(&threshold.statistic);
                comparison.checks.push(ThresholdCheck {
                    group: name.clone(),
                    threshold: threshold.clone(),
                    outcome: row.check(threshold),
                });
                add_row(&mut rows, row);
            }
            for statistic in &self.statistics {
                add_row(&mut rows, row(statistic));
            }
            if self.statistics.is_empty() {
                let currencies = self.currencies(group);
                let defaults = default_statistics(&currencies).map(|statistic| row(&statistic));
                defaults
                    .filter(Row::is_above_zero)
                    .for_each(|row| add_row(&mut rows, row));
            }
            comparison.groups.push(GroupComparison {
                name: name.clone(),
                base_runs,
                new_runs,
                pairs: self.pair_by.is_some().then(|| group.pairs.counts()),
                rows,
            });
        }
        comparison
    }

    /// Returns the quantities of money that a group has, each with its currencies.
    fn currencies(&self, group: &Group) -> Vec<(usize, String)> {
        match self.pair_by {
            None => group.currencies(),
            Some(_) => group.pairs.currencies(),
        }
    }
}

/// Adds a row, unless its statistic already has one.
fn add_row(rows: &mut Vec<Row>, row: Row) {
    if !rows.iter().any(|known| known.statistic == row.statistic) {
        rows.push(row);
    }
}

/// Iterates over the default statistics, with money in these currencies.
fn default_statistics(currencies: &[(usize, String)]) -> impl Iterator<Item = Statistic> {
    let statistic = |kind, place| Statistic {
        kind,
        of: Of::Quantity(place),
    };
    let failures = statistic::place_of(FAILURES).map(|place| statistic(Kind::Share, place));
    let quantities = Quantity::ALL.iter().enumerate();
    let rest = quantities.flat_map(move |(place, quantity)| match quantity.kind {
        QuantityKind::Sample | QuantityKind::Distribution => {
            // The slow end of a rate is its low end.
            let is_rate = matches!(quantity.unit, Unit::PerSecond(_));
            let slow = if is_rate { 0.05 } else { 0.95 };
            [Kind::Quantile(0.5), Kind::Quantile(slow), Kind::Mean]
                .map(|kind| statistic(kind, place))
                .to_vec()
        }
        _ if quantity.unit == Unit::Money => {
            let of = currencies.iter().filter(|(at, _)| *at == place);
            let of = of.map(|(place, currency)| Statistic {
                kind: Kind::Mean,
                of: Of::Money(*place, currency.clone()),
            });
            of.collect()
        }
        _ if quantity.is_labeled() => Vec::new(),
        _ if quantity.unit == Unit::Each("run") => vec![statistic(Kind::Share, place)],
        _ => vec![statistic(Kind::Mean, place)],
    });
    failures.into_iter().chain(rest)
}

/// The values of one side of a row.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    runs: u64,
    estimate: Option<Estimate>,
    /// The number of values above zero and their sum, if each run has one value.
    not_zero: Option<(u64, f64)>,
}

/// Widens both sides of a mean for quantities that are rarely above zero.
fn of_both(base: Known, new: Known, level: Level) -> (Known, Known) {
    let of = |known: Known, other: Known| {
        let (Some(mean), Some((count, sum))) = (known.estimate, known.not_zero) else {
            return known;
        };
        // If one side has no value above zero, the other side provides their size.
        let (of_count, of_sum) = match (count, other.not_zero) {
            (0, Some(other)) => other,
            _ => (count, sum),
        };
        let typical = of_sum / of_count.max(1) as f64;
        Known {
            estimate: Some(with_unseen(mean, count, known.runs, typical, level)),
            ..known
        }
    };
    (of(base, new), of(new, base))
}

fn unpaired(group: &Group, statistic: &Statistic, level: Level) -> Row {
    let statistic = statistic.in_only_currency(&group.currencies());
    let of = |side: &Side| Known {
        runs: side.known(&statistic),
        estimate: side.estimate(&statistic, level),
        not_zero: side
            .sample(&statistic)
            .map(|sample| (sample.not_zero(), sample.sum())),
    };
    Row::new(
        statistic.clone(),
        of(&group.base),
        of(&group.new),
        0.0,
        level,
    )
}

fn paired(pairs: &Pairs, statistic: &Statistic, level: Level) -> Row {
    let statistic = statistic.in_only_currency(&pairs.currencies());
    let (base, new, correlation) = pairs.estimates(&statistic, level);
    Row::new(statistic, base, new, correlation, level)
}

/// The differences between two sets of runs.
///
/// [`Display`](fmt::Display) prints a table, and [`to_markdown`](Self::to_markdown) the same for a pull request.
/// `Serialize` gives all numbers, with times in milliseconds and shares as fractions of 1.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Comparison {
    /// The confidence of the intervals.
    pub confidence: Confidence,
    /// The metadata entry by which runs were paired. Absent without pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pair_by: Option<String>,
    /// The groups, by name.
    pub groups: Vec<GroupComparison>,
    /// The result of each threshold in each group.
    pub checks: Vec<ThresholdCheck>,
}

impl Serialize for Confidence {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The differences between the runs of one group.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupComparison {
    /// The name of the group.
    pub name: String,
    /// The number of base runs. With pairs, the number of base runs before pairing.
    pub base_runs: u64,
    /// The number of new runs.
    pub new_runs: u64,
    /// The counts of pairing. Absent without pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pairs: Option<PairCounts>,
    /// A row for each statistic.
    pub rows: Vec<Row>,
}

/// Counts of runs during pairing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PairCounts {
    /// The number of pairs.
    pub pairs: u64,
    /// The number of runs whose value occurs only in their own set.
    pub alone: u64,
    /// The number of runs whose value an earlier run of their set has.
    pub repeated: u64,
    /// The number of runs without the entry.
    pub without_key: u64,
    /// The number of runs beyond [`Arms::MAX_PAIRS`].
    pub left_out: u64,
}

/// The difference of one statistic.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Row {
    /// The statistic.
    #[serde(serialize_with = "as_text")]
    pub statistic: Statistic,
    /// The number of base runs that have a value.
    pub base_runs: u64,
    /// The number of new runs that have a value.
    pub new_runs: u64,
    /// The value in the base. Absent if no run has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<f64>,
    /// The value in the new set. Absent if no run has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<f64>,
    /// The new value minus the base value. Absent if there are too few runs for an interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Estimate>,
    /// The new value divided by the base value: 1.1 is 10 % more. Also absent if the base may be zero.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Estimate>,
    /// The verdict of the interval.
    #[serde(flatten)]
    pub verdict: Verdict,
}

fn as_text<S: serde::Serializer>(of: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(of)
}

/// The verdict of a difference's interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// The new set is better: the whole interval is on the better side.
    Better,
    /// The new set is worse.
    Worse,
    /// The sets differ. For this quantity, neither direction is better.
    Differs,
    /// The interval contains zero: the sets do not differ, or there are too few runs to show it.
    NoEvidence,
    /// Too few runs for an interval.
    #[serde(rename_all = "camelCase")]
    #[non_exhaustive]
    TooFewRuns {
        /// The minimum number of runs in each set.
        least: u64,
    },
}

/// The result of a threshold in one group.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ThresholdCheck {
    /// The group.
    pub group: String,
    /// The threshold.
    #[serde(serialize_with = "as_text")]
    pub threshold: Threshold,
    /// The result.
    #[serde(flatten)]
    pub outcome: CheckOutcome,
}

/// The result of a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[non_exhaustive]
pub enum CheckOutcome {
    /// The threshold is crossed: the whole interval is beyond it.
    Crossed,
    /// The interval is not entirely beyond the threshold.
    NotCrossed,
    /// Too few runs for a result.
    #[serde(rename_all = "camelCase")]
    #[non_exhaustive]
    TooFewRuns {
        /// The minimum number of runs in each set.
        least: u64,
    },
    /// The base may be zero, so a change in percent is undefined.
    ZeroBase,
    /// No single number exists: no run has a value, money is in several currencies, or each run has many values,
    /// which pairs do not compare.
    Unknown,
}

impl Comparison {
    /// Returns `true` if a threshold is crossed in any group.
    #[must_use]
    pub fn is_crossed(&self) -> bool {
        let mut checks = self.checks.iter();
        checks.any(|check| check.outcome == CheckOutcome::Crossed)
    }
}

impl Row {
    fn new(statistic: Statistic, base: Known, new: Known, correlation: f64, level: Level) -> Self {
        let least = match statistic.kind {
            Kind::Quantile(q) => level.least_for_quantile(q).max(Arms::MIN_RUNS),
            Kind::Mean | Kind::Share => Arms::MIN_RUNS,
        };
        let (base, new) = match statistic.kind {
            Kind::Mean => of_both(base, new, level),
            Kind::Quantile(_) | Kind::Share => (base, new),
        };
        let (contrast, verdict) = match (base.estimate, new.estimate) {
            (Some(a), Some(b)) if base.runs.min(new.runs) >= least => {
                let contrast = contrast(&a, &b, correlation);
                (Some(contrast), verdict(&contrast, statistic.better()))
            }
            _ => (None, Verdict::TooFewRuns { least }),
        };
        Self {
            statistic,
            base_runs: base.runs,
            new_runs: new.runs,
            base: base.estimate.map(|estimate| rounded(estimate.value)),
            new: new.estimate.map(|estimate| rounded(estimate.value)),
            difference: contrast.map(|contrast| contrast.difference),
            ratio: contrast.and_then(|contrast| contrast.ratio),
            verdict,
        }
    }

    /// Returns `true` if a side is known and above zero.
    fn is_above_zero(&self) -> bool {
        [self.base, self.new]
            .iter()
            .flatten()
            .any(|value| *value > 0.0)
    }

    fn check(&self, threshold: &Threshold) -> CheckOutcome {
        let (None, Verdict::TooFewRuns { least }) = (&self.difference, self.verdict) else {
            return self.check_interval(threshold);
        };
        match (self.base, self.new) {
            (None, None) => CheckOutcome::Unknown,
            _ => CheckOutcome::TooFewRuns { least },
        }
    }

    fn check_interval(&self, threshold: &Threshold) -> CheckOutcome {
        let (interval, limit) = match threshold.limit {
            Limit::Absolute(limit) => (self.difference, limit),
            Limit::Relative(limit) => (self.ratio, 1.0 + limit),
        };
        let Some(interval) = interval else {
            return CheckOutcome::ZeroBase;
        };
        let crossed = if threshold.is_above {
            interval.lower > limit
        } else {
            interval.upper < limit
        };
        match crossed {
            true => CheckOutcome::Crossed,
            false => CheckOutcome::NotCrossed,
        }
    }
}

fn verdict(contrast: &Contrast, better: Better) -> Verdict {
    let Estimate { lower, upper, .. } = contrast.difference;
    match better {
        _ if lower <= 0.0 && upper >= 0.0 => Verdict::NoEvidence,
        Better::Neither => Verdict::Differs,
        Better::Lower if upper < 0.0 => Verdict::Better,
        Better::Higher if lower > 0.0 => Verdict::Better,
        Better::Lower | Better::Higher => Verdict::Worse,
    }
}
