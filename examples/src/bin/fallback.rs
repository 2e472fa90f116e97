//! A fallback from a provider that fails to another one: the attempts, the telemetry of each, and the
//! Prometheus metrics. Both providers are scripted.
//!
//! ```console
//! $ cargo run -p l0-examples --bin fallback --features fallback
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::{Backoff, Chunk, L0, Monitoring, Retry, Usage};
use l0_prometheus::Collector;
use l0_providers::openai::ChatRequest;
use l0_providers::testing::{Answer, ScriptedProvider};
use l0_providers::{anthropic, openai};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The first answer breaks off, and the retry is rejected as overloaded.
    let first = ScriptedProvider::start([
        Answer::new().tokens(["A mo", "nad is"]).cut(),
        Answer::status(503).message("overloaded"),
    ])
    .await?;
    let second =
        ScriptedProvider::start([Answer::text(["A monad ", "is a way ", "to chain steps."])
            .usage(Usage::new().input(12).output(9))])
        .await?;
    let openai = openai::Client::new(&first.base_url())?.provider_name("openai");
    let anthropic = anthropic::Client::new(&second.base_url())?.provider_name("anthropic");

    let collector = Collector::builder().build()?;
    let backoff = Backoff::fixed(Duration::from_millis(50));
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().max_retries(1).backoff(backoff))
        .interceptor(collector.label_keys(["model", "provider"])?)
        .build();

    let question = "What is a monad?";
    let request = ChatRequest::new("gpt-4o-mini").user(question);
    let other = json!({
        "model": "claude-haiku-4-5",
        "max_tokens": 1_000,
        "messages": [{"role": "user", "content": question}],
    });
    // Each source describes itself, so no metadata is needed.
    let mut run = l0
        .stream_from(openai.chat(&request))
        .fallback(anthropic.messages(&other))
        .start();
    while let Some(chunk) = run.next().await {
        match chunk? {
            Chunk::Item(token) => print!("{}", token.answer()),
            Chunk::Restart { attempt, .. } => println!("\n-- attempt {attempt}"),
        }
    }

    println!("\n\n{}\n", run.telemetry().expect("monitoring is on"));
    let shown = [
        "l0_requests_total",
        "l0_tokens_total",
        "l0_network_errors_total",
        "l0_attempts_total",
        "l0_fallbacks_total",
    ];
    for line in collector.expose().lines() {
        let is_shown = shown.iter().any(|name| line.starts_with(name));
        if is_shown && !line.ends_with(" 0") {
            println!("{line}");
        }
    }
    Ok(())
}
