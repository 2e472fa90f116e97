//! Custom metrics next to those of runs, and both next to metrics of the `prometheus` crate.
//!
//! ```console
//! $ cargo run -p l0-examples --bin prometheus_registry --features prometheus_registry
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;

use l0_core::{L0, Monitoring};
use l0_prometheus::{Collector, Labels, Registry};
use l0_providers::openai::ChatRequest;
use prometheus::{IntCounter, TextEncoder};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, _server) = l0_examples::client(0).await?;
    let l0 = L0::builder().monitoring(Monitoring::new()).build();
    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    let mut run = l0.stream_from(client.chat(&request)).start();
    run.text().await?;
    let telemetry = run.telemetry().ok_or("monitoring is on")?;
    let model = Labels::new([("model", "gpt-4o-mini"), ("endpoint", "/chat")])?;

    // A separate registry, with manually recorded telemetry and custom metrics.
    let registry = Registry::builder()
        .prefix("myapp_l0")
        .label("service", "api")
        .build()?;
    registry.record_telemetry(&telemetry, &model);
    let special = Labels::new([("type", "special")])?;
    registry.inc_counter("custom_events_total", "Custom event count", 1, &special)?;
    registry.set_gauge("queue_length", "Requests in the queue", 5, &Labels::none())?;
    let latency = "custom_latency_seconds";
    registry.observe_histogram(latency, "Custom latency", 0.5, &Labels::none())?;
    show("separate registry", &registry.expose());

    // The existing registry of the application: one registry, one endpoint.
    let app = prometheus::Registry::new();
    let visits = IntCounter::new("visits_total", "Visits")?;
    app.register(Box::new(visits.clone()))?;
    let collector = Collector::builder().label("service", "api").build()?;
    app.register(Box::new(collector.clone()))?;
    visits.inc();
    collector.record(&telemetry, &model);
    let text = TextEncoder::new().encode_to_string(&app.gather())?;
    show("registry of the application", &text);
    Ok(())
}

/// Prints counters and gauges.
fn show(title: &str, text: &str) {
    println!("-- {title}: {} lines, including", text.lines().count());
    let wanted = [
        "requests_total",
        "tokens_total",
        "custom_",
        "queue_",
        "visits",
    ];
    for line in text.lines() {
        let (name, _) = line.split_once(['{', ' ']).unwrap_or((line, ""));
        if wanted.iter().any(|part| name.contains(part)) && !name.ends_with("_bucket") {
            println!("{line}");
        }
    }
}
