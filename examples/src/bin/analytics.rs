//! Sends telemetry to an analytics service from a separate task, so no run waits for it.
//!
//! ```console
//! $ cargo run -p l0-examples --bin analytics --features analytics
//! ```
//!
//! The service is inside the process, and prints what it receives.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a terminal program"
)]

use std::error::Error;
use std::net::Ipv4Addr;

use axum::Router;
use axum::routing::post;
use l0_core::{L0, Outcome, Telemetry};
use l0_export::QueueReceiver;
use l0_providers::openai::ChatRequest;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, _server) = l0_examples::client(1).await?;
    let (queue, receiver) = l0_export::queue(1_024);
    let export = tokio::spawn(export(receiver, analytics_service().await?));

    // The queue is an interceptor: every run adds its telemetry, on every exit.
    let l0 = L0::builder().interceptor(queue.clone()).build();
    for question in [
        "What is a token?",
        "What is a stream?",
        "What is a token stream?",
    ] {
        let request = ChatRequest::new("gpt-4o-mini").user(question);
        l0.stream_from(client.chat(&request)).start().text().await?;
    }
    // A dropped run is reported too.
    let request = ChatRequest::new("gpt-4o-mini").user("Never mind.");
    drop(l0.stream_from(client.chat(&request)).start());

    // At shutdown, the task sends the rest and ends.
    queue.close();
    export.await??;
    println!("not exported: {}", queue.dropped());
    Ok(())
}

/// Sends batches until the queue is closed.
async fn export(mut receiver: QueueReceiver, url: String) -> Result<(), reqwest::Error> {
    let http = reqwest::Client::new();
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch, 100).await > 0 {
        let events: Vec<_> = batch.drain(..).map(|telemetry| event(&telemetry)).collect();
        let body = Value::from(events).to_string();
        http.post(&url)
            .body(body)
            .send()
            .await?
            .error_for_status()?;
    }
    Ok(())
}

fn event(telemetry: &Telemetry) -> Value {
    let summary = telemetry.summary();
    json!({
        "event": "l0_execution",
        "session_id": summary.session_id,
        "duration_ms": summary.duration.map(|duration| duration.as_millis() as u64),
        "tokens": summary.tokens,
        "tokens_per_second": summary.tokens_per_second,
        "retries": summary.retries,
        "network_errors": summary.network_errors,
        "violations": summary.violations,
        "outcome": telemetry.outcome.map(Outcome::as_str),
        "timestamp": telemetry.end_time(),
    })
}

/// Starts a server that replaces the service. Returns its URL.
async fn analytics_service() -> Result<String, Box<dyn Error>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}/events", listener.local_addr()?);
    let events = post(|body: String| async move { println!("analytics got {body}") });
    let service = Router::new().route("/events", events);
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(url)
}
