//! Custom metrics in a registry.

mod support;

use l0_prometheus::{Labels, MetricError, Registry};

fn registry() -> Registry {
    Registry::builder().prefix("app").build().expect("valid")
}

const NONE: Labels = Labels::none();

#[test]
fn counters_add_up_gauges_are_set_and_histograms_count() {
    let registry = registry();
    for value in [1, 2] {
        registry
            .inc_counter("events_total", "Events", value, &NONE)
            .unwrap();
        registry.set_gauge("level", "Level", value, &NONE).unwrap();
        registry
            .observe_histogram("size", "Size", value, &NONE)
            .unwrap();
    }
    let read = support::read(&registry.expose());
    assert_eq!(read.get("app_events_total", []), Some(3.0));
    assert_eq!(read.get("app_level", []), Some(2.0));
    assert_eq!(read.get("app_size_sum", []), Some(3.0));
    assert_eq!(read.get("app_size_bucket", [("le", "1")]), Some(1.0));
    assert_eq!(read.get("app_size_bucket", [("le", "+Inf")]), Some(2.0));
}

#[test]
fn the_first_use_of_a_metric_fixes_its_type_help_and_buckets() {
    let registry = registry();
    registry
        .inc_counter("events_total", "Events", 1, &NONE)
        .unwrap();
    let error = registry
        .set_gauge("events_total", "Events", 1, &NONE)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "`events_total` is a counter and cannot be used as a gauge"
    );
    let error = registry
        .inc_counter("events_total", "Other", 1, &NONE)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "help text of `events_total` is \"Events\", not \"Other\""
    );
    registry.clear();
    registry
        .set_gauge("events_total", "Events", 1, &NONE)
        .unwrap_err();
}

#[test]
fn names_must_be_free() {
    let registry = registry();
    registry
        .observe_histogram("size", "Size", 1, &NONE)
        .unwrap();
    registry
        .inc_counter("queue_sum", "Queue", 1, &NONE)
        .unwrap();
    for name in ["size_bucket", "size_sum", "size_count"] {
        let error = registry.inc_counter(name, "Help", 1, &NONE).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("metric name `{name}` is taken by `size`")
        );
    }
    registry
        .observe_histogram("queue", "Queue", 1, &NONE)
        .unwrap_err();
    for name in [
        "requests_total",
        "request_duration_seconds_sum",
        "series_overflow_total",
    ] {
        let error = registry.inc_counter(name, "Help", 1, &NONE).unwrap_err();
        assert!(matches!(error, MetricError::Taken { .. }), "{error}");
    }
    for name in ["", "a-b", "a b", "ü", "a\n"] {
        let error = registry.inc_counter(name, "Help", 1, &NONE).unwrap_err();
        assert_eq!(error, MetricError::Name(name.to_owned()));
    }
}

#[test]
fn invalid_values_are_rejected() {
    let registry = registry();
    for value in [-1.0, f64::NAN, f64::INFINITY] {
        let error = registry
            .inc_counter("events_total", "Events", value, &NONE)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`events_total` does not accept the value {value}")
        );
    }
    for value in [f64::NAN, f64::NEG_INFINITY] {
        registry
            .observe_histogram("size", "Size", value, &NONE)
            .unwrap_err();
    }
    assert_eq!(registry.expose(), "");
    // A rejected use does not fix the type or the help text either.
    registry.set_gauge("size", "Other", 1, &NONE).unwrap();
}

#[test]
fn declared_buckets_are_kept_and_fixed() {
    let registry = registry();
    let declare = |bounds: &[f64]| registry.declare_histogram("size", "Size", bounds);
    declare(&[1.0, 8.0]).unwrap();
    declare(&[1.0, 8.0]).unwrap();
    assert_eq!(
        declare(&[1.0]).unwrap_err().to_string(),
        "histogram `size` already has other buckets"
    );
    assert_eq!(
        declare(&[2.0, 1.0]).unwrap_err().to_string(),
        "bound 1 of `size` must be finite and greater than the bound before it"
    );
    registry
        .observe_histogram("size", "Size", 5, &NONE)
        .unwrap();
    let read = support::read(&registry.expose());
    assert_eq!(read.label_sets("app_size_bucket").len(), 3);
    assert_eq!(read.get("app_size_bucket", [("le", "8")]), Some(1.0));
}

#[test]
fn label_sets_of_each_metric_are_limited() {
    let registry = Registry::builder().max_series(2).build().unwrap();
    for user in 0..10 {
        let labels = Labels::new([("user", user.to_string())]).unwrap();
        registry.inc_counter("a_total", "A", 1, &labels).unwrap();
        registry.inc_counter("b_total", "B", 1, &labels).unwrap();
    }
    let read = support::read(&registry.expose());
    assert_eq!(read.label_sets("l0_a_total").len(), 3);
    assert_eq!(read.get("l0_a_total", [("user", "other")]), Some(8.0));
    assert_eq!(read.get("l0_b_total", [("user", "other")]), Some(8.0));
    assert_eq!(read.get("l0_series_overflow_total", []), Some(16.0));
    assert_eq!(
        registry.retain(|labels| labels.get("user").unwrap() != "1"),
        2
    );
}
