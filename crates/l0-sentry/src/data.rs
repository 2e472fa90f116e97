//! Numbers and texts in the form that breadcrumbs, contexts and spans have.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use l0_core::{Distribution, KeyList, Quantity, Telemetry, Unit, Value as Number, keys};
use sentry_core::protocol::Value;

/// The data of a breadcrumb, a context or a span.
pub(crate) type Data = BTreeMap<String, Value>;

/// Returns the entries that have a value.
pub(crate) fn data<const N: usize>(entries: [(&str, Option<Value>); N]) -> Data {
    let known = entries.into_iter();
    known
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
}

/// The keys from the monitoring guide that are not derived from a quantity's name.
const GUIDE: [(&str, &str); 4] = [
    ("tokens.total", "tokens"),
    ("time_to_first_token", "ttft_ms"),
    ("retries.total", "retries"),
    ("guardrails.violations", VIOLATIONS),
];

const VIOLATIONS: &str = "guardrail_violations";

/// Returns the numbers of a run: a key for each known quantity.
pub(crate) fn numbers(telemetry: &Telemetry) -> Data {
    let mut numbers = data([
        ("session_id", Some((&*telemetry.session_id).into())),
        // The monitoring guide has this number in every run, even without guardrails.
        (VIOLATIONS, Some(0.into())),
    ]);
    for quantity in Quantity::ALL {
        let value = quantity.value(telemetry);
        numbers.extend(value.into_iter().flat_map(|value| entries(quantity, value)));
        // The same label value can occur several times.
        let mut sums = BTreeMap::<_, Number<'_>>::new();
        quantity.each(telemetry, &mut |labels, value| {
            let sum = sums.remove(&labels.join("."));
            let sum = match (sum, value) {
                (Some(Number::Count(sum)), Number::Count(more)) => {
                    Number::Count(sum.saturating_add(more))
                }
                (Some(Number::Amount(sum)), Number::Amount(more)) => Number::Amount(sum + more),
                (_, value) => value,
            };
            sums.insert(labels.join("."), sum);
        });
        let sums = sums.iter();
        numbers.extend(sums.filter_map(|(label, sum)| labeled(quantity, label, *sum)));
    }
    numbers
}

/// Returns the entries of a quantity: one value, or five statistics of a distribution.
fn entries(quantity: &Quantity, value: Number<'_>) -> Vec<(String, Value)> {
    let key = |part| key(quantity, part);
    match value {
        Number::Count(count) => vec![(key(""), count.into())],
        Number::Rate(_) | Number::Amount(_) => vec![(key(""), value.as_f64().into())],
        Number::Duration(duration) => vec![(key(""), millis(duration))],
        Number::Distribution(all) => {
            let parts: [(_, fn(&Distribution) -> _); 5] = [
                ("_avg", Distribution::mean),
                ("_p50", Distribution::p50),
                ("_p90", Distribution::p90),
                ("_p99", Distribution::p99),
                ("_max", |all| all.quantile(1.0)),
            ];
            let known = parts.into_iter();
            let known = known.filter_map(|(part, read)| Some((key(part), millis(read(all)?))));
            known.collect()
        }
        // Kinds that a later version of core can add.
        _ => Vec::new(),
    }
}

/// Returns the key of a quantity, or of a statistic with this suffix.
fn key(quantity: &Quantity, part: &str) -> String {
    let mut guide = GUIDE.iter();
    if let Some((_, key)) = guide.find(|(name, _)| *name == quantity.name) {
        return (*key).to_owned();
    }
    let name = quantity.name.replace('.', "_");
    let unit = if quantity.unit == Unit::Seconds {
        "_ms"
    } else {
        ""
    };
    format!("{name}{part}{unit}")
}

/// Returns the entry of a quantity for the values of its labels. A quantity that counts runs has the label's value
/// as its value, because there is only one run.
fn labeled(quantity: &Quantity, label: &str, number: Number<'_>) -> Option<(String, Value)> {
    let name = *quantity.labels().first()?;
    let label = keys::cut(label, MAX_VALUE);
    let number = match number {
        Number::Count(0) => return None,
        Number::Count(count) => count.into(),
        number => number.as_f64().into(),
    };
    match quantity.unit {
        Unit::Each("run") => Some((name.to_owned(), label.into())),
        _ => Some((format!("{}.{label}", key(quantity, "")), number)),
    }
}

/// Returns a duration in milliseconds, in the format of the telemetry: whole milliseconds are integers.
pub(crate) fn millis(duration: Duration) -> Value {
    match u64::try_from(duration.as_millis()) {
        Ok(millis) if duration == Duration::from_millis(millis) => millis.into(),
        _ => (duration.as_nanos() as f64 / 1e6).into(),
    }
}

/// Returns a value for a span. Lists and maps become JSON, because spans cannot have them.
pub(crate) fn primitive(value: &Value) -> Value {
    match value {
        Value::Array(_) | Value::Object(_) => value.to_string().into(),
        value => value.clone(),
    }
}

/// The maximum size of a metadata value, in bytes. Metadata can come from an end user, and Sentry rejects an
/// envelope that is too large.
const MAX_VALUE: usize = KeyList::MAX_VALUE;

/// Returns a metadata value, cut if its text is too long. A list or map that is too long becomes the beginning of
/// its JSON.
pub(crate) fn cut(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(_) | Value::Object(_) => Cow::Owned(value.to_string()),
        number => return number.clone(),
    };
    if text.len() <= MAX_VALUE {
        return value.clone();
    }
    keys::cut(&text, MAX_VALUE).into()
}

#[cfg(test)]
mod tests {
    use l0_core::{Monitor, Monitoring, Severity, Violation};
    use serde_json::json;

    use super::*;

    /// The numbers that the monitoring guide shows.
    const EIGHT: [&str; 8] = [
        "session_id",
        "duration_ms",
        "tokens",
        "tokens_per_second",
        "ttft_ms",
        "retries",
        "network_errors",
        "guardrail_violations",
    ];

    fn eight(mut numbers: Data) -> Value {
        numbers.retain(|key, _| EIGHT.contains(&&**key));
        json!(numbers)
    }

    #[test]
    fn a_run_has_the_eight_numbers_of_the_guide() {
        let expected = json!({
            "session_id": "l0_1700000000000_0123456789abc",
            "duration_ms": 1500,
            "tokens": 150,
            "tokens_per_second": 100.0,
            "ttft_ms": 250,
            "retries": 1,
            "network_errors": 1,
            "guardrail_violations": 0,
        });
        assert_eq!(eight(numbers(&Telemetry::example())), expected);
    }

    #[test]
    fn unknown_numbers_are_absent() {
        let expected = json!({
            "session_id": "",
            "tokens": 0,
            "retries": 0,
            "network_errors": 0,
            "guardrail_violations": 0,
        });
        assert_eq!(eight(numbers(&Telemetry::default())), expected);
    }

    #[test]
    fn every_quantity_has_unique_keys() {
        let distribution = {
            let mut all = Distribution::new();
            all.record(Duration::from_millis(1));
            all
        };
        let mut seen = BTreeMap::new();
        for quantity in Quantity::ALL {
            let value = match quantity.unit {
                Unit::Seconds => Number::Distribution(&distribution),
                _ => Number::Count(1),
            };
            let keys = if quantity.is_labeled() {
                Vec::from_iter(labeled(quantity, "value", Number::Count(1)))
            } else {
                entries(quantity, value)
            };
            assert!(!keys.is_empty(), "{quantity:?}");
            for (key, _) in keys {
                let allowed = |c: char| c.is_ascii_lowercase() || "_.0123456789".contains(c);
                assert!(key.chars().all(allowed), "{key}");
                let before = seen.insert(key, quantity.name);
                assert!(
                    before.is_none_or(|name| name == quantity.name),
                    "{quantity:?} {before:?}"
                );
            }
        }
        for (name, _) in GUIDE {
            assert!(seen.values().any(|known| *known == name), "{name}");
        }
    }

    #[test]
    fn keys_are_derived_from_names_units_and_labels() {
        let mut telemetry = Telemetry::example();
        telemetry.metrics.time_to_first_text = Some(Duration::from_millis(300));
        let numbers = numbers(&telemetry);
        for (key, expected) in [
            ("time_to_first_text_ms", json!(300)),
            ("output_tokens_per_second", json!(133.574)),
            ("tokens_wasted", json!(1)),
            ("attempts.completed", json!(1)),
            ("attempts.failed", json!(1)),
            ("usage_input", json!(12)),
            ("consumer_hold_ms", json!(10)),
            ("inter_token_max_ms", json!(11)),
            ("network_errors_by_type.connection_dropped", json!(1)),
            ("outcome", json!("completed")),
        ] {
            assert_eq!(numbers.get(key), Some(&expected), "{key}");
        }
        assert!(numbers.contains_key("inter_token_p90_ms"), "{numbers:?}");
        assert!(!numbers.contains_key("error_type"), "{numbers:?}");
    }

    #[test]
    fn counts_by_label_leave_out_zeros() {
        let mut monitor = Monitor::new(Monitoring::new());
        let violation = Violation::new("json-structure", Severity::Warning, "Unbalanced braces");
        monitor.record_violations(&[violation]);
        monitor.complete(l0_core::End::of(l0_core::Cause::ZeroOutput));
        let numbers = numbers(&monitor.telemetry().unwrap());
        let broken_down = |key: &&String| key.contains('.');
        assert_eq!(
            numbers.keys().filter(broken_down).collect::<Vec<_>>(),
            [
                "guardrails_violations_by_rule.json-structure",
                "guardrails_violations_by_severity.warning",
            ]
        );
        assert_eq!(numbers["guardrail_violations"], 1);
        assert_eq!(
            (&numbers["outcome"], &numbers["error_type"]),
            (&json!("failed"), &json!("zero_output"))
        );
    }

    #[test]
    fn milliseconds_are_exact_to_the_nanosecond() {
        for (nanos, expected) in [
            (0, json!(0)),
            (1_500_000_000, json!(1500)),
            (1_500_001, json!(1.500001)),
            (400_000, json!(0.4)),
        ] {
            assert_eq!(millis(Duration::from_nanos(nanos)), expected);
        }
    }

    #[test]
    fn lists_and_maps_become_json_for_spans() {
        for (value, expected) in [
            (json!("a"), json!("a")),
            (json!(1.5), json!(1.5)),
            (json!(["a", 1]), json!("[\"a\",1]")),
            (json!({ "a": 1 }), json!("{\"a\":1}")),
        ] {
            assert_eq!(primitive(&value), expected);
        }
    }
}
