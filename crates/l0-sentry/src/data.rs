//! Data: numbers and texts as breadcrumbs, contexts and spans carry them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use l0_core::Telemetry;
use sentry_core::protocol::Value;

/// What breadcrumbs, contexts and spans carry.
pub(crate) type Data = BTreeMap<String, Value>;

/// Entries; those without a value are left out.
pub(crate) fn data<const N: usize>(entries: [(&str, Option<Value>); N]) -> Data {
    let known = entries.into_iter();
    known
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
}

/// The numbers of a run: the guide's eight.
pub(crate) fn numbers(telemetry: &Telemetry) -> Data {
    let summary = telemetry.summary();
    data([
        ("session_id", Some(summary.session_id.into())),
        ("duration_ms", summary.duration.map(millis)),
        ("tokens", Some(summary.tokens.into())),
        (
            "tokens_per_second",
            summary.tokens_per_second.map(Value::from),
        ),
        ("ttft_ms", telemetry.metrics.time_to_first_token.map(millis)),
        ("retries", Some(summary.retries.into())),
        ("network_errors", Some(summary.network_errors.into())),
        ("guardrail_violations", Some(summary.violations.into())),
    ])
}

/// Milliseconds, as telemetry writes them: whole ones as integers.
pub(crate) fn millis(duration: Duration) -> Value {
    match u64::try_from(duration.as_millis()) {
        Ok(millis) if duration.subsec_nanos().is_multiple_of(1_000_000) => millis.into(),
        _ => (duration.as_nanos() as f64 / 1e6).into(),
    }
}

/// A value for a span, which takes no lists and maps: they become JSON.
pub(crate) fn primitive(value: &Value) -> Value {
    match value {
        Value::Array(_) | Value::Object(_) => value.to_string().into(),
        value => value.clone(),
    }
}

/// How much of a value of a run's metadata leaves, in bytes. Whoever asks for a run may have a say in
/// it, and Sentry takes nothing of what is too large in all.
const MAX_VALUE: usize = 512;

/// A value of metadata, whose text is cut if it is too long. A list or map that is, becomes the
/// beginning of its JSON.
pub(crate) fn cut(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(_) | Value::Object(_) => Cow::Owned(value.to_string()),
        number => return number.clone(),
    };
    if text.len() <= MAX_VALUE {
        return value.clone();
    }
    text[..text.floor_char_boundary(MAX_VALUE)].into()
}

#[cfg(test)]
mod tests {
    use l0_core::Telemetry;
    use serde_json::json;

    use super::*;

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
        assert_eq!(json!(numbers(&Telemetry::example())), expected);
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let expected = json!({
            "session_id": "",
            "tokens": 0,
            "retries": 0,
            "network_errors": 0,
            "guardrail_violations": 0,
        });
        assert_eq!(json!(numbers(&Telemetry::default())), expected);
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
    fn spans_get_no_lists_and_maps() {
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
