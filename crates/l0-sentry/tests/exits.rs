//! The breadcrumbs, errors, spans and statuses of each way a run can end, measured and not measured.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::Duration;

use common::{Sentry, attempts, paused, span, stable, title, trace};
use l0_core::testing::exits::{self, Exit};
use l0_core::testing::{Captured, OwnedEvent};
use l0_core::{
    AttemptStats, Cause, End, L0Builder, Monitoring, Outcome, RetryKind, Telemetry, Violation,
};
use sentry::protocol::Span;
use serde_json::{Value, json};

/// Returns the status of an execution, a stream or an attempt with this outcome.
fn status(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "ok",
        Outcome::Aborted | Outcome::Dropped => "cancelled",
        Outcome::Failed | Outcome::Truncated => "internal_error",
        Outcome::TimedOut => "deadline_exceeded",
        Outcome::Limited => "resource_exhausted",
        other => panic!("{other} is not in the table"),
    }
}

/// Returns the captured errors, each with its tag `error_type`: every violation once, and then the failure of the
/// run if it is not one of them.
fn errors(exit: &Exit, events: &[OwnedEvent]) -> Vec<(String, String)> {
    let violation = |of: &Violation| {
        let title = format!(
            "{} Guardrail violation: {}: {}",
            of.severity, of.rule, of.message
        );
        (title, "guardrail_violation".to_owned())
    };
    let violations = events.iter().filter_map(|event| match event {
        OwnedEvent::Violation { violation: of, .. } => Some(violation(of)),
        _ => None,
    });
    let mut errors = Vec::from_iter(violations);
    let network_error = |kind: &str| {
        let message = exit.end.message().unwrap();
        let title = format!("error Network error: {kind}: {message}");
        (title, exit.end.error_type().unwrap().into_owned())
    };
    errors.extend(match exit.end.cause() {
        None | Some(Cause::Aborted) => None,
        Some(Cause::Violation(of)) => Some(violation(of)),
        Some(Cause::Truncated) => Some(network_error("partial_chunks")),
        Some(Cause::Timeout(_)) => Some(network_error("timeout")),
        // The failure is a network error if the last attempt had one.
        Some(Cause::Source) if last_attempt_met_a_network_error(events) => {
            Some(network_error(&exit.end.error_type().unwrap()))
        }
        Some(_) => {
            let title = format!("error L0 execution failed: {}", exit.end.message().unwrap());
            Some((title, exit.end.error_type().unwrap().into_owned()))
        }
    });
    errors.dedup();
    errors
}

fn last_attempt_met_a_network_error(events: &[OwnedEvent]) -> bool {
    let mut attempts = events.rsplit(|event| matches!(event, OwnedEvent::AttemptStarted { .. }));
    let mut last = attempts.next().unwrap_or_default().iter();
    last.any(|event| matches!(event, OwnedEvent::NetworkError { .. }))
}

/// Returns the known data.
fn known(mut data: Value) -> Value {
    let fields = data.as_object_mut().unwrap();
    fields.retain(|_, value| !value.is_null());
    data
}

/// Returns a breadcrumb with the known data.
fn with(line: String, data: Value) -> String {
    match known(data) {
        none if none == json!({}) => line,
        data => format!("{line} {data}"),
    }
}

/// Returns the breadcrumb of an event during the run, or `None` if it has none.
fn breadcrumb(event: &OwnedEvent) -> Option<String> {
    Some(match event {
        OwnedEvent::AttemptStarted { number: 1, .. } => "info l0.stream: Stream started".to_owned(),
        OwnedEvent::FirstToken { after, .. } => with(
            "info l0.stream: First token received".to_owned(),
            json!({ "ttft_ms": after.map(millis) }),
        ),
        OwnedEvent::NetworkError {
            kind,
            message,
            delay,
            ..
        } => with(
            format!("error l0.network: Network error: {kind}"),
            json!({ "error_type": kind.as_str(), "message": message, "retried": delay.is_some() }),
        ),
        OwnedEvent::Retry {
            attempt,
            reason,
            delay,
            kind,
            ..
        } => with(
            format!("warning l0.retry: Retry attempt {attempt}"),
            json!({
                "attempt": attempt,
                "delay_ms": millis(*delay),
                "is_network_error": *kind == RetryKind::Network,
                "reason": reason.as_str(),
            }),
        ),
        OwnedEvent::Fallback { from, to, .. } => with(
            format!("warning l0.fallback: Fallback to {to}"),
            json!({ "from": from.to_string(), "to": to.to_string() }),
        ),
        OwnedEvent::Violation { violation, .. } => with(
            format!(
                "{} l0.guardrail: Guardrail violation: {}",
                violation.severity, violation.rule
            ),
            json!({
                "message": violation.message,
                "recoverable": violation.recoverable,
                "rule": violation.rule,
                "severity": violation.severity.as_str(),
            }),
        ),
        OwnedEvent::Drift { report, .. } => with(
            format!(
                "warning l0.drift: Drift detected: {}",
                report.types.join(", ")
            ),
            json!({ "types": report.types }),
        ),
        _ => return None,
    })
}

/// Returns all breadcrumbs.
fn trail(exit: &Exit, events: &[OwnedEvent], numbers: &Value, is_call: bool) -> Vec<String> {
    let mut trail = vec!["info l0: L0 execution started".to_owned()];
    trail.extend(events.iter().filter_map(breadcrumb));
    // A call has no stream.
    trail.retain(|line| !(is_call && line.contains("Stream started")));
    if exit.end == End::completed() && !is_call {
        trail.push(with(
            "info l0.stream: Stream completed".to_owned(),
            json!({ "token_count": numbers["tokens"] }),
        ));
    }
    let level = if exit.end.is_failure() {
        "error"
    } else {
        "info"
    };
    let outcome = exit.end.outcome().as_str();
    trail.push(with(
        format!("{level} l0: L0 execution {}", outcome.replace('_', " ")),
        json!({
            "duration_ms": numbers["duration_ms"],
            "outcome": outcome,
            "retries": numbers["retries"],
            "tokens": numbers["tokens"],
        }),
    ));
    trail
}

/// Returns the numbers in the monitoring guide, from the table of exits. A run that was not measured has none. All
/// other numbers are derived from core's list.
fn numbers(exit: &Exit, telemetry: Option<&Telemetry>) -> Value {
    let Some(telemetry) = telemetry else {
        return json!({});
    };
    // If the clock could not be paused, only the telemetry has the exact duration.
    let duration = exit.duration.or(telemetry.duration).unwrap();
    let tokens = exit.count("token");
    let rate = (tokens > 0 && !duration.is_zero()).then(|| {
        let rate = tokens as f64 * 1e9 / duration.as_nanos() as f64;
        (rate * 1e3).round() / 1e3
    });
    known(json!({
        "duration_ms": millis(duration),
        "tokens": tokens,
        "tokens_per_second": rate,
        "ttft_ms": telemetry.metrics.time_to_first_token.map(millis),
        "retries": exit.count("retry"),
        "network_errors": exit.count("network_error"),
        "guardrail_violations": exit.count("violation"),
    }))
}

/// Returns the data of [`numbers`] and of the outcome.
const SHOWN: [&str; 9] = [
    "duration_ms",
    "tokens",
    "tokens_per_second",
    "ttft_ms",
    "retries",
    "network_errors",
    "guardrail_violations",
    "outcome",
    "error_type",
];

fn shown(data: &impl serde::Serialize) -> Value {
    let mut data = stable(data);
    let fields = data.as_object_mut().unwrap();
    fields.retain(|key, _| SHOWN.contains(&&**key));
    data
}

fn millis(duration: Duration) -> Value {
    let whole = duration.as_millis() as u64;
    if duration == Duration::from_millis(whole) {
        json!(whole)
    } else {
        json!(duration.as_nanos() as f64 / 1e6)
    }
}

fn check_attempt(span: &Span, attempt: &AttemptStats, measured: bool, what: &str) {
    let failed = attempt.outcome.unwrap().is_failure();
    let error = attempt.error.as_ref().filter(|_| failed);
    let expected = known(json!({
        "attempt": attempt.number,
        "source": attempt.source,
        "outcome": attempt.outcome.unwrap().as_str(),
        "error_type": error.map(|error| &*error.error_type),
        "attempt_tokens": measured.then_some(attempt.tokens),
    }));
    assert_eq!(json!(span.data), expected, "{what}");
    let name = format!("Attempt {}", attempt.number);
    assert_eq!(span.description.as_ref(), Some(&name), "{what}");
}

fn check(exit: &Exit, measurement: &str, configure: fn(L0Builder) -> L0Builder) {
    let what = format!("{exit}, {measurement}");
    let sentry = Sentry::start();
    let captured = Captured::new();
    let builder = configure(sentry.l0()).interceptor(captured.clone());
    let exited = exit.run(paused(), builder);
    assert_eq!(exited.info.observer_panics(), 0, "{what}");
    let events = captured.events();
    let telemetry = exited.handle.telemetry();
    assert_eq!(telemetry.is_some(), measurement == "measured", "{what}");
    let numbers = numbers(exit, telemetry.as_ref());

    let is_call = exited.info.is_call();
    let expected = trail(exit, &events, &numbers, is_call);
    assert_eq!(sentry.trail(), expected, "{what}");
    let sent = sentry.sent();
    let titles = sent.events.iter().map(|event| {
        let error_type = event.tags["error_type"].clone();
        (title(event), error_type)
    });
    assert_eq!(Vec::from_iter(titles), errors(exit, &events), "{what}");
    let ended = status(exit.end.outcome());
    let streams = exit.count("attempt_started") > 0 && !is_call;
    let finished = events.iter().filter_map(|event| match event {
        OwnedEvent::AttemptFinished { attempt, .. } => Some(attempt),
        _ => None,
    });
    let finished = Vec::from_iter(finished);
    assert_eq!(
        finished.len() as u64,
        exit.count("attempt_started"),
        "{what}"
    );
    let mut spans = vec![format!("l0.execution {ended}")];
    let of_attempts = finished.iter().map(|attempt| attempt.outcome.unwrap());
    spans.extend(of_attempts.map(|outcome| format!("l0.attempt {}", status(outcome))));
    if streams {
        spans.push(format!("l0.stream.consume {ended}"));
    }
    assert_eq!(sent.spans(), spans, "{what}");
    for (span, attempt) in attempts(sent.transaction()).into_iter().zip(finished) {
        check_attempt(span, attempt, exited.info.measured(), &what);
        if streams {
            let stream = common::span(sent.transaction(), "l0.stream.consume");
            assert_eq!(span.parent_span_id, Some(stream.span_id), "{what}");
            assert!(span.timestamp <= stream.timestamp, "{what}");
        } else {
            let own = trace(sent.transaction()).span_id;
            assert_eq!(span.parent_span_id, Some(own), "{what}");
        }
    }

    let mut ended = numbers.clone();
    ended["outcome"] = json!(exit.end.outcome().as_str());
    if exit.end.is_failure() {
        ended["error_type"] = json!(exit.end.error_type());
    }
    let transaction = sent.transaction();
    assert_eq!(transaction.name.as_deref(), Some("l0.execution"), "{what}");
    let data = &trace(transaction).data;
    assert_eq!(shown(data), ended, "{what}");
    let context = &transaction.contexts["l0_telemetry"];
    if telemetry.is_some() {
        assert_eq!(stable(context), stable(data), "{what}");
    } else {
        assert_eq!(stable(data), ended, "{what}");
        assert_eq!(stable(context), json!({}), "{what}");
    }
    assert_eq!(json!(context)["session_id"], exited.info.id(), "{what}");
    for event in &sent.events {
        assert_eq!(event.contexts["l0_telemetry"], *context, "{what}");
    }
    if streams {
        let data = json!(span(transaction, "l0.stream.consume").data);
        assert_eq!(data.get("token_count"), numbers.get("tokens"), "{what}");
        for key in ["tokens", "ttft_ms", "duration_ms"] {
            assert_eq!(data.get(key), numbers.get(key), "{what}");
        }
    }
}

#[test]
fn every_exit_is_reported_completely() {
    for exit in exits::all() {
        check(&exit, "measured", |builder| builder);
        check(&exit, "sampled out", |builder| {
            builder.monitoring(Monitoring::new().sample_rate(0.0))
        });
        check(&exit, "off", |builder| {
            builder.monitoring(Monitoring::off())
        });
    }
}
