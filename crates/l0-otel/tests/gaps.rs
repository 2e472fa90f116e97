//! The gaps between tokens are recorded in batches: no poll and no drop records many.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails; the measured numbers are printed"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{MS, Sdk, nanos};
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{L0, Retry, Source, TokenKind, Usage, source};
use l0_otel::OtelInterceptor;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{
    Counter, Histogram, HistogramBuilder, InstrumentBuilder, InstrumentProvider, Meter,
    SyncInstrument,
};

/// The maximum number of values that one poll or drop can record.
const MOST: usize = 256;

/// Counts the recorded values.
#[derive(Clone, Default)]
struct Measured(Arc<AtomicUsize>);

impl Measured {
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl<T> SyncInstrument<T> for Measured {
    fn measure(&self, _: T, _: &[KeyValue]) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl InstrumentProvider for Measured {
    fn u64_counter(&self, _: InstrumentBuilder<'_, Counter<u64>>) -> Counter<u64> {
        Counter::new(Arc::new(self.clone()))
    }

    fn f64_counter(&self, _: InstrumentBuilder<'_, Counter<f64>>) -> Counter<f64> {
        Counter::new(Arc::new(self.clone()))
    }

    fn f64_histogram(&self, _: HistogramBuilder<'_, Histogram<f64>>) -> Histogram<f64> {
        Histogram::new(Arc::new(self.clone()))
    }
}

/// Reads a run of this many tokens, or drops it after `read` of them. Returns the number of values recorded in
/// total, and in the poll or drop that recorded the most.
fn measured(tokens: usize, read: usize) -> (usize, usize) {
    let measured = Measured::default();
    let meter = Meter::new(Arc::new(measured.clone()));
    let otel = OtelInterceptor::builder().meter(meter).spans(false).build();
    let l0 = L0::builder()
        .monitoring(l0_core::Monitoring::new())
        .interceptor(otel)
        .build();
    let source = futures_util::stream::repeat("token").take(tokens);
    let mut run = l0.watch(source.map(Ok::<_, std::io::Error>)).start();
    let (mut all, mut most) = (0, 0);
    let mut took = || {
        let count = measured.take();
        all += count;
        most = most.max(count);
    };
    took();
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..read {
        let polled = run.poll_next_unpin(&mut cx);
        took();
        if let Poll::Ready(None) = polled {
            break;
        }
    }
    drop(run);
    took();
    (all, most)
}

#[test]
fn no_poll_and_no_drop_measures_more_than_256_values() {
    for tokens in [2_usize, 63, 64, 65, 66, 1_000, 100_000] {
        for read in [tokens + 1, tokens.div_ceil(2)] {
            let (all, most) = measured(tokens, read);
            assert!(most <= MOST, "{tokens} tokens, {read} read: {most}");
            // No gap is lost.
            assert!(all >= read.min(tokens) - 1, "{tokens} tokens: {all}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn gaps_are_exact_and_have_the_model_that_answers_while_the_run_is_live() {
    let sdk = Sdk::new();
    let script = Script::new().attempt(|mut a| {
        let mut first = ScriptedToken::new(TokenKind::Other, "");
        first.model = Some("gpt-4o-2024-08-06".to_owned());
        a = a.item(first);
        for index in 0..150_u32 {
            a = a.wait(index * MS).token("a");
        }
        a
    });
    let mut run = sdk.l0().stream(script.source()).start();
    let points = |count: u64, ms: u64| {
        let sum = nanos(Duration::from_millis(ms).as_secs_f64());
        format!(
            "gen_ai.client.operation.time_per_output_chunk[gen_ai.response.model=gpt-4o-2024-08-06] {count} x {sum}"
        )
    };
    let sent = || {
        let mut points = sdk.points();
        points.retain(|point| point.contains("per_output_chunk"));
        points
    };
    for _ in 0..101 {
        run.next().await.unwrap().unwrap();
    }
    assert_eq!(sent(), [points(64, (1..=64).sum())]);
    run.text().await.unwrap();
    assert_eq!(sent(), [points(149, (1..=149).sum())]);
}

/// Reads a run of this many sources, each of which yields this many tokens and then fails. Returns the maximum
/// number of values recorded in one poll or drop.
fn most_of_fallbacks(sources: u32, tokens: u32, read: usize) -> usize {
    let measured = Measured::default();
    let meter = Meter::new(Arc::new(measured.clone()));
    let otel = OtelInterceptor::builder().meter(meter).spans(false).build();
    let l0 = L0::builder()
        .monitoring(l0_core::Monitoring::new())
        .retry(Retry::new().max_retries(0))
        .interceptor(otel)
        .build();
    let usage = Usage::new().input(9).output(8).total(17);
    let usage = usage.cached_input(1).cache_write_input(2).reasoning(3);
    let source = |fails: bool| {
        let mut token = ScriptedToken::new(TokenKind::Text, "a");
        token.model = Some("one".to_owned());
        let script = Script::new().attempt(|a| {
            let a = a
                .item(token)
                .tokens(vec!["a"; tokens as usize])
                .usage(usage);
            if fails {
                a.fail(std::io::ErrorKind::ConnectionReset)
            } else {
                a
            }
        });
        source(script.source())
    };
    let mut run = l0.stream_from(source(true));
    for number in 2..=sources {
        let model = format!("model {number}");
        run = run.fallback(source(number < sources).metadata("model", model));
    }
    let mut run = run.start();
    let mut most = measured.take();
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..read {
        let polled = run.poll_next_unpin(&mut cx);
        most = most.max(measured.take());
        if let Poll::Ready(None) = polled {
            break;
        }
    }
    drop(run);
    most.max(measured.take())
}

#[test]
fn no_poll_of_a_run_that_falls_back_measures_more_than_256_values() {
    // Core distinguishes at most 32 sources, so the number is bounded for any number of sources.
    for (sources, bound) in [
        (2, MOST),
        (5, MOST),
        (11, MOST),
        (40, 2 * MOST),
        (100, 2 * MOST),
    ] {
        for (tokens, read) in [(100, usize::MAX), (100, 350), (0, usize::MAX)] {
            let most = most_of_fallbacks(sources, tokens, read);
            println!("{sources} sources of {tokens} tokens, {read} read: {most}");
            assert!(
                most <= bound,
                "{sources} sources of {tokens} tokens, {read} read: {most}"
            );
        }
    }
}
