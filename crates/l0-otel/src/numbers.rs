//! The metric and the attributes in which each number of a run is sent. Names of the conventions come from
//! their table. Everything else is derived from [`Quantity::ALL`].

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use l0_core::{Currency, Distribution, Quantity, QuantityKind, Telemetry, Unit, Value};
use opentelemetry::{Key, Value as AttributeValue};

use crate::conventions::{COUNTS, Metric, Number, RATES, SECONDS, Spelling, Table};

/// Returns the metric of a number and the number's token type there, or `None` if it has no metric.
pub(crate) fn metric(
    conventions: &Table,
    quantity: &Quantity,
) -> Option<(Metric, Option<&'static str>)> {
    let row = row(conventions, quantity);
    match row.map_or(Spelling::Own, |row| row.metric) {
        Spelling::Own => Some((own_metric(conventions, quantity), None)),
        Spelling::Named(metric) => Some((metric.clone(), row?.token_type)),
        Spelling::Nowhere => None,
    }
}

/// Returns the metric of a number under the number's own name.
pub(crate) fn own_metric(conventions: &Table, quantity: &Quantity) -> Metric {
    let boundaries = match (quantity.kind, quantity.unit) {
        (QuantityKind::Sum, _) => &[],
        (_, Unit::Each(_)) => COUNTS,
        (_, Unit::PerSecond(_)) => RATES,
        _ => SECONDS,
    };
    Metric {
        name: own_name(quantity.name).into(),
        unit: unit(quantity.unit),
        description: quantity.description,
        boundaries,
        attributes: conventions.attributes_of_numbers,
    }
}

/// Returns the unit in UCUM notation, which the conventions use.
fn unit(unit: Unit) -> Cow<'static, str> {
    match unit {
        Unit::Each(thing) => format!("{{{thing}}}").into(),
        Unit::PerSecond(thing) => format!("{{{thing}}}/s").into(),
        Unit::Seconds => "s".into(),
        _ => "1".into(),
    }
}

/// Returns the name of the attribute for a label of a number.
pub(crate) fn label(conventions: &Table, label: &str) -> Cow<'static, str> {
    match label {
        "error_type" => conventions.keys.error_type.into(),
        _ => own_name(label).into(),
    }
}

fn own_name(name: &str) -> String {
    format!("l0.{name}")
}

/// A number as an attribute of a span.
#[derive(Debug, Clone)]
pub(crate) struct SpanNumber {
    pub(crate) key: Key,
    quantity: &'static Quantity,
    /// The statistic to send, if the number is a distribution.
    statistic: Option<Statistic>,
}

type Statistic = fn(&Distribution) -> Option<Duration>;

/// The statistics of a distribution, each sent as one attribute.
const STATISTICS: [(&str, Statistic); 5] = [
    ("avg", Distribution::mean),
    ("p50", Distribution::p50),
    ("p90", Distribution::p90),
    ("p99", Distribution::p99),
    ("max", |all| Some(all.max())),
];

impl SpanNumber {
    /// Returns the numbers of a run's span. Numbers that are broken down by a label are left out.
    pub(crate) fn of_runs(conventions: &Table) -> Vec<Self> {
        let mut all = Vec::new();
        for quantity in Quantity::ALL {
            let mut add = |key, statistic| {
                all.push(Self {
                    key,
                    quantity,
                    statistic,
                });
            };
            let shared = |name: String| Key::from(Arc::<str>::from(name));
            let name = own_name(quantity.name);
            let row = row(conventions, quantity);
            match row.map_or(Spelling::Own, |row| row.attribute) {
                Spelling::Named(key) => add(Key::from_static_str(key), None),
                Spelling::Own if quantity.is_labeled() => {}
                Spelling::Own if quantity.kind == QuantityKind::Distribution => {
                    for (suffix, statistic) in STATISTICS {
                        add(shared(format!("{name}.{suffix}")), Some(statistic));
                    }
                }
                Spelling::Own => add(shared(name), None),
                Spelling::Nowhere => {}
            }
        }
        all
    }

    /// Returns the numbers of an attempt's span, which are read from the telemetry of the attempt alone.
    pub(crate) fn of_attempts(conventions: &Table) -> Vec<Self> {
        let all = Quantity::ALL.iter().filter_map(|quantity| {
            let keys = row(conventions, quantity)?.of_attempts.iter();
            Some(keys.map(|key| Self {
                key: Key::from_static_str(key),
                quantity,
                statistic: None,
            }))
        });
        all.flatten().collect()
    }

    /// Reads the number, or returns `None` if it is unknown.
    pub(crate) fn value(&self, telemetry: &Telemetry) -> Option<AttributeValue> {
        Some(match (single(self.quantity, telemetry)?, self.statistic) {
            (Value::Distribution(all), Some(statistic)) => {
                AttributeValue::F64(statistic(all)?.as_secs_f64())
            }
            (Value::Count(count), _) => whole(count),
            (value, _) => AttributeValue::F64(value.as_f64()),
        })
    }
}

/// Reads a number as a single value, or returns `None` if it is unknown. Money is in US dollars, because
/// backends assume that currency.
pub(crate) fn single<'t>(quantity: &Quantity, telemetry: &'t Telemetry) -> Option<Value<'t>> {
    let dollars = || {
        quantity
            .amount_in(Currency::USD, telemetry)
            .map(Value::Amount)
    };
    quantity.value(telemetry).or_else(dollars)
}

/// Returns the row of a number that is not sent under its own name.
fn row(conventions: &Table, quantity: &Quantity) -> Option<&'static Number> {
    let rows = &mut conventions.numbers.iter();
    rows.find(|row| row.quantity == quantity.name)
}

fn whole(number: u64) -> AttributeValue {
    AttributeValue::I64(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::conventions::Conventions;

    const CURRENT: &Table = Conventions::V1_41.table();

    #[test]
    fn each_row_of_the_conventions_names_an_existing_number_once() {
        let numbers: BTreeSet<_> = Quantity::ALL.iter().map(|one| one.name).collect();
        let rows = CURRENT.numbers.iter().map(|row| row.quantity);
        let listed: BTreeSet<_> = rows.clone().collect();
        assert!(listed.is_subset(&numbers), "{listed:?}");
        assert_eq!(rows.count(), listed.len(), "a number is listed twice");
    }

    #[test]
    fn no_two_numbers_have_the_same_name() {
        let mut names = BTreeSet::new();
        for quantity in Quantity::ALL {
            if let Some((metric, token_type)) = metric(CURRENT, quantity) {
                let name = (metric.name, token_type);
                assert!(names.insert(name), "{quantity:?}");
            }
        }
        let live = &CURRENT.metrics;
        for metric in [
            &live.active_runs,
            &live.runs,
            &live.failures,
            &live.retries,
            &live.network_errors,
            &live.violations,
            &live.drift,
            &live.fallbacks,
        ] {
            assert!(names.insert((metric.name.clone(), None)), "{metric:?}");
        }

        let mut keys: BTreeSet<_> = CURRENT.keys.all().map(Key::from_static_str).into();
        let numbers = SpanNumber::of_runs(CURRENT).into_iter();
        for number in numbers.chain(SpanNumber::of_attempts(CURRENT)) {
            assert!(keys.insert(number.key.clone()), "{number:?}");
        }
    }

    #[test]
    fn units_are_in_ucum_notation() {
        for (given, expected) in [
            (Unit::Seconds, "s"),
            (Unit::Each("token"), "{token}"),
            (Unit::PerSecond("token"), "{token}/s"),
        ] {
            assert_eq!(unit(given), expected);
        }
    }
}
