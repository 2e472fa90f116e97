//! The code whose instructions are counted: runs in progress, with a paused clock.
#![allow(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "only used for counting"
)]

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use futures_core::Stream;
use l0_bench::bodies::Format;
use l0_bench::{ANSWER, Source};
use l0_core::{
    Budget, Checks, Currency, Interceptor, L0, L0Builder, Limits, Money, Monitor, Monitoring,
    Price, Retry, Run, Timeouts, TokenPrices, Watched,
};
use l0_guardrails::{Drift, Json, Markdown, ZeroOutput};
use l0_metrics::MetricsInterceptor;
use l0_pricing::{Characters, PriceList};
use l0_prometheus::Collector;
use l0_providers::{anthropic, gemini, ollama, openai};
use l0_tracing::TracingInterceptor;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tokio::runtime::Builder;
use tokio::time::Instant;

/// The number of tokens that are counted.
pub const TOKENS: u64 = 1_000;

/// Creates a source from a text and a number of tokens.
pub type MakeSource = fn(&'static str, u64) -> Source;

/// Measures nothing.
pub fn off() -> L0Builder {
    L0::builder().retry(Retry::none())
}

/// Measures everything, and does nothing else.
pub fn on() -> L0Builder {
    off().monitoring(Monitoring::new())
}

/// Measures everything, and keeps the progress for observers.
pub fn progress() -> L0Builder {
    struct LooksOn;
    impl Interceptor for LooksOn {
        fn needs_progress(&self) -> bool {
            true
        }
    }
    on().interceptor(LooksOn)
}

/// Adds the rules for JSON, Markdown and empty answers to [`on`].
pub fn three_rules() -> L0Builder {
    let rules = Checks::none()
        .with(Json::new)
        .with(Markdown::new)
        .with(ZeroOutput::new);
    on().guardrails(rules)
}

/// Adds drift detection to [`on`].
pub fn drift() -> L0Builder {
    on().drift(Drift::new())
}

/// Enables three rules, drift detection, all timeouts, and Prometheus metrics.
pub fn full_stack() -> L0Builder {
    let collector = Collector::builder().build().expect("valid");
    let minute = Duration::from_secs(60);
    let timeouts = Timeouts::new()
        .first_token(minute)
        .inter_token(minute)
        .total(60 * minute);
    three_rules()
        .drift(Drift::new())
        .timeouts(timeouts)
        .interceptor(collector.label_keys(["model"]).expect("valid"))
}

/// Adds Prometheus metrics under one label to [`on`].
pub fn prometheus() -> L0Builder {
    let collector = Collector::builder().build().expect("valid");
    labeled().interceptor(collector.label_keys(["model"]).expect("valid"))
}

/// Adds a label to [`on`].
fn labeled() -> L0Builder {
    off().monitoring(Monitoring::new().metadata("model", "gpt-4o"))
}

/// Adds limits and a budget to [`on`], which check the estimated cost of each token.
pub fn limited() -> L0Builder {
    let tokens = TokenPrices::per_million(Money::units(1), Money::units(4));
    let prices = PriceList::new().model("gpt-4o", Price::new(Currency::USD, tokens));
    let limits = Limits::new().output_tokens(1_000_000);
    off()
        .monitoring(Monitoring::new().metadata("model", "gpt-4o"))
        .pricing(prices)
        .estimate_usage(Characters::per_token(4.0).estimator())
        .limits(limits.cost(Money::units(1_000)))
        .budget(Budget::new(Money::units(1_000)))
}

/// Adds metrics through the facade to [`on`], with a recorder that does nothing.
pub fn facade() -> L0Builder {
    // If a recorder is already set, it is this one.
    let _ = metrics::set_global_recorder(Nowhere);
    let metrics = MetricsInterceptor::new().label_keys(["model"]);
    labeled().interceptor(metrics.expect("valid"))
}

/// A recorder that does nothing, but whose handles are called, so the calls are counted.
struct Nowhere;

impl CounterFn for Nowhere {
    fn increment(&self, value: u64) {
        black_box(value);
    }

    fn absolute(&self, value: u64) {
        black_box(value);
    }
}

impl GaugeFn for Nowhere {
    fn increment(&self, value: f64) {
        black_box(value);
    }

    fn decrement(&self, value: f64) {
        black_box(value);
    }

    fn set(&self, value: f64) {
        black_box(value);
    }
}

impl HistogramFn for Nowhere {
    fn record(&self, value: f64) {
        black_box(value);
    }
}

impl Recorder for Nowhere {
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

/// Measures everything, and emits it through `tracing` without a subscriber.
pub fn traced() -> L0Builder {
    on().interceptor(TracingInterceptor::new())
}

/// Does the same with a subscriber that keeps the spans and does nothing with them.
pub fn heard() -> L0Builder {
    let registry = tracing_subscriber::registry();
    tracing::subscriber::set_global_default(registry).expect("the only one");
    traced()
}

/// Starts a run and takes its first token; it has more tokens than are counted.
pub fn run(builder: L0Builder, make: MakeSource) -> Run<'static, &'static str, io::Error> {
    stop_clock();
    let l0 = builder.build();
    let source = move |_| async move { io::Result::Ok(make(ANSWER, 2 * TOKENS)) };
    let mut run = l0.stream(source).start();
    take(&mut run, 1);
    run
}

/// Does the same for a watched stream.
pub fn watched(builder: L0Builder, make: MakeSource) -> Watched<Source> {
    stop_clock();
    let mut watched = builder.build().watch(make(ANSWER, 2 * TOKENS)).start();
    take(&mut watched, 1);
    watched
}

/// Returns a started monitor, and the arrival times of tokens, about every 20 ms.
pub fn monitor() -> (Monitor, Vec<Instant>) {
    stop_clock();
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.start();
    let mut rng = Rng::with_seed(1);
    let mut at = Instant::now();
    let arrivals = (0..TOKENS).map(|_| {
        at += Duration::from_micros(rng.u64(1_000..40_000));
        at
    });
    (monitor, arrivals.collect())
}

/// A body of many tokens in reads of one or many events, with its decoder.
#[derive(Debug)]
pub struct Body {
    format: Format,
    reads: Vec<Bytes>,
}

/// Creates a body whose reads have many events each.
pub fn large_reads(format: Format) -> Body {
    let mut body = Bytes::from(Vec::from_iter(format.events(TOKENS as usize)).concat());
    let reads =
        std::iter::from_fn(|| (!body.is_empty()).then(|| body.split_to(body.len().min(16 * 1024))));
    Body {
        format,
        reads: reads.collect(),
    }
}

/// Creates a body with one event in each read.
pub fn small_reads(format: Format) -> Body {
    Body {
        format,
        reads: format.events(TOKENS as usize).map(Bytes::from).collect(),
    }
}

/// The reads of an existing body, returned so that their drop is not counted.
struct Reads<'a>(std::slice::Iter<'a, Bytes>);

impl Stream for Reads<'_> {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.next().cloned().map(Ok))
    }
}

impl Body {
    /// Decodes the body.
    pub fn decode(&self) {
        let reads = Reads(self.reads.iter());
        let decoder = match self.format.name {
            "responses" => openai::responses::decode(reads),
            "anthropic" => anthropic::decode(reads),
            "gemini" => gemini::decode(reads),
            "ollama" => ollama::decode(reads),
            _ => openai::decode(reads),
        };
        l0_bench::drain(decoder);
    }
}

/// Polls until this many items were yielded.
pub fn take<S: Stream + Unpin>(stream: &mut S, items: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut left = items;
    while left > 0 {
        match Pin::new(&mut *stream).poll_next(&mut cx) {
            Poll::Ready(Some(item)) => {
                black_box(item);
                left -= 1;
            }
            Poll::Ready(None) => panic!("the stream ended {left} items too early"),
            Poll::Pending => {}
        }
    }
}

/// Pauses the clock of this thread for the life of the process, which counts one thing.
pub fn stop_clock() {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    std::mem::forget(Box::leak(Box::new(runtime)).enter());
}
