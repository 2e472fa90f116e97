//! Every way a run can end, measured and not: a span for it and for each of its attempts, each closed once,
//! with why it ended, and exactly these events.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{Kept, Span, asked};
use l0_core::testing::exits::{self, Exit};
use l0_core::testing::{Captured, OwnedEvent};
use l0_core::{L0, Monitoring, Outcome};
use l0_tracing::TracingInterceptor;
use tokio::runtime::{Builder, Runtime};
use tracing::{Level, dispatcher};

/// A runtime whose clock only moves while it waits.
fn paused() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// An event: its name, its level, and the place of its span, from the run's on.
type Place = (&'static str, Level, usize);

/// The events of a run: each in the span of the present attempt, or of the run between two of them.
fn expected_events(events: &[OwnedEvent]) -> Vec<Place> {
    let mut expected = Vec::new();
    let (mut attempts, mut is_open) = (0, false);
    for event in events {
        let (name, level) = match event {
            OwnedEvent::AttemptStarted { .. } => {
                (attempts, is_open) = (attempts + 1, true);
                continue;
            }
            OwnedEvent::AttemptFinished { attempt, .. } => {
                if attempt.outcome.is_some_and(Outcome::is_failure) {
                    expected.push(("exception", Level::WARN, attempts));
                }
                is_open = false;
                continue;
            }
            OwnedEvent::Finished { end, .. } if end.is_failure() => ("exception", Level::ERROR),
            OwnedEvent::NetworkError { .. } => ("l0.network_error", Level::DEBUG),
            OwnedEvent::Retry { .. } => ("l0.retry", Level::INFO),
            OwnedEvent::Fallback { .. } => ("l0.fallback", Level::WARN),
            OwnedEvent::Violation { .. } => ("l0.violation", Level::WARN),
            OwnedEvent::Drift { .. } => ("l0.drift", Level::WARN),
            _ => continue,
        };
        expected.push((name, level, if is_open { attempts } else { 0 }));
    }
    expected
}

/// What a span says of how it ended: outcome, type of error, status and message.
fn said(span: &Span) -> [Option<&str>; 4] {
    [
        "l0.outcome",
        "error.type",
        "otel.status_code",
        "otel.status_description",
    ]
    .map(|field| span.fields.get(field).map(String::as_str))
}

fn check(exit: &Exit, measurement: &str, monitoring: Monitoring) {
    let what = format!("{exit}, {measurement}");
    let kept = Kept::default();
    let captured = Captured::new();
    let builder = L0::builder()
        .monitoring(asked(monitoring))
        .interceptor(TracingInterceptor::new())
        .interceptor(captured.clone());
    let exited = dispatcher::with_default(&kept.dispatch(), || exit.run(paused(), builder));
    assert_eq!(exited.info.observer_panics(), 0, "{what}");

    let events = captured.events();
    let finished = events.iter().filter_map(|event| match event {
        OwnedEvent::AttemptFinished { attempt, .. } => Some(attempt),
        _ => None,
    });
    let finished = Vec::from_iter(finished);
    let spans = kept.spans();
    assert!(spans.iter().all(|span| span.is_closed), "{what}");
    assert!(spans.iter().all(|span| span.target == "l0"), "{what}");
    let (run, attempts) = spans.split_first().unwrap();
    assert_eq!((run.name, run.parent), ("l0.run", None), "{what}");
    assert_eq!(attempts.len(), finished.len(), "{what}");
    let error_type = exit.end.error_type().filter(|_| exit.end.is_failure());
    let message = exit.end.message().filter(|_| exit.end.is_failure());
    let expected = [
        Some(exit.end.outcome().as_str()),
        error_type.as_deref(),
        message.map(|_| "ERROR"),
        message,
    ];
    assert_eq!(said(run), expected, "{what}");
    assert_eq!(run.fields["l0.session_id"], exited.info.id(), "{what}");
    assert_eq!(
        run.fields["l0.attempts"],
        attempts.len().to_string(),
        "{what}"
    );

    for (span, attempt) in attempts.iter().zip(finished) {
        assert_eq!((span.name, span.parent), ("l0.attempt", Some(0)), "{what}");
        let outcome = attempt.outcome.unwrap();
        let error = attempt.error.as_ref().filter(|_| outcome.is_failure());
        let expected = [
            Some(outcome.as_str()),
            error.map(|error| &*error.error_type),
            error.map(|_| "ERROR"),
            error.map(|error| &*error.message),
        ];
        assert_eq!(said(span), expected, "{what}");
        // Nothing is known of a fallback.
        let known = attempt.source == 1;
        let title = if known { "chat gpt-4o" } else { "chat" };
        for (field, expected) in [
            ("otel.name", title),
            ("otel.kind", "client"),
            ("l0.session_id", exited.info.id()),
            ("l0.attempt", &attempt.number.to_string()),
            ("l0.source", &attempt.source.to_string()),
        ] {
            assert_eq!(span.fields[field], expected, "{what}");
        }
        let measured = span.fields.contains_key("l0.attempt_tokens");
        assert_eq!(measured, measurement == "measured", "{what}");
    }

    let told = kept.events();
    let told = told
        .iter()
        .map(|told| (told.name(), told.level, told.span.unwrap()));
    assert_eq!(Vec::from_iter(told), expected_events(&events), "{what}");
}

#[test]
fn every_exit_closes_a_span_for_the_run_and_each_attempt_and_tells_exactly_its_events() {
    for exit in exits::all() {
        check(&exit, "measured", Monitoring::new());
        check(&exit, "sampled out", Monitoring::new().sample_rate(0.0));
        check(&exit, "off", Monitoring::off());
    }
}
