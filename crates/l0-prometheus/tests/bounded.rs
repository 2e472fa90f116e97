//! Memory stays bounded for any labels, and no count is lost.

mod support;

use std::time::Duration;

use allocation_counter::measure;
use l0_core::Telemetry;
use l0_prometheus::{Collector, Labels};

#[test]
fn a_million_models_share_101_label_sets() {
    let collector = Collector::builder().max_series(100).build().unwrap();
    let telemetry = Telemetry::example();
    let record = |indices: std::ops::Range<u32>| {
        for index in indices {
            let labels = Labels::new([("model", format!("model-{index}"))]).unwrap();
            collector.record(&telemetry, &labels);
        }
    };
    record(0..10_000);
    let used = measure(|| record(10_000..1_000_000));

    assert_eq!(collector.registry().series_count(), 101);
    let text = collector.expose();
    let read = support::read(&text);
    assert_eq!(read.label_sets("l0_requests_total").len(), 101);
    assert_eq!(read.sum("l0_requests_total"), 1e6);
    assert_eq!(read.sum("l0_tokens_total"), 150e6);
    assert_eq!(read.sum("l0_request_duration_seconds_count"), 1e6);
    assert_eq!(read.sum("l0_inter_token_seconds_count"), 148e6);
    assert_eq!(
        read.get("l0_requests_total", [("model", "other")]),
        Some(999_900.0)
    );
    assert_eq!(
        read.get("l0_request_duration_seconds_sum", [("model", "other")]),
        Some(1_499_850.0)
    );
    assert_eq!(read.get("l0_series_overflow_total", []), Some(999_900.0));
    // Memory that is kept. The resident memory of the process depends on its other threads too.
    assert!(used.bytes_current < 4 << 20, "{used:?}");
}

#[test]
fn idle_label_sets_are_dropped_when_metrics_are_read() {
    let collector = Collector::builder()
        .idle_timeout(Duration::ZERO)
        .build()
        .unwrap();
    let labels = |model| Labels::new([("model", model)]).unwrap();
    let held = collector.with_labels(&labels("held"));
    collector.record(&Telemetry::example(), &labels("idle"));
    // A timeout of zero drops everything that is not in use.
    let read = support::read(&collector.expose());
    assert_eq!(read.label_sets("l0_requests_total").len(), 1);
    held.record(&Telemetry::example());
    let read = support::read(&collector.expose());
    assert_eq!(
        read.get("l0_requests_total", [("model", "held")]),
        Some(1.0)
    );
}

#[test]
fn a_dropped_label_set_comes_back_at_zero() {
    let collector = Collector::builder().build().unwrap();
    let labels = |model| Labels::new([("model", model)]).unwrap();
    for model in ["old", "old", "new"] {
        collector.record(&Telemetry::example(), &labels(model));
    }
    assert_eq!(
        collector.retain(|labels| labels.get("model").unwrap() != "old"),
        1
    );
    collector.record(&Telemetry::example(), &labels("old"));
    let read = support::read(&collector.expose());
    assert_eq!(read.get("l0_requests_total", [("model", "old")]), Some(1.0));
    assert_eq!(read.get("l0_requests_total", [("model", "new")]), Some(1.0));
}

#[test]
fn a_collector_drops_label_sets_too() {
    let collector = Collector::builder().build().unwrap();
    collector.record(&Telemetry::example(), &Labels::none());
    let dropped = collector.retain(|labels| {
        collector.record(&Telemetry::example(), labels);
        collector.expose().is_empty()
    });
    assert_eq!(dropped, 1);
}
