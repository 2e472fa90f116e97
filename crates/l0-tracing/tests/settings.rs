//! Target, level and keys, and the events that remain when a filter disables spans.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Kept, LogEvent, with_model};
use l0_core::testing::Script;
use l0_core::{Backoff, Failure, L0, Monitoring, Retry, RunInfo, Source, source};
use l0_tracing::TracingInterceptor;
use tracing::dispatcher::with_default;
use tracing::span::{Attributes, Id};
use tracing::{Dispatch, Level, Subscriber, info_span};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Reads a run that falls back and fails, inside a span `request`.
fn run(interceptor: TracingInterceptor) -> RunInfo {
    let failing = || Script::new().attempt(|a| a.token("a").fail(Failure::status(401)));
    let l0 = L0::builder()
        .monitoring(with_model(Monitoring::new()).metadata("user", "u-1"))
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(interceptor)
        .build();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let request = info_span!("request");
    let mut run = request.in_scope(|| {
        let other = source(failing().source()).metadata("user", "u-2");
        l0.stream(failing().source()).fallback(other).start()
    });
    assert!(runtime.block_on(run.text()).is_err());
    assert_eq!(run.info().observer_panics(), 0);
    run.info().clone()
}

fn names(events: &[LogEvent]) -> Vec<&str> {
    events.iter().map(LogEvent::name).collect()
}

#[test]
fn target_level_and_keys_are_settings() {
    let kept = Kept::default();
    let interceptor = TracingInterceptor::new()
        .target("checkout::llm")
        .level(Level::DEBUG)
        .field_keys(["user", "absent"])
        .unwrap();
    with_default(&kept.dispatch(), || run(interceptor));
    let spans = kept.spans();
    let users = spans[1..].iter().map(|span| {
        assert_eq!((span.target, span.level), ("checkout::llm", Level::DEBUG));
        assert!(!span.fields.contains_key("absent"));
        &*span.fields["user"]
    });
    assert_eq!(Vec::from_iter(users), ["u-1", "u-1", "u-2"]);
    let events = kept.events();
    assert!(events.iter().all(|event| event.target == "checkout::llm"));
    assert_eq!(events.last().unwrap().level, Level::ERROR);
}

#[test]
fn without_keys_no_other_metadata_is_sent() {
    let kept = Kept::default();
    with_default(&kept.dispatch(), || run(TracingInterceptor::new()));
    assert!(!format!("{:?}", kept.spans()).contains("u-1"));
}

#[test]
fn a_key_that_is_already_a_field_is_an_error() {
    for key in [
        "",
        "message",
        "l0.rule",
        "l0.outcome",
        "otel.name",
        "gen_ai.request.model",
        "l0.tokens.total",
    ] {
        let error = TracingInterceptor::new().field_keys([key]).unwrap_err();
        assert!(error.to_string().contains(&format!("{key:?}")), "{error}");
    }
    // Allowed, because not every custom source reports this parameter.
    let other = TracingInterceptor::new().field_keys(["gen_ai.request.seed", "gen_ai.agent.name"]);
    assert!(other.is_ok());
}

/// Returns a filter that disables everything of L0 below a warning.
fn warnings() -> Targets {
    Targets::new()
        .with_target("l0", LevelFilter::WARN)
        .with_default(LevelFilter::INFO)
}

/// Checks that the events of a run have its id, and are in the span with this index.
fn check(kept: &Kept, run: &RunInfo, span: Option<usize>) {
    let spans = kept.spans();
    assert_eq!((spans.len(), spans[0].name), (1, "request"));
    assert!(spans[0].is_closed);
    let events = kept.events();
    let expected = ["exception", "l0.fallback", "exception", "exception"];
    assert_eq!(names(&events), expected);
    for event in &events {
        assert_eq!(event.span, span);
        assert_eq!(event.fields["l0.session_id"], run.id());
    }
    assert_eq!(events[0].fields["exception.type"], "401");
    let message = &events[0].fields["exception.message"];
    assert_eq!(message, "status 401 Unauthorized");
    assert_eq!(events[1].fields["l0.fallback.from"], "gpt-4o");
    assert_eq!(events[1].fields["l0.fallback.to"], "2");
}

#[test]
fn with_disabled_spans_events_have_the_runs_id_and_are_in_the_callers_span() {
    let kept = Kept::default();
    let subscriber = tracing_subscriber::registry()
        .with(warnings())
        .with(kept.clone());
    let run = with_default(
        &Dispatch::new(subscriber),
        || run(TracingInterceptor::new()),
    );
    check(&kept, &run, Some(0));
}

#[test]
fn in_a_layer_without_spans_events_have_the_runs_id() {
    let (kept, all) = (Kept::default(), Everything::default());
    let subscriber = tracing_subscriber::registry()
        .with(kept.clone().with_filter(warnings()))
        .with(all.clone());
    let run = with_default(
        &Dispatch::new(subscriber),
        || run(TracingInterceptor::new()),
    );
    assert_eq!(
        all.0.load(Ordering::Relaxed),
        4,
        "a request, a run, two attempts"
    );
    // The run is not polled inside the request's span.
    check(&kept, &run, None);
}

/// A layer without a filter that counts spans.
#[derive(Clone, Default)]
struct Everything(Arc<AtomicUsize>);

impl<S: Subscriber> Layer<S> for Everything {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
