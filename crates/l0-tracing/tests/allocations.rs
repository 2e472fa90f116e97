//! The allocations of a run. A single test, because a subscriber affects the whole process.

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

/// Returns the number of allocations of a run of this many tokens, in total and while its tokens are read.
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

// The clock is paused, so all gaps are in one bucket. More buckets would be more allocations at the end of a run.
#[tokio::test(start_paused = true)]
async fn tokens_and_runs_without_a_subscriber_add_no_allocations() {
    let of = |interceptor: Option<TracingInterceptor>| {
        let builder = L0::builder().monitoring(Monitoring::new());
        builder.interceptor(interceptor).build()
    };
    let (with, without) = (of(Some(TracingInterceptor::new())), of(None));
    // The first runs create what all runs share, such as the call sites.
    for l0 in [&with, &without] {
        allocations(l0, 200);
    }
    assert_eq!(allocations(&with, 200), allocations(&without, 200));

    let registry = Dispatch::new(tracing_subscriber::registry());
    let (subscribed, _) = with_default(&registry, || {
        // The first run allocates in the registry.
        allocations(&with, 200);
        allocations(&with, 200)
    });
    // Values, names and the observer: 13 allocations.
    let own = subscribed - allocations(&without, 200).0;
    assert!((1..=16).contains(&own), "{own}");

    let kept = Kept::default();
    let (all, reading) = with_default(&kept.dispatch(), || allocations(&with, 10_000));
    assert_eq!(reading, 0);
    assert!(all > allocations(&without, 10_000).0);
    assert_eq!(kept.spans().len(), 2);
}
