//! Measures many concurrent runs: bytes per run, and time per token as their number grows.
//!
//! Criterion repeats each measurement. Here everything is measured once, so this bench prints its own table.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench scale
//! ```
#![allow(clippy::print_stdout, reason = "prints a table")]

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use futures_core::Stream;
use l0_bench::{ANSWER, source};
use l0_core::{L0, L0Builder, Monitoring, Retry, Run, Timeouts};
use l0_guardrails::{Drift, Guardrails, Json, Markdown, ZeroOutput};
use l0_prometheus::Collector;
use tokio::runtime::Builder;

/// More tokens than any run reads.
const ENDLESS: u64 = u64::MAX;
/// The total number of tokens taken, for any number of runs.
const TOKENS: u64 = 4_000_000;

fn on() -> L0Builder {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
}

fn configurations() -> [(&'static str, L0Builder); 4] {
    let collector = Collector::builder().build().expect("valid");
    let minute = Duration::from_secs(60);
    let prometheus = || {
        on().timeouts(
            Timeouts::new()
                .first_token(minute)
                .inter_token(minute)
                .total(60 * minute),
        )
        .interceptor(collector.label_keys(["model"]).expect("valid"))
    };
    let rules = Guardrails::none()
        .with(Json::new)
        .with(Markdown::new)
        .with(ZeroOutput::new);
    [
        ("off", on().monitoring(Monitoring::off())),
        ("on", on()),
        ("on + timeouts + prometheus", prometheus()),
        (
            "full stack",
            prometheus().guardrails(rules).drift(Drift::new()),
        ),
    ]
}

/// An endless source of tokens.
trait Tokens {
    fn next(&mut self);
}

impl<S: Stream + Unpin> Tokens for S {
    fn next(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(self).poll_next(&mut cx) {
            Poll::Ready(Some(item)) => {
                black_box(item);
            }
            Poll::Ready(None) | Poll::Pending => unreachable!("the source is endless"),
        }
    }
}

/// Starts runs, and takes some tokens from each.
fn live(l0: &L0, runs: usize) -> Vec<Run<'static, &'static str, io::Error>> {
    let endless = |_| async { io::Result::Ok(source(ANSWER, ENDLESS)) };
    let start = |_| {
        let mut run = l0.stream(endless).start();
        for _ in 0..20 {
            run.next();
        }
        run
    };
    (0..runs).map(start).collect()
}

/// Takes tokens from one after another, and returns the time of one token in ns.
fn take(streams: &mut [impl Tokens], tokens: u64) -> f64 {
    let rounds = tokens / streams.len() as u64;
    let start = Instant::now();
    for _ in 0..rounds {
        for stream in &mut *streams {
            stream.next();
        }
    }
    start.elapsed().as_secs_f64() * 1e9 / (rounds * streams.len() as u64) as f64
}

/// Returns the bytes allocated for one run, without what all runs share.
fn bytes_per_run(l0: &L0) -> i64 {
    const RUNS: usize = 1_000;
    let mut runs = Vec::new();
    let mut bytes = |count| measure(|| runs.push(live(l0, count))).bytes_current;
    bytes(1); // the first run creates what is shared
    bytes(RUNS) / RUNS as i64
}

fn main() {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter(); // for the timers of timeouts

    println!("Bytes per live run, including its source (48) and its place in a list.\n");
    println!("| configuration | bytes |\n|---|--:|");
    for (name, builder) in configurations() {
        println!("| {name} | {} |", bytes_per_run(&builder.build()));
    }

    println!("\nTime per token (ns), one thread polling one live run after another.\n");
    println!("| configuration | 1 | 100 | 10,000 | 100,000 |\n|---|--:|--:|--:|--:|");
    let counts = [1, 100, 10_000, 100_000];
    let row = |name: &str, nanos: [f64; 4]| {
        let cells: Vec<_> = nanos.iter().map(|nanos| format!("{nanos:.1}")).collect();
        println!("| {name} | {} |", cells.join(" | "));
    };
    let bare = counts.map(|count| {
        let mut sources: Vec<_> = (0..count).map(|_| source(ANSWER, ENDLESS)).collect();
        take(&mut sources, TOKENS)
    });
    row("bare", bare);
    for (name, builder) in configurations() {
        let l0 = builder.build();
        row(
            name,
            counts.map(|count| take(&mut live(&l0, count), TOKENS)),
        );
    }

    println!("\nTokens per second (millions), 1,000 live runs per thread.\n");
    println!("| configuration | 1 thread | 2 threads |\n|---|--:|--:|");
    for (name, builder) in configurations() {
        let l0 = builder.build();
        let rate = |threads: usize| {
            let start = Instant::now();
            thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        let _entered = runtime.enter();
                        take(&mut live(&l0, 1_000), TOKENS)
                    });
                }
            });
            threads as f64 * TOKENS as f64 / start.elapsed().as_secs_f64() / 1e6
        };
        println!("| {name} | {:.1} | {:.1} |", rate(1), rate(2));
    }
}
