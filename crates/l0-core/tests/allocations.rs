//! The memory of a run: no allocation for a token after the first, and a small constant size.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use allocation_counter::measure;
use futures_core::Stream;
use futures_util::StreamExt;
use l0_core::{
    Budget, Cost, CostSource, Currency, Event, Interceptor, Interest, L0, L0Builder, Limits, Money,
    Monitoring, Observer, Observers, Price, Priced, RunInfo, Timeouts, Token, TokenPrices,
    TokenView, Usage,
};
use tokio::runtime::{Builder, Runtime};

/// How long a run is. One of more than 65,000 tokens can allocate once more, to count its gaps, if
/// these are so varied that many counts grow large.
const TOKENS: u64 = 65_000;

/// A source that is always ready and allocates nothing.
struct Ready(u64);

impl Stream for Ready {
    type Item = io::Result<&'static str>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(left) = self.0.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.0 = left;
        Poll::Ready(Some(Ok("token")))
    }
}

/// A source that is pending before every item.
struct Pending(Ready, bool);

impl Stream for Pending {
    type Item = io::Result<&'static str>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.1 = !self.1;
        if self.1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_next(cx)
    }
}

struct TokenObserver(u64);

impl Observer for TokenObserver {
    fn interest(&self) -> Interest {
        Interest::TOKENS
    }

    fn on_event(&mut self, event: &Event<'_>) {
        if let Event::Token { .. } = event {
            self.0 += 1;
        }
    }
}

struct ObserveTokens;

impl Interceptor for ObserveTokens {
    fn observe(&self, _: &RunInfo, observers: &mut Observers) {
        observers.push(TokenObserver(0));
    }
}

struct ObserveLifecycle;

impl Interceptor for ObserveLifecycle {
    fn observe(&self, _: &RunInfo, observers: &mut Observers) {
        observers.push(LifecycleObserver);
    }
}

struct ReadsProgress;

impl Interceptor for ReadsProgress {
    fn needs_progress(&self) -> bool {
        true
    }
}

struct LifecycleObserver;

impl Observer for LifecycleObserver {
    fn on_event(&mut self, _: &Event<'_>) {}
}

fn configurations() -> [(&'static str, L0Builder); 8] {
    [
        ("off", L0::builder()),
        (
            "sampled out",
            L0::builder().monitoring(Monitoring::new().sample_rate(0.0)),
        ),
        (
            "on, without timings",
            L0::builder().monitoring(Monitoring::new().include_timings(false)),
        ),
        ("on", L0::builder().monitoring(Monitoring::new())),
        (
            "on, with a token observer",
            L0::builder()
                .monitoring(Monitoring::new())
                .interceptor(ObserveTokens),
        ),
        (
            "on, with progress",
            L0::builder()
                .monitoring(Monitoring::new())
                .interceptor(ReadsProgress),
        ),
        (
            "on, with limits, a budget and estimates",
            L0::builder()
                .monitoring(Monitoring::new())
                .pricing(|_: &Priced<'_>| {
                    let tokens = TokenPrices::new(Money::micros(1), Money::micros(2));
                    Some(Arc::new(Price::new(Currency::USD, tokens)))
                })
                .estimate_usage(|attempt| Some(Usage::new().output(attempt.characters / 4)))
                .limits(Limits::new().output_tokens(u64::MAX).cost(Money::units(99)))
                .budget(Budget::new(Money::units(99))),
        ),
        (
            "on, with three observers and all timeouts",
            L0::builder()
                .monitoring(Monitoring::new())
                .timeouts(
                    Timeouts::new()
                        .first_token(Duration::from_secs(60))
                        .inter_token(Duration::from_secs(60))
                        .total(Duration::from_secs(60)),
                )
                .interceptor(ObserveTokens)
                .interceptor(vec![ObserveLifecycle, ObserveLifecycle]),
        ),
    ]
}

/// Provides the timer of timeouts; nothing runs in it.
fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}

/// Reads this number of items.
fn take<S: Stream + Unpin>(stream: &mut S, items: u64) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut stream = pin!(stream);
    let mut seen = 0;
    while seen < items {
        match stream.as_mut().poll_next(&mut cx) {
            Poll::Ready(Some(_)) => seen += 1,
            Poll::Ready(None) => panic!("the source ended after {seen} items"),
            Poll::Pending => {}
        }
    }
}

#[test]
fn tokens_after_the_first_allocate_nothing() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for (name, builder) in configurations() {
        let l0 = builder.build();
        let mut runs = [
            l0.stream(|_| async { io::Result::Ok(Pending(Ready(TOKENS), false)) })
                .start(),
            l0.stream(|_| async { io::Result::Ok(Pending(Ready(TOKENS), true)) })
                .start(),
        ];
        let mut ready = l0
            .stream(|_| async { io::Result::Ok(Ready(TOKENS)) })
            .start();
        let mut watched = l0.watch(Ready(TOKENS)).start();
        take(&mut ready, 1);
        take(&mut watched, 1);
        let used = measure(|| {
            take(&mut ready, TOKENS - 1);
            take(&mut watched, TOKENS - 1);
        });
        assert_eq!((used.count_total, used.bytes_total), (0, 0), "{name}");
        for run in &mut runs {
            // The timer of a run is created at its first wait, which can come after the first
            // token.
            take(run, 2);
            let used = measure(|| take(run, 10_000));
            assert_eq!(
                (used.count_total, used.bytes_total),
                (0, 0),
                "{name}, pending"
            );
        }
    }
}

/// An item that reports with each token what most sources report once.
struct FullItem(Cost);

impl Token for FullItem {
    fn view(&self) -> TokenView<'_> {
        let usage = Usage::new().input(9).output(3).total(12);
        let view = TokenView::text("token").usage(usage).cost(&self.0);
        view.model("gpt-4").response_id("resp_1")
    }
}

#[test]
fn items_that_report_everything_allocate_nothing_after_the_first() {
    for (name, builder) in configurations() {
        let cost = Cost::new(Money::cents(1), Currency::USD, CostSource::Provider);
        let items = Ready(TOKENS).map(move |item| item.map(|_| FullItem(cost)));
        let mut watched = builder.build().watch(items).start();
        take(&mut watched, 1);
        let used = measure(|| take(&mut watched, 10_000));
        assert_eq!((used.count_total, used.bytes_total), (0, 0), "{name}");
    }
}

#[test]
fn a_live_run_stays_under_4_kib_however_long_it_is() {
    let runtime = runtime();
    let _entered = runtime.enter();
    for (name, builder) in configurations() {
        let l0 = builder.build();
        for tokens in [1, 1_000, TOKENS] {
            let mut run = None;
            let used = measure(|| {
                // Boxed, so the size of the run itself counts too.
                let run = run.insert(Box::new(
                    l0.stream(|_| async { io::Result::Ok(Pending(Ready(TOKENS + 1), false)) })
                        .metadata("model", "gpt-4")
                        .until(std::future::pending::<()>())
                        .start(),
                ));
                take(run, tokens);
            });
            println!("{name}, {tokens} tokens: {} bytes live", used.bytes_current);
            assert!(used.bytes_current > 0, "{name}: the run is live");
            // Another crate of the build can enable larger JSON values, to keep the order of
            // fields. A map of metadata holds eleven.
            let limit = 4_096 + 11 * (size_of::<serde_json::Value>() as i64 - 32);
            assert!(
                used.bytes_current < limit,
                "{name}: {} bytes",
                used.bytes_current
            );
        }
    }
}
