//! What instructions are counted of: runs that are under way, at a clock that stands still.
#![allow(
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    reason = "only the counting uses it"
)]

use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use futures_core::Stream;
use l0_bench::{ANSWER, Source};
use l0_core::{
    Budget, Checks, Currency, L0, L0Builder, Limits, Money, Monitor, Monitoring, Price, Retry, Run,
    Timeouts, TokenPrices, Watched,
};
use l0_guardrails::{Drift, Json, Markdown, ZeroOutput};
use l0_metrics::MetricsInterceptor;
use l0_pricing::{Characters, PriceList};
use l0_prometheus::Collector;
use l0_tracing::TracingInterceptor;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use tokio::runtime::Builder;
use tokio::time::Instant;

/// How many tokens are counted.
pub const TOKENS: u64 = 1_000;

/// How a source is made: of a text, and so many tokens.
pub type MakeSource = fn(&'static str, u64) -> Source;

/// Measures nothing.
pub fn off() -> L0Builder {
    L0::builder().retry(Retry::none())
}

/// Measures everything, and does nothing else.
pub fn on() -> L0Builder {
    off().monitoring(Monitoring::new())
}

/// Three rules, drift, all timeouts, and metrics for Prometheus.
pub fn full_stack() -> L0Builder {
    let collector = Collector::builder().build().expect("valid");
    let rules = Checks::none()
        .with(Json::new)
        .with(Markdown::new)
        .with(ZeroOutput::new);
    let minute = Duration::from_secs(60);
    let timeouts = Timeouts::new()
        .first_token(minute)
        .inter_token(minute)
        .total(60 * minute);
    on().guardrails(rules)
        .drift(Drift::new())
        .timeouts(timeouts)
        .interceptor(collector.label_keys(["model"]).expect("valid"))
}

/// What [`on`] does, and counts what each token costs, by estimates, against limits and a budget.
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

/// What [`on`] does, and metrics through the facade, to a recorder that does nothing.
pub fn facade() -> L0Builder {
    // Where it is set already, it is this one.
    let _ = metrics::set_global_recorder(Nowhere);
    let metrics = MetricsInterceptor::new().label_keys(["model"]);
    on().interceptor(metrics.expect("valid"))
}

/// A recorder that does nothing, through handles that are called: what is counted is what calls them.
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

/// Measures everything, and tells it to `tracing`, which nobody listens to.
pub fn traced() -> L0Builder {
    on().interceptor(TracingInterceptor::new())
}

/// The same, with a subscriber that keeps the spans and does nothing with them.
pub fn heard() -> L0Builder {
    let registry = tracing_subscriber::registry();
    tracing::subscriber::set_global_default(registry).expect("the only one");
    traced()
}

/// A run whose first token was taken, and which has more than are counted.
pub fn run(builder: L0Builder, make: MakeSource) -> Run<'static, &'static str, io::Error> {
    stop_clock();
    let l0 = builder.build();
    let source = move |_| async move { io::Result::Ok(make(ANSWER, 2 * TOKENS)) };
    let mut run = l0.stream(source).start();
    take(&mut run, 1);
    run
}

/// The same of a stream that is watched.
pub fn watched(builder: L0Builder, make: MakeSource) -> Watched<Source> {
    stop_clock();
    let mut watched = builder.build().watch(make(ANSWER, 2 * TOKENS)).start();
    take(&mut watched, 1);
    watched
}

/// A monitor that has started, and when tokens arrive: about every 20 ms.
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

/// Polls until so many items were there.
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

/// Stops the clock of this thread for as long as the process lives, which counts one thing.
pub fn stop_clock() {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    std::mem::forget(Box::leak(Box::new(runtime)).enter());
}
