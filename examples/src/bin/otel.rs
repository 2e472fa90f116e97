//! Sends a chat to OpenTelemetry: its spans, and the metrics of the conventions for generative AI.
//!
//! ```console
//! $ cargo run -p l0-examples --bin otel
//! $ OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 cargo run -p l0-examples --bin otel
//! ```
//!
//! The first model fails twice, and another one answers: the run has a span, and below it each attempt,
//! with the model that it asked. With `OPENAI_API_KEY` set, most likely the first answers.
//!
//! Without an endpoint, what a collector would get is printed. The other variables of OpenTelemetry,
//! such as `OTEL_SERVICE_NAME` and `OTEL_EXPORTER_OTLP_HEADERS`, work too.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a terminal program"
)]

use std::error::Error;
use std::io::{Write, stdout};
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::{Backoff, Chunk, L0, Retry, Source, keys, source};
use l0_otel::OtelInterceptor;
use l0_providers::openai::ChatRequest;
use opentelemetry::trace::{SpanKind, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, global};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

const PROVIDER: &str = "openai";
const MODEL: &str = "gpt-4o-mini";
/// What is asked when the other has failed.
const FALLBACK: &str = "gpt-4.1-mini";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (tracers, meters) = providers()?;
    global::set_tracer_provider(tracers.clone());
    global::set_meter_provider(meters.clone());
    let tracer = tracers.tracer("example");

    let (client, _server) = l0_examples::client(2).await?;
    let backoff = Backoff::fixed(Duration::from_millis(200));
    let l0 = L0::builder()
        .retry(Retry::new().max_retries(1).backoff(backoff))
        .interceptor(OtelInterceptor::default())
        .build();
    let request = |model| ChatRequest::new(model).user("What is a token stream?");
    let (first, second) = (request(MODEL), request(FALLBACK));
    let ask = async |request: &ChatRequest| {
        // As an HTTP client does that makes spans.
        let post = tracer.span_builder("POST").with_kind(SpanKind::Client);
        let _post = post.start(&tracer);
        client.chat_stream(request).await
    };

    // The application's own span becomes the parent of the run's. That is the parent of its attempts',
    // which are the parents of those that an HTTP client makes.
    let answer = Context::current_with_span(tracer.start("answer"));
    let current = answer.clone().attach();
    let other = source(|_attempt| ask(&second))
        .metadata(keys::PROVIDER, PROVIDER)
        .metadata(keys::MODEL, FALLBACK);
    let mut run = l0
        .stream(|_attempt| ask(&first))
        .metadata(keys::PROVIDER, PROVIDER)
        .metadata(keys::MODEL, MODEL)
        .fallback(other)
        .start();
    drop(current);

    while let Some(chunk) = run.next().await {
        match chunk? {
            Chunk::Item(token) => print!("{}", token.answer()),
            Chunk::Restart { .. } => println!("\n-- and again --"),
        }
        stdout().flush()?;
    }
    answer.span().end();
    if let Some(outcome) = run.outcome() {
        println!("\n\noutcome: {outcome}");
    }

    // What is left is exported, which waits for the endpoint: not on a thread that serves others.
    let exported = tokio::task::spawn_blocking(move || (tracers.shutdown(), meters.shutdown()));
    let (spans, metrics) = exported.await?;
    for (what, exported) in [("spans", spans), ("metrics", metrics)] {
        if let Err(error) = exported {
            eprintln!("some {what} were not exported: {error}");
        }
    }
    Ok(())
}

/// What exports from threads of its own, so that no run waits for it.
fn providers() -> Result<(SdkTracerProvider, SdkMeterProvider), Box<dyn Error>> {
    let given = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let mut resource = Resource::builder();
    if !given("OTEL_SERVICE_NAME") {
        resource = resource.with_service_name("l0-example");
    }
    let resource = resource.build();
    let tracers = SdkTracerProvider::builder().with_resource(resource.clone());
    let meters = SdkMeterProvider::builder().with_resource(resource);

    let endpoints = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    ];
    Ok(if endpoints.into_iter().any(given) {
        let spans = opentelemetry_otlp::SpanExporter::builder().with_http();
        let metrics = opentelemetry_otlp::MetricExporter::builder().with_http();
        (
            tracers.with_batch_exporter(spans.build()?).build(),
            meters.with_periodic_exporter(metrics.build()?).build(),
        )
    } else {
        let spans = opentelemetry_stdout::SpanExporter::default();
        let metrics = opentelemetry_stdout::MetricExporter::default();
        (
            tracers.with_batch_exporter(spans).build(),
            meters.with_periodic_exporter(metrics).build(),
        )
    })
}
