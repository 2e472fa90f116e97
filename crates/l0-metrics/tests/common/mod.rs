//! A recorder of the facade, and its samples.

#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::BTreeMap;
use std::sync::Arc;

use l0_core::{L0, L0Builder, Monitoring};
use l0_metrics::MetricsInterceptor;
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio::runtime::Runtime;

/// Returns a Prometheus recorder with the recommended buckets.
pub(crate) fn recorder(metrics: &MetricsInterceptor) -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for (name, bounds) in metrics.buckets() {
        builder = builder
            .set_buckets_for_metric(Matcher::Full(name), bounds)
            .unwrap();
    }
    builder.build_recorder()
}

/// Returns the recorded samples by name and labels, as in the text format.
pub(crate) fn samples(handle: &PrometheusHandle) -> BTreeMap<String, f64> {
    let text = handle.render();
    let lines = text.lines().filter(|line| !line.is_empty());
    let lines = lines.filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (series, value) = line.rsplit_once(' ').unwrap();
        (series.to_owned(), value.parse().unwrap())
    });
    samples.collect()
}

/// Returns a runtime with a paused clock.
pub(crate) fn paused() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

pub(crate) fn measured(metrics: &Arc<MetricsInterceptor>) -> L0Builder {
    L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(Arc::clone(metrics))
}
