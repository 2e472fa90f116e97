//! OpenMetrics: the same numbers in another spelling, with exemplars.

mod support;

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use l0_core::testing::Script;
use l0_core::{Failure, L0, Monitoring, Source, Telemetry, source};
use l0_prometheus::{Collector, Labels, MetricError, PrometheusBuilder, Trace};

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
    // The text format has no exemplars.
    assert!(!collector.expose().contains("session_id"));
}

thread_local! {
    /// The current trace of a test tracer.
    static CURRENT: Cell<Option<Trace>> = const { Cell::new(None) };
}

/// Runs a source that fails and its fallback, once for each of these traces. Returns the exposed lines that
/// have an exemplar.
async fn exemplars_of(
    builder: PrometheusBuilder<Collector>,
    traces: &[Option<Trace>],
) -> Vec<String> {
    let collector = builder.build().expect("valid");
    let interceptor = collector.label_keys(["model"]).expect("valid");
    let l0 = L0::builder().interceptor(interceptor).build();
    for trace in traces {
        let denied = Script::new().attempt(|a| a.token("a").fail(Failure::status(401)));
        let answers = Script::new().attempt(|a| a.tokens(["Hello"]));
        CURRENT.set(*trace);
        let run = l0.stream(denied.source()).metadata("model", "a");
        let run = run.fallback(source(answers.source()).metadata("model", "b"));
        let mut run = run.start();
        // Another trace is current while the run is polled.
        CURRENT.set(Some(Trace::new([9; 16], [9; 8])));
        run.text().await.expect("the fallback answers");
    }
    let text = collector.expose_openmetrics();
    support::check_openmetrics_with_peers(&text);
    let lines = text.lines().filter(|line| line.contains(" # {"));
    lines.map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn a_bucket_leads_to_the_trace_that_was_current_where_its_run_started() {
    let trace = Trace::new(
        *b"0123456789abcdef",
        [0, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd],
    );
    let id = " # {trace_id=\"30313233343536373839616263646566\",span_id=\"000123456789abcd\"} ";
    let builder = || Collector::builder().exemplar_trace(|_| CURRENT.get());

    let lines = exemplars_of(builder(), &[Some(trace)]).await;
    for name in ["request_duration", "time_to_first_token"] {
        let name = format!("l0_{name}_seconds_bucket{{model=\"b\"");
        let found = lines.iter().any(|line| line.starts_with(&name));
        assert!(found, "{name}: {lines:#?}");
    }
    assert!(lines.iter().all(|line| line.contains(id)), "{lines:#?}");

    let other = Trace::new([1; 16], [1; 8]);
    for none in [
        None,
        Some(Trace::new([0; 16], [1; 8])),
        Some(Trace::new([1; 16], [0; 8])),
    ] {
        // The exemplar is the run that was counted last, which here has no trace.
        let lines = exemplars_of(builder(), &[Some(other), none]).await;
        assert!(!lines.is_empty());
        let by_session = |line: &String| line.contains(" # {session_id=\"l0_");
        assert!(lines.iter().all(by_session), "{lines:#?}");
    }
    let off = builder().exemplars(false);
    assert!(exemplars_of(off, &[Some(trace)]).await.is_empty());
}

#[tokio::test]
async fn a_run_is_counted_even_if_finding_its_trace_panics() {
    let builder = Collector::builder().exemplar_trace(|_| panic!("no tracer"));
    let collector = builder.build().unwrap();
    let l0 = L0::builder().interceptor(collector.interceptor()).build();
    let script = Script::new().attempt(|a| a.tokens(["Hello"]));
    l0.stream(script.source()).start().text().await.unwrap();
    let text = collector.expose_openmetrics();
    for part in [
        "\nl0_requests_total 1\n",
        "\nl0_observer_panics_total 1\n",
        " # {session_id=\"l0_",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[tokio::test]
async fn each_measured_run_requests_the_trace_once_at_its_start() {
    for (monitoring, expected) in [(Monitoring::new(), 1), (Monitoring::off(), 0)] {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let builder = Collector::builder().exemplar_trace(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            None
        });
        let collector = builder.build().unwrap();
        let l0 = L0::builder().interceptor(collector.interceptor());
        let l0 = l0.monitoring(monitoring).build();
        let script = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
        let mut run = l0.stream(script.source()).start();
        assert_eq!(asked.load(Ordering::Relaxed), expected);
        run.text().await.unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), expected);
    }
}

#[test]
fn no_run_id_is_exposed_unless_exemplars_are_on() {
    let collector = Collector::builder().build().unwrap();
    collector.record(&Telemetry::example(), &NONE);
    let text = collector.expose_openmetrics();
    assert!(!text.contains(&Telemetry::example().session_id));
    support::check_openmetrics_with_peers(&text);
}

#[test]
fn an_empty_collector_exposes_only_the_end_marker() {
    let collector = Collector::builder().build().unwrap();
    assert_eq!(collector.expose_openmetrics(), "# EOF\n");
}

#[test]
fn custom_metrics_follow_the_rules_of_open_metrics() {
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
    // Without the suffix, two metrics would have the same name.
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
