//! What allocates. One test, since a subscriber anywhere in the process is of interest to all of it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use common::Kept;
use futures_util::{StreamExt, stream};
use l0_core::{L0, Monitoring};
use l0_tracing::TracingInterceptor;
use tracing::Dispatch;
use tracing::dispatcher::with_default;

/// How often a run of so many tokens allocates, and how often while its tokens are read.
fn allocations(l0: &L0, tokens: usize) -> (u64, u64) {
    let mut reading = 0;
    let all = measure(|| {
        let source = stream::repeat("token")
            .take(tokens)
            .map(Ok::<_, std::io::Error>);
        let mut watched = l0.watch(source).start();
        let mut cx = Context::from_waker(Waker::noop());
        let mut poll = || {
            let polled = watched.poll_next_unpin(&mut cx);
            assert!(matches!(polled, Poll::Ready(Some(_))));
        };
        (0..100).for_each(|_| poll());
        reading = measure(|| (100..tokens).for_each(|_| poll())).count_total;
    });
    (all.count_total, reading)
}

#[test]
fn a_token_does_not_allocate_and_a_run_that_nobody_listens_to_does_not_more_than_without() {
    let of = |interceptor: Option<TracingInterceptor>| {
        let builder = L0::builder().monitoring(Monitoring::new());
        builder.interceptor(interceptor).build()
    };
    let (with, without) = (of(Some(TracingInterceptor::new())), of(None));
    // The first runs make what all share, such as the call sites.
    for l0 in [&with, &without] {
        allocations(l0, 200);
    }
    assert_eq!(allocations(&with, 200), allocations(&without, 200));

    let registry = Dispatch::new(tracing_subscriber::registry());
    let (heard, _) = with_default(&registry, || {
        // The registry's own.
        allocations(&with, 200);
        allocations(&with, 200)
    });
    // Values, names, and the observer: 13 of them.
    let own = heard - allocations(&without, 200).0;
    assert!((1..=16).contains(&own), "{own}");

    let kept = Kept::default();
    let (all, reading) = with_default(&kept.dispatch(), || allocations(&with, 10_000));
    assert_eq!(reading, 0);
    assert!(all > allocations(&without, 10_000).0);
    assert_eq!(kept.spans().len(), 2);
}
