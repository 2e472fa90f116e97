//! OpenMetrics: the same numbers in another spelling, and exemplars.

mod support;

use l0_core::Telemetry;
use l0_prometheus::{Collector, Labels, MetricError};

const NONE: Labels = Labels::none();

fn collector() -> Collector {
    let builder = Collector::builder()
        .label("service", "my-app")
        .exemplars(true);
    let collector = builder.build().expect("valid");
    collector.record(
        &Telemetry::example(),
        &Labels::new([("model", "gpt-4")]).expect("valid"),
    );
    collector
}

#[test]
fn counters_are_named_without_their_suffix_and_bounds_have_a_point() {
    let text = collector().expose_openmetrics();
    for part in [
        "# HELP l0_requests Total L0 requests\n\
         # TYPE l0_requests counter\n\
         l0_requests_total{service=\"my-app\",model=\"gpt-4\"} 1\n",
        "l0_request_duration_seconds_bucket{service=\"my-app\",model=\"gpt-4\",le=\"1.0\"} 0\n",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    assert!(text.ends_with("\n# EOF\n"));
    support::check_openmetrics_with_peers(&text);
}

#[test]
fn a_bucket_leads_to_the_run_that_it_counted_last() {
    let collector = collector();
    let mut slow = Telemetry::example();
    slow.session_id = "slow \"one\"".to_owned();
    slow.metrics.time_to_first_token = slow.duration.map(|duration| duration * 2);
    collector.record(&slow, &Labels::new([("model", "gpt-4")]).unwrap());
    let text = collector.expose_openmetrics();
    let first = "l0_time_to_first_token_seconds_bucket{service=\"my-app\",model=\"gpt-4\",le=";
    for line in [
        format!(
            "{first}\"0.25\"}} 1 # {{session_id=\"l0_1700000000000_0123456789abc\"}} 0.25 1700000001.500\n"
        ),
        format!("{first}\"0.5\"}} 1\n"),
        format!("{first}\"5.0\"}} 2 # {{session_id=\"slow \\\"one\\\"\"}} 3 1700000001.500\n"),
    ] {
        assert!(text.contains(&line), "{line}\nis not in\n{text}");
    }
    support::check_openmetrics_with_peers(&text);
    // The text format has no place for them.
    assert!(!collector.expose().contains("session_id"));
}

#[test]
fn no_id_of_a_run_is_told_unless_it_is_switched_on() {
    let collector = Collector::builder().build().unwrap();
    collector.record(&Telemetry::example(), &NONE);
    let text = collector.expose_openmetrics();
    assert!(!text.contains(&Telemetry::example().session_id));
    support::check_openmetrics_with_peers(&text);
}

#[test]
fn nothing_recorded_is_only_the_end() {
    let collector = Collector::builder().build().unwrap();
    assert_eq!(collector.expose_openmetrics(), "# EOF\n");
}

#[test]
fn custom_metrics_follow_its_rules() {
    let collector = collector();
    let registry = collector.registry();
    registry
        .inc_counter("events", "Without \"suffix\", \\ and\nmore", 2, &NONE)
        .unwrap();
    registry
        .set_gauge("level", "Level", f64::INFINITY, &NONE)
        .unwrap();
    let text = registry.expose_openmetrics();
    for part in [
        "# HELP l0_events Without \\\"suffix\\\", \\\\ and\\nmore\n\
         # TYPE l0_events counter\n\
         l0_events_total{service=\"my-app\"} 2\n",
        "l0_level{service=\"my-app\"} +Inf\n",
    ] {
        assert!(text.contains(part), "{part}\nis not in\n{text}");
    }
    support::check_openmetrics_with_peers(&text);
    // The same name without the suffix would be one name for two metrics.
    let error = registry
        .set_gauge("requests", "Requests", 1, &NONE)
        .unwrap_err();
    assert!(matches!(error, MetricError::Taken { .. }), "{error}");
}

#[test]
fn a_histogram_of_values_below_zero_has_no_sum() {
    let collector = Collector::builder().build().unwrap();
    let registry = collector.registry();
    registry
        .declare_histogram("shift", "Shift", &[-1.0, 0.0, 1e6])
        .unwrap();
    registry
        .observe_histogram("shift", "Shift", -3, &NONE)
        .unwrap();
    let text = registry.expose_openmetrics();
    assert_eq!(
        text,
        "# HELP l0_shift Shift\n\
         # TYPE l0_shift histogram\n\
         l0_shift_bucket{le=\"-1.0\"} 1\n\
         l0_shift_bucket{le=\"0.0\"} 1\n\
         l0_shift_bucket{le=\"1e+06\"} 1\n\
         l0_shift_bucket{le=\"+Inf\"} 1\n\
         # EOF\n"
    );
    assert!(registry.expose().contains("l0_shift_sum -3\n"));
}
