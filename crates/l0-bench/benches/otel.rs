//! Measures `l0-otel`: per token, compared with a call of the SDK's histogram for each token, and per run.
//!
//! The SDK aggregates and creates spans as it does in an application. Its exports are discarded, because
//! exporting is work for other threads.
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

    /// Creates the histogram of gaps, as the interceptor does.
    fn histogram(&self) -> Histogram<f64> {
        let bounds = (0..14).map(|power| 0.01 * f64::from(1 << power));
        self.meters
            .meter("manual")
            .f64_histogram("gaps")
            .with_boundaries(bounds.collect())
            .build()
    }
}

/// Returns as many attributes as the interceptor adds to each gap.
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

/// Measures a call of the SDK alone.
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
    let manual = observe_fn(move |_, event| {
        if let Event::Token { gap: Some(gap), .. } = event {
            histogram.record(gap.as_secs_f64(), &attributes);
        }
    });
    let configurations = [
        ("monitored", monitored()),
        (
            "a call of the SDK's histogram",
            monitored().interceptor(manual),
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

/// Measures a run of one token: everything except the gaps.
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
