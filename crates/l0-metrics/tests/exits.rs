//! Every way a run can end, measured and not: what is counted, and under which labels.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{paused, recorder, samples};
use l0_core::testing::exits::{self, Exit};
use l0_core::testing::{Captured, OwnedEvent};
use l0_core::{L0, L0Builder, Monitoring, Outcome};
use l0_metrics::MetricsInterceptor;
use metrics::with_local_recorder;

type Counts = BTreeMap<String, f64>;

/// The counting metrics that are not zero.
fn counted(exit: &Exit, events: &[OwnedEvent], duration: Option<Duration>) -> Counts {
    let mut counts = Counts::new();
    let mut add = |series: String, count: f64| {
        if count > 0.0 {
            *counts.entry(series).or_default() += count;
        }
    };
    add("l0_streams_started_total".to_owned(), 1.0);
    let outcome = exit.end.outcome();
    add(
        format!("l0_streams_finished_total{{outcome=\"{outcome}\"}}"),
        1.0,
    );
    if exit.end.is_failure() {
        let error_type = exit.end.error_type().unwrap();
        add(
            format!("l0_failures_total{{error_type=\"{error_type}\"}}"),
            1.0,
        );
    }
    for event in events {
        if let OwnedEvent::Fallback { from, to, .. } = event {
            add(
                format!("l0_fallbacks_total{{from=\"{from}\",to=\"{to}\"}}"),
                1.0,
            );
        }
    }
    // All others cover measured runs.
    let Some(duration) = duration else {
        return counts;
    };
    add("l0_requests_total".to_owned(), 1.0);
    add("l0_request_duration_seconds_count".to_owned(), 1.0);
    add(
        "l0_request_duration_seconds_sum".to_owned(),
        duration.as_secs_f64(),
    );
    for (metric, event) in [
        ("tokens", "token"),
        ("retries", "retry"),
        ("network_errors", "network_error"),
        ("guardrail_violations", "violation"),
    ] {
        add(format!("l0_{metric}_total"), exit.count(event) as f64);
    }
    for event in events {
        match event {
            OwnedEvent::Token { gap: Some(gap), .. } => {
                add("l0_inter_token_seconds_count".to_owned(), 1.0);
                add("l0_inter_token_seconds_sum".to_owned(), gap.as_secs_f64());
            }
            OwnedEvent::AttemptFinished { attempt, .. } => {
                let result = attempt.outcome.unwrap();
                add(format!("l0_attempts_total{{result=\"{result}\"}}"), 1.0);
            }
            OwnedEvent::NetworkError { kind, .. } => {
                let series = format!("l0_network_errors_by_type_total{{error_type=\"{kind}\"}}");
                add(series, 1.0);
            }
            OwnedEvent::Violation { violation, .. } => {
                let (rule, severity) = (&violation.rule, violation.severity);
                let by = "l0_guardrail_violations_by";
                add(format!("{by}_rule_total{{rule=\"{rule}\"}}"), 1.0);
                add(
                    format!("{by}_severity_total{{severity=\"{severity}\"}}"),
                    1.0,
                );
            }
            _ => {}
        }
    }
    counts
}

/// The metrics that [`counted`] covers.
const COUNTED: [&str; 18] = [
    "l0_streams_started_total",
    "l0_streams_finished_total",
    "l0_failures_total",
    "l0_fallbacks_total",
    "l0_requests_total",
    "l0_request_duration_seconds_count",
    "l0_request_duration_seconds_sum",
    "l0_tokens_total",
    "l0_retries_total",
    "l0_network_errors_total",
    "l0_guardrail_violations_total",
    "l0_inter_token_seconds_count",
    "l0_inter_token_seconds_sum",
    "l0_attempts_total",
    "l0_network_errors_by_type_total",
    "l0_guardrail_violations_by_rule_total",
    "l0_guardrail_violations_by_severity_total",
    "l0_observer_panics_total",
];

fn name(series: &str) -> &str {
    series.split_once('{').map_or(series, |(name, _)| name)
}

fn check(exit: &Exit, measurement: &str, configure: fn(L0Builder) -> L0Builder) {
    let what = format!("{exit}, {measurement}");
    let metrics = Arc::new(MetricsInterceptor::new());
    let recorder = recorder(&metrics);
    let handle = recorder.handle();
    let captured = Captured::new();
    let builder = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(metrics)
        .interceptor(captured.clone());
    let exited = with_local_recorder(&recorder, || exit.run(paused(), configure(builder)));
    let telemetry = exited.handle.telemetry();
    assert_eq!(telemetry.is_some(), measurement == "measured", "{what}");
    // If the clock could not be paused, only the run knows its duration.
    let duration = telemetry.map(|telemetry| exit.duration.or(telemetry.duration).unwrap());

    let recorded = samples(&handle);
    let expected = counted(exit, &captured.events(), duration);
    let ours = recorded
        .iter()
        .filter(|(series, value)| **value != 0.0 && COUNTED.contains(&name(series)));
    let ours: Counts = ours
        .map(|(series, value)| (series.clone(), *value))
        .collect();
    assert_eq!(
        Vec::from_iter(ours.keys()),
        Vec::from_iter(expected.keys()),
        "{what}"
    );
    for (series, value) in ours {
        let expected = expected[&series];
        assert!(
            (value - expected).abs() < 1e-9,
            "{what}: {series} {value} {expected}"
        );
    }

    assert_eq!(recorded["l0_streams_active"], 0.0, "{what}");
    assert_eq!(recorded["l0_stream_oldest_seconds"], 0.0, "{what}");
    let live = recorded["l0_streams_active_seconds_total"];
    if let Some(duration) = exit.duration {
        assert!(
            (live - duration.as_secs_f64()).abs() < 1e-9,
            "{what}: {live}"
        );
    }
    // Metrics with known values start at 0.
    for outcome in Outcome::ALL {
        let series = format!("l0_streams_finished_total{{outcome=\"{outcome}\"}}");
        assert!(recorded.contains_key(&series), "{what}: {series}");
    }
    let rate = recorded.contains_key("l0_tokens_per_second");
    let tokens = exit.count("token") > 0 && duration.is_some_and(|all| !all.is_zero());
    assert_eq!(rate, tokens, "{what}");
}

#[test]
fn every_exit_is_counted_in_full() {
    for exit in exits::all() {
        check(&exit, "measured", |builder| builder);
        check(&exit, "sampled out", |builder| {
            builder.monitoring(Monitoring::new().sample_rate(0.0))
        });
        check(&exit, "off", |builder| {
            builder.monitoring(Monitoring::off())
        });
    }
}
