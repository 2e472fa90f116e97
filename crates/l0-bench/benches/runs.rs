//! Measures a run from its start to its end, with each adapter.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench runs
//! $ docs/performance.py --print runs
//! ```
#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod common;

use std::hint::black_box;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use common::Discard;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use l0_bench::{ANSWER, drain, source};
use l0_core::{End, Event, L0, L0Builder, Monitor, Monitoring, Retry, observe_fn};
use l0_export::log::LogRecord;
use l0_export::{csv, json};
use l0_otel::OtelInterceptor;
use l0_prometheus::Collector;
use l0_sentry::{SentryConfig, SentryInterceptor};
use l0_statsd::StatsdInterceptor;
use l0_tracing::TracingInterceptor;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use sentry::{ClientOptions, Hub};
use tracing_subscriber::fmt;

fn on() -> L0Builder {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
}

/// Traces every run.
fn sentry() -> SentryInterceptor {
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .traces_sample_rate(1.0)
        .transport(Arc::new(Discard));
    let hub = Hub::new(Some(Arc::new(options.into())), Arc::default());
    SentryInterceptor::new(SentryConfig::new().hub(Arc::new(hub)))
}

/// Traces every run, and records all of its gaps in a histogram.
fn otel(meters: &SdkMeterProvider, tracers: &SdkTracerProvider) -> OtelInterceptor {
    OtelInterceptor::builder()
        .meter(meters.meter_with_scope(l0_otel::scope()))
        .tracer(tracers.tracer_with_scope(l0_otel::scope()))
        .build()
}

fn runs(criterion: &mut Criterion) {
    // Sending fails without a listener, which is cheaper.
    let listener = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let statsd = StatsdInterceptor::builder(address).build().expect("valid");
    let collector = Collector::builder().build().expect("valid");
    let prometheus = collector.label_keys(["model"]).expect("valid");
    // The receiver is dropped: a run pays for sending to the queue, and nothing is kept.
    let (queue, receiver) = l0_export::queue(1_024);
    drop(receiver);
    let nothing = observe_fn(|_, event| {
        black_box(event);
    });
    let to_json = observe_fn(|_, event| {
        if let Event::Finished {
            telemetry: Some(telemetry),
            ..
        } = event
        {
            json::write_line(&mut io::sink(), telemetry).expect("writing to a sink succeeds");
        }
    });

    let meters = SdkMeterProvider::builder()
        .with_periodic_exporter(Discard)
        .build();
    let tracers = SdkTracerProvider::builder()
        .with_span_processor(Discard)
        .build();
    let otel = otel(&meters, &tracers);

    let _logs = tracing::subscriber::set_default(fmt().with_writer(io::sink).finish());
    let mut group = criterion.benchmark_group("runs");
    for (name, builder) in [
        ("off", on().monitoring(Monitoring::off())),
        ("on", on()),
        ("on + observer", on().interceptor(nothing)),
        ("on + json lines", on().interceptor(to_json)),
        ("on + queue", on().interceptor(queue)),
        ("on + prometheus", on().interceptor(prometheus)),
        ("on + statsd", on().interceptor(statsd)),
        ("on + otel", on().interceptor(otel)),
        ("on + sentry", on().interceptor(sentry())),
        ("on + tracing", on().interceptor(TracingInterceptor::new())),
    ] {
        let l0 = builder.build();
        for tokens in [1, 100] {
            group.bench_function(BenchmarkId::new(name, tokens), |bencher| {
                bencher.iter(|| {
                    let run =
                        l0.stream(move |_| async move { io::Result::Ok(source(ANSWER, tokens)) });
                    drain(run.metadata("model", "gpt-4o").start());
                });
            });
        }
    }
    for tokens in [1, 100] {
        group.bench_function(BenchmarkId::new("bare", tokens), |bencher| {
            bencher.iter(|| drain(source(ANSWER, tokens)));
        });
    }
    group.finish();
}

/// Measures the parts of a run alone.
fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parts");
    group.bench_function("monitor with a session id", |bencher| {
        bencher.iter(|| Monitor::new(Monitoring::new()));
    });
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.start();
    for _ in 0..100 {
        monitor.record_token();
    }
    monitor.complete(End::completed());
    group.bench_function("telemetry snapshot", |bencher| {
        bencher.iter(|| monitor.telemetry());
    });
    let telemetry = monitor.telemetry().expect("monitoring is on");
    group.bench_function("json", |bencher| {
        bencher.iter(|| json::to_string(&telemetry));
    });
    let mut rows = csv::Writer::new(io::sink());
    group.bench_function("csv row", |bencher| bencher.iter(|| rows.write(&telemetry)));
    group.bench_function("log record as a tracing event", |bencher| {
        let logs = fmt().with_writer(io::sink).finish();
        tracing::subscriber::with_default(logs, || {
            bencher.iter(|| LogRecord::from(&telemetry).emit());
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .without_plots();
    targets = runs, parts
}
criterion_main!(benches);
