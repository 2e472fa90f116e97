//! Stats: a summary of the runs of one group.

use std::collections::BTreeMap;
use std::time::Duration;

use l0_core::{Money, Outcome, Quantity, QuantityKind, Telemetry, Timestamp, Unit, Value, keys};
use l0_export::names;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::quantiles::Quantiles;
use crate::reasons::{Reason, Reasons};
use crate::text::millis;

/// The quantity that counts runs by outcome.
pub(crate) const RUNS_BY_OUTCOME: &str = "runs";
/// The quantity of costs.
const COST: &str = "cost";
/// The maximum length of a label, in bytes.
pub(crate) const MAX_NAME: usize = 200;

/// A summary of the runs of one group. Quantities have the names of [`Quantity::ALL`]. Each includes only the
/// runs that have a value. Durations are in milliseconds.
///
/// In JSON, names are in camel case (`tokens`, `wastedTokens`, `timeToFirstToken`), and unknown values
/// are absent. `startTime` and `endTime` are in milliseconds since the Unix epoch. `durationByOutcome` contains the
/// [`durations`](Self::durations).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// The number of runs. A run that fell back counts in the group where it ended.
    pub runs: u64,
    /// The start of the first run. Absent if unknown for all runs.
    pub first_start: Option<Timestamp>,
    /// The end of the last run. Absent if no run has ended.
    pub last_end: Option<Timestamp>,
    /// In the order of the list of quantities. Empty if no quantity is known.
    numbers: Vec<Number>,
    durations: BTreeMap<&'static str, Quantiles>,
    reasons: Reasons,
}

/// The values of a quantity over many runs, in the form that the quantity has.
#[derive(Debug, Clone, Default)]
struct Number {
    sum: Option<Sum>,
    /// Boxed, because most quantities are sums.
    sample: Option<Box<Quantiles>>,
    counts: Option<BTreeMap<String, u64>>,
    /// By the values of all labels.
    amounts: BTreeMap<Vec<String>, Money>,
}

/// An exact sum, so it does not depend on the order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sum {
    Count(u64),
    Time(Duration),
}

impl Sum {
    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Time(time) => millis(time),
        }
    }

    /// Adds two sums of one quantity. Saturates on overflow.
    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => Self::Count(a.saturating_add(b)),
            (Self::Time(a), Self::Time(b)) => Self::Time(a.saturating_add(b)),
            (a, _) => a,
        }
    }
}

impl Serialize for Sum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Time(time) => serializer.serialize_f64(millis(*time)),
        }
    }
}

impl Stats {
    /// The maximum number of values of a label. Further values count as `other`.
    pub const MAX_LABELS: usize = 64;
    /// The maximum number of reasons. Further reasons count as `other`.
    pub const MAX_REASONS: usize = Reasons::MAX;

    /// Returns the sum of a quantity, such as `tokens.total`. `None` if no run has it, or if it is not a
    /// sum.
    #[must_use]
    pub fn sum(&self, quantity: &str) -> Option<f64> {
        self.total_of(quantity).map(Sum::as_f64)
    }

    pub(crate) fn total_of(&self, quantity: &str) -> Option<Sum> {
        self.number(quantity)?.sum
    }

    /// Returns the distribution of a quantity, such as `duration` or `inter_token`. Empty if no run has
    /// it.
    #[must_use]
    pub fn sample(&self, quantity: &str) -> &Quantiles {
        let sample = self
            .number(quantity)
            .and_then(|number| number.sample.as_deref());
        sample.unwrap_or(&NOTHING)
    }

    /// Returns the distribution of the durations of runs with this outcome, in milliseconds. Empty if
    /// there are none.
    #[must_use]
    pub fn durations(&self, outcome: Outcome) -> &Quantiles {
        self.durations.get(outcome.as_str()).unwrap_or(&NOTHING)
    }

    /// Returns the counts of a quantity by the values of its label, such as `runs` by outcome or
    /// `network.errors_by_type`. Empty if no run has it.
    #[must_use]
    pub fn counts(&self, quantity: &str) -> &BTreeMap<String, u64> {
        static EMPTY: BTreeMap<String, u64> = BTreeMap::new();
        let counts = self
            .number(quantity)
            .and_then(|number| number.counts.as_ref());
        counts.unwrap_or(&EMPTY)
    }

    /// Returns the exact amounts of money of a quantity, such as `cost`, by the values of its labels, in
    /// their order: the currency, and whether another attempt followed. Empty if no run has any.
    #[must_use]
    pub fn amounts(&self, quantity: &str) -> &BTreeMap<Vec<String>, Money> {
        static EMPTY: BTreeMap<Vec<String>, Money> = BTreeMap::new();
        self.number(quantity)
            .map_or(&EMPTY, |number| &number.amounts)
    }

    /// Returns the failure reasons, the most frequent first. Aborted and dropped runs did not fail. Runs
    /// without a recorded error have no reason.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason<'_>> {
        self.reasons.in_order()
    }

    /// Returns the time from the start of the first run to the end of the last. `None` if unknown.
    #[must_use]
    pub fn span(&self) -> Option<Duration> {
        let (start, end) = (self.first_start?, self.last_end?);
        let millis = end.as_millis().checked_sub(start.as_millis())?;
        Some(Duration::from_millis(millis))
    }

    /// Returns the number of runs per second of the [span](Self::span). `None` if the span is unknown or
    /// zero.
    #[must_use]
    pub fn runs_per_second(&self) -> Option<f64> {
        let span = self.span().filter(|span| !span.is_zero())?;
        Some(self.runs as f64 / span.as_secs_f64())
    }

    /// Returns the cost in each currency: in total, and of attempts that another attempt followed.
    pub(crate) fn spent(&self) -> BTreeMap<&str, [Money; 2]> {
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

    /// Iterates over the currencies of all costs and estimates.
    pub(crate) fn currencies(&self) -> impl Iterator<Item = &str> {
        let amounts = self.numbers.iter().flat_map(|number| number.amounts.keys());
        amounts.filter_map(|labels| labels.first().map(String::as_str))
    }

    /// Returns the number of runs with this outcome.
    pub(crate) fn ended(&self, outcome: Outcome) -> u64 {
        let counts = self.counts(RUNS_BY_OUTCOME);
        counts.get(outcome.as_str()).copied().unwrap_or(0)
    }

    /// Iterates over the outcomes that occur, in the order of [`Outcome::ALL`].
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        let known = Outcome::ALL.iter().chain([&Outcome::Other]);
        known
            .copied()
            .filter(|outcome| self.counts(RUNS_BY_OUTCOME).contains_key(outcome.as_str()))
    }

    fn number(&self, quantity: &str) -> Option<&Number> {
        let place = Quantity::ALL
            .iter()
            .position(|known| known.name == quantity);
        self.numbers.get(place?)
    }

    /// Adds a run, or the part of one of its sources.
    pub(crate) fn add(&mut self, telemetry: &Telemetry, is_run: bool) {
        if is_run {
            self.runs = self.runs.saturating_add(1);
            // The default time stands for an unknown start.
            let start = Some(telemetry.start_time).filter(|start| *start != Timestamp::default());
            self.widen(start, telemetry.end_time().filter(|_| start.is_some()));
            if let (Some(outcome), Some(duration)) = (telemetry.outcome, telemetry.duration) {
                self.durations
                    .entry(outcome.as_str())
                    .or_default()
                    .record(millis(duration));
            }
        }
        self.numbers
            .resize_with(Quantity::ALL.len(), Number::default);
        for (quantity, number) in Quantity::ALL.iter().zip(&mut self.numbers) {
            if quantity.is_labeled() {
                number.add_labeled(quantity, telemetry);
            } else {
                quantity.values(telemetry, &mut |value| number.add(quantity, value));
            }
        }
        let failed = telemetry.outcome.is_some_and(Outcome::is_failure);
        if let (true, Some(error)) = (failed, &telemetry.error) {
            self.reasons.add(error);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.runs = self.runs.saturating_add(other.runs);
        self.widen(other.first_start, other.last_end);
        if self.numbers.len() < other.numbers.len() {
            self.numbers
                .resize_with(other.numbers.len(), Number::default);
        }
        for (number, other) in self.numbers.iter_mut().zip(&other.numbers) {
            number.merge(other);
        }
        for (outcome, durations) in &other.durations {
            self.durations.entry(outcome).or_default().merge(durations);
        }
        self.reasons.merge(&other.reasons);
    }

    fn widen(&mut self, start: Option<Timestamp>, end: Option<Timestamp>) {
        self.first_start = self.first_start.into_iter().chain(start).min();
        self.last_end = self.last_end.max(end);
    }
}

static NOTHING: Quantiles = Quantiles::new();

impl Number {
    fn add(&mut self, quantity: &Quantity, value: Value<'_>) {
        match (value, quantity.kind) {
            (Value::Distribution(all), _) => self.sample().record_all(all),
            (Value::Count(count), QuantityKind::Sum) => self.plus(Sum::Count(count)),
            (Value::Duration(time), QuantityKind::Sum) => self.plus(Sum::Time(time)),
            (Value::Duration(time), _) => self.sample().record(millis(time)),
            (value, _) => self.sample().record(value.as_f64()),
        }
    }

    fn add_labeled(&mut self, quantity: &Quantity, telemetry: &Telemetry) {
        let known = quantity.each(telemetry, &mut |labels, value| match (labels, value) {
            (labels, Value::Amount(amount)) => {
                let labels = labels.iter().map(|label| (*label).to_owned());
                add_amount(&mut self.amounts, labels.collect(), amount);
            }
            ([label, ..], Value::Count(count)) => add_count(self.counts(), label, count),
            _ => {}
        });
        if known && quantity.unit != Unit::Money {
            // Creates an empty map, which means known.
            self.counts();
        }
    }

    fn merge(&mut self, other: &Self) {
        if let Some(sum) = other.sum {
            self.plus(sum);
        }
        if let Some(sample) = &other.sample {
            self.sample().merge(sample);
        }
        if let Some(counts) = &other.counts {
            let totals = self.counts();
            for (label, count) in counts {
                add_count(totals, label, *count);
            }
        }
        for (labels, amount) in &other.amounts {
            add_amount(&mut self.amounts, labels.clone(), *amount);
        }
    }

    fn plus(&mut self, number: Sum) {
        self.sum = Some(self.sum.map_or(number, |sum| sum.plus(number)));
    }

    fn sample(&mut self) -> &mut Quantiles {
        self.sample.get_or_insert_default()
    }

    fn counts(&mut self) -> &mut BTreeMap<String, u64> {
        self.counts.get_or_insert_default()
    }
}

/// Returns `true` if a map of at most `max` names accepts this name. Names in `always` do not count.
pub(crate) fn has_space<V>(
    map: &BTreeMap<String, V>,
    name: &str,
    always: &[&str],
    max: usize,
) -> bool {
    let extra = always.iter().filter(|name| map.contains_key(**name));
    map.contains_key(name) || always.contains(&name) || map.len() - extra.count() < max
}

fn add_count(totals: &mut BTreeMap<String, u64>, label: &str, count: u64) {
    const OTHER: &str = "other";

    let label = keys::cut(label, MAX_NAME);
    if let Some(total) = totals.get_mut(label) {
        *total = total.saturating_add(count);
        return;
    }
    let fits = has_space(totals, label, &[OTHER], Stats::MAX_LABELS);
    let total = totals.entry(if fits { label } else { OTHER }.to_owned());
    let total = total.or_default();
    *total = total.saturating_add(count);
}

fn add_amount(totals: &mut BTreeMap<Vec<String>, Money>, labels: Vec<String>, amount: Money) {
    // A file can contain any currencies, and amounts of different currencies cannot be added up.
    if totals.len() < Stats::MAX_LABELS || totals.contains_key(&labels) {
        *totals.entry(labels).or_default() += amount;
    }
}

impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("runs", &self.runs)?;
        if let Some(start) = self.first_start {
            map.serialize_entry("startTime", &start)?;
        }
        if let Some(end) = self.last_end {
            map.serialize_entry("endTime", &end)?;
        }
        for (quantity, number) in Quantity::ALL.iter().zip(&self.numbers) {
            let column = names::column(quantity);
            if let Some(sum) = number.sum {
                map.serialize_entry(column, &sum)?;
            }
            if let Some(sample) = &number.sample {
                map.serialize_entry(column, sample)?;
            }
            if let Some(counts) = &number.counts {
                map.serialize_entry(column, counts)?;
            }
            if !number.amounts.is_empty() {
                map.serialize_entry(column, &Amounts::of(&number.amounts))?;
            }
        }
        if !self.durations.is_empty() {
            map.serialize_entry("durationByOutcome", &self.durations)?;
        }
        map.serialize_entry("reasons", &self.reasons())?;
        map.end()
    }
}

/// Exact amounts, as text, under the values of their labels.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum Amounts<'a> {
    One(Money),
    By(BTreeMap<&'a str, Self>),
}

impl<'a> Amounts<'a> {
    pub(crate) fn of(amounts: &'a BTreeMap<Vec<String>, Money>) -> Self {
        let mut all = BTreeMap::new();
        for (labels, amount) in amounts {
            Self::put(&mut all, labels, *amount);
        }
        Self::By(all)
    }

    /// Inserts an amount. All amounts of a quantity have the same number of labels.
    fn put(under: &mut BTreeMap<&'a str, Self>, labels: &'a [String], amount: Money) {
        match labels {
            [] => {}
            [label] => {
                under.insert(label, Self::One(amount));
            }
            [label, rest @ ..] => {
                let under = under
                    .entry(label)
                    .or_insert_with(|| Self::By(BTreeMap::new()));
                if let Self::By(under) = under {
                    Self::put(under, rest, amount);
                }
            }
        }
    }
}
