//! Profile: many runs as counts and quantiles, in groups.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use l0_core::{Money, Outcome, Quantity, QuantityKind, Telemetry, Unit, Value, keys};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::numbers::{Counts, QUANTITIES, Scalar, Spelled, nested};
use crate::quantiles::Numbers;
pub use crate::quantiles::Quantiles;
pub use crate::reasons::Reason;
use crate::reasons::Reasons;
use crate::sources::by_source;
use crate::sparkline::Scale;
use crate::values::printable;

/// Many runs, summed up: how long they took, how they ended, why they failed. Memory does not grow
/// with their number.
///
/// A profile has one group, [`ALL`](Self::ALL), or a group for each value of a metadata entry: of
/// a model, or of the arm of an A/B test. A run that fell back to another model is in the groups of both. [`Display`](fmt::Display) prints an aligned table, a
/// block per quantity with a line per group; `Serialize` gives the [`Stats`] of each group under its
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
///     println!("{model}: {} runs, median {:?} ms", stats.runs, stats.sample("duration").p50());
///     for reason in stats.reasons() {
///         println!("  {} failed: {}", reason.runs, reason.message);
///     }
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
    /// How many values of the metadata entry are told apart. A group of many runs takes about 10 kB
    /// for each doubling over which one of its quantities is spread.
    pub const MAX_GROUPS: usize = 256;
    /// How much of a value is kept as the name of its group, in bytes.
    pub const MAX_NAME: usize = 200;

    /// Creates a profile of no runs, in one group.
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
    ///
    /// What the attempts of a source measured is of the group of that source, by its own model, provider or
    /// operation if these are what is grouped by. The run itself, and what is its own, is of the group of
    /// the source that was tried last: see [`Telemetry::by_source`].
    pub fn add(&mut self, telemetry: &Telemetry) {
        let Some(key) = self.group_by.clone() else {
            self.group(Self::ALL).add(telemetry, true);
            return;
        };
        by_source(telemetry, &mut |part, metadata| {
            let name = keys::text(metadata, &key).unwrap_or(Self::NONE.into());
            let group = self.group(&name);
            group.add(part.telemetry, part.is_last);
        });
    }

    /// Adds all runs of another profile, group by group: both should be grouped by the same entry.
    pub fn merge(&mut self, other: &Self) {
        for (name, stats) in &other.groups {
            self.group(name).merge(stats);
        }
    }

    fn group(&mut self, name: &str) -> &mut Stats {
        let name = keys::cut(name, Self::MAX_NAME);
        let room = has_room(
            &self.groups,
            name,
            &[Self::NONE, Self::OTHER],
            Self::MAX_GROUPS,
        );
        let name = if room { name } else { Self::OTHER };
        self.groups.entry(name.to_owned()).or_default()
    }

    /// Iterates over the groups, by name.
    #[must_use]
    pub fn groups(&self) -> impl ExactSizeIterator<Item = (&str, &Stats)> {
        self.groups.iter().map(|(name, stats)| (&**name, stats))
    }

    /// Adds up all groups.
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

/// The runs of one group, summed up. Quantities are named as in [`Quantity::ALL`]; each is of those
/// runs only that know it. Durations are milliseconds.
///
/// In JSON the names are in camel case (`tokens`, `wastedTokens`, `timeToFirstToken`), and what no run
/// knows is absent.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// How many runs. One that fell back is counted where it ended.
    pub runs: u64,
    sums: BTreeMap<&'static str, Scalar>,
    samples: BTreeMap<&'static str, Quantiles>,
    counts: BTreeMap<&'static str, BTreeMap<String, u64>>,
    amounts: BTreeMap<&'static str, BTreeMap<Vec<String>, Money>>,
    reasons: Reasons,
}

impl Stats {
    /// How many values of a label are told apart: further ones are counted as `other`.
    pub const MAX_LABELS: usize = 64;
    /// How many reasons are told apart: further ones are counted as `other`.
    pub const MAX_REASONS: usize = Reasons::MAX;

    /// Returns the sum of a quantity whose numbers add up, such as `tokens.total`; absent if no run
    /// knows it.
    #[must_use]
    pub fn sum(&self, quantity: &str) -> Option<f64> {
        self.sums.get(quantity).map(|sum| sum.as_f64())
    }

    #[cfg(feature = "csv")]
    pub(crate) fn total_of(&self, quantity: &str) -> Option<Scalar> {
        self.sums.get(quantity).copied()
    }

    /// Returns how a quantity is spread, such as `duration` or `inter_token`; empty if no run knows
    /// it.
    #[must_use]
    pub fn sample(&self, quantity: &str) -> &Quantiles {
        static EMPTY: Quantiles = Quantiles::new();
        self.samples.get(quantity).unwrap_or(&EMPTY)
    }

    /// Returns the counts of a quantity by the values of its label, such as `runs` by outcome or
    /// `network.errors_by_type`; empty if no run knows it.
    #[must_use]
    pub fn counts(&self, quantity: &str) -> &BTreeMap<String, u64> {
        static EMPTY: BTreeMap<String, u64> = BTreeMap::new();
        self.counts.get(quantity).unwrap_or(&EMPTY)
    }

    /// Returns the exact amounts of money of a quantity, such as `cost`, by the values of its labels, in
    /// their order: the currency, and whether another attempt followed. Empty if no run knows any.
    #[must_use]
    pub fn amounts(&self, quantity: &str) -> &BTreeMap<Vec<String>, Money> {
        static EMPTY: BTreeMap<Vec<String>, Money> = BTreeMap::new();
        self.amounts.get(quantity).unwrap_or(&EMPTY)
    }

    /// What was spent, in each currency: in all, and of it on attempts that another one followed.
    fn spent(&self) -> BTreeMap<&str, [Money; 2]> {
        let mut spent = BTreeMap::<_, [Money; 2]>::new();
        for (labels, amount) in self.amounts(COST) {
            if let [currency, wasted] = &**labels {
                let [all, of_wasted] = spent.entry(&**currency).or_default();
                *all += *amount;
                if wasted == "true" {
                    *of_wasted += *amount;
                }
            }
        }
        spent
    }

    /// How many runs completed.
    fn completed(&self) -> u64 {
        let completed = Outcome::Completed.as_str();
        self.counts(RUNS_BY_OUTCOME)
            .get(completed)
            .copied()
            .unwrap_or(0)
    }

    /// Returns why runs failed, the reason of most runs first. Runs that were aborted or dropped did
    /// not fail, and one whose record does not say why has no reason.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason<'_>> {
        self.reasons.in_order()
    }

    /// Adds a run, or the part of one of its sources.
    fn add(&mut self, telemetry: &Telemetry, is_run: bool) {
        self.runs = self.runs.saturating_add(is_run.into());
        for quantity in Quantity::ALL {
            let name = quantity.name;
            if quantity.is_labelled() {
                self.add_counts(quantity, telemetry);
            } else {
                quantity.values(telemetry, &mut |value| match value {
                    Value::Distribution(all) => {
                        self.samples.entry(name).or_default().record_all(all);
                    }
                    value if quantity.kind == QuantityKind::Sum => {
                        self.add_sum(name, Scalar::of(value));
                    }
                    value => {
                        let sample = self.samples.entry(name).or_default();
                        sample.record(Scalar::of(value).as_f64());
                    }
                });
            }
        }
        let failed = telemetry.outcome.is_some_and(Outcome::is_failure);
        if let (true, Some(error)) = (failed, &telemetry.error) {
            self.reasons.add(error);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.runs = self.runs.saturating_add(other.runs);
        for (name, sum) in &other.sums {
            self.add_sum(name, *sum);
        }
        for (name, sample) in &other.samples {
            self.samples.entry(name).or_default().merge(sample);
        }
        for (name, counts) in &other.counts {
            let totals = self.counts.entry(name).or_default();
            for (label, count) in counts {
                add_count(totals, label, *count);
            }
        }
        for (name, amounts) in &other.amounts {
            for (labels, amount) in amounts {
                self.add_amount(name, labels, *amount);
            }
        }
        self.reasons.merge(&other.reasons);
    }

    fn add_sum(&mut self, name: &'static str, number: Scalar) {
        let sum = self.sums.entry(name).or_insert(Scalar::Count(0));
        *sum = sum.plus(number);
    }

    fn add_counts(&mut self, quantity: &'static Quantity, telemetry: &Telemetry) {
        let Some(Counts(counts)) = Counts::of(quantity, telemetry) else {
            return;
        };
        if quantity.unit != Unit::Money {
            // Known, also if there are none.
            self.counts.entry(quantity.name).or_default();
        }
        for (labels, number) in counts {
            match (&*labels, number) {
                (labels, Scalar::Money(amount)) => self.add_amount(quantity.name, labels, amount),
                ([label, ..], Scalar::Count(count)) => {
                    add_count(self.counts.entry(quantity.name).or_default(), label, count);
                }
                _ => {}
            }
        }
    }

    fn add_amount(&mut self, name: &'static str, labels: &[String], amount: Money) {
        let amounts = self.amounts.entry(name).or_default();
        // A file may hold any currency, and those of two are not added up.
        if amounts.len() < Self::MAX_LABELS || amounts.contains_key(labels) {
            *amounts.entry(labels.to_vec()).or_default() += amount;
        }
    }
}

/// Whether a map of at most so many names takes this one. Names that are always taken do not count.
fn has_room<V>(map: &BTreeMap<String, V>, name: &str, always: &[&str], max: usize) -> bool {
    let extra = always.iter().filter(|name| map.contains_key(**name));
    map.contains_key(name) || always.contains(&name) || map.len() - extra.count() < max
}

fn add_count(totals: &mut BTreeMap<String, u64>, label: &str, count: u64) {
    const OTHER: &str = "other";

    let label = keys::cut(label, Profile::MAX_NAME);
    let room = has_room(totals, label, &[OTHER], Stats::MAX_LABELS);
    let total = totals.entry(if room { label } else { OTHER }.to_owned());
    let total = total.or_default();
    *total = total.saturating_add(count);
}

impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("runs", &self.runs)?;
        for Spelled {
            quantity, column, ..
        } in QUANTITIES.iter()
        {
            if let Some(sum) = self.sums.get(quantity.name) {
                map.serialize_entry(column, sum)?;
            }
            if let Some(sample) = self.samples.get(quantity.name) {
                map.serialize_entry(column, sample)?;
            }
            if let Some(counts) = self.counts.get(quantity.name) {
                map.serialize_entry(column, counts)?;
            }
            if let Some(amounts) = self.amounts.get(quantity.name) {
                map.serialize_entry(column, &Amounts(amounts))?;
            }
        }
        map.serialize_entry("reasons", &self.reasons())?;
        map.end()
    }
}

/// The quantity of what was spent.
const COST: &str = "cost";

/// Amounts, exact: as texts.
pub(crate) struct Amounts<'a>(pub(crate) &'a BTreeMap<Vec<String>, Money>);

impl Serialize for Amounts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|(labels, amount)| (labels.clone(), *amount))
            .collect();
        nested(&rows, serializer)
    }
}

/// A table for people: how runs ended, why they failed, what adds up, and a block for each quantity
/// that is spread; each with a line per group, and one for all of them. What no run knows has no
/// block, what is zero in all no column, and what one group does not know is a dash. Numbers that are
/// not counts have three digits, which is what quantiles are good for. The bars show how the values of
/// a group are spread, on one logarithmic scale per block.
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

        let mut blocks = vec![outcomes_block(&groups, &total)];
        blocks.extend(reasons_block(&groups));
        blocks.extend(sums_blocks(&groups, &total));
        blocks.extend(costs_blocks(&groups, &total));
        blocks.extend(
            QUANTITIES
                .iter()
                .filter(|spelled| total.samples.contains_key(spelled.quantity.name))
                .map(|spelled| sample_block(spelled, &groups, &total)),
        );
        write_aligned(f, &blocks)
    }
}

/// The label of the row for all groups together.
const TOTAL: &str = "(all)";

/// Rows of cells; the first row is the heading, and the first cell of each its label.
#[derive(Default)]
struct Block {
    rows: Vec<Vec<String>>,
    /// Whether the last column is text, which begins where its heading does.
    ends_in_text: bool,
}

fn outcomes_block(groups: &[(String, &Stats)], total: &Stats) -> Block {
    let outcomes = outcomes(total);
    let mut heading = vec![String::new(), "runs".to_owned()];
    heading.extend(outcomes.iter().map(|outcome| (*outcome).to_owned()));
    let mut rows = vec![heading];
    for (label, stats) in groups {
        let counts = stats.counts(RUNS_BY_OUTCOME);
        let mut row = vec![label.clone(), stats.runs.to_string()];
        row.extend(outcomes.iter().map(|outcome| {
            let count = counts.get(*outcome).copied();
            count.unwrap_or_default().to_string()
        }));
        rows.push(row);
    }
    Block {
        rows,
        ..Block::default()
    }
}

/// The quantity that says how runs ended.
pub(crate) const RUNS_BY_OUTCOME: &str = "runs";

/// The outcomes that there are, in their own order.
fn outcomes(total: &Stats) -> Vec<&str> {
    let mut outcomes: Vec<_> = total.counts(RUNS_BY_OUTCOME).keys().collect();
    let place = |label: &str| {
        Outcome::ALL
            .iter()
            .position(|known| known.as_str() == label)
    };
    outcomes.sort_by_key(|label| place(label).unwrap_or(usize::MAX));
    outcomes.into_iter().map(String::as_str).collect()
}

fn reasons_block(groups: &[(String, &Stats)]) -> Option<Block> {
    /// How many reasons of one group are shown.
    const SHOWN: usize = 10;
    const WIDTH: usize = 100;

    let mut rows = vec![["failures", "runs", "reason"].map(str::to_owned).to_vec()];
    for (label, stats) in groups {
        let reasons = stats.reasons();
        let mut push = |runs: u64, text: &str| {
            rows.push(vec![
                label.clone(),
                runs.to_string(),
                shortened(text, WIDTH),
            ]);
        };
        for reason in reasons.iter().take(SHOWN) {
            let (kind, message) = (reason.error_type, reason.message);
            // Many messages begin with the words of their type, and say them once.
            if message.starts_with(&kind.replace('_', " ")) {
                push(reason.runs, message);
            } else {
                push(reason.runs, &format!("{kind}: {message}"));
            }
        }
        if let Some(others @ [_, ..]) = reasons.get(SHOWN..) {
            let runs = others.iter().map(|reason| reason.runs);
            let runs = runs.fold(0, u64::saturating_add);
            push(runs, &format!("{} other reasons", others.len()));
        }
    }
    (rows.len() > 1).then_some(Block {
        rows,
        ends_in_text: true,
    })
}

/// What adds up, in as many blocks as it takes not to be too wide.
fn sums_blocks(groups: &[(String, &Stats)], total: &Stats) -> Vec<Block> {
    const WIDTH: usize = 80;

    let mut blocks: Vec<Block> = Vec::new();
    let mut left = 0;
    for spelled in QUANTITIES.iter() {
        let name = spelled.quantity.name;
        if total.sum(name).is_none_or(|sum| sum == 0.0) {
            continue;
        }
        let cells: Vec<_> = groups
            .iter()
            .map(|(_, stats)| match stats.sums.get(name) {
                Some(Scalar::Count(count)) => count.to_string(),
                sum => three_digits(sum.map(|sum| sum.as_f64())),
            })
            .collect();
        let heading = heading(spelled);
        let widths = cells.iter().map(|cell| cell.width());
        let width = 2 + widths.fold(heading.width().max(MIN_WIDTH), usize::max);
        if width > left {
            let labels = groups.iter().map(|(label, _)| label.clone());
            let labels = std::iter::once("totals".to_owned()).chain(labels);
            blocks.push(Block {
                rows: labels.map(|label| vec![label]).collect(),
                ..Block::default()
            });
            left = WIDTH;
        }
        left = left.saturating_sub(width);
        if let Some(block) = blocks.last_mut() {
            let cells = std::iter::once(heading).chain(cells);
            for (row, cell) in block.rows.iter_mut().zip(cells) {
                row.push(cell);
            }
        }
    }
    blocks
}

/// What was spent, with a block for each currency.
fn costs_blocks(groups: &[(String, &Stats)], total: &Stats) -> Vec<Block> {
    let spent_in = |stats: &Stats, currency: &str| stats.spent().get(currency).copied();
    let estimated_in = |stats: &Stats, currency: &str| {
        let labels = [currency.to_owned()];
        stats.amounts("estimated_cost").get(&labels[..]).copied()
    };
    let currencies = total.amounts.values().flatten();
    let currencies = currencies.filter_map(|(labels, _)| labels.first().map(String::as_str));
    let currencies: BTreeSet<_> = currencies.collect();
    let block = |currency: &str| {
        let heading = [
            "cost",
            "wasted",
            "estimated",
            "per 1,000 runs",
            "per completed",
        ];
        let heading = std::iter::once(currency.to_owned()).chain(heading.map(str::to_owned));
        let mut rows = vec![heading.collect::<Vec<_>>()];
        for (label, stats) in groups {
            let spent = spent_in(stats, currency);
            let exact = |amount: Option<Money>| {
                amount.map_or_else(|| three_digits(None), |amount| amount.to_string())
            };
            let per = |runs: f64| {
                let all = spent.filter(|_| runs > 0.0);
                three_digits(all.map(|[all, _]| all.as_f64() / runs))
            };
            rows.push(vec![
                label.clone(),
                exact(spent.map(|[all, _]| all)),
                exact(spent.map(|[_, wasted]| wasted)),
                exact(estimated_in(stats, currency)),
                per(stats.runs as f64 / 1e3),
                per(stats.completed() as f64),
            ]);
        }
        Block {
            rows,
            ..Block::default()
        }
    };
    currencies.into_iter().map(block).collect()
}

/// What heads the numbers of a quantity, with their unit.
fn heading(spelled: &Spelled) -> String {
    match spelled.quantity.unit {
        Unit::Seconds => format!("{}, ms", spelled.words),
        _ => spelled.words.clone(),
    }
}

fn sample_block(spelled: &Spelled, groups: &[(String, &Stats)], total: &Stats) -> Block {
    let name = spelled.quantity.name;
    let all = total.sample(name);
    let scale = all.counts().next().zip(all.max());
    let scale = scale.map(|((low, _), high)| Scale { low, high });
    let shape = scale.map(|scale| {
        let [low, high] = [scale.low, scale.high].map(|end| three_digits(Some(end)));
        format!("{low} to {high}")
    });
    let mut heading = vec![heading(spelled)];
    heading.extend(["mean", "p50", "p95", "p99", "max"].map(str::to_owned));
    heading.extend(shape);

    let mut rows = vec![heading];
    for (label, stats) in groups {
        let sample = stats.sample(name);
        let mut row = vec![label.clone()];
        let numbers = Numbers::from(sample).in_order();
        row.extend(numbers.map(|(_, number)| three_digits(number)));
        row.extend(scale.map(|scale| scale.sparkline(&sample.counts().collect::<Vec<_>>())));
        rows.push(row);
    }
    Block {
        rows,
        ..Block::default()
    }
}

/// How wide a column of numbers is at least.
const MIN_WIDTH: usize = 7;

/// Writes blocks of rows under one another, an empty line between them: in each block, the first
/// column to the left and the others to the right; the first is equally wide in all.
fn write_aligned(f: &mut fmt::Formatter<'_>, blocks: &[Block]) -> fmt::Result {
    let rows = blocks.iter().flat_map(|block| &block.rows);
    let first = rows.filter_map(|row| row.first());
    let first = first.map(|cell| cell.width()).max().unwrap_or_default();
    for (index, Block { rows, ends_in_text }) in blocks.iter().enumerate() {
        if index > 0 {
            f.write_str("\n\n")?;
        }
        let columns = rows.first().map_or(0, Vec::len);
        let widths: Vec<_> = (0..columns)
            .map(|column| rows.iter().map(|row| row[column].width()).max())
            .map(|width| width.unwrap_or_default().max(MIN_WIDTH))
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
                    last if *ends_in_text && last + 1 == columns => write!(f, "  {cell}")?,
                    _ => write!(f, "  {space}{cell}")?,
                }
            }
        }
    }
    Ok(())
}

/// A group's name, fit for a terminal.
fn label(name: &str) -> String {
    shortened(name, 32)
}

/// A text without control characters, and not wider than this.
fn shortened(text: &str, width: usize) -> String {
    let mut shown = String::new();
    for character in printable(text) {
        if shown.width() + character.width().unwrap_or_default() > width {
            shown.push('…');
            break;
        }
        shown.push(character);
    }
    shown
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
