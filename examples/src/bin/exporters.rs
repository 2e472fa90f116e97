//! The telemetry of one run in each format: JSON, CSV, structured log, metric points.
//!
//! ```console
//! $ cargo run -p l0-examples --bin exporters --features exporters
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;

use l0_core::{L0, Monitoring, keys};
use l0_export::log::LogRecord;
use l0_export::{csv, json, metrics};
use l0_providers::openai::ChatRequest;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, _server) = l0_examples::client(0).await?;
    let l0 = L0::builder().monitoring(Monitoring::new()).build();
    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    let mut run = l0
        .stream_from(client.chat(&request))
        .metadata("environment", "example")
        .start();
    run.text().await?;
    let telemetry = run.telemetry().ok_or("monitoring is on")?;

    println!("JSON:\n{}", json::to_string_pretty(&telemetry)?);
    println!("\nCSV:\n{}", csv::to_string(&telemetry)?);
    let record = LogRecord::from(&telemetry);
    println!("log:\n{}", serde_json::to_string(&record)?);

    println!("\nmetric points:");
    let tags = metrics::tag_keys([keys::MODEL])?;
    for point in metrics::points(&telemetry).tags(&tags) {
        let tags: Vec<_> = point
            .tags
            .iter()
            .map(|(key, value)| format!("{key}:{value}"))
            .collect();
        println!(
            "{} {} {:?} {}",
            point.name,
            point.value,
            point.kind,
            tags.join(",")
        );
    }
    Ok(())
}
