//! Measures reporting runs without errors to Sentry, per run and per token, and a token while Sentry's ingest
//! does not answer.
//!
//! The client is a real one; its transport discards everything.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench sentry
//! ```
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::print_stdout, reason = "criterion does not report tails")]

mod common;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use common::Discard;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use futures_core::Stream;
use l0_bench::{ANSWER, drain, source};
use l0_core::{L0, L0Builder, Monitoring, Run, keys};
use l0_sentry::{SentryConfig, SentryInterceptor};
use sentry::{Breadcrumb, ClientOptions, Envelope, Hub, Transport};

/// Sends envelopes to a queue that is never read, and drops those that do not fit, as the transports of the
/// `sentry` crate do while the ingest does not answer.
struct Stuck(SyncSender<Envelope>);

impl Transport for Stuck {
    fn send_envelope(&self, envelope: Envelope) {
        let _ = self.0.try_send(envelope);
    }
}

fn hub(transport: impl Transport, traces: f32) -> Arc<Hub> {
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .traces_sample_rate(traces)
        .transport(Arc::new(transport));
    Arc::new(Hub::new(Some(Arc::new(options.into())), Arc::default()))
}

/// Fills a scope with as many breadcrumbs as it keeps.
fn full(hub: &Hub) {
    for number in 0..100 {
        hub.add_breadcrumb(Breadcrumb {
            category: Some("request".to_owned()),
            message: Some(format!("something happened, number {number}")),
            ..Breadcrumb::default()
        });
    }
}

fn plain() -> L0Builder {
    L0::builder().monitoring(Monitoring::new())
}

fn reported(config: SentryConfig) -> L0 {
    plain().interceptor(SentryInterceptor::new(config)).build()
}

fn start(l0: &L0, tokens: u64) -> Run<'static, &'static str, io::Error> {
    l0.stream(move |_| async move { io::Result::Ok(source(ANSWER, tokens)) })
        .metadata(keys::MODEL, "gpt-4o")
        .metadata(keys::PROVIDER, "openai")
        .start()
}

/// Measures a run of one token, without errors, from its start to its end.
fn per_run(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("run");
    let crowded = hub(Discard, 1.0);
    full(&crowded);
    let config = |hub: Arc<Hub>| SentryConfig::new().hub(hub).tag("service", "chat");
    for (name, l0) in [
        ("without sentry", plain().build()),
        (
            "no client",
            reported(config(Arc::new(Hub::new(None, Arc::default())))),
        ),
        ("traced", reported(config(hub(Discard, 1.0)))),
        ("traced, the host's scope full", reported(config(crowded))),
        ("not sampled", reported(config(hub(Discard, 0.0)))),
        (
            "no tracing",
            reported(config(hub(Discard, 1.0)).enable_tracing(false)),
        ),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| drain(start(&l0, 1)));
        });
    }
    group.finish();
}

fn per_token(criterion: &mut Criterion) {
    const TOKENS: u64 = 100_000;
    let mut group = criterion.benchmark_group("token");
    group
        .throughput(Throughput::Elements(TOKENS))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(20);
    let config = || SentryConfig::new().hub(hub(Discard, 1.0));
    for (name, l0) in [
        ("without sentry", plain().build()),
        ("breadcrumbs off", reported(config())),
        (
            "breadcrumbs on",
            reported(config().breadcrumbs_for_tokens(true)),
        ),
    ] {
        group.bench_function(BenchmarkId::new(name, TOKENS), |bencher| {
            bencher.iter(|| drain(start(&l0, TOKENS)));
        });
    }
    group.finish();
}

/// Measures the longest time of a token, with and without an ingest that does not answer.
fn tail(_: &mut Criterion) {
    const RUNS: usize = 5_000;
    const TOKENS: u64 = 200;
    // Kept, because dropping it would close the queue instead of filling it.
    let (queue, kept) = sync_channel(30);
    let stuck = reported(SentryConfig::new().hub(hub(Stuck(queue), 1.0)));
    let cases = [("without sentry", plain().build()), ("ingest stuck", stuck)];
    let mut nanos = [Vec::new(), Vec::new()];
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..RUNS {
        // In turns, so other load on the machine affects both.
        for ((_, l0), nanos) in cases.iter().zip(&mut nanos) {
            let mut run = start(l0, TOKENS);
            for _ in 0..TOKENS {
                let begin = Instant::now();
                let polled = Pin::new(&mut run).poll_next(&mut cx);
                nanos.push(begin.elapsed().as_nanos());
                assert!(matches!(polled, Poll::Ready(Some(Ok(_)))));
            }
            drain(run);
        }
    }
    drop(kept);
    for ((name, _), mut nanos) in cases.iter().zip(nanos) {
        nanos.sort_unstable();
        let at = |share: f64| nanos[(share * nanos.len() as f64) as usize];
        println!(
            "tail/{name}, {} tokens: p50 {} ns, p99 {} ns, p99.9 {} ns",
            nanos.len(),
            at(0.5),
            at(0.99),
            at(0.999),
        );
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = tail, per_run, per_token
}
criterion_main!(benches);
