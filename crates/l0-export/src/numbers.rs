//! Numbers: the quantities of core, as the formats of this crate spell and write them.
//!
//! Names are derived. The tables here contain only names that the TypeScript library fixed, or whose
//! derived form reads badly.

use std::sync::LazyLock;
use std::time::Duration;

use l0_core::{Distribution, Money, Quantity, QuantityKind, Telemetry, Unit, Value};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::names::{QUANTITIES, Spelled, look_up};
use crate::values::millis;

/// The groups of a log record with the quantities of the same prefix. All other quantities are in
/// `metrics`.
const LOG_GROUPS: [&str; 3] = ["usage", "network", "guardrails"];

/// The log keys that are not derived.
const LOG_KEYS: [(&str, &str); 3] = [
    ("retries.total", "total_retries"),
    ("network.errors", "error_count"),
    ("guardrails.violations", "violation_count"),
];

/// The quantities that a record of one run states as text: its outcome, its error type, and its drift.
const TEXT_QUANTITIES: [&str; 3] = ["runs", "failures", "drift.detected"];

/// The quantity that a record of one run has as one number, without its labels.
const ATTEMPTS: &str = "attempts";

/// A number of one run, or its counts by a label: a quantity, or a statistic of a
/// distribution.
#[derive(Debug)]
pub(crate) struct Number {
    spelled: &'static Spelled,
    statistic: Option<&'static Statistic>,
    /// The name of its metric point: `l0.tokens.wasted`.
    pub(crate) point: String,
    /// Its group in a log record, and its key there.
    pub(crate) log: (&'static str, String),
}

type Statistic = (&'static str, fn(&Distribution) -> Option<Duration>);

/// The statistics of a distribution, for formats that accept only plain numbers.
static STATISTICS: [Statistic; 5] = [
    ("avg", Distribution::mean),
    ("p50", Distribution::p50),
    ("p90", Distribution::p90),
    ("p99", Distribution::p99),
    ("max", |all| (!all.is_empty()).then_some(all.max())),
];

/// All numbers, in the order of the list.
pub(crate) static NUMBERS: LazyLock<Vec<Number>> = LazyLock::new(|| {
    let mut numbers = Vec::new();
    for spelled in QUANTITIES.iter() {
        if spelled.quantity.kind == QuantityKind::Distribution {
            let all = STATISTICS.iter();
            numbers.extend(all.map(|statistic| Number::new(spelled, Some(statistic))));
        } else {
            numbers.push(Number::new(spelled, None));
        }
    }
    numbers
});

/// Iterates over the numbers of a record of one run, except those that it states as text and those of single
/// attempts.
pub(crate) fn numbers_of_records() -> impl Iterator<Item = &'static Number> {
    NUMBERS.iter().filter(|number| {
        let quantity = number.quantity();
        !TEXT_QUANTITIES.contains(&quantity.name) && !quantity.is_of_attempts()
    })
}

impl Number {
    fn new(spelled: &'static Spelled, statistic: Option<&'static Statistic>) -> Self {
        let name = spelled.quantity.name;
        let (group, key) = match name.split_once('.') {
            Some((first, rest)) => match LOG_GROUPS.iter().find(|group| **group == first) {
                Some(group) => (*group, rest.replace('.', "_")),
                None => ("metrics", spelled.words.replace(' ', "_")),
            },
            None => ("metrics", spelled.words.replace(' ', "_")),
        };
        let mut key = look_up(&LOG_KEYS, name).map_or(key, str::to_owned);
        let mut point = format!("l0.{name}");
        if let Some((statistic, _)) = statistic {
            key = format!("{statistic}_{key}");
            point = format!("{point}.{statistic}");
        }
        if spelled.quantity.unit == Unit::Seconds {
            key.push_str("_ms");
        }
        Self {
            spelled,
            statistic,
            point,
            log: (group, key),
        }
    }

    pub(crate) fn quantity(&self) -> &'static Quantity {
        self.spelled.quantity
    }

    /// Returns its CSV column: `wastedTokens`.
    #[cfg(feature = "csv")]
    pub(crate) fn column(&self) -> String {
        match self.statistic {
            Some((statistic, _)) => {
                crate::names::camel_case(&format!("{statistic} {}", self.spelled.words))
            }
            None => self.spelled.column.clone(),
        }
    }

    /// Returns its value. `None` if it is unknown, has counts by a label, or belongs to single attempts.
    pub(crate) fn value(&self, telemetry: &Telemetry) -> Option<Scalar> {
        match (self.quantity().value(telemetry)?, self.statistic) {
            (Value::Distribution(all), statistic) => {
                let (_, read) = statistic?;
                Some(Scalar::Real(millis(read(all)?)))
            }
            (value, _) => Some(Scalar::of(value)),
        }
    }

    /// Returns its value for a record of one run.
    pub(crate) fn in_record(&self, telemetry: &Telemetry) -> Option<Scalar> {
        if self.quantity().name == ATTEMPTS {
            return Some(Scalar::Count(telemetry.metrics.attempts.into()));
        }
        self.value(telemetry)
    }

    /// Returns the values of all attempts. Empty if it does not belong to single attempts.
    pub(crate) fn of_attempts(&self, telemetry: &Telemetry) -> Vec<Scalar> {
        let mut all = Vec::new();
        if self.quantity().is_of_attempts() {
            let mut read = |value: Value<'_>| all.push(Scalar::of(value));
            self.quantity().values(telemetry, &mut read);
        }
        all
    }

    /// Returns its counts by the values of its labels. `None` if they are unknown, or if it is a single
    /// number.
    pub(crate) fn counts(&self, telemetry: &Telemetry) -> Option<Counts> {
        Counts::of(self.quantity(), telemetry)
    }

    /// Returns `true` if a record has it.
    pub(crate) fn is_known(&self, telemetry: &Telemetry) -> bool {
        self.in_record(telemetry).is_some() || self.counts(telemetry).is_some()
    }

    /// Adds it to the map of a record under this key, if it is known.
    pub(crate) fn serialize_entry<M: SerializeMap>(
        &self,
        telemetry: &Telemetry,
        key: &str,
        map: &mut M,
    ) -> Result<(), M::Error> {
        if let Some(value) = self.in_record(telemetry) {
            map.serialize_entry(key, &value)
        } else if let Some(counts) = self.counts(telemetry) {
            map.serialize_entry(key, &counts)
        } else {
            Ok(())
        }
    }
}

/// Numbers by the values of labels, each once, in the order of the first occurrence.
pub(crate) struct Counts(pub(crate) Vec<(Vec<String>, Scalar)>);

impl Counts {
    /// Returns the counts of a quantity. `None` if they are unknown, or if it is a single number.
    pub(crate) fn of(quantity: &Quantity, telemetry: &Telemetry) -> Option<Self> {
        let mut counts: Vec<(Vec<String>, Scalar)> = Vec::new();
        let known = quantity.each(telemetry, &mut |labels, value| {
            let value = Scalar::of(value);
            match counts.iter_mut().find(|(known, _)| known == labels) {
                Some((_, total)) => *total = total.plus(value),
                None => {
                    let labels = labels.iter().map(|label| (*label).to_owned());
                    counts.push((labels.collect(), value));
                }
            }
        });
        known.then_some(Self(counts))
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        nested(&self.0, serializer)
    }
}

/// Serializes numbers by the values of their labels: a map for the first label, whose values are maps for the
/// next.
pub(crate) fn nested<T: Serialize, S: Serializer>(
    rows: &[(Vec<String>, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    /// The rows under one value of a label, and the depth of the next label.
    struct Under<'a, T>(Vec<&'a (Vec<String>, T)>, usize);

    impl<T: Serialize> Serialize for Under<'_, T> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let Self(rows, depth) = self;
            if let [(labels, value)] = &**rows {
                if labels.len() == *depth {
                    return value.serialize(serializer);
                }
            }
            let mut map = serializer.serialize_map(None)?;
            let mut done: Vec<&str> = Vec::new();
            for (labels, _) in rows {
                let Some(label) = labels.get(*depth) else {
                    continue;
                };
                if done.contains(&&**label) {
                    continue;
                }
                done.push(label);
                let of_label = |row: &&&(Vec<String>, T)| row.0.get(*depth) == Some(label);
                let under = rows.iter().filter(of_label).copied().collect();
                map.serialize_entry(label, &Under(under, depth + 1))?;
            }
            map.end()
        }
    }

    Under(rows.iter().collect(), 0).serialize(serializer)
}

/// One plain number: a count, or a number that can have decimals. Durations are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar {
    Count(u64),
    Real(f64),
    Money(Money),
}

impl Scalar {
    /// Converts a value. A distribution becomes its mean.
    pub(crate) fn of(value: Value<'_>) -> Self {
        match value {
            Value::Count(count) => Self::Count(count),
            Value::Duration(duration) => Self::Real(millis(duration)),
            Value::Amount(money) => Self::Money(money),
            Value::Distribution(all) => Self::Real(millis(all.mean().unwrap_or_default())),
            value => Self::Real(value.as_f64()),
        }
    }

    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Real(number) => number,
            Self::Money(money) => money.as_f64(),
        }
    }

    /// Adds two numbers. Counts saturate.
    pub(crate) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => Self::Count(a.saturating_add(b)),
            (Self::Money(a), Self::Money(b)) => Self::Money(a + b),
            (a, b) => Self::Real(a.as_f64() + b.as_f64()),
        }
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u64(*count),
            Self::Real(number) => serializer.serialize_f64(*number),
            Self::Money(money) => serializer.serialize_f64(money.as_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Core's list and these tables are in two files. A quantity that is renamed in the list would lose its
    /// spelling here.
    #[test]
    fn the_tables_name_only_known_quantities() {
        let keys = LOG_KEYS.iter().map(|(name, _)| *name);
        for name in keys.chain(TEXT_QUANTITIES).chain([ATTEMPTS]) {
            let known = Quantity::ALL.iter().any(|quantity| quantity.name == name);
            assert!(known, "no quantity `{name}`: update this table");
        }
    }

    #[test]
    fn spellings_are_unique() {
        let mut seen = BTreeSet::new();
        for number in NUMBERS.iter() {
            assert!(seen.insert(number.point.clone()), "{}", number.point);
            let (group, key) = &number.log;
            assert!(seen.insert(format!("log {group}.{key}")), "{group}.{key}");
        }
    }

    #[test]
    fn names_are_derived() {
        let spelled = |name| {
            let number = NUMBERS.iter().find(|number| number.point == name);
            let number = number.expect("a number");
            format!("{}.{}", number.log.0, number.log.1)
        };
        for (point, expected) in [
            ("l0.tokens.total", "metrics.tokens"),
            ("l0.tokens.per_second", "metrics.tokens_per_second"),
            ("l0.time_to_first_text", "metrics.time_to_first_text_ms"),
            ("l0.inter_token.p90", "metrics.p90_inter_token_time_ms"),
            ("l0.usage.cached_input", "usage.cached_input"),
            ("l0.network.errors", "network.error_count"),
            ("l0.network.errors_by_type", "network.errors_by_type"),
        ] {
            assert_eq!(spelled(point), expected);
        }
    }
}
