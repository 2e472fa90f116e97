//! Runs are recorded with the recorder that is current where they start, whenever it was installed.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;

use common::{measured, paused, recorder, samples};
use l0_core::testing::Script;
use l0_core::{Failure, L0, Retry};
use l0_metrics::MetricsInterceptor;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    set_global_recorder, with_local_recorder,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use metrics_util::MetricKind;
use metrics_util::debugging::DebuggingRecorder;

fn run(l0: &L0) {
    let script = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
    let run = async { l0.stream(script.source()).start().text().await };
    paused().block_on(run).unwrap();
}

#[test]
fn a_recorder_can_be_installed_after_runs_and_a_local_one_comes_first() {
    let metrics = Arc::new(MetricsInterceptor::new());
    let l0 = measured(&metrics).build();
    run(&l0);

    let global = recorder(&metrics);
    let seen_globally = global.handle();
    set_global_recorder(global).unwrap();
    assert!(samples(&seen_globally).is_empty());
    run(&l0);
    assert_eq!(samples(&seen_globally)["l0_requests_total"], 1.0);

    let locals = [recorder(&metrics), recorder(&metrics)];
    for _ in 0..2 {
        for local in &locals {
            with_local_recorder(local, || run(&l0));
        }
        run(&l0);
    }
    for local in &locals {
        assert_eq!(samples(&local.handle())["l0_requests_total"], 2.0);
    }
    assert_eq!(samples(&seen_globally)["l0_requests_total"], 3.0);
}

/// A metric that is registered later is not registered with a recorder that the run does not use.
#[test]
fn a_run_keeps_the_handles_of_its_start_and_registers_nothing_elsewhere() {
    let metrics = Arc::new(MetricsInterceptor::new());
    let l0 = measured(&metrics).retry(Retry::none()).build();
    let (own, other) = (recorder(&metrics), recorder(&metrics));
    let script = Script::new().attempt(|a| a.tokens(["a", "b"]).fail(Failure::status(401)));
    let mut run = with_local_recorder(&own, || l0.stream(script.source()).start());
    with_local_recorder(&other, || paused().block_on(run.text())).unwrap_err();
    let own = samples(&own.handle());
    assert_eq!(own["l0_streams_finished_total{outcome=\"failed\"}"], 1.0);
    assert_eq!(own["l0_tokens_total"], 2.0);
    assert!(own.keys().all(|series| !series.contains("error_type")));
    assert_eq!(samples(&other.handle()), [].into());
}

#[test]
fn every_metric_is_described_once_with_its_unit() {
    let metrics = Arc::new(MetricsInterceptor::new());
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    with_local_recorder(&recorder, || {
        let l0 = measured(&metrics).build();
        run(&l0);
        run(&l0);
    });
    let mut described = 0;
    for (key, unit, description, _) in snapshotter.snapshot().into_vec() {
        let name = key.key().name().to_owned();
        assert!(description.is_some(), "{name} has no description");
        let expected = if name.contains("per_second") {
            None
        } else if name.contains("_seconds") {
            Some(Unit::Seconds)
        } else {
            Some(Unit::Count)
        };
        assert_eq!(unit, expected, "{name}");
        let rises = name.ends_with("_total") && !name.contains("_seconds");
        assert_eq!(key.kind() == MetricKind::Counter, rises, "{name}");
        described += 1;
    }
    assert!(described > 40, "{described}");
}

/// Exporters can add units and `total` to names; these names already have them.
#[test]
fn recommended_naming_leaves_the_names_as_they_are() {
    let names = [true, false].map(|recommended| {
        let metrics = Arc::new(MetricsInterceptor::new().prefix("app_l0"));
        let mut builder = PrometheusBuilder::new().with_recommended_naming(recommended);
        for (name, bounds) in metrics.buckets() {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(name), bounds)
                .unwrap();
        }
        let recorder = builder.build_recorder();
        with_local_recorder(&recorder, || run(&measured(&metrics).build()));
        Vec::from_iter(samples(&recorder.handle()).into_keys())
    });
    assert_eq!(names[0], names[1]);
    assert!(names[0].iter().all(|name| name.starts_with("app_l0_")));
}

/// A Prometheus recorder whose handle for gaps panics.
struct Panics(PrometheusRecorder);

impl HistogramFn for Panics {
    fn record(&self, _: f64) {
        panic!("out of order");
    }
}

impl Recorder for Panics {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_counter(key, unit, text);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_gauge(key, unit, text);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_histogram(key, unit, text);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.0.register_counter(key, metadata)
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.0.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        if key.name() == "l0_inter_token_seconds" {
            let recorder = PrometheusBuilder::new().build_recorder();
            return Histogram::from_arc(Arc::new(Self(recorder)));
        }
        self.0.register_histogram(key, metadata)
    }
}

#[test]
fn a_recorder_that_panics_leaves_the_run_alone_and_no_run_active() {
    let metrics = Arc::new(MetricsInterceptor::new());
    let recorder = Panics(recorder(&metrics));
    let l0 = measured(&metrics).build();
    let script = Script::new().attempt(|a| a.tokens(["a"; 100]));
    let read = with_local_recorder(&recorder, || {
        paused().block_on(l0.stream(script.source()).start().text())
    });
    assert_eq!(read.unwrap().len(), 100);
    let samples = samples(&recorder.0.handle());
    assert_eq!(samples["l0_streams_active"], 0.0);
    assert_eq!(samples["l0_streams_started_total"], 1.0);
    assert_eq!(
        samples["l0_streams_finished_total{outcome=\"dropped\"}"],
        1.0
    );
}
