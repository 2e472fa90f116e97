//! The monitor by itself: what the guide's manual use records.

use std::io;
use std::time::Duration;

use l0_core::{
    DriftReport, Monitor, Monitoring, NetworkErrorKind, Outcome, RetryKind, Severity, Telemetry,
    Violation,
};
use tokio::time::{Instant, advance};

fn monitor() -> Monitor {
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.start();
    monitor
}

fn telemetry(monitor: &Monitor) -> Telemetry {
    monitor.telemetry().expect("monitoring is on")
}

const MS: Duration = Duration::from_millis(1);

#[tokio::test(start_paused = true)]
async fn tokens_at_given_times_make_ttft_gaps_and_rates() {
    let mut monitor = monitor();
    let start = Instant::now();
    for at in [100, 200, 300] {
        monitor.record_token_at(start + at * MS);
    }
    advance(600 * MS).await;
    monitor.complete(Outcome::Completed);
    let telemetry = telemetry(&monitor);
    assert_eq!(telemetry.duration, Some(600 * MS));
    assert_eq!(
        telemetry.end_time().map(|end| end.as_millis()),
        Some(telemetry.start_time.as_millis() + 600)
    );
    let metrics = telemetry.metrics;
    assert_eq!(metrics.total_tokens, 3);
    assert_eq!(metrics.time_to_first_token, Some(100 * MS));
    assert_eq!(metrics.avg_inter_token_time, Some(100 * MS));
    assert_eq!(metrics.tokens_per_second, Some(5.0));
    assert_eq!(metrics.output_tokens_per_second, Some(10.0));
}

#[tokio::test(start_paused = true)]
async fn what_is_unknown_is_absent() {
    let mut monitor = monitor();
    monitor.record_token();
    monitor.complete(Outcome::Completed);
    let metrics = telemetry(&monitor).metrics;
    assert_eq!(metrics.avg_inter_token_time, None, "one token makes no gap");
    assert_eq!(metrics.tokens_per_second, None, "no time has passed");
    assert_eq!(metrics.output_tokens_per_second, None);
    assert_eq!(metrics.inter_token, None);

    let mut untimed = Monitor::new(Monitoring::new().include_timings(false));
    untimed.start();
    untimed.record_token();
    untimed.record_token_at(Instant::now() + MS);
    advance(MS).await;
    untimed.complete(Outcome::Completed);
    let telemetry = telemetry(&untimed);
    assert_eq!(telemetry.duration, Some(MS));
    assert_eq!(telemetry.metrics.total_tokens, 2);
    assert_eq!(telemetry.metrics.time_to_first_token, None);
    assert_eq!(telemetry.metrics.tokens_per_second, None);
    assert_eq!(telemetry.metrics.wait, None);
}

#[test]
fn network_errors_are_counted_by_type_and_kept_in_detail() {
    let mut monitor = monitor();
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    let timed_out = io::Error::from(io::ErrorKind::TimedOut);
    let other = io::Error::other("undefined is not a function");
    monitor.record_network_error(&reset, true, Some(1_000 * MS), Some(1));
    monitor.record_network_error(&reset, false, None, None);
    monitor.record_network_error(&timed_out, true, None, Some(2));
    monitor.record_network_error(&other, false, None, None);
    let telemetry = telemetry(&monitor);
    assert_eq!(telemetry.network.error_count, 4);
    let counts: Vec<_> = telemetry
        .network_error_breakdown()
        .iter()
        .map(|(kind, count)| (kind.as_str(), *count))
        .collect();
    assert_eq!(counts, [("econnreset", 2), ("timeout", 1), ("unknown", 1)]);
    assert_eq!(
        telemetry.most_common_network_error(),
        Some(NetworkErrorKind::Econnreset)
    );
    assert!(telemetry.has_network_errors());
    let errors = telemetry.network.errors.expect("details are on");
    assert_eq!(errors[0].delay, Some(1_000 * MS));
    assert_eq!((errors[0].retried, errors[0].attempt), (true, Some(1)));
    assert_eq!(errors[3].message, "undefined is not a function");

    let mut without = Monitor::new(Monitoring::new().include_network_details(false));
    without.start();
    without.record_network_error(&reset, true, None, None);
    let telemetry = without.telemetry().expect("on");
    assert_eq!(
        (telemetry.network.error_count, telemetry.network.errors),
        (1, None)
    );
}

#[test]
fn of_several_most_common_types_the_first_is_named() {
    let mut monitor = monitor();
    for kind in [io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe] {
        monitor.record_network_error(&io::Error::from(kind), false, None, None);
    }
    assert_eq!(
        telemetry(&monitor).most_common_network_error(),
        Some(NetworkErrorKind::ConnectionDropped)
    );
    assert_eq!(
        telemetry(&self::monitor()).most_common_network_error(),
        None
    );
}

#[test]
fn retries_are_the_sum_of_their_kinds_and_waste_the_attempts_tokens() {
    let mut monitor = monitor();
    monitor.record_attempt();
    monitor.record_token();
    monitor.record_token();
    monitor.record_retry(RetryKind::Network);
    monitor.record_attempt();
    monitor.record_token();
    monitor.record_retry(RetryKind::Network);
    monitor.record_retry(RetryKind::Model);
    monitor.record_token();
    let metrics = telemetry(&monitor).metrics;
    assert_eq!(
        (
            metrics.total_retries,
            metrics.network_retries,
            metrics.model_retries
        ),
        (3, 2, 1)
    );
    assert_eq!(
        (
            metrics.total_tokens,
            metrics.wasted_tokens,
            metrics.attempts
        ),
        (4, 3, 2)
    );
    assert_eq!(
        metrics.inter_token.expect("one gap").count,
        1,
        "gaps do not span attempts"
    );
}

#[test]
fn violations_are_counted_by_rule_and_severity() {
    let mut monitor = monitor();
    assert_eq!(telemetry(&monitor).guardrails, None, "nothing was checked");
    monitor.record_violations(&[]);
    assert_eq!(
        telemetry(&monitor)
            .guardrails
            .expect("checked")
            .violation_count,
        0
    );
    monitor.record_violations(&[
        Violation::new("a", Severity::Warning, "x"),
        Violation::new("a", Severity::Error, "y"),
    ]);
    monitor.record_violations(&[Violation::new("b", Severity::Fatal, "z")]);
    let telemetry = telemetry(&monitor);
    assert!(telemetry.has_violations());
    assert_eq!(telemetry.summary().violations, 3);
    let stats = telemetry.guardrails.expect("checked");
    assert_eq!(
        (stats.violations_by_rule["a"], stats.violations_by_rule["b"]),
        (2, 1)
    );
    let severities = stats.violations_by_severity;
    assert_eq!(
        (severities.warning, severities.error, severities.fatal),
        (1, 1, 1)
    );
    assert_eq!(stats.violations_by_rule_and_severity["a"].error, 1);
}

#[test]
fn rule_names_are_bounded_and_counts_stay_exact() {
    let mut monitor = monitor();
    for number in 0..1_000 {
        monitor.record_violations(&[Violation::new(
            format!("rule-{number}"),
            Severity::Error,
            "x",
        )]);
    }
    let stats = telemetry(&monitor).guardrails.expect("checked");
    assert!(stats.violations_by_rule.len() <= l0_core::GuardrailStats::MAX_RULES + 1);
    assert_eq!(stats.violation_count, 1_000);
    assert_eq!(stats.violations_by_rule.values().sum::<u64>(), 1_000);
}

#[test]
fn drift_adds_up_in_the_order_of_first_sight() {
    let mut monitor = monitor();
    monitor.record_drift(&DriftReport::none());
    let drift = telemetry(&monitor).drift.expect("checked");
    assert_eq!((drift.detected, drift.types.len()), (false, 0));
    monitor.record_drift(&DriftReport::detected(["tone_shift"], 0.7));
    monitor.record_drift(&DriftReport::detected(["hedging", "tone_shift"], 0.5));
    monitor.record_drift(&DriftReport::none());
    let drift = telemetry(&monitor).drift.expect("checked");
    assert_eq!(
        (drift.detected, drift.types),
        (true, vec!["tone_shift".into(), "hedging".into()])
    );
}

#[tokio::test(start_paused = true)]
async fn custom_events_stand_in_the_metadata_of_this_run_only_and_are_bounded() {
    let monitoring = Monitoring::new().metadata("user_id", "user_123");
    let mut monitor = Monitor::new(monitoring.clone());
    monitor.start();
    advance(5 * MS).await;
    monitor.log_event("cache", [("hit", true)]);
    for _ in 0..1_000 {
        monitor.log_event("more", [("n", 1)]);
    }
    let telemetry = telemetry(&monitor);
    assert_eq!(telemetry.metadata["user_id"], "user_123");
    let events = telemetry.metadata["customEvents"]
        .as_array()
        .expect("a list");
    assert_eq!(events.len(), Monitor::MAX_CUSTOM_EVENTS);
    assert_eq!(events[0]["type"], "cache");
    assert_eq!(events[0]["hit"], true);
    assert_eq!(events[0]["timestamp"], telemetry.start_time.as_millis() + 5);
    let other = Monitor::new(monitoring).telemetry().expect("on");
    assert!(!other.metadata.contains_key("customEvents"));
}

#[test]
fn off_and_sampled_out_record_nothing() {
    for monitoring in [
        Monitoring::off(),
        Monitoring::new().enabled(false),
        Monitoring::new().sample_rate(0.0),
    ] {
        let mut monitor = Monitor::new(monitoring);
        monitor.start();
        monitor.record_token();
        monitor.record_retry(RetryKind::Model);
        monitor.complete(Outcome::Completed);
        assert_eq!(monitor.telemetry(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_first_completion_counts_and_nothing_is_recorded_after_it() {
    let mut monitor = monitor();
    advance(MS).await;
    monitor.complete(Outcome::Aborted);
    let ended = telemetry(&monitor);
    advance(MS).await;
    monitor.record_token();
    monitor.record_violations(&[Violation::new("a", Severity::Error, "x")]);
    monitor.complete(Outcome::Completed);
    assert_eq!(telemetry(&monitor), ended);
    assert_eq!(ended.outcome, Some(Outcome::Aborted));
}

#[test]
fn a_reset_begins_a_new_run() {
    let mut monitor = monitor();
    monitor.record_token();
    monitor.complete(Outcome::Completed);
    let before = telemetry(&monitor);
    monitor.reset();
    let after = telemetry(&monitor);
    assert_ne!(after.session_id, before.session_id);
    assert_eq!((after.metrics.total_tokens, after.outcome), (0, None));
}
