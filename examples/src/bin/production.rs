//! Monitoring in production: a separate task exports a sample of the runs, Prometheus counts all of
//! them, and the settings depend on the environment.
//!
//! ```console
//! $ cargo run -p l0-examples --bin production --features production
//! $ ENVIRONMENT=production cargo run -p l0-examples --bin production --features production
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use l0_core::{L0, Monitoring, Retry, RetryBudget, Timeouts, keys};
use l0_prometheus::Collector;
use l0_providers::openai::ChatRequest;

const RUNS: usize = 40;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let environment = std::env::var("ENVIRONMENT").unwrap_or_else(|_| "development".to_owned());
    let production = environment == "production";

    let (client, _server) = l0_examples::client(0).await?;
    let collector = Collector::builder().build()?;
    let (queue, mut receiver) = l0_export::queue(1_024);
    let export = tokio::spawn(async move {
        let mut records = 0;
        // No run waits for this loop.
        while let Some(telemetry) = receiver.recv().await {
            records += 1;
            if records == 1 {
                println!("a record: {}", l0_export::json::to_string(&telemetry)?);
            }
        }
        Ok::<usize, serde_json::Error>(records)
    });

    let l0 = L0::builder()
        .monitoring(
            Monitoring::new()
                .sample_rate(if production { 0.25 } else { 1.0 })
                .include_network_details(!production)
                .metadata("environment", environment),
        )
        .timeouts(
            Timeouts::new()
                .first_token(Duration::from_secs(60)) // includes reasoning that the provider does not stream
                .inter_token(Duration::from_secs(30))
                .idle(Duration::from_secs(45)) // also satisfied by pings
                .total(Duration::from_secs(300)), // includes retries
        )
        // A provider that is down gets 20 % more requests instead of seven times as many.
        .retry(Retry::new().budget(RetryBudget::share(0.2)))
        .interceptor(collector.label_keys([keys::MODEL])?)
        .interceptor(queue.clone())
        .seed(1) // the same sample each time
        .build();
    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    let runs = (0..RUNS).map(async |number| {
        let mut run = l0
            .stream_from(client.chat(&request))
            .metadata("request_id", number)
            .start();
        run.text().await.is_ok()
    });
    let mut runs = stream::iter(runs).buffer_unordered(20);
    while runs.next().await.is_some() {}

    queue.close(); // the export receives the rest, and ends
    println!("exported {} of {RUNS} runs", export.await??);
    for line in collector.expose().lines() {
        if line.starts_with("l0_requests_total") || line.starts_with("l0_streams_started_total") {
            println!("{line}");
        }
    }
    Ok(())
}
