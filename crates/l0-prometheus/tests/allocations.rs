//! Only a new label set allocates; counting a run does not.

use allocation_counter::measure;
use l0_core::{Cause, End, ErrorRecord, Monitor, Monitoring, Severity, Telemetry, Violation};
use l0_prometheus::{Collector, Labels};

#[test]
fn counting_a_run_allocates_nothing() {
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.start();
    monitor.record_violations(&[Violation::new("json", Severity::Error, "wrong")]);
    monitor.complete(End::completed());
    let mut telemetry = Telemetry::example();
    telemetry.guardrails = monitor.telemetry().unwrap().guardrails;
    let end = End::of(Cause::ZeroOutput);
    telemetry.outcome = Some(end.outcome());
    telemetry.error = ErrorRecord::of(&end);

    let collector = Collector::builder()
        .max_series(2)
        .label("service", "my-app")
        .build()
        .unwrap();
    let labels = |model| Labels::new([("model", model), ("endpoint", "/chat")]).unwrap();
    let (known, one_too_many) = (labels("a"), labels("c"));
    for labels in [&known, &labels("b"), &one_too_many] {
        collector.record(&telemetry, labels);
    }
    let handle = collector.with_labels(&known);
    let counted = measure(|| {
        handle.record(&telemetry);
        collector.record(&telemetry, &known);
        collector.record(&telemetry, &one_too_many);
    });
    assert_eq!(counted.count_total, 0);
}
