//! Each way a run can end, measured and not measured: one span for the run and for each attempt, each closed once
//! with its outcome, and exactly the expected events.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::{Kept, Span, with_model};
use l0_core::testing::exits::{self, Exit};
use l0_core::testing::{Captured, OwnedEvent};
use l0_core::{L0, Monitoring, Outcome};
use l0_tracing::TracingInterceptor;
use tokio::runtime::{Builder, Runtime};
use tracing::{Level, dispatcher};

/// Returns a runtime with a paused clock.
fn paused() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// An event: its name, its level, and the index of its span, starting with the run's.
type Place = (&'static str, Level, usize);

/// Returns the events of a run, each in the span of the current attempt, or of the run between two attempts.
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

/// Returns the outcome, the error type, the status and the message of a span.
fn ending(span: &Span) -> [Option<&str>; 4] {
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
        .monitoring(with_model(monitoring))
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
    assert_eq!(ending(run), expected, "{what}");
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
        assert_eq!(ending(span), expected, "{what}");
        // The model of a fallback is unknown.
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

    let sent = kept.events();
    let sent = sent
        .iter()
        .map(|event| (event.name(), event.level, event.span.unwrap()));
    assert_eq!(Vec::from_iter(sent), expected_events(&events), "{what}");
}

#[test]
fn every_exit_closes_a_span_for_the_run_and_each_attempt_and_emits_exactly_its_events() {
    for exit in exits::all() {
        check(&exit, "measured", Monitoring::new());
        check(&exit, "sampled out", Monitoring::new().sample_rate(0.0));
        check(&exit, "off", Monitoring::off());
    }
}
