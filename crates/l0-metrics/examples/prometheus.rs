//! Records runs through the `metrics` facade, together with your own metrics, as Prometheus would scrape them.
//!
//! ```console
//! $ cargo run -p l0-metrics --example prometheus
//! ```
#![allow(clippy::print_stdout, reason = "a terminal program")]

use std::error::Error;
use std::sync::Arc;

use l0_core::testing::Script;
use l0_core::{L0, keys};
use l0_metrics::MetricsInterceptor;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let metrics = Arc::new(MetricsInterceptor::new().label_keys([keys::MODEL])?);
    let mut exporter = PrometheusBuilder::new().add_global_label("service", "my-app");
    for (name, bounds) in metrics.buckets() {
        exporter = exporter.set_buckets_for_metric(Matcher::Full(name), bounds)?;
    }
    let handle = exporter.install_recorder()?;

    // Use your own client instead of this script.
    let client = Script::new().attempt(|a| a.tokens(["Hello", ", world"]));
    let l0 = L0::builder().interceptor(Arc::clone(&metrics)).build();
    let run = l0
        .stream(client.source())
        .metadata(keys::MODEL, "gpt-4o-mini");
    run.start().text().await?;
    metrics::counter!("visits_total").increment(1);

    metrics.refresh(); // before each scrape
    for line in handle.render().lines() {
        // Prints all samples except buckets and zeros.
        let is_sample = !line.is_empty() && !line.starts_with('#');
        if is_sample && !line.contains("_bucket{") && !line.ends_with(" 0") {
            println!("{line}");
        }
    }
    Ok(())
}
