//! Logs JSON through `tracing`: the lines of a chat name its run, and each span ends with a line of its
//! numbers. The same spans go to OpenTelemetry as one trace.
//!
//! ```console
//! $ cargo run -p l0-examples --bin tracing --features tracing
//! $ RUST_LOG=l0=warn cargo run -p l0-examples --bin tracing --features tracing  # only problems
//! ```
//!
//! The first model fails twice, and another one answers. With `OPENAI_API_KEY` set, the first model most
//! likely answers.
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::time::Duration;

use l0_core::{Backoff, L0, Retry};
use l0_providers::openai::ChatRequest;
use l0_tracing::TracingInterceptor;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Instrument, info, info_span};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::prelude::*;

const MODEL: &str = "gpt-4o-mini";
/// The model for the fallback.
const FALLBACK: &str = "gpt-4.1-mini";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let spans = opentelemetry_stdout::SpanExporter::default();
    let tracers = SdkTracerProvider::builder()
        .with_batch_exporter(spans)
        .build();
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::registry()
        .with(filter.parse::<Targets>()?)
        .with(fmt::layer().json().with_span_events(FmtSpan::CLOSE))
        .with(tracing_opentelemetry::layer().with_tracer(tracers.tracer("example")))
        .init();

    let (client, _server) = l0_examples::client(2).await?;
    let backoff = Backoff::fixed(Duration::from_millis(200));
    let l0 = L0::builder()
        .retry(Retry::new().max_retries(1).backoff(backoff))
        .interceptor(TracingInterceptor::new())
        .build();
    let request = |model| ChatRequest::new(model).user("What is a token stream?");

    // The span of the application becomes the parent of the run's span.
    let answer = async {
        let mut run = l0
            .stream_from(client.chat(&request(MODEL)))
            .fallback(client.chat(&request(FALLBACK)))
            .start();
        let answer = run.text().await;
        info!(run = run.info().id(), "answered");
        answer
    };
    let answer = answer.instrument(info_span!("answer")).await?;
    println!("\n{answer}\n");

    // Shutting down exports the rest, so it must not block a runtime thread.
    tokio::task::spawn_blocking(move || tracers.shutdown()).await??;
    Ok(())
}
