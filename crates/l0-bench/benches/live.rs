//! Measures the views of many live runs. The page of `l0-live` takes a snapshot and writes it twice a second.
//!
//! The numbers are for one view each, so this bench prints its own table.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench live
//! ```
#![allow(clippy::print_stdout, reason = "prints a table")]

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_core::Stream;
use l0_bench::{ANSWER, source};
use l0_core::{L0, Run};
use l0_live::Live;

const RUNS: usize = 100_000;
const ROUNDS: u32 = 20;
/// The tokens of each run. One is read, so every run stays live.
const TOKENS: u64 = 1_000;

/// Starts a run and takes its first token.
fn start(l0: &L0) -> Run<'static, &'static str, io::Error> {
    let mut run = l0
        .stream(|_| async { io::Result::Ok(source(ANSWER, TOKENS)) })
        .metadata("model", "gpt-4")
        .metadata("provider", "openai")
        .start();
    let first = Pin::new(&mut run).poll_next(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(first, Poll::Ready(Some(Ok(_)))));
    run
}

/// Returns the time of one round in ms.
fn millis(work: impl Fn()) -> f64 {
    let start = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    start.elapsed().as_secs_f64() * 1e3 / f64::from(ROUNDS)
}

fn main() {
    println!("Time of one view of {RUNS} live runs (ms), and the size of its JSON (bytes).\n");
    println!(
        "| listed | stalled runs | snapshot | snapshot and JSON | size |\n|--:|--:|--:|--:|--:|"
    );
    for max_listed in [1_000, RUNS] {
        let live = Live::builder().max_listed(max_listed).build();
        let l0 = L0::builder().interceptor(live.clone()).build();
        let runs: Vec<_> = (0..RUNS).map(|_| start(&l0)).collect();
        assert_eq!(live.snapshot().live.len(), max_listed);
        let json = || serde_json::to_vec(&live.snapshot()).expect("JSON");
        let stalled = millis(|| drop(black_box(live.stalled())));
        let snapshot = millis(|| drop(black_box(live.snapshot())));
        let update = millis(|| drop(black_box(json())));
        let size = json().len();
        println!("| {max_listed} | {stalled:.1} | {snapshot:.1} | {update:.1} | {size} |");
        drop(runs);
    }
}
