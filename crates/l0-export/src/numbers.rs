//! Numbers: core's one list of quantities, as the formats of this crate spell and write them.
//!
//! Names are derived. The tables here hold only those that the original L0 fixed, or that read badly
//! if they are derived.

use std::sync::LazyLock;
use std::time::Duration;

use l0_core::{Distribution, Money, Quantity, QuantityKind, Telemetry, Unit, Value};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::values::millis;

/// What a quantity is called in words, where that is not its own name with spaces. Columns of CSV,
/// keys of logs and headings of tables are made of the words.
const WORDS: [(&str, &str); 21] = [
    ("tokens.total", "tokens"),
    ("tokens.wasted", "wasted tokens"),
    ("retries.total", "retries"),
    ("retries.network", "network retries"),
    ("retries.model", "model retries"),
    ("guardrails.violations", "violations"),
    ("inter_token", "inter token time"),
    ("usage.input", "input tokens"),
    ("usage.output", "output tokens"),
    ("usage.total", "usage tokens"),
    ("usage.cached_input", "cached input tokens"),
    ("usage.cache_write_input", "cache write input tokens"),
    ("usage.reasoning", "reasoning tokens"),
    ("usage.wasted_input", "wasted input tokens"),
    ("usage.wasted_output", "wasted output tokens"),
    ("usage.estimated_input", "estimated input tokens"),
    ("usage.estimated_output", "estimated output tokens"),
    ("runs", "outcomes"),
    ("network.errors_by_type", "errors by type"),
    (
        "guardrails.violations_by_severity",
        "violations by severity",
    ),
    ("guardrails.violations_by_rule", "violations by rule"),
];

/// The parts of a log record that hold the quantities whose names begin so. All others are in
/// `metrics`.
const LOG_GROUPS: [&str; 3] = ["usage", "network", "guardrails"];

/// The keys of a log record that are not derived.
const LOG_KEYS: [(&str, &str); 3] = [
    ("retries.total", "total_retries"),
    ("network.errors", "error_count"),
    ("guardrails.violations", "violation_count"),
];

/// What a record of one run says in words: how it ended, the type of its error, whether it drifted.
const IN_WORDS: [&str; 3] = ["runs", "failures", "drift.detected"];

/// What a record of one run has as one number, whatever it is broken down by.
const ATTEMPTS: &str = "attempts";

/// A quantity, and how it is spelled.
#[derive(Debug)]
pub(crate) struct Spelled {
    pub(crate) quantity: &'static Quantity,
    /// In words: `wasted tokens`.
    pub(crate) words: String,
    /// As one word, for columns and keys of JSON: `wastedTokens`.
    pub(crate) column: String,
}

/// Every quantity, in the order of the list.
pub(crate) static QUANTITIES: LazyLock<Vec<Spelled>> = LazyLock::new(|| {
    let spelled = |quantity: &'static Quantity| {
        let words = match looked_up(&WORDS, quantity.name) {
            Some(words) => words.to_owned(),
            None => quantity.name.replace(['.', '_'], " "),
        };
        let column = camel_case(&words);
        Spelled {
            quantity,
            words,
            column,
        }
    };
    Quantity::ALL.iter().map(spelled).collect()
});

/// A number that one run has, or its counts by a label: a quantity, or a statistic of one that is a
/// distribution.
#[derive(Debug)]
pub(crate) struct Number {
    spelled: &'static Spelled,
    statistic: Option<&'static Statistic>,
    /// The name of its metric point: `l0.tokens.wasted`.
    pub(crate) point: String,
    /// The part of a log record that it is in, and its key there.
    pub(crate) log: (&'static str, String),
}

type Statistic = (&'static str, fn(&Distribution) -> Option<Duration>);

/// What is told of a distribution by what takes plain numbers only.
static STATISTICS: [Statistic; 5] = [
    ("avg", Distribution::mean),
    ("p50", Distribution::p50),
    ("p90", Distribution::p90),
    ("p99", Distribution::p99),
    ("max", |all| (!all.is_empty()).then_some(all.max())),
];

/// Every number, in the order of the list.
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

/// The numbers that a record of one run has beside what it says in words, and beside those of its
/// attempts.
pub(crate) fn numbers_of_records() -> impl Iterator<Item = &'static Number> {
    NUMBERS.iter().filter(|number| {
        let quantity = number.quantity();
        !IN_WORDS.contains(&quantity.name) && !quantity.is_of_attempts()
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
        let mut key = looked_up(&LOG_KEYS, name).map_or(key, str::to_owned);
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

    /// Its column in CSV: `wastedTokens`.
    #[cfg(feature = "csv")]
    pub(crate) fn column(&self) -> String {
        match self.statistic {
            Some((statistic, _)) => camel_case(&format!("{statistic} {}", self.spelled.words)),
            None => self.spelled.column.clone(),
        }
    }

    /// Reads it; absent if it is unknown, if it is counts by a label, or if each attempt has one.
    pub(crate) fn value(&self, telemetry: &Telemetry) -> Option<Scalar> {
        match (self.quantity().value(telemetry)?, self.statistic) {
            (Value::Distribution(all), statistic) => {
                let (_, read) = statistic?;
                Some(Scalar::Real(millis(read(all)?)))
            }
            (value, _) => Some(Scalar::of(value)),
        }
    }

    /// Reads it for a record of one run.
    pub(crate) fn in_record(&self, telemetry: &Telemetry) -> Option<Scalar> {
        if self.quantity().name == ATTEMPTS {
            return Some(Scalar::Count(telemetry.metrics.attempts.into()));
        }
        self.value(telemetry)
    }

    /// Reads those of all attempts; empty if it is no such number.
    pub(crate) fn of_attempts(&self, telemetry: &Telemetry) -> Vec<Scalar> {
        let mut all = Vec::new();
        if self.quantity().is_of_attempts() {
            let mut read = |value: Value<'_>| all.push(Scalar::of(value));
            self.quantity().values(telemetry, &mut read);
        }
        all
    }

    /// Reads its counts by the values of its label; absent if they are unknown, or if it is one
    /// number.
    pub(crate) fn counts(&self, telemetry: &Telemetry) -> Option<Counts> {
        Counts::of(self.quantity(), telemetry)
    }

    /// Whether a record has it.
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

/// Numbers by the values of labels, each once, in the order in which they are first read.
pub(crate) struct Counts(pub(crate) Vec<(Vec<String>, Scalar)>);

impl Counts {
    /// Reads those of a quantity; absent if they are unknown, or if it is one number.
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

/// Writes numbers by the values of labels: a map of the values of the first, which has those of the next.
pub(crate) fn nested<T: Serialize, S: Serializer>(
    rows: &[(Vec<String>, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    /// What stands under one value of a label.
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

fn looked_up(table: &[(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    let row = table.iter().find(|(of, _)| *of == name)?;
    Some(row.1)
}

fn camel_case(words: &str) -> String {
    let mut text = String::new();
    for word in words.split(' ') {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if !text.is_empty() => text.push(first.to_ascii_uppercase()),
            Some(first) => text.push(first),
            None => {}
        }
        text.push_str(letters.as_str());
    }
    text
}

/// One plain number: a count, or a number that may have decimals. Durations are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Scalar {
    Count(u64),
    Real(f64),
    Money(Money),
}

impl Scalar {
    /// Reads a value; of a distribution, its mean.
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

    /// Adds two numbers. What does not fit saturates.
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

    /// Core's list and these tables are two files: a row that was renamed there would lose its
    /// spelling here.
    #[test]
    fn the_tables_name_quantities_that_there_are() {
        let tables = WORDS.iter().chain(&LOG_KEYS).map(|(name, _)| *name);
        for name in tables.chain(IN_WORDS).chain([ATTEMPTS]) {
            let known = Quantity::ALL.iter().any(|quantity| quantity.name == name);
            assert!(known, "there is no quantity `{name}`: mend this table");
        }
    }

    #[test]
    fn no_two_numbers_are_spelled_alike() {
        let mut seen = BTreeSet::new();
        for number in NUMBERS.iter() {
            assert!(seen.insert(number.point.clone()), "{}", number.point);
            let (group, key) = &number.log;
            assert!(seen.insert(format!("log {group}.{key}")), "{group}.{key}");
        }
        for spelled in QUANTITIES.iter() {
            assert!(seen.insert(spelled.column.clone()), "{}", spelled.column);
        }
    }

    #[test]
    fn names_are_derived() {
        for (words, expected) in [
            ("tokens", "tokens"),
            ("tokens per second", "tokensPerSecond"),
            ("p50 inter token time", "p50InterTokenTime"),
        ] {
            assert_eq!(camel_case(words), expected);
        }
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
