//! The standalone monitor, used as in the guide: its telemetry contains what was recorded.

use std::io;
use std::time::Duration;

use l0_core::{
    Cause, DriftReport, DriftStats, End, Failure, FinishReason, GuardrailStats, Monitor,
    Monitoring, NetworkErrorKind, Outcome, RetryKind, Severity, Telemetry, TokenView, Usage,
    Violation,
};
use serde_json::{Value, json};
use tokio::time::{Instant, advance};

const MS: Duration = Duration::from_millis(1);

fn on() -> Monitor {
    Monitor::new(Monitoring::new())
}

fn telemetry(monitor: &Monitor) -> Telemetry {
    monitor.telemetry().expect("measured")
}

fn failing(kind: io::ErrorKind) -> io::Error {
    kind.into()
}

#[tokio::test(start_paused = true)]
async fn the_guides_manual_monitor_works() {
    let monitoring = Monitoring::new().enabled(true).include_timings(true);
    let mut monitor = Monitor::new(monitoring);
    monitor.start();
    monitor.record_token();
    monitor.record_token();
    let error = failing(io::ErrorKind::BrokenPipe);
    monitor.record_network_error(&error, true, Some(Duration::from_secs(1)), Some(1));
    monitor.record_retry(RetryKind::Network);
    advance(100 * MS).await;
    monitor.complete(End::completed());

    let telemetry = telemetry(&monitor);
    assert_eq!(telemetry.duration, Some(100 * MS));
    assert_eq!(telemetry.metrics.tokens_per_second, Some(20.0));
    let summary = telemetry.summary();
    assert_eq!(summary.session_id, telemetry.session_id);
    assert_eq!(summary.duration, Some(100 * MS));
    assert_eq!(
        (summary.tokens, summary.retries, summary.network_errors),
        (2, 1, 1)
    );
    assert_eq!(summary.violations, 0);
    assert_eq!(
        serde_json::to_value(summary).expect("serializes"),
        json!({
            "sessionId": telemetry.session_id, "duration": 100, "tokens": 2,
            "tokensPerSecond": 20.0, "retries": 1, "networkErrors": 1, "violations": 0,
        })
    );
    let json = serde_json::to_string(&telemetry).expect("serializes");
    let read: Telemetry = serde_json::from_str(&json).expect("reads");
    assert_eq!(read, telemetry);
}

#[test]
fn a_monitor_measures_if_it_is_enabled_and_sampled() {
    for (name, monitoring, measured) in [
        ("on", Monitoring::new(), true),
        ("default", Monitoring::default(), true),
        ("off", Monitoring::off(), false),
        ("switched off", Monitoring::new().enabled(false), false),
        ("switched on", Monitoring::off().enabled(true), true),
        ("rate 0", Monitoring::new().sample_rate(0.0), false),
        ("rate 1", Monitoring::new().sample_rate(1.0), true),
        ("no rate", Monitoring::new().sample_rate(f64::NAN), false),
    ] {
        let mut monitor = Monitor::new(monitoring);
        assert_eq!(monitor.telemetry().is_some(), measured, "{name}");
        monitor.start();
        monitor.record_attempt();
        monitor.record_token();
        monitor.record_token_at(Instant::now());
        monitor.record_network_error(&failing(io::ErrorKind::TimedOut), false, None, None);
        monitor.record_retry(RetryKind::Model);
        monitor.record_violations(&[Violation::new("a", Severity::Error, "wrong")]);
        monitor.record_drift(&DriftReport::new(["tone"], 1.0));
        monitor.log_event("cache", [("hit", true)]);
        monitor.complete(End::completed());
        assert_eq!(monitor.telemetry().is_some(), measured, "{name}");
        monitor.reset();
        assert_eq!(monitor.telemetry().is_some(), measured, "{name}, reset");
    }
}

#[test]
fn metadata_is_kept_and_the_id_has_the_guides_shape() {
    let monitoring = Monitoring::new()
        .metadata("user_id", "user_123")
        .metadata("nested", json!({"a": [1, null]}))
        .metadata("user_id", "user_456");
    let telemetry = telemetry(&Monitor::new(monitoring));
    assert_eq!(
        Vec::from_iter(&telemetry.metadata),
        [
            (&"nested".to_owned(), &json!({"a": [1, null]})),
            (&"user_id".to_owned(), &json!("user_456")),
        ]
    );
    let mut parts = telemetry.session_id.split('_');
    assert_eq!(parts.next(), Some("l0"));
    let digits = |part: Option<&str>| part.is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    assert!(digits(parts.next()));
    let base36 = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    assert!(parts.next().is_some_and(|part| part.bytes().all(base36)));
    assert_eq!(parts.next(), None);
}

#[tokio::test(start_paused = true)]
async fn tokens_are_counted_and_timed_from_start() {
    let mut monitor = on();
    advance(50 * MS).await;
    monitor.start();
    let start = Instant::now();
    for token in 1..=3 {
        monitor.record_token_at(start + token * 100 * MS);
    }
    let metrics = telemetry(&monitor).metrics;
    assert_eq!(metrics.total_tokens, 3);
    assert_eq!(metrics.time_to_first_token, Some(100 * MS));
    assert_eq!(metrics.avg_inter_token_time, Some(100 * MS));
    assert_eq!(metrics.tokens_per_second, None, "not before the end");
    advance(600 * MS).await;
    monitor.complete(End::completed());
    assert_eq!(telemetry(&monitor).metrics.tokens_per_second, Some(5.0));

    let mut one = on();
    one.record_token();
    assert_eq!(telemetry(&one).metrics.avg_inter_token_time, None);

    let mut untimed = Monitor::new(Monitoring::new().include_timings(false));
    untimed.record_token();
    untimed.record_token_at(start);
    advance(MS).await;
    untimed.complete(End::completed());
    let untimed = telemetry(&untimed);
    assert_eq!(untimed.metrics.total_tokens, 2);
    assert_eq!(untimed.metrics.avg_inter_token_time, None);
    assert_eq!(untimed.metrics.time_to_first_token, None);
    assert_eq!(untimed.duration, Some(MS));
}

#[tokio::test(start_paused = true)]
async fn times_out_of_order_count_as_zero_and_panic_nowhere() {
    let early = Instant::now();
    advance(Duration::from_secs(1)).await;
    let mut monitor = on();
    monitor.record_token_at(early);
    monitor.record_token_at(early + Duration::from_secs(3));
    monitor.record_token_at(early + Duration::from_secs(2));
    monitor.complete(End::completed());
    let metrics = telemetry(&monitor).metrics;
    assert_eq!(metrics.time_to_first_token, Some(Duration::ZERO));
    let gaps = metrics.inter_token.expect("gaps");
    assert_eq!((gaps.count(), gaps.max()), (2, Duration::from_secs(2)));

    // A clock that is set back again and again.
    let mut monitor = on();
    let start = Instant::now();
    advance(100 * MS).await;
    for millis in [10, 100, 10, 100, 10, 60, 100] {
        monitor.record_token_at(start + millis * MS);
        monitor.record_item(&TokenView::text("now"));
    }
    monitor.complete(End::completed());
    let gaps = telemetry(&monitor).metrics.inter_token.expect("gaps");
    assert_eq!((gaps.count(), gaps.sum()), (13, 90 * MS));

    // A time that no count of nanoseconds holds.
    for years in [500, 600, 100_000] {
        let mut monitor = on();
        let far = Instant::now() + Duration::from_secs(years * 365 * 24 * 60 * 60);
        monitor.record_token_at(far);
        monitor.record_token_at(far);
        monitor.record_token();
        monitor.complete(End::completed());
        let metrics = telemetry(&monitor).metrics;
        assert!(metrics.time_to_first_token > Some(Duration::from_secs(1)));
        assert_eq!(
            metrics.inter_token.map(|gaps| gaps.sum()),
            Some(Duration::ZERO)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn completing_ends_once_and_nothing_is_recorded_after_it() {
    let mut monitor = on();
    monitor.record_token();
    let live = telemetry(&monitor);
    assert_eq!(
        (live.duration, live.outcome, live.end_time()),
        (None, None, None)
    );
    advance(250 * MS).await;
    monitor.complete(End::of(Cause::Aborted));
    let ended = telemetry(&monitor);
    assert_eq!(ended.duration, Some(250 * MS));
    assert_eq!(ended.outcome, Some(Outcome::Aborted));
    let end = ended.end_time().expect("ended").as_millis();
    assert_eq!(end, ended.start_time.as_millis() + 250);

    advance(MS).await;
    monitor.start();
    monitor.record_attempt();
    monitor.record_token();
    monitor.record_token_at(Instant::now());
    monitor.record_network_error(&failing(io::ErrorKind::TimedOut), true, None, None);
    monitor.record_retry(RetryKind::Network);
    monitor.record_violations(&[Violation::new("a", Severity::Error, "wrong")]);
    monitor.record_drift(&DriftReport::none());
    monitor.log_event("late", [("a", 1)]);
    monitor.complete(End::completed());
    assert_eq!(telemetry(&monitor), ended);
}

#[tokio::test(start_paused = true)]
async fn network_errors_are_counted_by_type_and_kept_in_detail() {
    let mut monitor = on();
    let reset = failing(io::ErrorKind::ConnectionReset);
    monitor.record_network_error(&reset, true, Some(500 * MS), Some(1));
    advance(20 * MS).await;
    monitor.record_network_error(&reset, true, Some(MS), Some(2));
    monitor.record_network_error(&failing(io::ErrorKind::TimedOut), false, None, None);
    monitor.record_network_error(&Failure::status(429), false, None, Some(3));
    monitor.record_network_error(&io::Error::other("no known cause"), false, None, None);
    monitor.record_network_error(&Failure::fatal(), false, None, None);
    let telemetry = telemetry(&monitor);
    assert_eq!(telemetry.network.error_count, 6);
    assert_eq!(
        Vec::from_iter(telemetry.network_error_breakdown().clone()),
        [
            (NetworkErrorKind::Econnreset, 2),
            (NetworkErrorKind::Timeout, 1),
            (NetworkErrorKind::Unknown, 2),
            (NetworkErrorKind::RateLimited, 1),
        ]
    );
    assert_eq!(
        telemetry.most_common_network_error(),
        Some(NetworkErrorKind::Econnreset),
        "the first of equals"
    );
    assert!(telemetry.has_network_errors());
    let errors = telemetry.network.errors.expect("details");
    let start = telemetry.start_time.as_millis();
    assert_eq!(errors[1].timestamp.as_millis(), start + 20);
    assert_eq!(
        (errors[0].was_retried(), errors[0].delay()),
        (true, Some(500 * MS))
    );
    assert_eq!((errors[2].was_retried(), errors[2].delay()), (false, None));
    assert_eq!((errors[1].attempt, errors[2].attempt), (Some(2), None));
    assert_eq!(errors[2].message, "timed out");
    assert_eq!(
        telemetry.metrics.total_retries, 0,
        "errors do not count as retries"
    );

    let mut brief = Monitor::new(Monitoring::new().include_network_details(false));
    brief.record_network_error(&reset, true, None, None);
    let brief = brief.telemetry().expect("measured");
    assert_eq!((brief.network.error_count, brief.network.errors), (1, None));

    let none = on().telemetry().expect("measured");
    assert!(!none.has_network_errors());
    assert_eq!(none.most_common_network_error(), None);
    assert!(none.network_error_breakdown().is_empty());
    assert_eq!(none.network.errors, Some(Vec::new()), "known to be empty");
}

#[test]
fn retries_are_counted_by_kind_and_their_tokens_and_usage_are_wasted() {
    let mut monitor = on();
    let usage = Usage::new().input(5).output(2);
    for kind in [RetryKind::Network, RetryKind::Model, RetryKind::Network] {
        monitor.record_attempt();
        monitor.record_token();
        monitor.record_token();
        monitor.record_item(&TokenView::other().usage(usage));
        monitor.record_retry(kind);
    }
    monitor.record_attempt();
    monitor.record_token();
    let telemetry = telemetry(&monitor);
    assert_eq!(telemetry.usage, None);
    let wasted = Some(Usage::new().input(15).output(6));
    assert_eq!(
        (telemetry.wasted_usage, telemetry.billed()),
        (wasted, wasted)
    );
    let metrics = telemetry.metrics;
    assert_eq!((metrics.network_retries, metrics.model_retries), (2, 1));
    assert_eq!((metrics.total_retries, metrics.attempts), (3, 4));
    assert_eq!((metrics.total_tokens, metrics.wasted_tokens), (7, 6));
    let gaps = metrics.inter_token.expect("gaps");
    assert_eq!(gaps.count(), 3, "no gap spans a retry");
}

#[test]
fn violations_are_counted_by_rule_and_by_severity_and_by_both() {
    use Severity::{Error, Fatal, Warning};
    let mut monitor = on();
    assert_eq!(telemetry(&monitor).guardrails, None);
    assert!(!telemetry(&monitor).has_violations());
    monitor.record_violations(&[]);
    let checked = telemetry(&monitor);
    assert_eq!(checked.guardrails, Some(GuardrailStats::default()));
    assert!(!checked.has_violations());

    monitor.record_violations(&[
        Violation::new("a", Warning, "1"),
        Violation::new("a", Warning, "2"),
        Violation::new("a", Error, "3"),
    ]);
    monitor.record_violations(&[Violation::new("b", Fatal, "4")]);
    let telemetry = telemetry(&monitor);
    assert!(telemetry.has_violations());
    assert_eq!(telemetry.summary().violations, 4);
    let stats = telemetry.guardrails.expect("recorded");
    assert_eq!(stats.violation_count, 4);
    assert_eq!(stats.violations_by_rule["a"], 3);
    assert_eq!(stats.violations_by_rule["b"], 1);
    let all = stats.violations_by_severity;
    assert_eq!((all.warning, all.error, all.fatal), (2, 1, 1));
    let of_a = stats.violations_by_rule_and_severity["a"];
    assert_eq!((of_a.warning, of_a.error, of_a.fatal), (2, 1, 0));
    assert_eq!((of_a.get(Warning), of_a.get(Error)), (2, 1));
}

#[test]
fn the_number_of_rule_names_is_limited_and_counts_stay_exact() {
    let mut monitor = on();
    let rules = GuardrailStats::MAX_RULES;
    for rule in 0..rules + 10 {
        let violation = Violation::new(format!("rule {rule}"), Severity::Error, "wrong");
        monitor.record_violations(&[violation.clone(), violation]);
    }
    let stats = telemetry(&monitor).guardrails.expect("recorded");
    assert_eq!(stats.violation_count, 2 * (rules as u64 + 10));
    assert_eq!(stats.violations_by_rule.len(), rules + 1);
    assert_eq!(stats.violations_by_rule["other"], 20);
    assert_eq!(stats.violations_by_rule["rule 0"], 2);
    assert_eq!(
        stats.violations_by_rule.values().sum::<u64>(),
        stats.violation_count
    );
    assert_eq!(stats.violations_by_rule_and_severity["other"].error, 20);
}

#[test]
fn kinds_of_drift_accumulate_and_stay_detected() {
    let mut monitor = on();
    assert_eq!(telemetry(&monitor).drift, None);
    monitor.record_drift(&DriftReport::none());
    assert_eq!(telemetry(&monitor).drift, Some(DriftStats::default()));
    monitor.record_drift(&DriftReport::new(["semantic", "format"], 0.9));
    monitor.record_drift(&DriftReport::new(["tone", "semantic"], 0.4));
    monitor.record_drift(&DriftReport::none());
    let drift = telemetry(&monitor).drift.expect("checked");
    assert!(drift.detected());
    assert_eq!(drift.types, ["semantic", "format", "tone"]);
}

#[tokio::test(start_paused = true)]
async fn custom_events_are_kept_in_the_metadata_with_their_time() {
    let mut monitor = Monitor::new(Monitoring::new().metadata("model", "gpt-4"));
    advance(20 * MS).await;
    monitor.log_event("cache", [("hit", true)]);
    monitor.log_event("empty", std::iter::empty::<(&str, Value)>());
    let telemetry = telemetry(&monitor);
    let start = telemetry.start_time.as_millis();
    assert_eq!(
        telemetry.metadata["customEvents"],
        json!([
            {"type": "cache", "hit": true, "timestamp": start + 20},
            {"type": "empty", "timestamp": start + 20},
        ])
    );
    assert_eq!(telemetry.metadata["model"], "gpt-4");

    for _ in 0..Monitor::MAX_CUSTOM_EVENTS + 10 {
        monitor.log_event("again", [("n", 1)]);
    }
    let metadata = monitor.telemetry().expect("measured").metadata;
    let events = metadata["customEvents"].as_array().expect("a list").len();
    assert_eq!(events, Monitor::MAX_CUSTOM_EVENTS);
}

#[tokio::test(start_paused = true)]
async fn a_reset_begins_a_new_run_with_the_same_settings() {
    let mut monitor = Monitor::new(Monitoring::new().metadata("model", "gpt-4"));
    monitor.record_attempt();
    monitor.record_token();
    monitor.record_retry(RetryKind::Model);
    monitor.record_network_error(&failing(io::ErrorKind::TimedOut), false, None, None);
    monitor.record_violations(&[Violation::new("a", Severity::Error, "wrong")]);
    monitor.record_drift(&DriftReport::new(["tone"], 1.0));
    monitor.log_event("cache", [("hit", true)]);
    advance(20 * MS).await;
    monitor.fail(&failing(io::ErrorKind::TimedOut));
    let before = telemetry(&monitor);
    monitor.reset();
    let mut after = telemetry(&monitor);
    assert_ne!(after.session_id, before.session_id);
    assert_eq!(after.metadata["model"], "gpt-4");
    let mut fresh = telemetry(&Monitor::new(Monitoring::new().metadata("model", "gpt-4")));
    after.session_id.clone_from(&fresh.session_id);
    fresh.start_time = after.start_time;
    assert_eq!(after, fresh);
    monitor.record_token();
    advance(5 * MS).await;
    monitor.complete(End::completed());
    let again = telemetry(&monitor);
    assert_eq!(again.duration, Some(5 * MS), "since the reset");
    assert_eq!(again.metrics.total_tokens, 1);
}

#[tokio::test(start_paused = true)]
async fn the_console_summary_shows_only_known_values() {
    let empty = Telemetry::default().to_string();
    for absent in [
        "Duration",
        "Outcome",
        "first token",
        "Tokens/sec",
        "Usage",
        "Drift",
    ] {
        assert!(!empty.contains(absent), "{absent}: {empty}");
    }
    let full = Telemetry::example().to_string();
    for shown in [
        "Session: l0_1700000000000_0123456789abc",
        "Outcome: completed",
        "Duration: 1500.0 ms",
        "Time to first token: 250.0 ms",
        "Tokens: 150 (1 wasted)",
        "Tokens/sec: 100.00",
        "Usage: 12 input, 160 output",
        "Retries: 1 (1 network, 0 model)",
        "Network errors: 1 (connection_dropped: 1)",
    ] {
        assert!(full.contains(shown), "{shown}: {full}");
    }
}

#[tokio::test(start_paused = true)]
async fn items_carry_usage_and_finish_reason_and_only_text_sets_the_first_text() {
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.start();
    advance(Duration::from_millis(5)).await;
    monitor.record_item(&TokenView::reasoning("hm"));
    advance(Duration::from_millis(5)).await;
    monitor.record_item(&TokenView::text("a"));
    let last = TokenView::other()
        .usage(Usage::new().output(2))
        .finish(FinishReason::Stop);
    monitor.record_item(&last);
    monitor.complete(End::completed());
    let telemetry = monitor.telemetry().expect("measured");
    assert_eq!(telemetry.metrics.total_tokens, 2);
    assert_eq!(
        telemetry.metrics.time_to_first_token,
        Some(Duration::from_millis(5))
    );
    assert_eq!(
        telemetry.metrics.time_to_first_text,
        Some(Duration::from_millis(10))
    );
    assert_eq!(telemetry.usage, Some(Usage::new().output(2)));
    assert_eq!(telemetry.finish_reason, Some(FinishReason::Stop));
}
