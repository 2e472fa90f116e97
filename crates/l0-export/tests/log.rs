//! The log record: the keys of the guide, and the `tracing` event.

use l0_core::{
    DriftReport, End, ErrorRecord, Failure, KeepReason, Monitor, Monitoring, Outcome, Severity,
    Telemetry, Violation,
};
use l0_export::log::LogRecord;
use serde_json::{Value, json};

/// The telemetry of a run with checks.
fn full() -> Telemetry {
    let mut telemetry = Telemetry::example();
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.record_violations(&[Violation::new("json", Severity::Error, "not JSON")]);
    monitor.record_drift(&DriftReport::new(["tone_shift"], 0.9));
    let recorded = monitor.telemetry().expect("on");
    (telemetry.guardrails, telemetry.drift) = (recorded.guardrails, recorded.drift);
    telemetry
}

/// The telemetry of a failed run with checks.
fn failed() -> Telemetry {
    let denied = std::io::Error::other(Failure::status(401));
    let mut telemetry = full();
    telemetry.outcome = Some(Outcome::Failed);
    telemetry.error = ErrorRecord::of(&End::failed(&denied));
    telemetry.kept = Some(KeepReason::Failed);
    telemetry
}

fn record(telemetry: &Telemetry) -> Value {
    serde_json::to_value(LogRecord::from(telemetry)).expect("serializes")
}

/// Asserts that a record has exactly these keys. Newer numbers are allowed in the groups for
/// numbers.
fn assert_record(record: &Value, expected: &Value) {
    let (record, expected) = (record.as_object(), expected.as_object());
    let (mut record, expected) = (record.expect("a map").clone(), expected.expect("a map"));
    for (key, expected) in expected {
        let mut value = record.remove(key).unwrap_or_default();
        if let (Value::Object(value), Value::Object(expected)) = (&mut value, expected) {
            if ["metrics", "usage", "network", "guardrails"].contains(&&**key) {
                value.retain(|key, value| expected.contains_key(key) || !is_numbers(value));
            }
        }
        assert_eq!(value, *expected, "{key}");
    }
    assert!(record.is_empty(), "{record:?}");
}

/// Returns `true` for a number, or numbers by a label.
fn is_numbers(value: &Value) -> bool {
    let map = value.as_object();
    value.is_number() || map.is_some_and(|map| map.values().all(Value::is_number))
}

#[test]
fn the_record_has_the_keys_of_the_guide_and_ours() {
    let telemetry = full();
    let gaps = telemetry.metrics.inter_token.as_ref().expect("gaps");
    let gap = |q| gaps.quantile(q).expect("not empty").as_nanos() as f64 / 1e6;
    assert_record(
        &record(&telemetry),
        &json!({
            "session_id": "l0_1700000000000_0123456789abc",
            "timestamp": 1_700_000_000_000_u64,
            "duration_ms": 1500.0,
            "outcome": "completed",
            "finish_reason": "stop",
            "metrics": {
                "tokens": 150,
                "tokens_per_second": 100.0,
                "output_tokens_per_second": 133.574,
                "time_to_first_token_ms": 250.0,
                "time_to_first_text_ms": 250.0,
                "avg_inter_token_time_ms": 7.445_945,
                "p50_inter_token_time_ms": gap(0.5),
                "p90_inter_token_time_ms": gap(0.9),
                "p99_inter_token_time_ms": gap(0.99),
                "max_inter_token_time_ms": 11.0,
                "consumer_hold_ms": 10.0,
                "wait_ms": 1490.0,
                "wasted_tokens": 1,
                "attempts": 2,
                "total_retries": 1,
                "network_retries": 1,
                "model_retries": 0,
            },
            "usage": { "input": 12, "output": 160, "total": 172 },
            "network": { "error_count": 1, "errors_by_type": { "connection_dropped": 1 } },
            "guardrails": {
                "violation_count": 1,
                "violations_by_severity": { "warning": 0, "error": 1, "fatal": 0 },
                "violations_by_rule": { "json": 1 },
            },
            "drift": { "detected": true, "types": ["tone_shift"] },
            "attempts": [
                {
                    "number": 1, "source": 1, "model": "gpt-4", "outcome": "failed", "tokens": 1,
                    "duration_ms": 260.0, "time_to_first_token_ms": 250.0,
                    "error": { "type": "connection_dropped", "message": "connection dropped" },
                },
                {
                    "number": 2, "source": 1, "model": "gpt-4", "outcome": "completed",
                    "tokens": 149, "delay_ms": 100.0, "duration_ms": 1140.0,
                    "time_to_first_token_ms": 20.0,
                },
            ],
            "metadata": { "endpoint": "/chat", "environment": "production", "model": "gpt-4" },
        }),
    );
}

#[test]
fn a_record_of_a_failed_run_includes_its_reason() {
    let telemetry = failed();
    let message = &telemetry.error.as_ref().expect("failed").message;
    let record = record(&telemetry);
    assert_eq!(record["outcome"], "failed");
    assert_eq!(record["kept"], "failed");
    assert_eq!(
        record["error"],
        json!({ "type": "401", "status": 401, "message": message })
    );
}

#[test]
fn unknown_values_are_absent() {
    assert_record(
        &record(&Telemetry::default()),
        &json!({
            "session_id": "",
            "timestamp": 0,
            "metrics": {
                "tokens": 0, "wasted_tokens": 0, "attempts": 0,
                "total_retries": 0, "network_retries": 0, "model_retries": 0,
            },
            "network": { "error_count": 0, "errors_by_type": {} },
        }),
    );
}

#[cfg(feature = "tracing")]
mod tracing {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// The output of a subscriber.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// Returns the events that `code` emits, as JSON by `tracing-subscriber`.
    fn emitted(code: impl FnOnce()) -> Vec<Value> {
        let written = Written::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_writer(written.clone())
            .finish();
        ::tracing::subscriber::with_default(subscriber, code);
        let bytes = written.0.lock().expect("whole");
        bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).expect("JSON"))
            .collect()
    }

    /// The fields that are emitted as JSON.
    const AS_JSON: [&str; 4] = [
        "network.errors_by_type",
        "drift.types",
        "attempts",
        "metadata",
    ];

    /// Joins the keys of a record's groups by dots.
    fn flattened(record: &Value) -> serde_json::Map<String, Value> {
        let mut flat = serde_json::Map::new();
        for (key, value) in record.as_object().expect("a map") {
            match value {
                Value::Object(part) if !AS_JSON.contains(&&**key) => {
                    let parts = part
                        .iter()
                        .map(|(inner, value)| (format!("{key}.{inner}"), value));
                    flat.extend(parts.map(|(key, value)| (key, value.clone())));
                }
                value => drop(flat.insert(key.clone(), value.clone())),
            }
        }
        flat
    }

    #[test]
    fn the_event_has_the_content_of_the_record() {
        for telemetry in [full(), failed()] {
            let events = emitted(|| LogRecord::from(&telemetry).emit());
            assert_eq!(events.len(), 1);
            assert_eq!(events[0]["target"], "l0");
            let mut fields = events[0]["fields"].as_object().expect("fields").clone();
            let message = fields.remove("message").expect("there");
            assert!(message.as_str().expect("text").starts_with("L0 execution"));
            let parsed = |value: &Value| -> Value {
                serde_json::from_str(value.as_str().expect("text")).expect("JSON")
            };
            for (key, value) in &mut fields {
                if AS_JSON.contains(&&**key) {
                    *value = parsed(value);
                }
            }
            let numbers = parsed(&fields.remove("numbers").expect("there"));
            for (key, value) in numbers.as_object().expect("a map") {
                let before = fields.insert(key.clone(), value.clone());
                assert_eq!(before, None, "{key} twice");
            }
            let mut expected = flattened(&record(&telemetry));
            let start = expected.remove("timestamp").expect("there");
            expected.insert("start_time".to_owned(), start);
            assert_eq!(fields, expected);
        }
    }

    #[test]
    fn numbers_that_logs_are_filtered_by_are_separate_fields() {
        let telemetry = failed();
        let message = &telemetry.error.as_ref().expect("failed").message;
        let events = emitted(|| LogRecord::from(&telemetry).emit());
        for (field, expected) in [
            ("session_id", json!(telemetry.session_id)),
            ("outcome", json!("failed")),
            ("error.type", json!("401")),
            ("error.status", json!(401)),
            ("error.message", json!(message)),
            ("duration_ms", json!(1500.0)),
            ("metrics.tokens", json!(150)),
            ("metrics.tokens_per_second", json!(100.0)),
            ("metrics.time_to_first_token_ms", json!(250.0)),
            ("metrics.total_retries", json!(1)),
            ("network.error_count", json!(1)),
            ("guardrails.violation_count", json!(1)),
        ] {
            assert_eq!(events[0]["fields"][field], expected, "{field}");
        }
        assert_eq!(events[0]["level"], "WARN");
    }

    #[test]
    fn a_run_that_did_not_complete_is_a_warning() {
        let ended = Outcome::ALL.iter().copied().chain([Outcome::Other]);
        let levels = [None].into_iter().chain(ended.map(Some));
        for outcome in levels {
            let mut telemetry = Telemetry::example();
            telemetry.outcome = outcome;
            let events = emitted(|| LogRecord::from(&telemetry).emit());
            let expected = match outcome {
                None => ("INFO", "L0 execution running"),
                Some(Outcome::Completed) => ("INFO", "L0 execution completed"),
                Some(_) => ("WARN", "L0 execution did not complete"),
            };
            let message = &events[0]["fields"]["message"];
            assert_eq!(
                (&events[0]["level"], message),
                (&expected.0.into(), &expected.1.into())
            );
        }
    }

    #[test]
    fn hostile_metadata_stays_in_its_field() {
        let mut telemetry = Telemetry::example();
        let hostile = "\n{\"level\":\"ERROR\"}\u{1b}[2J";
        telemetry.session_id = hostile.to_owned();
        telemetry.metadata.insert("note".to_owned(), hostile.into());
        let events = emitted(|| LogRecord::from(&telemetry).emit());
        assert_eq!(events.len(), 1);
        assert_eq!(events[0]["fields"]["session_id"], hostile);
    }
}
