//! Profile: many runs as counts and quantiles, in groups.

use std::collections::BTreeMap;
use std::fmt;

use l0_core::{Distribution, NetworkErrorKind, Outcome, Telemetry, keys};
use serde::{Serialize, Serializer};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::quantiles::Numbers;
pub use crate::quantiles::Quantiles;
use crate::sparkline::Scale;
use crate::values::{millis, printable};

/// Many runs, summed up: how long they took, how they ended, what went wrong. Memory does not grow
/// with their number.
///
/// A profile has one group, [`ALL`](Self::ALL), or a group for each value of a metadata entry: of
/// a model, or of the arm of an A/B test. [`Display`](fmt::Display) prints an aligned table, a
/// block per measure with a line per group; `Serialize` gives the [`Stats`] of each group under its
/// name.
///
/// ```
/// use l0_core::Telemetry;
/// use l0_export::profile::Profile;
///
/// # let runs = [Telemetry::default(), Telemetry::default()];
/// let mut profile = Profile::new().group_by("model");
/// for telemetry in &runs {
///     profile.add(telemetry);
/// }
/// for (model, stats) in profile.groups() {
///     println!("{model}: {} runs, median {:?} ms", stats.runs, stats.duration.p50());
/// }
/// println!("{profile}");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Profile {
    group_by: Option<String>,
    groups: BTreeMap<String, Stats>,
}

impl Profile {
    /// The name of the one group of a profile that is not grouped.
    pub const ALL: &str = "all";
    /// The name of the group of those runs that do not have the metadata entry; an entry of this
    /// very text is in it too.
    pub const NONE: &str = "(none)";
    /// The name of the group of all further runs, once there are
    /// [`MAX_GROUPS`](Self::MAX_GROUPS).
    pub const OTHER: &str = "(other)";
    /// How many values of the metadata entry are told apart. A group takes up to about 160 kB.
    pub const MAX_GROUPS: usize = 256;
    /// How much of a value is kept as the name of its group, in bytes.
    pub const MAX_NAME: usize = 200;

    /// No runs yet, in one group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Groups the runs that are added from here on by this entry of their metadata, read as
    /// [`keys::text`] reads it.
    #[must_use]
    pub fn group_by(mut self, key: impl Into<String>) -> Self {
        self.group_by = Some(key.into());
        self
    }

    /// Adds one run.
    pub fn add(&mut self, telemetry: &Telemetry) {
        let name = match &self.group_by {
            None => Self::ALL.into(),
            Some(key) => keys::text(&telemetry.metadata, key).unwrap_or(Self::NONE.into()),
        };
        self.group(&name).add(telemetry);
    }

    /// Adds all runs of another profile, group by group: both should be grouped by the same entry.
    pub fn merge(&mut self, other: &Self) {
        for (name, stats) in &other.groups {
            self.group(name).merge(stats);
        }
    }

    fn group(&mut self, name: &str) -> &mut Stats {
        let name = &name[..name.floor_char_boundary(Self::MAX_NAME)];
        let room = self.groups.len() < Self::MAX_GROUPS
            || [Self::NONE, Self::OTHER].contains(&name)
            || self.groups.contains_key(name);
        let name = if room { name } else { Self::OTHER };
        self.groups.entry(name.to_owned()).or_default()
    }

    /// The groups, by name.
    #[must_use]
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&str, &Stats)> {
        self.groups.iter().map(|(name, stats)| (&**name, stats))
    }

    /// All runs as one.
    #[must_use]
    pub fn total(&self) -> Stats {
        let mut total = Stats::default();
        for stats in self.groups.values() {
            total.merge(stats);
        }
        total
    }
}

impl Serialize for Profile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.groups.serialize(serializer)
    }
}

/// The runs of one group, summed up. Each quantity is of those runs only that know it.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Stats {
    /// How many runs.
    pub runs: u64,
    /// How many ended in which way; those that had not ended are in none.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Network errors, retried ones included.
    pub network_errors: u64,
    /// Network errors by type.
    pub errors_by_type: BTreeMap<NetworkErrorKind, u64>,
    /// All retries: always the sum of the next two.
    pub retries: u64,
    /// Retries for network errors, rate limits and server errors.
    pub network_retries: u64,
    /// Retries for the model's answers.
    pub model_retries: u64,
    /// Guardrail violations.
    pub violations: u64,
    /// Tokens of all attempts.
    pub tokens: u64,
    /// Tokens of attempts that a retry threw away.
    pub wasted_tokens: u64,
    /// From the start to the end of a run, in ms.
    pub duration: Quantiles,
    /// From the start of a run to its first token, in ms.
    pub time_to_first_token: Quantiles,
    /// The gaps between tokens, of all runs together; quantiles within 2 %. JSON: ms, in the form
    /// of the others.
    #[serde(serialize_with = "gaps")]
    pub inter_token: Distribution,
    /// Tokens over the whole duration of a run, per second.
    pub tokens_per_second: Quantiles,
}

impl Stats {
    fn add(&mut self, telemetry: &Telemetry) {
        let metrics = &telemetry.metrics;
        let guardrails = telemetry.guardrails.as_ref();
        for (total, count) in [
            (&mut self.runs, 1),
            (&mut self.network_errors, telemetry.network.error_count),
            (&mut self.retries, metrics.total_retries.into()),
            (&mut self.network_retries, metrics.network_retries.into()),
            (&mut self.model_retries, metrics.model_retries.into()),
            (
                &mut self.violations,
                guardrails.map_or(0, |stats| stats.violation_count),
            ),
            (&mut self.tokens, metrics.total_tokens),
            (&mut self.wasted_tokens, metrics.wasted_tokens),
        ] {
            *total = total.saturating_add(count);
        }
        add_counts(
            &mut self.outcomes,
            telemetry.outcome.map(|outcome| (outcome, 1)),
        );
        let by_type = &telemetry.network.errors_by_type;
        add_counts(&mut self.errors_by_type, copied(by_type));
        for (all, number) in [
            (&mut self.duration, telemetry.duration.map(millis)),
            (
                &mut self.time_to_first_token,
                metrics.time_to_first_token.map(millis),
            ),
            (&mut self.tokens_per_second, metrics.tokens_per_second),
        ] {
            if let Some(number) = number {
                all.record(number);
            }
        }
        if let Some(gaps) = &metrics.inter_token {
            self.inter_token.merge(gaps);
        }
    }

    fn merge(&mut self, other: &Self) {
        for (total, count) in [
            (&mut self.runs, other.runs),
            (&mut self.network_errors, other.network_errors),
            (&mut self.retries, other.retries),
            (&mut self.network_retries, other.network_retries),
            (&mut self.model_retries, other.model_retries),
            (&mut self.violations, other.violations),
            (&mut self.tokens, other.tokens),
            (&mut self.wasted_tokens, other.wasted_tokens),
        ] {
            *total = total.saturating_add(count);
        }
        add_counts(&mut self.outcomes, copied(&other.outcomes));
        add_counts(&mut self.errors_by_type, copied(&other.errors_by_type));
        for (all, more) in [
            (&mut self.duration, &other.duration),
            (&mut self.time_to_first_token, &other.time_to_first_token),
            (&mut self.tokens_per_second, &other.tokens_per_second),
        ] {
            all.merge(more);
        }
        self.inter_token.merge(&other.inter_token);
    }
}

fn copied<K: Copy>(counts: &BTreeMap<K, u64>) -> impl Iterator<Item = (K, u64)> {
    counts.iter().map(|(key, count)| (*key, *count))
}

fn add_counts<K: Ord>(totals: &mut BTreeMap<K, u64>, counts: impl IntoIterator<Item = (K, u64)>) {
    for (key, count) in counts {
        let total = totals.entry(key).or_default();
        *total = total.saturating_add(count);
    }
}

/// A quantity of which the runs of a group have many values.
pub(crate) struct Measure {
    /// Its heading in the table, with the unit.
    heading: &'static str,
    /// What the names of its columns in CSV begin with.
    #[cfg_attr(not(feature = "csv"), expect(dead_code, reason = "for CSV only"))]
    pub(crate) name: &'static str,
    pub(crate) numbers: fn(&Stats) -> Numbers,
    /// The values in ascending order, with how many there are of each.
    counts: fn(&Stats) -> Vec<(f64, u64)>,
}

pub(crate) static MEASURES: [Measure; 4] = [
    Measure {
        heading: "duration, ms",
        name: "duration",
        numbers: |stats| Numbers::from(&stats.duration),
        counts: |stats| stats.duration.counts().collect(),
    },
    Measure {
        heading: "time to first token, ms",
        name: "timeToFirstToken",
        numbers: |stats| Numbers::from(&stats.time_to_first_token),
        counts: |stats| stats.time_to_first_token.counts().collect(),
    },
    Measure {
        heading: "gap between tokens, ms",
        name: "interToken",
        numbers: |stats| gap_numbers(&stats.inter_token),
        counts: |stats| gap_counts(&stats.inter_token),
    },
    Measure {
        heading: "tokens per second",
        name: "tokensPerSecond",
        numbers: |stats| Numbers::from(&stats.tokens_per_second),
        counts: |stats| stats.tokens_per_second.counts().collect(),
    },
];

/// The gaps in the JSON form of the other quantities.
fn gaps<S: Serializer>(gaps: &Distribution, serializer: S) -> Result<S::Ok, S::Error> {
    gap_numbers(gaps).serialize(serializer)
}

fn gap_numbers(gaps: &Distribution) -> Numbers {
    let max = (!gaps.is_empty()).then_some(gaps.max);
    Numbers {
        count: gaps.count,
        mean: gaps.mean().map(millis),
        p50: gaps.p50().map(millis),
        p95: gaps.quantile(0.95).map(millis),
        p99: gaps.p99().map(millis),
        max: max.map(millis),
    }
}

fn gap_counts(gaps: &Distribution) -> Vec<(f64, u64)> {
    gaps.buckets()
        .map(|bucket| {
            let middle = f64::midpoint(millis(bucket.lower), millis(bucket.upper));
            (middle.min(millis(gaps.max)), bucket.count)
        })
        .collect()
}

/// A table for people: a block per quantity with a line per group, and one for all of them. What
/// is unknown is a dash. Numbers have three digits, which is what quantiles are good for. The bars
/// show how the values of a group are spread, on one logarithmic scale per block.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        let mut groups: Vec<_> = self
            .groups()
            .map(|(name, stats)| (label(name), stats))
            .collect();
        if groups.len() != 1 {
            groups.push((TOTAL.to_owned(), &total));
        }

        let mut blocks = vec![counts_block(&groups, &total)];
        for measure in &MEASURES {
            blocks.push(measure_block(measure, &groups, &total));
        }
        write_aligned(f, &blocks)
    }
}

/// The label of the row for all groups together.
const TOTAL: &str = "(all)";

/// Rows of cells; the first row is the heading, and the first cell of each its label.
type Block = Vec<Vec<String>>;

fn counts_block(groups: &[(String, &Stats)], total: &Stats) -> Block {
    let mut heading = vec!["", "runs"];
    heading.extend(total.outcomes.keys().map(|outcome| outcome.as_str()));
    heading.extend(["network errors", "retries", "violations", "tokens"]);

    let mut rows = vec![heading.into_iter().map(str::to_owned).collect()];
    for (label, stats) in groups {
        let outcomes = total.outcomes.keys();
        let outcomes = outcomes.map(|outcome| stats.outcomes.get(outcome).copied());
        let mut counts = vec![stats.runs];
        counts.extend(outcomes.map(Option::unwrap_or_default));
        counts.extend([
            stats.network_errors,
            stats.retries,
            stats.violations,
            stats.tokens,
        ]);
        let mut row = vec![label.clone()];
        row.extend(counts.iter().map(u64::to_string));
        rows.push(row);
    }
    rows
}

fn measure_block(measure: &Measure, groups: &[(String, &Stats)], total: &Stats) -> Block {
    let counts = (measure.counts)(total);
    let max = (measure.numbers)(total).max;
    let scale = counts
        .first()
        .zip(max)
        .map(|((low, _), high)| Scale { low: *low, high });
    let shape = scale.map(|scale| {
        let [low, high] = [scale.low, scale.high].map(|end| three_digits(Some(end)));
        format!("{low} to {high}")
    });
    let heading = [measure.heading, "mean", "p50", "p95", "p99", "max"];
    let mut heading: Vec<_> = heading.map(str::to_owned).into();
    heading.extend(shape);

    let mut rows = vec![heading];
    for (label, stats) in groups {
        let numbers = (measure.numbers)(stats).in_order();
        let mut row = vec![label.clone()];
        row.extend(numbers.map(|(_, number)| three_digits(number)));
        row.extend(scale.map(|scale| scale.sparkline(&(measure.counts)(stats))));
        rows.push(row);
    }
    rows
}

/// Writes blocks of rows under one another, an empty line between them: in each block, the first
/// column to the left and the others to the right; the first is equally wide in all.
fn write_aligned(f: &mut fmt::Formatter<'_>, blocks: &[Block]) -> fmt::Result {
    let first = blocks.iter().flatten().filter_map(|row| row.first());
    let first = first.map(|cell| cell.width()).max().unwrap_or_default();
    for (index, rows) in blocks.iter().enumerate() {
        if index > 0 {
            f.write_str("\n\n")?;
        }
        let columns = rows.first().map_or(0, Vec::len);
        let widths: Vec<_> = (0..columns)
            .map(|column| rows.iter().map(|row| row[column].width()).max())
            .map(|width| width.unwrap_or_default().max(7))
            .collect();
        for (line, row) in rows.iter().enumerate() {
            if line > 0 {
                f.write_str("\n")?;
            }
            for (column, cell) in row.iter().enumerate() {
                let width = if column == 0 { first } else { widths[column] };
                let space = " ".repeat(width - cell.width());
                match column {
                    0 => write!(f, "{cell}{space}")?,
                    _ => write!(f, "  {space}{cell}")?,
                }
            }
        }
    }
    Ok(())
}

/// A group's name, fit for a terminal: without control characters, and not too wide.
fn label(name: &str) -> String {
    const WIDTH: usize = 32;

    let mut label = String::new();
    for character in printable(name) {
        if label.width() + character.width().unwrap_or_default() > WIDTH {
            label.push('…');
            break;
        }
        label.push(character);
    }
    label
}

/// A number with three digits, or as many as six decimals give: no more of it is known.
fn three_digits(number: Option<f64>) -> String {
    let Some(number) = number else {
        return "-".to_owned();
    };
    if number >= 1e12 {
        return format!("{number:.2e}");
    }
    // What rounds up to the next power of ten belongs to that.
    let magnitude = (number * 1.0005).log10().floor();
    let decimals = (2.0 - magnitude).clamp(0.0, 6.0);
    if number == 0.0 {
        "0".to_owned()
    } else {
        format!("{number:.0$}", decimals as usize)
    }
}
