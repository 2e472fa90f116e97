//! The JSON of telemetry: it has the guide's names and types and no unknown fields, and reads back
//! equal.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use l0_core::testing::Script;
use l0_core::{
    AttemptStats, Cause, Distribution, DriftReport, DriftStats, End, ErrorRecord, Failure,
    FinishReason, GuardrailStats, KeepReason, L0, Monitor, Monitoring, NetworkErrorKind,
    NetworkErrorRecord, Outcome, Retry, Severity, Telemetry, Timestamp, Usage, Violation,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The guide's `interface L0Telemetry`, field by field: the path, the JSON type, and whether it is
/// optional. `*` stands for each key of a record, `[]` for each element of an array.
const GUIDE: &[(&str, &str, bool)] = &[
    ("sessionId", "string", false),
    ("startTime", "number", false),
    ("endTime", "number", true),
    ("duration", "number", true),
    ("metrics", "object", false),
    ("metrics.timeToFirstToken", "number", true),
    ("metrics.avgInterTokenTime", "number", true),
    ("metrics.tokensPerSecond", "number", true),
    ("metrics.totalTokens", "number", false),
    ("metrics.totalRetries", "number", false),
    ("metrics.networkRetries", "number", false),
    ("metrics.modelRetries", "number", false),
    ("network", "object", false),
    ("network.errorCount", "number", false),
    ("network.errorsByType", "object", false),
    ("network.errorsByType.*", "number", true),
    ("network.errors", "array", true),
    ("network.errors.[].type", "string", true),
    ("network.errors.[].message", "string", true),
    ("network.errors.[].timestamp", "number", true),
    ("network.errors.[].retried", "boolean", true),
    ("network.errors.[].delay", "number", true),
    ("guardrails", "object", true),
    ("guardrails.violationCount", "number", true),
    ("guardrails.violationsByRule", "object", true),
    ("guardrails.violationsByRule.*", "number", true),
    ("guardrails.violationsBySeverity", "object", true),
    ("guardrails.violationsBySeverity.warning", "number", true),
    ("guardrails.violationsBySeverity.error", "number", true),
    ("guardrails.violationsBySeverity.fatal", "number", true),
    ("drift", "object", true),
    ("drift.detected", "boolean", true),
    ("drift.types", "array", true),
    ("drift.types.[]", "string", true),
    ("metadata", "object", true),
];

/// Fields in addition to the guide's structure. None replaces a part of it.
const ADDED: &[(&str, &str)] = &[
    ("outcome", "string"),
    ("error", "object"),
    ("error.type", "string"),
    ("error.status", "number"),
    ("error.message", "string"),
    ("kept", "string"),
    ("finishReason", "string"),
    ("usage", "object"),
    ("usage.input", "number"),
    ("usage.output", "number"),
    ("usage.total", "number"),
    ("usage.cachedInput", "number"),
    ("usage.cacheWriteInput", "number"),
    ("usage.reasoning", "number"),
    ("wastedUsage", "object"),
    ("wastedUsage.input", "number"),
    ("wastedUsage.output", "number"),
    ("wastedUsage.total", "number"),
    ("wastedUsage.cachedInput", "number"),
    ("wastedUsage.cacheWriteInput", "number"),
    ("wastedUsage.reasoning", "number"),
    ("metrics.timeToFirstText", "number"),
    ("metrics.outputTokensPerSecond", "number"),
    ("metrics.wastedTokens", "number"),
    ("metrics.attempts", "number"),
    ("metrics.interToken", "object"),
    ("metrics.interToken.count", "number"),
    ("metrics.interToken.sum", "number"),
    ("metrics.interToken.max", "number"),
    ("metrics.interToken.p50", "number"),
    ("metrics.interToken.p90", "number"),
    ("metrics.interToken.p99", "number"),
    ("metrics.interToken.buckets", "array"),
    ("metrics.consumerHold", "number"),
    ("metrics.wait", "number"),
    ("network.errors.[].attempt", "number"),
    ("guardrails.violationsByRuleAndSeverity", "object"),
    ("guardrails.violationsByRuleAndSeverity.*.warning", "number"),
    ("guardrails.violationsByRuleAndSeverity.*.error", "number"),
    ("guardrails.violationsByRuleAndSeverity.*.fatal", "number"),
    ("parentId", "string"),
    ("attempts", "array"),
    ("attempts.[].number", "number"),
    ("attempts.[].count", "number"),
    ("attempts.[].source", "number"),
    ("attempts.[].model", "string"),
    ("attempts.[].provider", "string"),
    ("attempts.[].operation", "string"),
    ("attempts.[].startOffset", "number"),
    ("attempts.[].delay", "number"),
    ("attempts.[].duration", "number"),
    ("attempts.[].timeToFirstToken", "number"),
    ("attempts.[].tokens", "number"),
    ("attempts.[].outcome", "string"),
    ("attempts.[].error", "object"),
    ("attempts.[].error.type", "string"),
    ("attempts.[].error.status", "number"),
    ("attempts.[].error.message", "string"),
    ("attempts.[].finishReason", "string"),
    ("attempts.[].usage", "object"),
    ("attempts.[].usage.input", "number"),
    ("attempts.[].usage.output", "number"),
    ("attempts.[].usage.total", "number"),
    ("attempts.[].usage.cachedInput", "number"),
    ("attempts.[].usage.cacheWriteInput", "number"),
    ("attempts.[].usage.reasoning", "number"),
    ("attempts.[].responseModel", "string"),
    ("attempts.[].responseId", "string"),
    ("attempts.[].networkErrors", "object"),
    ("attempts.[].networkErrors.*", "number"),
    ("attempts.[].networkRetries", "number"),
    ("attempts.[].modelRetries", "number"),
    ("attempts.[].guardrails", "object"),
    ("attempts.[].guardrails.violationCount", "number"),
    ("attempts.[].guardrails.violationsByRule", "object"),
    ("attempts.[].guardrails.violationsByRule.*", "number"),
    ("attempts.[].guardrails.violationsBySeverity", "object"),
    (
        "attempts.[].guardrails.violationsBySeverity.warning",
        "number",
    ),
    (
        "attempts.[].guardrails.violationsBySeverity.error",
        "number",
    ),
    (
        "attempts.[].guardrails.violationsBySeverity.fatal",
        "number",
    ),
    (
        "attempts.[].guardrails.violationsByRuleAndSeverity",
        "object",
    ),
    (
        "attempts.[].guardrails.violationsByRuleAndSeverity.*.warning",
        "number",
    ),
    (
        "attempts.[].guardrails.violationsByRuleAndSeverity.*.error",
        "number",
    ),
    (
        "attempts.[].guardrails.violationsByRuleAndSeverity.*.fatal",
        "number",
    ),
    ("attempts.[].drift", "object"),
    ("attempts.[].drift.detected", "boolean"),
    ("attempts.[].drift.types", "array"),
    ("attempts.[].drift.types.[]", "string"),
    ("attempts.[].interToken", "object"),
    ("attempts.[].interToken.count", "number"),
    ("attempts.[].interToken.sum", "number"),
    ("attempts.[].interToken.max", "number"),
    ("attempts.[].interToken.p50", "number"),
    ("attempts.[].interToken.p90", "number"),
    ("attempts.[].interToken.p99", "number"),
    ("attempts.[].interToken.buckets", "array"),
];

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Returns every path in the JSON with its type, except inside metadata and buckets.
fn places(value: &Value) -> BTreeMap<String, &'static str> {
    const RECORDS: [&str; 6] = [
        "attempts.[].networkErrors",
        "attempts.[].guardrails.violationsByRule",
        "attempts.[].guardrails.violationsByRuleAndSeverity",
        "network.errorsByType",
        "guardrails.violationsByRule",
        "guardrails.violationsByRuleAndSeverity",
    ];
    fn walk(value: &Value, path: &str, places: &mut BTreeMap<String, &'static str>) {
        let join = |key: &str| match path {
            "" => key.to_owned(),
            _ => format!("{path}.{key}"),
        };
        match value {
            _ if path == "metadata" || path.ends_with("interToken.buckets") => {}
            Value::Object(map) => {
                for (key, value) in map {
                    let path = join(if RECORDS.contains(&path) { "*" } else { key });
                    let known = places.insert(path.clone(), type_of(value));
                    assert!(known.is_none_or(|known| known == type_of(value)), "{path}");
                    walk(value, &path, places);
                }
            }
            Value::Array(list) => {
                let path = join("[]");
                for value in list {
                    if !value.is_object() {
                        places.insert(path.clone(), type_of(value));
                    }
                    walk(value, &path, places);
                }
            }
            _ => {}
        }
    }
    let mut all = BTreeMap::new();
    walk(value, "", &mut all);
    all
}

/// Returns telemetry with every field known.
fn full() -> Telemetry {
    let mut telemetry = Telemetry::example();
    telemetry.outcome = Some(Outcome::Failed);
    telemetry.error = Some(denied());
    telemetry.usage = Some(
        Usage::new()
            .input(12)
            .output(160)
            .total(172)
            .cached_input(8)
            .cache_write_input(2)
            .reasoning(40),
    );
    telemetry.wasted_usage = telemetry.usage;
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.record_violations(&[
        Violation::new("json", Severity::Error, "not balanced"),
        Violation::new("json", Severity::Warning, "odd"),
        Violation::new("pattern", Severity::Fatal, "leaked"),
    ]);
    monitor.record_drift(&DriftReport::new(["tone_shift", "format"], 0.8));
    let recorded = monitor.telemetry().expect("measured");
    telemetry.guardrails = recorded.guardrails;
    telemetry.drift = recorded.drift;
    telemetry.parent_id = Some("l0_1_parent".to_owned());
    telemetry.kept = Some(KeepReason::Failed);
    let last = &mut telemetry.attempts[1];
    last.count = 2;
    last.provider = Some("openai".to_owned());
    last.operation = Some("chat".to_owned());
    last.outcome = telemetry.outcome;
    last.error = telemetry.error.clone();
    last.usage = telemetry.usage;
    last.response_model = Some("gpt-4-0613".to_owned());
    last.response_id = Some("resp_1".to_owned());
    last.model_retries = 1;
    last.guardrails = telemetry.guardrails.clone();
    last.drift = telemetry.drift.clone();
    telemetry
}

fn denied() -> ErrorRecord {
    let mut error = ErrorRecord::default();
    error.error_type = "401".into();
    error.status = Some(401);
    error.message = "status 401 Unauthorized".to_owned();
    error
}

fn json_of(telemetry: &Telemetry) -> Value {
    serde_json::to_value(telemetry).expect("serializes")
}

#[test]
fn every_field_of_the_guides_interface_is_present_and_all_other_fields_are_listed() {
    let full = places(&json_of(&full()));
    for (path, json_type, _) in GUIDE {
        assert_eq!(full.get(*path), Some(json_type), "{path}");
    }
    for (path, json_type) in ADDED {
        assert_eq!(full.get(*path), Some(json_type), "{path}");
    }
    for path in full.keys() {
        let record = |known: &str| *path == format!("{known}.*");
        let known = GUIDE.iter().map(|(known, ..)| *known);
        assert!(
            known
                .chain(ADDED.iter().map(|(known, _)| *known))
                .any(|known| known == path || record(known)),
            "{path} is new"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn minimal_telemetry_has_the_guides_required_fields_and_unknown_values_are_absent() {
    let required: Vec<_> = GUIDE.iter().filter(|(.., optional)| !optional).collect();
    let least = Monitoring::new()
        .include_timings(false)
        .include_network_details(false);
    let script = Script::new().attempt(|a| a.fail(Failure::fatal()));
    let l0 = L0::builder().monitoring(least).build();
    let mut run = l0.stream(script.source()).start();
    let live = run.telemetry().expect("measured");
    run.text().await.expect_err("fails");
    let ended = run.telemetry().expect("measured");

    let ends = [
        "attempts",
        "attempts.[].duration",
        "attempts.[].error",
        "attempts.[].error.message",
        "attempts.[].error.type",
        "attempts.[].number",
        "attempts.[].outcome",
        "attempts.[].source",
        "attempts.[].startOffset",
        "attempts.[].tokens",
        "duration",
        "endTime",
        "error",
        "error.message",
        "error.type",
        "kept",
        "outcome",
    ];
    for (name, telemetry, more) in [
        ("default", Telemetry::default(), &[][..]),
        ("live", live, &[]),
        ("ended", ended, &ends),
    ] {
        let places = places(&json_of(&telemetry));
        for (path, json_type, _) in &required {
            assert_eq!(places.get(*path), Some(json_type), "{name}: {path}");
        }
        let others = places.keys().filter(|path| {
            let counts = ["metrics.attempts", "metrics.wastedTokens"];
            !required.iter().any(|(required, ..)| required == path)
                && !counts.contains(&path.as_str())
        });
        assert_eq!(Vec::from_iter(others), more, "{name}");
    }
}

#[test]
fn the_json_has_the_documented_form() {
    let mut telemetry = full();
    let mut gaps = Distribution::new();
    gaps.record(Duration::from_millis(4));
    gaps.record(Duration::from_micros(6_500));
    telemetry.metrics.inter_token = Some(gaps);
    telemetry.metrics.avg_inter_token_time = Some(Duration::from_micros(5_250));
    telemetry.metrics.tokens_per_second = Some(99.999_6);
    telemetry.wasted_usage = Some(Usage::new().input(5).output(30).total(35));
    telemetry.attempts[1].inter_token = telemetry.metrics.inter_token.clone();
    telemetry.attempts[1].guardrails = None;
    let mut json = json_of(&telemetry);
    for place in ["/metrics/interToken", "/attempts/1/interToken"] {
        let gaps = json.pointer_mut(place).and_then(Value::as_object_mut);
        let gaps = gaps.expect("an object");
        for estimated in ["buckets", "p50"] {
            gaps.remove(estimated).expect("there");
        }
    }
    let attempts = json!([
        {
            "number": 1,
            "source": 1,
            "model": "gpt-4",
            "startOffset": 0,
            "duration": 260,
            "timeToFirstToken": 250,
            "tokens": 1,
            "outcome": "failed",
            "error": {"type": "connection_dropped", "message": "connection dropped"},
            "networkErrors": {"connection_dropped": 1},
            "networkRetries": 1,
        },
        {
            "number": 2,
            "count": 2,
            "source": 1,
            "model": "gpt-4",
            "provider": "openai",
            "operation": "chat",
            "startOffset": 360,
            "delay": 100,
            "duration": 1_140,
            "timeToFirstToken": 20,
            "tokens": 149,
            "interToken": {"count": 2, "sum": 10.5, "max": 6.5, "p90": 6.5, "p99": 6.5},
            "outcome": "failed",
            "error": {"type": "401", "status": 401, "message": "status 401 Unauthorized"},
            "finishReason": "stop",
            "usage": {
                "input": 12, "output": 160, "total": 172, "cachedInput": 8,
                "cacheWriteInput": 2, "reasoning": 40,
            },
            "responseModel": "gpt-4-0613",
            "responseId": "resp_1",
            "modelRetries": 1,
            "drift": {"detected": true, "types": ["tone_shift", "format"]},
        },
    ]);
    assert_eq!(
        json,
        json!({
            "sessionId": "l0_1700000000000_0123456789abc",
            "parentId": "l0_1_parent",
            "startTime": 1_700_000_000_000_u64,
            "endTime": 1_700_000_001_500_u64,
            "duration": 1_500,
            "outcome": "failed",
            "error": {"type": "401", "status": 401, "message": "status 401 Unauthorized"},
            "kept": "failed",
            "finishReason": "stop",
            "usage": {
                "input": 12, "output": 160, "total": 172, "cachedInput": 8, "cacheWriteInput": 2,
                "reasoning": 40,
            },
            "wastedUsage": {"input": 5, "output": 30, "total": 35},
            "metrics": {
                "timeToFirstToken": 250,
                "timeToFirstText": 250,
                "avgInterTokenTime": 5.25,
                "tokensPerSecond": 100.0,
                "outputTokensPerSecond": 133.574,
                "totalTokens": 150,
                "wastedTokens": 1,
                "attempts": 2,
                "totalRetries": 1,
                "networkRetries": 1,
                "modelRetries": 0,
                "interToken": {"count": 2, "sum": 10.5, "max": 6.5, "p90": 6.5, "p99": 6.5},
                "consumerHold": 10,
                "wait": 1_490,
            },
            "network": {
                "errorCount": 1,
                "errorsByType": {"connection_dropped": 1},
                "errors": [{
                    "type": "connection_dropped",
                    "message": "broken pipe",
                    "timestamp": 1_700_000_000_260_u64,
                    "retried": true,
                    "delay": 100,
                    "attempt": 1,
                }],
            },
            "guardrails": {
                "violationCount": 3,
                "violationsByRule": {"json": 2, "pattern": 1},
                "violationsBySeverity": {"warning": 1, "error": 1, "fatal": 1},
                "violationsByRuleAndSeverity": {
                    "json": {"warning": 1, "error": 1, "fatal": 0},
                    "pattern": {"warning": 0, "error": 0, "fatal": 1},
                },
            },
            "drift": {"detected": true, "types": ["tone_shift", "format"]},
            "attempts": attempts,
            "metadata": {"model": "gpt-4", "endpoint": "/chat", "environment": "production"},
        })
    );
}

#[test]
fn whole_milliseconds_are_written_as_integers_and_others_with_nanosecond_precision() {
    for (duration, written) in [
        (Duration::ZERO, "0"),
        (Duration::from_millis(1), "1"),
        (Duration::from_secs(8_640_000), "8640000000"),
        (Duration::from_micros(1_500), "1.5"),
        (Duration::from_nanos(1), "0.000001"),
        (Duration::from_nanos(1_234_567_891), "1234.567891"),
        (Duration::from_nanos(999_999), "0.999999"),
    ] {
        let mut telemetry = Telemetry::default();
        telemetry.duration = Some(duration);
        let json = json_of(&telemetry);
        let text = json["duration"].to_string();
        // `1e-6` is the same number.
        let number: f64 = text.parse().expect("a number");
        assert_eq!(number.to_string(), written, "{duration:?}");
        assert_eq!(
            json["duration"].is_u64(),
            !written.contains('.'),
            "{duration:?}"
        );
    }
}

#[test]
fn later_names_of_retries_are_read_and_unknown_fields_are_ignored() {
    let seed = json!({
        "sessionId": "l0_1_a",
        "startTime": 1,
        "metrics": {"totalTokens": 5, "totalRetries": 3, "networkRetries": 2, "modelRetries": 1},
        "network": {"errorCount": 0, "errorsByType": {}},
    });
    let later = json!({
        "sessionId": "l0_1_a",
        "startTime": 1,
        "someday": {"nested": [1, null]},
        "continuation": {"enabled": true, "used": false, "continuationCount": 0},
        "metrics": {
            "totalTokens": 5, "totalRetries": 3, "networkRetryCount": 2, "modelRetryCount": 1,
            "novel": "x",
        },
        "network": {"errorCount": 0, "errorsByType": {}, "novel": null},
    });
    let seed: Telemetry = serde_json::from_value(seed).expect("reads");
    let later: Telemetry = serde_json::from_value(later).expect("reads");
    assert_eq!(seed.metrics.network_retries, 2);
    assert_eq!(seed.metrics.model_retries, 1);
    assert_eq!(seed, later);

    let nulls = json!({"sessionId": "l0_1_a", "duration": null, "usage": null, "outcome": null});
    let nulls: Telemetry = serde_json::from_value(nulls).expect("reads");
    assert_eq!((nulls.duration, nulls.usage), (None, None));
}

#[test]
fn unknown_labels_read_as_other_and_do_not_lose_the_rest_of_the_record() {
    let newer = json!({
        "sessionId": "l0_1_a",
        "startTime": 1,
        "duration": 1_500,
        "outcome": "postponed",
        "error": {"type": "novel", "status": 599, "message": "new", "cause": {"deep": [1]}},
        "kept": "on_a_whim",
        "finishReason": "bored",
        "metrics": {"totalTokens": 5, "attempts": 1, "novel": {"a": 1}},
        "network": {
            "errorCount": 10,
            "errorsByType": {
                "timeout": 1, "of_tomorrow": 2, "of_next_year": 3, "other": 4,
            },
            "errors": [{
                "type": "of_tomorrow", "message": "m", "timestamp": 2, "retried": true, "delay": 100,
                "novel": true,
            }],
        },
        "guardrails": {
            "violationCount": 3,
            "violationsByRule": {"json": 3},
            "violationsBySeverity": {"warning": 1, "error": 1, "fatal": 0, "curious": 1},
        },
        "drift": {"detected": true, "types": ["novel"], "confidence": 0.5},
        "metadata": {"model": "gpt-9"},
        "attempts": [{"number": 1}],
    });
    let text = newer.to_string();
    let read: Telemetry = serde_json::from_value(newer).expect("reads");
    assert_eq!(read.session_id, "l0_1_a");
    assert_eq!(read.duration, Some(Duration::from_millis(1_500)));
    assert_eq!(read.outcome, Some(Outcome::Other));
    assert_eq!(read.finish_reason, Some(FinishReason::Other));
    assert_eq!(read.kept, Some(KeepReason::Other));
    let error = read.error.as_ref().expect("there");
    assert_eq!((&*error.error_type, error.status), ("novel", Some(599)));
    assert_eq!(error.message, "new");
    assert_eq!((read.metrics.total_tokens, read.metrics.attempts), (5, 1));
    assert_eq!(read.network.error_count, 10);
    assert_eq!(
        Vec::from_iter(read.network.errors_by_type.clone()),
        [(NetworkErrorKind::Timeout, 1), (NetworkErrorKind::Other, 9),],
        "unknown labels add up"
    );
    let errors = read.network.errors.as_ref().expect("details");
    assert_eq!(errors[0].kind, NetworkErrorKind::Other);
    assert_eq!(errors[0].delay(), Some(Duration::from_millis(100)));
    let guardrails = read.guardrails.as_ref().expect("checked");
    assert_eq!(guardrails.violations_by_rule["json"], 3);
    assert_eq!(guardrails.violations_by_severity.error, 1);
    assert_eq!(read.drift.as_ref().expect("checked").types, ["novel"]);
    assert_eq!(read.metadata["model"], "gpt-9");

    // From a reader as from memory. The result is written and read back once more.
    let from_file: Telemetry = serde_json::from_reader(text.as_bytes()).expect("reads");
    assert_eq!(from_file, read);
    let again: Telemetry = serde_json::from_value(json_of(&read)).expect("reads");
    assert_eq!(again, read);
}

#[test]
fn counts_of_unknown_types_do_not_overflow() {
    let json = json!({"network": {"errorsByType": {"novel": u64::MAX, "another": 1}}});
    let read: Telemetry = serde_json::from_value(json).expect("reads");
    assert_eq!(
        Vec::from_iter(read.network.errors_by_type),
        [(NetworkErrorKind::Other, u64::MAX)]
    );
}

#[test]
fn a_long_list_of_attempts_is_read_as_a_short_one_with_the_same_sums() {
    let many = 10_000;
    let attempts: Vec<_> = (1..=many)
        .map(|number| json!({"number": number, "tokens": number}))
        .collect();
    let read: Telemetry = serde_json::from_value(json!({ "attempts": attempts })).expect("reads");
    assert_eq!(read.attempts.len(), AttemptStats::MAX);
    assert!(read.attempts.capacity() <= 2 * AttemptStats::MAX);
    let count: u32 = read.attempts.iter().map(|attempt| attempt.count).sum();
    assert_eq!(count, many);
    let tokens: u64 = read.attempts.iter().map(|attempt| attempt.tokens).sum();
    assert_eq!(tokens, u64::from(many) * u64::from(many + 1) / 2);
    // The last entry is the final attempt.
    let last = read.attempts.last().expect("a last one");
    assert_eq!((last.number, last.count), (many, 1));
}

#[test]
fn records_from_before_errors_were_recorded_read_without_one() {
    let older = json!({
        "sessionId": "l0_1_a",
        "startTime": 1,
        "duration": 20,
        "outcome": "failed",
        "metrics": {"totalTokens": 0, "totalRetries": 0, "networkRetries": 0, "modelRetries": 0},
        "network": {"errorCount": 0, "errorsByType": {}},
    });
    let read: Telemetry = serde_json::from_value(older).expect("reads");
    assert_eq!(read.outcome, Some(Outcome::Failed));
    assert_eq!(read.error, None);
    assert_eq!(json_of(&read).get("error"), None);
}

#[test]
fn an_error_is_written_with_type_status_and_message_unless_the_run_completed_or_was_dropped() {
    fn error_of(end: End) -> Option<Value> {
        let mut monitor = Monitor::new(Monitoring::new());
        monitor.complete(end);
        let telemetry = monitor.telemetry().expect("measured");
        let mut json = json_of(&telemetry);
        let read: Telemetry = serde_json::from_value(json.clone()).expect("reads");
        assert_eq!(read, telemetry);
        json.as_object_mut().expect("an object").remove("error")
    }
    assert_eq!(error_of(End::completed()), None);
    assert_eq!(error_of(End::dropped()), None);
    assert_eq!(
        error_of(End::of(Cause::Truncated)),
        Some(json!({
            "type": "truncated",
            "message": "the stream ended without a finish reason",
        }))
    );
    assert_eq!(
        error_of(End::refused("the budget is spent")),
        Some(json!({"type": "refused", "message": "refused: the budget is spent"}))
    );
    let quota = End::failed(&Failure::status(429));
    let message = quota.message().expect("it failed").to_owned();
    assert!(message.contains("status 429"), "{message}");
    assert_eq!(
        error_of(quota),
        Some(json!({"type": "rate_limited", "status": 429, "message": message}))
    );
}

#[test]
fn a_duration_of_any_length_reads_back() {
    for long in [
        Duration::MAX,
        Duration::from_secs(1 << 40),
        Duration::MAX / 3,
    ] {
        let mut telemetry = full();
        telemetry.duration = Some(long);
        let error = NetworkErrorRecord::new(
            NetworkErrorKind::Timeout,
            "timed out",
            Timestamp::from_millis(1),
        );
        telemetry.network.errors = Some(vec![error.retried(Some(long))]);
        let read: Telemetry = serde_json::from_value(json_of(&telemetry)).expect("reads back");
        assert!(read.duration > Some(Duration::from_secs(500 * 365 * 86_400)));
        telemetry.duration = read.duration;
        telemetry.network.errors = read.network.errors.clone();
        assert_eq!(read, telemetry);
    }
}

#[test]
fn an_invalid_duration_is_absent_and_one_too_long_is_clamped_without_losing_the_record() {
    let longest = Duration::from_millis(u64::MAX / 1_000_000);
    for (number, expected) in [
        (json!(-1), None),
        (json!(-0.25), None),
        (json!(i64::MIN), None),
        (json!(-1e300), None),
        (json!(null), None),
        (json!(-0.0), Some(Duration::ZERO)),
        (json!(0), Some(Duration::ZERO)),
        (json!(1.5), Some(Duration::from_micros(1_500))),
        (json!(u64::MAX), Some(longest)),
        (json!(1e300), Some(longest)),
    ] {
        let json = json!({
            "sessionId": "l0_1_a",
            "duration": number,
            "metrics": {
                "totalTokens": 5, "timeToFirstToken": number, "consumerHold": number, "wait": number,
            },
            "network": {"errors": [{
                "type": "timeout", "message": "m", "timestamp": 2, "retried": true, "delay": number,
            }]},
        });
        let from_file = serde_json::from_reader::<_, Telemetry>(json.to_string().as_bytes());
        for read in [serde_json::from_value(json), from_file] {
            let read: Telemetry = read.expect("reads");
            let errors = read.network.errors.as_ref().expect("details");
            let durations = [
                read.duration,
                read.metrics.time_to_first_token,
                read.metrics.consumer_hold,
                read.metrics.wait,
                errors[0].delay(),
            ];
            assert_eq!(durations, [expected; 5], "{number}");
            assert_eq!(
                (&*read.session_id, read.metrics.total_tokens),
                ("l0_1_a", 5)
            );
            let again: Telemetry = serde_json::from_value(json_of(&read)).expect("reads back");
            assert_eq!(again, read, "{number}");
        }
    }
}

#[test]
fn a_value_that_is_not_a_number_is_rejected_as_a_duration() {
    for bad in [json!("1"), json!([1]), json!({}), json!(true)] {
        let json = json!({"duration": bad});
        serde_json::from_value::<Telemetry>(json).expect_err("refused");
    }
}

#[test]
fn every_label_of_every_enum_is_written_and_read_back() {
    for outcome in Outcome::ALL {
        assert_eq!(json!(outcome), json!(outcome.as_str()));
        let read: Outcome = serde_json::from_value(json!(outcome)).expect("reads");
        assert_eq!(read, *outcome);
    }
    for kind in NetworkErrorKind::ALL {
        assert_eq!(json!(kind), json!(kind.as_str()));
        let read: NetworkErrorKind = serde_json::from_value(json!(kind)).expect("reads");
        assert_eq!(read, *kind);
    }
    for finish in FinishReason::ALL {
        assert_eq!(json!(finish), json!(finish.as_str()));
        let read: FinishReason = serde_json::from_value(json!(finish)).expect("reads");
        assert_eq!(read, *finish);
    }
    let novel = || json!("novel");
    let unknown: FinishReason = serde_json::from_value(novel()).expect("reads");
    assert_eq!(unknown, FinishReason::Other);
    let unknown: Outcome = serde_json::from_value(novel()).expect("reads");
    assert_eq!(unknown, Outcome::Other);
    let unknown: NetworkErrorKind = serde_json::from_value(novel()).expect("reads");
    assert_eq!(unknown, NetworkErrorKind::Other);
    // Labels that are only read are in no list of written labels.
    assert!(!Outcome::ALL.contains(&Outcome::Other));
    assert!(!NetworkErrorKind::ALL.contains(&NetworkErrorKind::Other));
}

#[tokio::test(start_paused = true)]
async fn the_telemetry_of_real_runs_reads_back_equal() {
    let ms = Duration::from_millis;
    let script = Script::new()
        .attempt(|a| {
            let a = a.wait(ms(7)).token("a").usage(Usage::new().input(5));
            a.fail(Failure::status(503))
        })
        .attempt(|a| {
            (1..50)
                .fold(a, |a, wait| a.wait(ms(wait)).token("a"))
                .usage(Usage::new().output(7))
                .finish(FinishReason::Length)
        });
    let mut run = L0::builder()
        .monitoring(Monitoring::new().metadata("temperature", 0.1 + 0.2))
        .retry(Retry::new())
        .build()
        .stream(script.source())
        .start();
    run.text().await.expect("answered");
    let telemetry = run.telemetry().expect("measured");
    let json = serde_json::to_string(&telemetry).expect("serializes");
    assert_eq!(
        serde_json::from_str::<Telemetry>(&json).expect("reads"),
        telemetry
    );
}

/// Up to a hundred days. A JSON number cannot hold nanoseconds beyond that.
fn duration() -> impl Strategy<Value = Duration> {
    const DAYS: u64 = 99 * 24 * 60 * 60 * 1_000_000_000;
    prop_oneof![
        (0..=DAYS).prop_map(Duration::from_nanos),
        (0_u64..10_000_000_000).prop_map(Duration::from_nanos),
        (0_u64..1_000_000).prop_map(Duration::from_millis),
    ]
}

fn rate() -> impl Strategy<Value = f64> {
    (0_u64..10_000_000_000).prop_map(|thousandths| thousandths as f64 / 1e3)
}

fn metadata() -> impl Strategy<Value = BTreeMap<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        (-1.0..1.0).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    btree_map(".{0,12}", value, 0..4)
}

fn distribution() -> impl Strategy<Value = Distribution> {
    vec(duration(), 1..40).prop_map(|gaps| {
        let mut distribution = Distribution::new();
        for gap in gaps {
            distribution.record(gap / 64);
        }
        distribution
    })
}

fn record() -> impl Strategy<Value = NetworkErrorRecord> {
    let kind = proptest::sample::select(NetworkErrorKind::ALL);
    let rest = (
        any::<String>(),
        any::<u64>(),
        any::<bool>(),
        option::of(duration()),
        option::of(any::<u32>()),
    );
    (kind, rest).prop_map(|(kind, (message, timestamp, retried, delay, attempt))| {
        let timestamp = Timestamp::from_millis(timestamp);
        let mut record = NetworkErrorRecord::new(kind, message, timestamp);
        record.attempt = attempt;
        if retried {
            record = record.retried(delay);
        }
        record
    })
}

fn error() -> impl Strategy<Value = ErrorRecord> {
    let parts = (any::<String>(), option::of(any::<u16>()), any::<String>());
    parts.prop_map(|(error_type, status, message)| {
        let mut error = ErrorRecord::default();
        error.error_type = error_type.into();
        error.status = status;
        error.message = message;
        error
    })
}

fn usage() -> impl Strategy<Value = Usage> {
    let count = || option::of(any::<u64>());
    let counts = (count(), count(), count(), count(), count(), count());
    counts.prop_map(|(input, output, total, cached, written, reasoning)| {
        let mut usage = Usage::new();
        (usage.input, usage.output, usage.total) = (input, output, total);
        (usage.cached_input, usage.cache_write_input) = (cached, written);
        usage.reasoning = reasoning;
        usage
    })
}

fn guardrails() -> impl Strategy<Value = GuardrailStats> {
    let severity =
        proptest::sample::select(vec![Severity::Warning, Severity::Error, Severity::Fatal]);
    vec((".{0,8}", severity), 0..8).prop_map(|found| {
        let violations: Vec<_> = found
            .into_iter()
            .map(|(rule, severity)| Violation::new(rule, severity, "found"))
            .collect();
        let mut monitor = Monitor::new(Monitoring::new());
        monitor.record_violations(&violations);
        let recorded = monitor.telemetry().expect("measured").guardrails;
        recorded.expect("recorded")
    })
}

fn drift() -> impl Strategy<Value = DriftStats> {
    vec(any::<String>(), 0..4).prop_map(|types| {
        let mut drift = DriftStats::default();
        drift.types = types.into_iter().map(Cow::Owned).collect();
        drift
    })
}

prop_compose! {
    fn telemetry()(
        ids in (any::<String>(), any::<u64>()),
        error in option::of(error()),
        outcome in option::of(proptest::sample::select(Outcome::ALL)),
        finish in option::of(proptest::sample::select(FinishReason::ALL)),
        usages in (option::of(usage()), option::of(usage())),
        times in vec(option::of(duration()), 6),
        rates in (option::of(rate()), option::of(rate())),
        counts in (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>()),
        inter_token in option::of(distribution()),
        errors_by_type in btree_map(
            proptest::sample::select(NetworkErrorKind::ALL), any::<u64>(), 0..5),
        errors in option::of(vec(record(), 0..3)),
        judged in (option::of(guardrails()), option::of(drift())),
        metadata in metadata(),
    ) -> Telemetry {
        let mut telemetry = Telemetry::default();
        telemetry.session_id = ids.0;
        telemetry.start_time = Timestamp::from_millis(ids.1);
        telemetry.outcome = outcome;
        telemetry.error = error;
        telemetry.finish_reason = finish;
        (telemetry.usage, telemetry.wasted_usage) = usages;
        telemetry.duration = times[0];
        let metrics = &mut telemetry.metrics;
        metrics.time_to_first_token = times[1];
        metrics.time_to_first_text = times[2];
        metrics.avg_inter_token_time = times[3];
        metrics.consumer_hold = times[4];
        metrics.wait = times[5];
        (metrics.tokens_per_second, metrics.output_tokens_per_second) = rates;
        (metrics.total_tokens, metrics.wasted_tokens) = (counts.0, counts.1);
        (metrics.attempts, metrics.network_retries, metrics.model_retries) =
            (counts.2, counts.3, counts.4);
        metrics.inter_token = inter_token;
        telemetry.network.errors_by_type = errors_by_type;
        telemetry.network.errors = errors;
        (telemetry.guardrails, telemetry.drift) = judged;
        telemetry.metadata = metadata.into();
        telemetry
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn written_telemetry_reads_back_equal_and_has_no_null_outside_metadata(telemetry in telemetry()) {
        let json = serde_json::to_string(&telemetry).expect("serializes");
        let read: Telemetry = serde_json::from_str(&json).expect("reads");
        prop_assert_eq!(&read, &telemetry);
        prop_assert_eq!(serde_json::to_string(&read).expect("serializes"), json);
        let places = places(&json_of(&telemetry));
        prop_assert!(places.values().all(|json_type| *json_type != "null"));
    }
}
