//! Gaps between tokens are recorded in batches: no poll and no drop records many.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use common::{measured, paused, recorder, samples};
use futures_util::StreamExt;
use l0_core::testing::Script;
use l0_metrics::MetricsInterceptor;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit, with_local_recorder,
};

/// The maximum number of values that one poll or drop can record.
const MOST: usize = 256;

/// Counts the recorded values, and the gaps among them.
#[derive(Clone, Default)]
struct Recorded {
    all: Arc<AtomicUsize>,
    gaps: Arc<AtomicUsize>,
    is_gaps: bool,
}

impl Recorded {
    fn add(&self) {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.gaps.fetch_add(self.is_gaps.into(), Ordering::Relaxed);
    }
}

impl CounterFn for Recorded {
    fn increment(&self, _: u64) {
        self.add();
    }

    fn absolute(&self, _: u64) {
        self.add();
    }
}

impl GaugeFn for Recorded {
    fn increment(&self, _: f64) {
        self.add();
    }

    fn decrement(&self, _: f64) {
        self.add();
    }

    fn set(&self, _: f64) {
        self.add();
    }
}

impl HistogramFn for Recorded {
    fn record(&self, _: f64) {
        self.add();
    }
}

impl Recorder for Recorded {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(self.clone()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(Arc::new(self.clone()))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let is_gaps = key.name() == "l0_inter_token_seconds";
        Histogram::from_arc(Arc::new(Self {
            is_gaps,
            ..self.clone()
        }))
    }
}

/// Reads a run of this many tokens, or fewer if it is dropped. Returns the total number of recorded gaps, and
/// the largest number of values recorded in one poll or drop.
fn recorded(tokens: usize, read: usize) -> (usize, usize) {
    let recorded = Recorded::default();
    let l0 = measured(&Arc::new(MetricsInterceptor::new())).build();
    let source = futures_util::stream::repeat("token").take(tokens);
    let mut most = 0;
    with_local_recorder(&recorded, || {
        let mut run = l0.watch(source.map(Ok::<_, std::io::Error>)).start();
        let mut took = || most = most.max(recorded.all.swap(0, Ordering::Relaxed));
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
    });
    (recorded.gaps.load(Ordering::Relaxed), most)
}

#[test]
fn no_poll_and_no_drop_records_more_than_256_values() {
    for tokens in [2_usize, 63, 64, 65, 66, 1_000, 100_000] {
        for read in [tokens + 1, tokens.div_ceil(2)] {
            let (gaps, most) = recorded(tokens, read);
            assert!(most <= MOST, "{tokens} tokens, {read} read: {most}");
            assert_eq!(gaps, read.min(tokens) - 1, "{tokens} tokens, {read} read");
        }
    }
}

#[test]
fn gaps_are_exact_also_while_the_run_is_live() {
    let metrics = Arc::new(MetricsInterceptor::new());
    let recorder = recorder(&metrics);
    let handle = recorder.handle();
    let script = Script::new().attempt(|mut a| {
        for index in 0..150_u32 {
            a = a.wait(Duration::from_millis(index.into())).token("a");
        }
        a
    });
    let l0 = measured(&metrics).build();
    let gaps = || {
        let samples = samples(&handle);
        ["count", "sum", "bucket{le=\"0.01\"}"]
            .map(|part| samples[&format!("l0_inter_token_seconds_{part}")])
    };
    let check = |count: u32, seconds: f64| {
        let [counted, sum, short] = gaps();
        assert_eq!((counted, short), (f64::from(count), 10.0));
        assert!((sum - seconds).abs() < 1e-9, "{sum}");
    };
    let run = async {
        let mut run = l0.stream(script.source()).start();
        for _ in 0..101 {
            run.next().await.unwrap().unwrap();
        }
        check(64, f64::from((1..=64).sum::<u32>()) / 1e3);
        run.text().await.unwrap();
        check(149, f64::from((1..=149).sum::<u32>()) / 1e3);
        assert_eq!(samples(&handle)["l0_stream_max_gap_seconds_sum"], 0.149);
    };
    with_local_recorder(&recorder, || paused().block_on(run));
}
