//! A panic in any method of a subscriber is contained, and the run continues.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::ErrorKind;

use l0_core::testing::Script;
use l0_core::{Backoff, L0, Retry};
use l0_tracing::TracingInterceptor;
use tracing::dispatcher::with_default;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Where {
    NewSpan,
    Record,
    Event,
    Enter,
    Exit,
    Close,
    Nowhere,
}

/// A layer that panics in one method.
struct Panics(Where);

impl Panics {
    fn at(&self, here: Where) {
        assert_ne!(self.0, here);
    }
}

impl<S: Subscriber> Layer<S> for Panics {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.at(Where::NewSpan);
    }

    fn on_record(&self, _: &Id, _: &Record<'_>, _: Context<'_, S>) {
        self.at(Where::Record);
    }

    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        self.at(Where::Event);
    }

    fn on_enter(&self, _: &Id, _: Context<'_, S>) {
        self.at(Where::Enter);
    }

    fn on_exit(&self, _: &Id, _: Context<'_, S>) {
        self.at(Where::Exit);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.at(Where::Close);
    }
}

#[test]
fn a_panicking_subscriber_does_not_fail_a_run() {
    for place in [
        Where::NewSpan,
        Where::Record,
        Where::Event,
        Where::Enter,
        Where::Exit,
        Where::Close,
        Where::Nowhere,
    ] {
        let l0 = L0::builder()
            .retry(Retry::new().backoff(Backoff::none()))
            .interceptor(TracingInterceptor::new())
            .build();
        let script = Script::new()
            .attempt(|a| a.fail(ErrorKind::ConnectionReset))
            .attempt(|a| a.token("a"));
        let subscriber = tracing_subscriber::registry().with(Panics(place));
        with_default(&Dispatch::new(subscriber), || {
            let mut run = l0.stream(script.source()).start();
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let read = runtime.unwrap().block_on(run.text());
            assert_eq!(read.unwrap(), "a", "{place:?}");
            let panics = u64::from(place != Where::Nowhere);
            assert_eq!(run.info().observer_panics(), panics, "{place:?}");
            // A run that is dropped while it connects.
            drop(
                l0.stream(Script::new().attempt(|a| a.connect_hang()).source())
                    .start(),
            );
        });
    }
}
