//! The exposition follows the text format, matches the `prometheus` crate and is exact.

mod support;

use std::collections::HashMap;
use std::time::Duration;

use l0_core::testing::Script;
use l0_core::{
    Cost, CostSource, Currency, Distribution, DriftReport, End, ErrorRecord, Failure, L0, Money,
    Monitor, Monitoring, NetworkErrorKind, Quantity, RetryKind, Severity, Telemetry, Usage,
    Violation,
};
use l0_prometheus::{Buckets, Collector, Labels, Registry};
use prometheus::core::Collector as _;
use prometheus::{Encoder, TextEncoder};
use proptest::prelude::*;

fn collector() -> Collector {
    Collector::builder()
        .label("service", "my-app")
        .build()
        .expect("valid")
}

fn labels() -> Labels {
    Labels::new([("model", "gpt-4"), ("endpoint", "/chat")]).expect("valid")
}

/// A run with a value for every metric.
fn full() -> Telemetry {
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.start();
    monitor.record_violations(&[
        Violation::new("json", Severity::Error, "unbalanced"),
        Violation::new("latex", Severity::Warning, "odd"),
    ]);
    monitor.record_drift(&DriftReport::new(["tone_shift"], 0.9));
    monitor.record_retry(RetryKind::Model);
    monitor.complete(End::completed());
    let checked = monitor.telemetry().expect("valid");

    let mut telemetry = Telemetry::example();
    telemetry.metrics.model_retries = 2;
    telemetry.metrics.total_retries = 3;
    telemetry.network.error_count = 3;
    telemetry
        .network
        .errors_by_type
        .insert(NetworkErrorKind::Timeout, 2);
    telemetry.guardrails = checked.guardrails;
    telemetry.drift = checked.drift;
    let mut usage = telemetry.usage.expect("counted").cached_input(4);
    usage.cache_write_input = Some(2);
    usage.reasoning = Some(3);
    telemetry.usage = Some(usage);
    telemetry.wasted_usage = Some(Usage::new().input(12).output(3).total(15));
    let cost = |cents| {
        Some(Cost::new(
            Money::cents(cents),
            Currency::USD,
            CostSource::PriceList,
        ))
    };
    telemetry.cost = cost(5);
    telemetry.wasted_cost = cost(1);
    telemetry.estimated_usage = Some(Usage::new().input(3).output(2).total(5));
    telemetry.estimated_cost = cost(2);
    if let [first, second, ..] = &mut *telemetry.attempts {
        (first.cost, first.unpriced) = (telemetry.wasted_cost, 1);
        first.estimated_usage = telemetry.estimated_usage;
        first.estimated_cost = telemetry.estimated_cost;
        second.cost = telemetry.cost;
    }
    telemetry
}

#[test]
fn the_guides_example_is_written_with_right_buckets() {
    let collector = Collector::builder()
        .label("service", "my-app")
        .buckets(
            Buckets::new()
                .time_to_first_token([0.1, 0.25, 0.5])
                .request_duration([1.0, 2.5]),
        )
        .build()
        .unwrap();
    collector.record(
        &Telemetry::example(),
        &Labels::new([("model", "gpt-4")]).unwrap(),
    );
    let text = collector.expose();
    for part in [
        "# HELP l0_requests_total Total L0 requests\n\
         # TYPE l0_requests_total counter\n\
         l0_requests_total{service=\"my-app\",model=\"gpt-4\"} 1\n\
         # HELP l0_request_duration_seconds L0 request duration in seconds\n\
         # TYPE l0_request_duration_seconds histogram\n\
         l0_request_duration_seconds_bucket{service=\"my-app\",model=\"gpt-4\",le=\"1\"} 0\n\
         l0_request_duration_seconds_bucket{service=\"my-app\",model=\"gpt-4\",le=\"2.5\"} 1\n\
         l0_request_duration_seconds_bucket{service=\"my-app\",model=\"gpt-4\",le=\"+Inf\"} 1\n\
         l0_request_duration_seconds_sum{service=\"my-app\",model=\"gpt-4\"} 1.5\n\
         l0_request_duration_seconds_count{service=\"my-app\",model=\"gpt-4\"} 1\n\
         # HELP l0_tokens_total Total tokens generated\n\
         # TYPE l0_tokens_total counter\n\
         l0_tokens_total{service=\"my-app\",model=\"gpt-4\"} 150\n",
        "l0_time_to_first_token_seconds_bucket{service=\"my-app\",model=\"gpt-4\",le=\"0.1\"} 0\n\
         l0_time_to_first_token_seconds_bucket{service=\"my-app\",model=\"gpt-4\",le=\"0.25\"} 1\n\
         l0_time_to_first_token_seconds_bucket{service=\"my-app\",model=\"gpt-4\",le=\"0.5\"} 1\n\
         l0_time_to_first_token_seconds_bucket{service=\"my-app\",model=\"gpt-4\",le=\"+Inf\"} 1\n\
         l0_time_to_first_token_seconds_sum{service=\"my-app\",model=\"gpt-4\"} 0.25\n\
         l0_time_to_first_token_seconds_count{service=\"my-app\",model=\"gpt-4\"} 1\n",
        "l0_network_errors_by_type_total{service=\"my-app\",model=\"gpt-4\",\
         error_type=\"connection_dropped\"} 1\n",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
}

#[test]
fn every_part_of_the_telemetry_is_counted() {
    let collector = collector();
    let telemetry = full();
    for _ in 0..3 {
        collector.record(&telemetry, &labels());
    }
    let read = support::read(&collector.expose());
    let base = [
        ("service", "my-app"),
        ("endpoint", "/chat"),
        ("model", "gpt-4"),
    ];
    let of = |name| read.get(name, base);
    for (name, value) in [
        ("l0_requests_total", 3.0),
        ("l0_request_duration_seconds_sum", 4.5),
        ("l0_request_duration_seconds_count", 3.0),
        ("l0_tokens_total", 450.0),
        ("l0_tokens_per_second", 100.0),
        ("l0_time_to_first_token_seconds_sum", 0.75),
        ("l0_time_to_first_token_seconds_count", 3.0),
        ("l0_retries_total", 9.0),
        ("l0_retries_network_total", 3.0),
        ("l0_retries_model_total", 6.0),
        ("l0_network_errors_total", 9.0),
        ("l0_guardrail_violations_total", 6.0),
        ("l0_drift_detected_total", 3.0),
        ("l0_inter_token_seconds_count", 3.0 * 148.0),
        ("l0_stream_max_gap_seconds_sum", 0.033),
        ("l0_stream_max_gap_seconds_count", 3.0),
        ("l0_output_tokens_per_second_sum", 400.722),
        ("l0_output_tokens_per_second_count", 3.0),
        ("l0_wasted_tokens_total", 3.0),
        ("l0_usage_input_tokens_total", 72.0),
        ("l0_usage_output_tokens_total", 489.0),
        ("l0_consumer_hold_seconds_total", 0.03),
        ("l0_wait_seconds_total", 4.47),
        ("l0_attempt_time_to_first_token_seconds_sum", 0.81),
        ("l0_attempt_time_to_first_token_seconds_count", 6.0),
        ("l0_time_to_first_text_seconds_sum", 0.75),
        ("l0_time_to_first_text_seconds_count", 3.0),
        ("l0_usage_tokens_total", 561.0),
        ("l0_usage_cached_input_tokens_total", 12.0),
        ("l0_usage_cache_write_input_tokens_total", 6.0),
        ("l0_usage_reasoning_tokens_total", 9.0),
        ("l0_usage_wasted_input_tokens_total", 36.0),
        ("l0_usage_wasted_output_tokens_total", 9.0),
    ] {
        assert_eq!(of(name), Some(value), "{name}");
    }
    let gaps = telemetry.metrics.inter_token.unwrap();
    assert_eq!(
        of("l0_inter_token_seconds_sum"),
        Some((gaps.sum() * 3).as_secs_f64())
    );
    for (name, label, value, count) in [
        (
            "l0_network_errors_by_type_total",
            "error_type",
            "timeout",
            6.0,
        ),
        (
            "l0_network_errors_by_type_total",
            "error_type",
            "connection_dropped",
            3.0,
        ),
        (
            "l0_guardrail_violations_by_severity_total",
            "severity",
            "error",
            3.0,
        ),
        (
            "l0_guardrail_violations_by_severity_total",
            "severity",
            "warning",
            3.0,
        ),
        (
            "l0_guardrail_violations_by_severity_total",
            "severity",
            "fatal",
            0.0,
        ),
        ("l0_attempts_total", "result", "failed", 3.0),
        ("l0_attempts_total", "result", "completed", 3.0),
        ("l0_attempts_total", "result", "aborted", 0.0),
        ("l0_guardrail_violations_by_rule_total", "rule", "json", 3.0),
        (
            "l0_guardrail_violations_by_rule_total",
            "rule",
            "latex",
            3.0,
        ),
    ] {
        let [a, b, c] = base;
        assert_eq!(
            read.get(name, [a, b, c, (label, value)]),
            Some(count),
            "{name} {value}"
        );
    }
    assert_eq!(
        read.get("l0_series_overflow_total", [("service", "my-app")]),
        Some(0.0)
    );
}

#[test]
fn unknown_values_are_absent_and_counters_start_at_zero() {
    let collector = Collector::builder().build().unwrap();
    let _held = collector.with_labels(&Labels::none());
    let read = support::read(&collector.expose());
    for name in [
        "l0_requests_total",
        "l0_tokens_total",
        "l0_retries_total",
        "l0_drift_detected_total",
    ] {
        assert_eq!(read.get(name, []), Some(0.0), "{name}");
    }
    for name in [
        "l0_tokens_per_second",
        "l0_network_errors_by_type_total",
        "l0_guardrail_violations_by_rule_total",
        "l0_failures_total",
        "l0_streams_started_total",
        "l0_streams_active",
        "l0_streams_finished_total",
        "l0_backoff_seconds_total",
    ] {
        assert!(!read.families.contains_key(name), "{name}");
    }
    collector.record(&Telemetry::default(), &Labels::none());
    let read = support::read(&collector.expose());
    assert_eq!(read.get("l0_requests_total", []), Some(1.0));
    assert_eq!(read.get("l0_request_duration_seconds_count", []), Some(0.0));
    assert_eq!(read.get("l0_inter_token_seconds_count", []), Some(0.0));
    // A run that never started does not finish.
    assert!(!read.families.contains_key("l0_streams_finished_total"));
}

/// Each new quantity adds one metric, whatever its name.
#[test]
fn every_number_of_a_run_is_written() {
    let collector = Collector::builder().build().unwrap();
    let handle = collector.with_labels(&Labels::none());
    let families = || support::read(&collector.expose()).families;
    let mut telemetry = full();
    telemetry.outcome = Some(l0_core::Outcome::Failed);
    telemetry.error = ErrorRecord::of(&End::failed(&std::io::Error::other(Failure::status(401))));
    telemetry.attempts[1].source = 2;
    telemetry.attempts[0].fallbacks = 1;
    let before = families();
    handle.record(&telemetry);
    let after = families();
    let changed = after
        .iter()
        .filter(|(name, family)| before.get(*name) != Some(family));
    // Without the metrics of all runs that an interceptor sees, and those of the collector.
    let own = ["l0_requests_total", "l0_stream_max_gap_seconds"];
    let ends = ["l0_streams_finished_total"];
    assert_eq!(
        changed.count(),
        Quantity::ALL.len() + own.len() - ends.len()
    );
}

/// A newer version can write values that this one does not know.
#[test]
fn unknown_values_are_counted_as_other() {
    let collector = Collector::builder().build().unwrap();
    let telemetry: Telemetry = serde_json::from_str(
        r#"{
            "outcome": "paused",
            "metrics": { "totalTokens": 3, "beams": 7 },
            "network": { "errorCount": 5, "errorsByType": { "timeout": 1, "tls": 2, "quic": 2 } }
        }"#,
    )
    .unwrap();
    collector.record(&telemetry, &Labels::none());
    let read = support::read(&collector.expose());
    for (name, label, value, count) in [
        (
            "l0_network_errors_by_type_total",
            "error_type",
            "other",
            4.0,
        ),
        (
            "l0_network_errors_by_type_total",
            "error_type",
            "timeout",
            1.0,
        ),
    ] {
        assert_eq!(read.get(name, [(label, value)]), Some(count), "{name}");
    }
    assert_eq!(read.sum("l0_network_errors_total"), 5.0);
}

#[test]
fn error_types_are_limited_and_their_sum_is_exact() {
    let collector = Collector::builder().build().unwrap();
    let mut telemetry = Telemetry::default();
    telemetry.outcome = Some(l0_core::Outcome::Failed);
    for index in 0..1_000 {
        let mut error = ErrorRecord::default();
        error.error_type = format!("type-{index}").into();
        telemetry.error = Some(error);
        collector.record(&telemetry, &Labels::none());
    }
    let read = support::read(&collector.expose());
    assert_eq!(read.label_sets("l0_failures_total").len(), 65);
    assert_eq!(
        read.get("l0_failures_total", [("error_type", "other")]),
        Some(936.0)
    );
    assert_eq!(read.sum("l0_failures_total"), 1_000.0);
}

#[test]
fn a_telemetry_without_gaps_adds_to_no_histogram() {
    let collector = Collector::builder().build().unwrap();
    let mut telemetry = Telemetry::default();
    telemetry.metrics.inter_token = Some(Distribution::new());
    collector.record(&telemetry, &Labels::none());
    let text = collector.expose();
    let counts: Vec<_> = text
        .lines()
        .filter(|line| line.contains("_count "))
        .collect();
    assert_eq!(counts.len(), text.matches(" histogram\n").count());
    assert!(counts.len() >= 6, "{counts:?}");
    assert!(counts.iter().all(|line| line.ends_with(" 0")), "{counts:?}");
}

/// The documentation of `max_series` states the approximate number.
#[test]
fn a_label_set_of_a_plain_run_takes_about_190_lines() {
    let collector = Collector::builder().build().unwrap();
    let l0 = L0::builder()
        .interceptor(collector.label_keys(["model"]).unwrap())
        .build();
    let mut lines = Vec::new();
    for model in ["a", "b"] {
        let run = l0.stream(Script::new().source()).metadata("model", model);
        drop(run.start());
        let labels = Labels::new([("model", model)]).unwrap();
        let mut telemetry = Telemetry::default();
        telemetry.metrics.tokens_per_second = Some(100.0);
        collector.record(&telemetry, &labels);
        let text = collector.expose();
        lines.push(text.lines().filter(|line| !line.starts_with('#')).count());
    }
    let added = lines[1] - lines[0];
    assert!((175..205).contains(&added), "{added}");
}

#[test]
fn an_empty_collector_exposes_nothing() {
    let collector = collector();
    assert_eq!(collector.expose(), "");
    collector.record(&full(), &labels());
    assert_ne!(collector.expose(), "");
    collector.clear();
    assert_eq!(collector.expose(), "");
}

#[test]
fn a_handle_still_records_after_a_clear() {
    let collector = collector();
    let handle = collector.with_labels(&labels());
    handle.record(&full());
    collector.clear();
    handle.record(&full());
    handle.record(&full());
    assert_eq!(
        support::read(&collector.expose()).sum("l0_requests_total"),
        2.0
    );
}

/// A collector with many entries: several label sets, live runs, custom metrics, unusual texts.
fn crowded() -> Collector {
    let collector = Collector::builder()
        .label("service", "a \"quoted\" \\ name\nof two lines }")
        .max_series(20)
        .build()
        .expect("valid");
    for index in 0..30 {
        let labels = Labels::new([
            ("model", format!("m{index}")),
            ("user", "ü}\u{2028}".into()),
        ]);
        collector.record(&full(), &labels.expect("valid"));
    }
    let l0 = L0::builder()
        .interceptor(collector.label_keys(["model"]).expect("valid"))
        .build();
    let script = Script::new();
    drop(l0.stream(script.source()).metadata("model", "m1").start());
    let registry = collector.registry();
    let special = Labels::new([("type", "special")]).expect("valid");
    registry
        .inc_counter(
            "events_total",
            "Help with \\ and\na second line",
            2.5,
            &special,
        )
        .expect("valid");
    registry
        .set_gauge("level", "A \"level\"", -1e21, &Labels::none())
        .expect("valid");
    registry
        .set_gauge("level", "A \"level\"", 0.1 + 0.2, &special)
        .expect("valid");
    for value in [0.001, 0.3, 99.0] {
        registry
            .observe_histogram("latency_seconds", "Latency", value, &special)
            .expect("valid");
    }
    collector
}

#[test]
fn the_text_matches_that_of_the_prometheus_crate() {
    let collector = crowded();
    let mut theirs = Vec::new();
    TextEncoder::new()
        .encode(&collector.collect(), &mut theirs)
        .unwrap();
    assert_eq!(collector.expose(), String::from_utf8(theirs).unwrap());
}

proptest! {
    #[test]
    fn whatever_is_recorded_the_text_is_the_one_that_the_prometheus_crate_writes(
        service in any::<String>(),
        runs in proptest::collection::vec((any::<String>(), 0_u64..1 << 40), 0..8),
        help in any::<String>(),
        values in proptest::collection::vec((any::<String>(), -1e9_f64..1e9), 0..8),
    ) {
        let collector = Collector::builder().label("service", service).build().unwrap();
        for (model, nanos) in runs {
            let mut telemetry = full();
            telemetry.duration = Some(Duration::from_nanos(nanos));
            telemetry.metrics.total_tokens = nanos % 1_000;
            telemetry.metrics.tokens_per_second = Some(1e9 / (nanos as f64 + 1.0));
            collector.record(&telemetry, &Labels::new([("model", model)]).unwrap());
        }
        let registry = collector.registry();
        for (user, value) in values {
            let labels = Labels::new([("user", user)]).unwrap();
            registry.inc_counter("a_total", &help, value.abs(), &labels).unwrap();
            registry.set_gauge("b", &help, value, &labels).unwrap();
            registry.observe_histogram("c", &help, value, &labels).unwrap();
        }
        let theirs = TextEncoder::new().encode_to_string(&collector.collect()).unwrap();
        prop_assert_eq!(collector.expose(), theirs);
    }
}

#[test]
fn an_applications_registry_gathers_the_same_samples() {
    let collector = crowded();
    let registry = prometheus::Registry::new();
    registry.register(Box::new(collector.clone())).unwrap();
    let text = TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    assert_eq!(support::read(&text), support::read(&collector.expose()));
}

#[test]
fn peers_find_nothing_wrong() {
    let collector = crowded();
    collector
        .registry()
        .set_gauge("level", "A \"level\"", 5, &Labels::none())
        .unwrap();
    support::check_with_peers(&collector.expose());
}

#[test]
fn collectors_of_other_prefixes_or_default_labels_share_a_registry() {
    let registry = prometheus::Registry::new();
    let build = |prefix: &str, service: &str| {
        let builder = Collector::builder()
            .prefix(prefix)
            .label("service", service);
        Box::new(builder.build().unwrap())
    };
    registry.register(build("l0", "a")).unwrap();
    registry.register(build("l0", "b")).unwrap();
    registry.register(build("other", "a")).unwrap();
    registry.register(build("l0", "a")).unwrap_err();
    let collector = build("third", "a");
    registry.register(collector.clone()).unwrap();
    registry.unregister(collector.clone()).unwrap();
    registry.register(collector).unwrap();
}

#[test]
fn labels_that_a_registry_adds_do_not_disturb_ours() {
    let labels = HashMap::from([("zone".to_owned(), "b".to_owned())]);
    let registry = prometheus::Registry::new_custom(Some("app".into()), Some(labels)).unwrap();
    let collector = collector();
    registry.register(Box::new(collector.clone())).unwrap();
    collector.record(&full(), &Labels::none());
    let text = TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    let read = support::read(&text);
    let expected = [("service", "my-app"), ("zone", "b")];
    assert_eq!(read.get("app_l0_requests_total", expected), Some(1.0));
}

#[test]
fn non_finite_numbers_are_spelled_as_prometheus_does() {
    let registry = Registry::builder().build().unwrap();
    let set = |name, value: f64| registry.set_gauge(name, "A gauge", value, &Labels::none());
    set("inf", f64::INFINITY).unwrap();
    set("minus_inf", f64::NEG_INFINITY).unwrap();
    set("nan", f64::NAN).unwrap();
    let text = registry.expose();
    for line in ["\nl0_inf +Inf\n", "\nl0_minus_inf -Inf\n", "\nl0_nan NaN\n"] {
        assert!(text.contains(line), "{text}");
    }
    support::check_with_peers(&text);
}

#[test]
fn a_metric_without_help_has_no_help_line() {
    let registry = Registry::builder().build().unwrap();
    registry
        .inc_counter("a_total", "", 1, &Labels::none())
        .unwrap();
    assert_eq!(
        registry.expose(),
        "# TYPE l0_a_total counter\nl0_a_total 1\n"
    );
    let theirs = TextEncoder::new().encode_to_string(&registry.collect());
    assert_eq!(theirs.unwrap(), registry.expose());
}

#[test]
fn a_registry_is_cleared_and_counted_in_the_same_way() {
    let registry = Registry::builder().prefix("myapp_l0").build().unwrap();
    let mut telemetry = full();
    telemetry.usage = Some(Usage::new().output(7));
    telemetry.wasted_usage = None;
    telemetry.duration = Some(Duration::from_secs(3));
    registry.record_telemetry(&telemetry, &labels());
    let read = support::read(&registry.expose());
    assert_eq!(read.sum("myapp_l0_usage_output_tokens_total"), 7.0);
    assert_eq!(read.sum("myapp_l0_usage_input_tokens_total"), 0.0);
    registry.clear();
    assert_eq!(registry.expose(), "");
}
