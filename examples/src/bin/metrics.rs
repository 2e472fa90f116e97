//! Runs through the `metrics` facade, beside metrics of one's own, as Prometheus would scrape them.
//!
//! ```console
//! $ cargo run -p l0-examples --bin metrics
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;

use l0_core::L0;
use l0_metrics::MetricsInterceptor;
use l0_providers::openai::ChatRequest;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let metrics = MetricsInterceptor::new().label_keys(["model"])?;
    let mut exporter = PrometheusBuilder::new().add_global_label("service", "my-app");
    for (name, bounds) in metrics.buckets() {
        exporter = exporter.set_buckets_for_metric(Matcher::Full(name), bounds)?;
    }
    let handle = exporter.install_recorder()?;

    let (client, _server) = l0_examples::client(1).await?;
    let l0 = L0::builder().interceptor(metrics.clone()).build();
    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    l0.stream_from(client.chat(&request)).start().text().await?;
    metrics::counter!("visits_total").increment(1);

    metrics.refresh(); // before each scrape
    for line in handle.render().lines() {
        // All but buckets, and what did not happen.
        if !line.is_empty() && !line.contains("_bucket{") && !line.ends_with(" 0") {
            println!("{line}");
        }
    }
    Ok(())
}
