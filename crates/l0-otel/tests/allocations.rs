//! The start, the end and the events of a run allocate. A token does not.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use common::Sdk;
use futures_util::{StreamExt, stream};
use l0_core::{Interceptor, L0};

/// Returns the number of allocations while a run of this many tokens is read.
fn allocations(interceptor: Option<impl Interceptor + 'static>, tokens: usize) -> u64 {
    let l0 = L0::builder()
        .monitoring(l0_core::Monitoring::new())
        .interceptor(interceptor)
        .build();
    let source = stream::repeat("token")
        .take(tokens)
        .map(Ok::<_, std::io::Error>);
    let mut watched = l0.watch(source).start();
    let mut cx = Context::from_waker(Waker::noop());
    let mut poll = || {
        let polled = watched.poll_next_unpin(&mut cx);
        assert!(matches!(polled, Poll::Ready(Some(_))));
    };
    // Skips the first token, which sets the time to first token, and the first recorded gaps, for which the SDK
    // creates their series.
    let first = 100;
    (0..first).for_each(|_| poll());
    measure(|| (first..tokens).for_each(|_| poll())).count_total
}

#[test]
fn a_token_does_not_allocate() {
    let sdk = Sdk::new();
    assert_eq!(allocations(Some(sdk.builder().build()), 10_000), 0);
    let none = None::<l0_otel::OtelInterceptor>;
    assert_eq!(allocations(none, 10_000), 0);
}
