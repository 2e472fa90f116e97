//! Records a chat in OpenTelemetry: its spans, and the metrics of the conventions for generative AI.
//!
//! ```console
//! $ cargo run -p l0-examples --bin otel --features otel
//! $ OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 cargo run -p l0-examples --bin otel --features otel
//! ```
//!
//! The first model fails twice, and another one answers. The run has a span, with a child span for each
//! attempt and its model. With `OPENAI_API_KEY` set, the first model most likely answers.
//!
//! Without an endpoint, the example prints what a collector would receive. The other OpenTelemetry
//! variables, such as `OTEL_SERVICE_NAME` and `OTEL_EXPORTER_OTLP_HEADERS`, work too.
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
/// The model for the fallback.
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
        // An instrumented HTTP client creates such a span.
        let post = tracer.span_builder("POST").with_kind(SpanKind::Client);
        let _post = post.start(&tracer);
        client.chat_stream(request).await
    };

    // The span of the application becomes the parent of the run's span. Below it are the spans of the
    // attempts, and below those the spans of the HTTP client.
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

    // Shutting down exports the rest and waits for the endpoint, so it must not block a runtime thread.
    let exported = tokio::task::spawn_blocking(move || (tracers.shutdown(), meters.shutdown()));
    let (spans, metrics) = exported.await?;
    for (what, exported) in [("spans", spans), ("metrics", metrics)] {
        if let Err(error) = exported {
            eprintln!("some {what} were not exported: {error}");
        }
    }
    Ok(())
}

/// Creates providers that export from their own threads, so no run waits for them.
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
