//! The memory of a live run while its prompt and its answer are kept. A token then allocates nothing.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(
    clippy::print_stdout,
    reason = "the numbers are printed for the reader"
)]

mod common;

use std::io;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use common::{Sentry, l0, paused};
use futures_util::{StreamExt, stream};
use l0_core::Content;

/// Returns the memory of a run after this many tokens, in bytes, and the number of allocations of 1,000 more.
fn live(content: Option<Content>, tokens: usize, input: &str) -> (i64, u64) {
    let sentry = Sentry::start();
    let config = match content {
        Some(content) => sentry.config().content(content),
        None => sentry.config(),
    };
    let l0 = l0(config).build();
    let mut cx = Context::from_waker(Waker::noop());
    let mut read = |run: &mut l0_core::Run<'_, &'static str, io::Error>, tokens| {
        for _ in 0..tokens {
            assert!(matches!(run.poll_next_unpin(&mut cx), Poll::Ready(Some(_))));
        }
    };
    let mut start = || {
        let mut run = l0
            .stream(|_attempt| async {
                io::Result::Ok(stream::repeat("token").map(io::Result::Ok))
            })
            .input(input)
            .start();
        read(&mut run, tokens);
        run
    };
    // Allocates what all runs share.
    drop(start());
    let mut run = None;
    let used = measure(|| run = Some(start()));
    let more = measure(|| read(run.as_mut().unwrap(), 1_000));
    (used.bytes_current, more.count_total)
}

#[test]
fn a_live_run_keeps_only_the_content_that_is_sent() {
    // The clock is paused, so all gaps are in one bucket. The counts of a million varied gaps can allocate.
    let runtime = paused();
    let _entered = runtime.enter();
    let input = "x".repeat(5_000);
    let (off, _) = live(None, 10_000, &input);
    for (max_bytes, tokens) in [(1_024, 10_000), (8 * 1024, 10_000), (8 * 1024, 1_000_000)] {
        let content = Content::new().max_bytes(max_bytes);
        let (on, more) = live(Some(content), tokens, &input);
        let kept = max_bytes + 1_024 + input.len();
        let added = on - off;
        println!("{tokens} tokens, {max_bytes} bytes of content: {off} bytes live, {added} more");
        let least = i64::try_from(kept).unwrap();
        assert!((least..least + 1_024).contains(&added), "{added}");
        assert_eq!(more, 0, "a token allocates");
    }
}
