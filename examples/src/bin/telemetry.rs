//! Reads telemetry: a summary, network errors, violations, times.
//!
//! ```console
//! $ cargo run -p l0-examples --bin telemetry --features telemetry
//! ```
//!
//! The server inside the process first breaks a connection mid-stream, and then sends an answer that
//! violates rules. The third attempt succeeds.
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::time::Duration;

use l0_core::{Backoff, L0, Monitoring, Retry, Telemetry};
use l0_examples::server::Fault;
use l0_guardrails::Guardrails;
use l0_providers::openai::ChatRequest;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, server) = l0_examples::client(1).await?;
    if let Some(server) = &server {
        server.fail_next([Fault::Bad]);
    }
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().backoff(Backoff::fixed(Duration::from_millis(50))))
        .guardrails(Guardrails::recommended())
        .build();
    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    let mut run = l0.stream_from(client.chat(&request)).start();
    let answer = run.text().await;

    // Before returning the error: a failed run has telemetry too.
    let telemetry = run.telemetry().ok_or("monitoring is on")?;
    println!("{}", serde_json::to_string_pretty(&telemetry.summary())?);
    network_errors(&telemetry);
    violations(&telemetry);
    times(&telemetry);
    answer?;
    Ok(())
}

fn network_errors(telemetry: &Telemetry) {
    if !telemetry.has_network_errors() {
        return;
    }
    println!("\nnetwork errors by type:");
    for (kind, count) in &telemetry.network.errors_by_type {
        println!("  {kind}: {count}");
    }
    // Absent if network details are disabled.
    for error in telemetry.network.errors.iter().flatten() {
        println!("  {}: {}", error.kind, error.message);
        println!(
            "    retried: {}, after {:?}",
            error.was_retried(),
            error.delay()
        );
    }
}

fn violations(telemetry: &Telemetry) {
    let Some(guardrails) = &telemetry.guardrails else {
        return;
    };
    println!("\nviolations: {}", guardrails.violation_count);
    let by_severity = guardrails.violations_by_severity;
    println!(
        "  {} warnings, {} errors, {} fatal",
        by_severity.warning, by_severity.error, by_severity.fatal
    );
    for (rule, count) in &guardrails.violations_by_rule {
        println!("  {rule}: {count}");
    }
}

fn times(telemetry: &Telemetry) {
    let metrics = &telemetry.metrics;
    let gaps = metrics.inter_token.as_ref();
    println!("\ntimes (unknown ones are None):");
    println!("  first token after {:?}", metrics.time_to_first_token);
    println!("  average gap {:?}", metrics.avg_inter_token_time);
    println!("  p99 of the gaps {:?}", gaps.and_then(|gaps| gaps.p99()));
    println!("  tokens per second {:?}", metrics.tokens_per_second);
    println!("  while tokens flow {:?}", metrics.output_tokens_per_second);
    println!("  duration {:?}", telemetry.duration);
}
