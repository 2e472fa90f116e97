//! Side: the runs of one arm in one group.

use std::collections::BTreeMap;

use l0_core::{Outcome, Quantity, QuantityKind, Telemetry, Unit, Value, keys};

use super::interval::{Estimate, Level, share};
use super::sample::{Bucket, Clusters, Sample};
use super::statistic::{FAILURES, Kind, Of, Statistic, is_of_completed};
use crate::stats::{MAX_NAME, Stats, has_space};
use crate::text::millis;

/// The runs of one arm in one group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Side {
    runs: u64,
    /// Keyed by the index of the quantity. A map, because many quantities are never known.
    samples: BTreeMap<usize, Sample>,
    clusters: BTreeMap<usize, Clusters>,
    /// Keyed by the index of the quantity and the currency.
    money: BTreeMap<(usize, String), Sample>,
    outcomes: BTreeMap<&'static str, u64>,
    error_types: BTreeMap<String, u64>,
}

/// The maximum number of currencies.
const MAX_CURRENCIES: usize = 8;

/// The value of one quantity in a run.
pub(crate) enum Read<'a> {
    One(f64),
    Money(&'a str, f64),
    /// The sum, and the buckets in ascending order.
    Many(f64, &'a [Bucket]),
}

/// Calls `visit` with the index and the value of each quantity that a run has.
pub(crate) fn read(run: &Telemetry, visit: &mut dyn FnMut(usize, Read<'_>)) {
    let completed = run.outcome == Some(Outcome::Completed);
    for (place, quantity) in Quantity::ALL.iter().enumerate() {
        if quantity.name == FAILURES {
            if let Some(outcome) = run.outcome {
                visit(place, Read::One(f64::from(u8::from(outcome.is_failure()))));
            }
        } else if is_of_completed(quantity) && !completed {
        } else if quantity.unit == Unit::Money {
            read_money(place, quantity, run, visit);
        } else if quantity.is_labeled() {
            let mut sum = 0.0;
            let known = quantity.each(run, &mut |_, value| sum += value.as_f64());
            if known {
                visit(place, Read::One(sum));
            }
        } else if quantity.is_of_attempts() || quantity.kind == QuantityKind::Distribution {
            read_many(place, quantity, run, visit);
        } else if let Some(value) = quantity.value(run) {
            visit(place, Read::One(number(value)));
        }
    }
}

/// Converts a value to a displayed number: times are in milliseconds.
fn number(value: Value<'_>) -> f64 {
    match value {
        Value::Duration(duration) => millis(duration),
        value => value.as_f64(),
    }
}

fn read_money(
    place: usize,
    quantity: &Quantity,
    run: &Telemetry,
    visit: &mut dyn FnMut(usize, Read<'_>),
) {
    let mut sums: Vec<(String, f64)> = Vec::new();
    quantity.each(run, &mut |labels, value| {
        let Some(currency) = labels.first() else {
            return;
        };
        match sums.iter_mut().find(|(known, _)| known == currency) {
            Some((_, sum)) => *sum += value.as_f64(),
            None => sums.push(((*currency).to_owned(), value.as_f64())),
        }
    });
    for (currency, sum) in sums {
        visit(place, Read::Money(&currency, sum));
    }
}

fn read_many(
    place: usize,
    quantity: &Quantity,
    run: &Telemetry,
    visit: &mut dyn FnMut(usize, Read<'_>),
) {
    let mut sum = 0.0;
    let mut buckets = Vec::new();
    quantity.values(run, &mut |value| match value {
        Value::Distribution(all) => {
            let max = millis(all.max());
            sum += millis(all.sum());
            buckets.extend(all.buckets().map(|bucket| {
                let lower = millis(bucket.lower);
                // The last bucket has no upper bound.
                let ends = bucket.upper < std::time::Duration::MAX;
                let upper = if ends {
                    millis(bucket.upper)
                } else {
                    max.max(lower)
                };
                Bucket {
                    lower,
                    upper,
                    count: bucket.count,
                }
            }));
        }
        value => {
            sum += number(value);
            buckets.push(Bucket::of(number(value)));
        }
    });
    buckets.sort_by(|a, b| a.lower.total_cmp(&b.lower));
    if !buckets.is_empty() {
        visit(place, Read::Many(sum, &buckets));
    }
}

impl Side {
    /// Adds a run, or the part of one of its sources.
    pub(crate) fn add(&mut self, run: &Telemetry, is_run: bool) {
        self.runs += u64::from(is_run);
        read(run, &mut |place, read| match read {
            Read::One(number) => self.samples.entry(place).or_default().add(number),
            Read::Many(sum, buckets) => self.clusters.entry(place).or_default().add(sum, buckets),
            Read::Money(currency, amount) => {
                let key = (place, currency.to_owned());
                if self.money.len() < MAX_CURRENCIES || self.money.contains_key(&key) {
                    self.money.entry(key).or_default().add(amount);
                }
            }
        });
        if let (Some(outcome), true) = (run.outcome, is_run) {
            *self.outcomes.entry(outcome.as_str()).or_default() += 1;
            if let (true, Some(error)) = (outcome.is_failure(), &run.error) {
                let label = keys::cut(&error.error_type, MAX_NAME);
                // An error type that is not counted is still known to differ from all others.
                if has_space(&self.error_types, label, &[], Stats::MAX_LABELS) {
                    *self.error_types.entry(label.to_owned()).or_default() += 1;
                }
            }
        }
    }

    pub(crate) const fn runs(&self) -> u64 {
        self.runs
    }

    /// Iterates over the quantities of money, each with its currency.
    pub(crate) fn currencies(&self) -> impl Iterator<Item = (usize, String)> {
        self.money.keys().cloned()
    }

    /// Returns the number of runs that have a statistic.
    pub(crate) fn known(&self, statistic: &Statistic) -> u64 {
        match &statistic.of {
            Of::Quantity(place) => {
                let sample = self.samples.get(place).map(Sample::runs);
                let clusters = self.clusters.get(place).map(Clusters::runs);
                sample.or(clusters).unwrap_or_default()
            }
            Of::Money(place, currency) => {
                let sample = self.money.get(&(*place, currency.clone()));
                sample.map(Sample::runs).unwrap_or_default()
            }
            Of::Outcome(_) | Of::ErrorType(_) => self.outcomes.values().sum(),
        }
    }

    /// Returns the sample of a statistic with one number for each run.
    pub(crate) fn sample(&self, statistic: &Statistic) -> Option<&Sample> {
        match &statistic.of {
            Of::Quantity(place) => self.samples.get(place),
            Of::Money(place, currency) => self.money.get(&(*place, currency.clone())),
            Of::Outcome(_) | Of::ErrorType(_) => None,
        }
    }

    pub(crate) fn estimate(&self, statistic: &Statistic, level: Level) -> Option<Estimate> {
        if let Some(sample) = self.sample(statistic) {
            return estimate(sample, statistic.kind, level);
        }
        let share_of = |hits: Option<&u64>| {
            let all = self.known(statistic);
            let hits = hits.copied().unwrap_or_default();
            (all > 0).then(|| share(hits, all, level))
        };
        match (&statistic.of, statistic.kind) {
            (Of::Outcome(outcome), _) => share_of(self.outcomes.get(outcome.as_str())),
            (Of::ErrorType(label), _) => share_of(self.error_types.get(label)),
            (Of::Quantity(place), Kind::Mean) => self.clusters.get(place)?.mean(level),
            (Of::Quantity(place), Kind::Quantile(q)) => {
                self.clusters.get(place)?.quantile(q, level)
            }
            (Of::Quantity(_) | Of::Money(..), _) => None,
        }
    }
}

pub(crate) fn estimate(sample: &Sample, kind: Kind, level: Level) -> Option<Estimate> {
    match kind {
        Kind::Mean => sample.mean(level),
        Kind::Quantile(q) => sample.quantile(q, level),
        Kind::Share => (sample.runs() > 0).then(|| share(sample.not_zero(), sample.runs(), level)),
    }
}
