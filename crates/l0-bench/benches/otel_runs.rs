//! Measures the cost of `l0-otel` for live runs: bytes per run, and the poll times of a long run.
//!
//! Criterion repeats each measurement. Here each run is measured once, so this bench prints its own tables.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench otel_runs
//! ```
#![allow(clippy::print_stdout, reason = "prints tables")]

mod common;

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use allocation_counter::measure;
use common::Discard;
use futures_core::Stream;
use l0_bench::{ANSWER, Tokens};
use l0_core::{Content, L0, L0Builder, Monitoring, Retry, Run, keys};
use l0_otel::{OtelBuilder, OtelInterceptor};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

/// The number of tokens in a long run.
const TOKENS: u64 = 100_000;
/// The number of long runs.
const RUNS: usize = 500;

type Live = Pin<Box<Run<'static, &'static str, io::Error>>>;

fn monitored() -> L0Builder {
    let monitoring = Monitoring::new()
        .metadata(keys::PROVIDER, "openai")
        .metadata(keys::MODEL, "gpt-4o");
    L0::builder().monitoring(monitoring).retry(Retry::none())
}

fn configurations() -> [(&'static str, L0); 4] {
    let meters = SdkMeterProvider::builder()
        .with_periodic_exporter(Discard)
        .build();
    let tracers = SdkTracerProvider::builder()
        .with_span_processor(Discard)
        .build();
    let otel = || {
        OtelInterceptor::builder()
            .meter(meters.meter_with_scope(l0_otel::scope()))
            .tracer(tracers.tracer_with_scope(l0_otel::scope()))
    };
    let with = |otel: OtelBuilder| monitored().interceptor(otel.build()).build();
    [
        ("monitored", monitored().build()),
        ("l0-otel", with(otel())),
        (
            "l0-otel, content of 8 KiB",
            with(otel().content(Content::new())),
        ),
        (
            "l0-otel, content of 32 KiB",
            with(otel().content(Content::new().max_bytes(32 * 1024))),
        ),
    ]
}

fn start(l0: &L0, tokens: u64) -> Live {
    let source = move |_| async move { io::Result::Ok(Tokens::new(ANSWER, tokens)) };
    Box::pin(l0.stream(source).start())
}

/// Polls once, and returns the duration of the poll and whether an item was ready.
fn poll(run: &mut Live) -> (Duration, bool) {
    let mut cx = Context::from_waker(Waker::noop());
    let start = Instant::now();
    let polled = run.as_mut().poll_next(&mut cx);
    let took = start.elapsed();
    let item = matches!(polled, Poll::Ready(Some(_)));
    black_box(polled.is_ready());
    (took, item)
}

/// Returns the bytes allocated for one run that has read this many tokens.
fn bytes_per_run(l0: &L0, tokens: u64) -> i64 {
    const LIVE: usize = 200;
    let mut runs = Vec::new();
    let mut bytes = |count: usize| {
        let measured = measure(|| {
            for _ in 0..count {
                let mut run = start(l0, u64::MAX);
                for _ in 0..tokens {
                    poll(&mut run);
                }
                runs.push(run);
            }
        });
        measured.bytes_current
    };
    bytes(1); // the first run creates what is shared
    bytes(LIVE) / LIVE as i64
}

/// Measures many long runs: the time of a token, the longest poll before the last, and the last poll.
fn polls(l0: &L0) -> [Vec<f64>; 3] {
    let mut all = [const { Vec::new() }; 3];
    for _ in 0..RUNS {
        let mut run = start(l0, TOKENS);
        let began = Instant::now();
        let mut longest = Duration::ZERO;
        let last = loop {
            let (took, item) = poll(&mut run);
            if !item {
                break took;
            }
            longest = longest.max(took);
        };
        let token = began.elapsed().as_secs_f64() / TOKENS as f64;
        let times = [token, longest.as_secs_f64(), last.as_secs_f64()];
        for (all, time) in all.iter_mut().zip(times) {
            all.push(time);
        }
    }
    for all in &mut all {
        all.sort_by(f64::total_cmp);
    }
    all
}

fn main() {
    println!("Bytes per live run, including its place in a list.\n");
    println!("| configuration | after 20 tokens | after 20,000 |\n|---|--:|--:|");
    for (name, l0) in configurations() {
        let [few, many] = [20, 20_000].map(|tokens| bytes_per_run(&l0, tokens));
        println!("| {name} | {few} | {many} |");
    }

    println!(
        "\n{RUNS} runs of {TOKENS} tokens: ns per token (the clock of this table included), µs of the \
         longest poll before the last, and of the last.\n"
    );
    println!(
        "| configuration | token, median | longest, median | longest, p99 | last, median | last, p99 |\n\
         |---|--:|--:|--:|--:|--:|"
    );
    for (name, l0) in configurations() {
        let [token, longest, last] = polls(&l0);
        let at = |all: &[f64], quantile: usize| all[(all.len() - 1) * quantile / 100];
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            at(&token, 50) * 1e9,
            at(&longest, 50) * 1e6,
            at(&longest, 99) * 1e6,
            at(&last, 50) * 1e6,
            at(&last, 99) * 1e6,
        );
    }
}
