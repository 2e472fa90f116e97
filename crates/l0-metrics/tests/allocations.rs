//! A run and a new label set allocate a little; a token does not allocate.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use futures_util::StreamExt;
use l0_core::{L0, Monitoring};
use l0_metrics::MetricsInterceptor;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit, with_local_recorder,
};

/// A recorder with handles that do nothing, but are called.
struct Called;

impl CounterFn for Called {
    fn increment(&self, _: u64) {}
    fn absolute(&self, _: u64) {}
}

impl GaugeFn for Called {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, _: f64) {}
}

impl HistogramFn for Called {
    fn record(&self, _: f64) {}
}

impl Recorder for Called {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Self))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(Self))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Self))
    }
}

/// Returns the number of allocations of a run with this many tokens, without one-time ones.
fn allocations(l0: &L0, tokens: usize) -> u64 {
    let run = || {
        let source = futures_util::stream::repeat("token").take(tokens);
        let mut run = l0.watch(source.map(Ok::<_, std::io::Error>)).start();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(_)) = run.poll_next_unpin(&mut cx) {}
    };
    // The clock is paused, so all gaps are in one bucket.
    common::paused().block_on(async {
        run();
        measure(run).count_total
    })
}

#[test]
fn a_run_allocates_a_little_and_a_token_nothing() {
    let builder = || L0::builder().monitoring(Monitoring::new().metadata("model", "gpt-4o"));
    let without = builder().build();
    let metrics = MetricsInterceptor::new().label_keys(["model"]).unwrap();
    let with = builder().interceptor(metrics).build();
    with_local_recorder(&Called, || {
        for tokens in [1, 10, 1_000] {
            let of_run = allocations(&with, tokens) - allocations(&without, tokens);
            assert_eq!(of_run, 2, "{tokens} tokens");
        }
    });
}
