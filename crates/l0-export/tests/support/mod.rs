//! Arbitrary telemetry, with texts that are difficult for the formats.

use std::collections::BTreeMap;
use std::time::Duration;

use l0_core::{
    AttemptStats, Cause, Distribution, DriftReport, DriftStats, End, ErrorRecord, Failure,
    FinishReason, KeepReason, Monitor, Monitoring, NetworkErrorKind, Outcome, Severity, Telemetry,
    Timestamp, Usage, Violation,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// Arbitrary text, often with characters that are special in a format.
fn text() -> impl Strategy<Value = String> {
    let hard = select(vec![
        "",
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "'=1",
        "'",
        "\"",
        "\"\"",
        "a,b",
        "a;b",
        "a\nb",
        "a\r\nb",
        "\"a\",\"b\"",
        "日本語",
        "＝1",
        "e\u{301}",
        "\u{feff}x",
        "\u{2028}",
        "\0",
        "\\",
        "{\"a\":1}",
        "null",
        "1e5",
        "TRUE",
        "=HYPERLINK(\"http://x\",\"y\")",
    ])
    .prop_map(str::to_owned);
    prop_oneof![3 => hard, 2 => any::<String>(), 1 => "[a-z0-9-]{1,12}"]
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0_u64..99 * 24 * 3_600_000).prop_map(Duration::from_millis),
        (0_u64..600_000_000_000).prop_map(Duration::from_nanos),
    ]
}

fn rate() -> impl Strategy<Value = f64> {
    (0_u64..1_000_000_000).prop_map(|thousandths| thousandths as f64 / 1e3)
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        text().prop_map(Value::from),
        vec(text(), 0..3).prop_map(Value::from),
        (text(), text()).prop_map(|(key, text)| json!({ key: { "nested": text } })),
    ]
}

fn gaps() -> impl Strategy<Value = Distribution> {
    vec(1_u64..120_000_000_000, 1..20).prop_map(|gaps| {
        let mut distribution = Distribution::new();
        for nanos in gaps {
            distribution.record(Duration::from_nanos(nanos));
        }
        distribution
    })
}

fn violations() -> impl Strategy<Value = Vec<Violation>> {
    let severity = select(vec![Severity::Warning, Severity::Error, Severity::Fatal]);
    let violation =
        (text(), severity).prop_map(|(rule, severity)| Violation::new(rule, severity, "found"));
    vec(violation, 0..4)
}

fn usage() -> impl Strategy<Value = Usage> {
    vec(option::of(any::<u64>()), 6).prop_map(|counts| {
        let mut usage = Usage::new();
        (usage.input, usage.output, usage.total) = (counts[0], counts[1], counts[2]);
        (usage.cached_input, usage.cache_write_input) = (counts[3], counts[4]);
        usage.reasoning = counts[5];
        usage
    })
}

/// The error of a run, in L0's words and in those of other software.
fn error() -> impl Strategy<Value = ErrorRecord> {
    let ours = select(vec![
        End::of(Cause::ZeroOutput),
        End::failed(&std::io::Error::other(Failure::status(401))),
        End::refused("over budget"),
    ]);
    let ours = ours.prop_map(|end| ErrorRecord::of(&end).expect("it has a cause"));
    let theirs = (text(), option::of(any::<u16>()), text());
    let theirs = theirs.prop_map(|(error_type, status, message)| {
        let mut error = ErrorRecord::default();
        error.error_type = error_type.into();
        (error.status, error.message) = (status, message);
        error
    });
    prop_oneof![ours, theirs]
}

fn drift() -> impl Strategy<Value = DriftStats> {
    vec(text(), 0..3).prop_map(|types| {
        let mut monitor = Monitor::new(Monitoring::new());
        monitor.record_drift(&DriftReport::new(types, 0.5));
        let recorded = monitor.telemetry().expect("measured");
        recorded.drift.expect("drift was recorded")
    })
}

fn metadata() -> impl Strategy<Value = BTreeMap<String, Value>> {
    let key = prop_oneof![Just("model".to_owned()), text()];
    btree_map(key, value(), 0..4)
}

prop_compose! {
    fn attempt()(
        source in 1_u32..4,
        count in 1_u32..3,
        names in vec(option::of(text()), 3),
        times in vec(option::of(duration()), 4),
        tokens in 0_u64..1_000_000,
        outcome in option::of(select(Outcome::ALL)),
        error in option::of(error()),
        usage in option::of(usage()),
    ) -> AttemptStats {
        let mut attempt = AttemptStats::default();
        (attempt.source, attempt.count, attempt.tokens) = (source, count, tokens);
        attempt.model = names[0].clone();
        attempt.provider = names[1].clone();
        attempt.operation = names[2].clone();
        attempt.start_offset = times[0];
        attempt.delay = times[1];
        attempt.duration = times[2];
        attempt.time_to_first_token = times[3];
        (attempt.outcome, attempt.error, attempt.usage) = (outcome, error, usage);
        attempt
    }
}

prop_compose! {
    pub fn telemetry()(
        id in text().prop_filter("every run has an id", |id| !id.is_empty()),
        start_time in 0_u64..4_000_000_000_000,
        ends in (
            // `other` is the value of unknown labels.
            option::of(prop_oneof![select(Outcome::ALL), Just(Outcome::Other)]),
            option::of(select(FinishReason::ALL)),
            option::of(error()),
        ),
        usages in (option::of(usage()), option::of(usage())),
        times in vec(option::of(duration()), 5),
        rates in vec(option::of(rate()), 2),
        counts in vec(0_u32..1_000_000, 6),
        gaps in option::of(gaps()),
        errors in btree_map(
            prop_oneof![select(NetworkErrorKind::ALL), Just(NetworkErrorKind::Other)],
            any::<u32>(),
            0..4,
        ),
        violations in option::of(violations()),
        drift in option::of(drift()),
        metadata in metadata(),
        attempts in vec(attempt(), 0..4),
    ) -> Telemetry {
        let mut telemetry = Telemetry::default();
        telemetry.session_id = id;
        telemetry.start_time = Timestamp::from_millis(start_time);
        (telemetry.outcome, telemetry.finish_reason, telemetry.error) = ends;
        (telemetry.usage, telemetry.wasted_usage) = usages;
        telemetry.kept = KeepReason::ALL.get(start_time as usize % 6).copied();
        telemetry.duration = times[0];
        telemetry.guardrails = violations.and_then(|violations| {
            let mut monitor = Monitor::new(Monitoring::new());
            monitor.record_violations(&violations);
            monitor.telemetry().expect("measured").guardrails
        });
        telemetry.drift = drift;
        telemetry.metadata = metadata.into();
        telemetry.attempts = attempts;
        telemetry.network.error_count = errors.values().map(|count| u64::from(*count)).sum();
        telemetry.network.errors_by_type =
            errors.into_iter().map(|(kind, count)| (kind, count.into())).collect();

        let metrics = &mut telemetry.metrics;
        metrics.time_to_first_token = times[1];
        metrics.time_to_first_text = times[2];
        metrics.avg_inter_token_time = gaps.as_ref().and_then(Distribution::mean);
        metrics.consumer_hold = times[3];
        metrics.wait = times[4];
        (metrics.tokens_per_second, metrics.output_tokens_per_second) = (rates[0], rates[1]);
        (metrics.total_tokens, metrics.wasted_tokens) = (counts[0].into(), counts[1].into());
        (metrics.attempts, metrics.total_retries) = (counts[2], counts[3] + counts[4]);
        (metrics.network_retries, metrics.model_retries) = (counts[3], counts[4]);
        metrics.inter_token = gaps;
        telemetry
    }
}
