//! What `l0-otel` costs: per token, side by side with a call of the SDK's histogram for each one, and
//! per run.
//!
//! The SDK aggregates and makes spans as it does in an application. What it would export is thrown
//! away, since that is work for other threads.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench otel
//! ```
#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod common;

use std::hint::black_box;
use std::io;

use common::Discard;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use l0_bench::{ANSWER, Tokens, drain};
use l0_core::{Event, L0, L0Builder, Monitoring, Retry, keys, observe_fn};
use l0_otel::{OtelBuilder, OtelInterceptor};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, MeterProvider};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

struct Sdk {
    meters: SdkMeterProvider,
    tracers: SdkTracerProvider,
}

impl Sdk {
    fn new() -> Self {
        Self {
            meters: SdkMeterProvider::builder()
                .with_periodic_exporter(Discard)
                .build(),
            tracers: SdkTracerProvider::builder()
                .with_span_processor(Discard)
                .build(),
        }
    }

    fn builder(&self) -> OtelBuilder {
        OtelInterceptor::builder()
            .meter(self.meters.meter_with_scope(l0_otel::scope()))
            .tracer(self.tracers.tracer_with_scope(l0_otel::scope()))
    }

    /// The histogram of gaps, as the interceptor makes it.
    fn histogram(&self) -> Histogram<f64> {
        let bounds = (0..14).map(|power| 0.01 * f64::from(1 << power));
        self.meters
            .meter("by hand")
            .f64_histogram("gaps")
            .with_boundaries(bounds.collect())
            .build()
    }
}

/// As many as the interceptor gives each gap.
fn attributes() -> [KeyValue; 3] {
    [
        KeyValue::new("gen_ai.operation.name", "chat"),
        KeyValue::new("gen_ai.provider.name", "openai"),
        KeyValue::new("gen_ai.request.model", "gpt-4o"),
    ]
}

fn monitored() -> L0Builder {
    let monitoring = Monitoring::new()
        .metadata(keys::PROVIDER, "openai")
        .metadata(keys::MODEL, "gpt-4o");
    L0::builder().monitoring(monitoring).retry(Retry::none())
}

fn run(l0: &L0, tokens: u64) {
    let run = l0.stream(|_| async move { io::Result::Ok(Tokens::new(ANSWER, tokens)) });
    drain(Box::pin(run.start()));
}

/// A call of the SDK, by itself.
fn record(criterion: &mut Criterion) {
    let sdk = Sdk::new();
    let (histogram, attributes) = (sdk.histogram(), attributes());
    criterion.bench_function("a call of the SDK's histogram", |bencher| {
        bencher.iter(|| histogram.record(black_box(0.012), &attributes));
    });
}

fn per_token(criterion: &mut Criterion) {
    let sdk = Sdk::new();
    let (histogram, attributes) = (sdk.histogram(), attributes());
    let by_hand = observe_fn(move |_, event| {
        if let Event::Token { gap: Some(gap), .. } = event {
            histogram.record(gap.as_secs_f64(), &attributes);
        }
    });
    let configurations = [
        ("monitored", monitored()),
        (
            "a call of the SDK's histogram",
            monitored().interceptor(by_hand),
        ),
        ("l0-otel", monitored().interceptor(sdk.builder().build())),
        (
            "l0-otel, spans only",
            monitored().interceptor(sdk.builder().metrics(false).build()),
        ),
    ];
    for tokens in [100, 1_000, 10_000] {
        let mut group = criterion.benchmark_group("token");
        group.throughput(Throughput::Elements(tokens));
        for (name, builder) in &configurations {
            let l0 = builder.clone().build();
            group.bench_function(BenchmarkId::new(*name, tokens), |bencher| {
                bencher.iter(|| run(&l0, tokens));
            });
        }
        group.finish();
    }
}

/// A run of one token: all but the gaps.
fn per_run(criterion: &mut Criterion) {
    let sdk = Sdk::new();
    let configurations = [
        ("monitored", monitored()),
        ("l0-otel", monitored().interceptor(sdk.builder().build())),
        (
            "l0-otel, metrics only",
            monitored().interceptor(sdk.builder().spans(false).build()),
        ),
        (
            "l0-otel, spans only",
            monitored().interceptor(sdk.builder().metrics(false).build()),
        ),
        (
            "l0-otel, without an SDK",
            monitored().interceptor(OtelInterceptor::default()),
        ),
    ];
    let mut group = criterion.benchmark_group("run");
    for (name, builder) in configurations {
        let l0 = builder.build();
        group.bench_function(name, |bencher| bencher.iter(|| run(&l0, 1)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = record, per_token, per_run
}
criterion_main!(benches);
