//! What is captured as an error, once, and how it is grouped.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{Error, ErrorKind};
use std::time::Duration;

use common::{Sentry, l0, paused, tags};
use futures_util::StreamExt;
use l0_core::guardrail::{CustomPattern, Guardrail, Violations};
use l0_core::testing::Script;
use l0_core::{
    Backoff, Failure, FinishReason, Guardrails, L0Builder, NetworkErrorKind, Retry, Severity,
    Violation,
};
use l0_sentry::SentryConfig;

/// Reports violations at every piece of the answer.
struct Reports(&'static [(&'static str, Severity, &'static str)]);

impl Guardrail for Reports {
    fn name(&self) -> &'static str {
        "reports"
    }

    fn text(&mut self, _: &str, violations: &mut Violations) {
        for (rule, severity, message) in self.0 {
            violations.report(Violation::new(*rule, *severity, *message));
        }
    }

    fn end(&mut self, _: &mut Violations) {}
}

fn reports(
    builder: L0Builder,
    violations: &'static [(&'static str, Severity, &'static str)],
) -> L0Builder {
    builder.guardrails(Guardrails::none().with(move || Reports(violations)))
}

async fn read(builder: L0Builder, script: &Script) {
    let l0 = builder.build();
    l0.stream(script.source())
        .start()
        .for_each(|_| async {})
        .await;
}

/// Tags and fingerprint of the only event.
#[track_caller]
fn identity(sentry: &Sentry) -> (String, Vec<(String, String)>, Vec<String>) {
    let sent = sentry.sent();
    let event = sent.event();
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    (
        common::title(event),
        tags(&event.tags).into_iter().map(owned).collect(),
        event
            .fingerprint
            .iter()
            .map(|part| (**part).to_owned())
            .collect(),
    )
}

#[test]
fn errors_are_tagged_and_grouped_by_their_cause() {
    let retry = || Retry::new().max_retries(0);
    for (script, title, own, fingerprint) in [
        (
            Script::new().attempt(|a| a.fail(ErrorKind::TimedOut)),
            "error Network error: timeout: timed out",
            &[("component", "l0.network"), ("error_type", "timeout")][..],
            &["l0.network", "timeout"][..],
        ),
        (
            Script::new()
                .attempt(|a| a.connect_error(Failure::network(NetworkErrorKind::DnsError))),
            "error Network error: dns_error: network error: dns_error",
            &[("component", "l0.network"), ("error_type", "dns_error")],
            &["l0.network", "dns_error"],
        ),
        (
            Script::new().attempt(|a| a.fail(Failure::status(429))),
            "error Network error: rate_limited: rate limited, status 429",
            &[("component", "l0.network"), ("error_type", "rate_limited")],
            &["l0.network", "rate_limited"],
        ),
        (
            Script::new().attempt(|a| a.token("a deadly answer ")),
            "fatal Guardrail violation: Not fit to be read",
            &[
                ("component", "l0.guardrail"),
                ("error_type", "guardrail_violation"),
                ("rule", "no-death"),
            ],
            &["l0.guardrail", "no-death"],
        ),
        (
            Script::new().attempt(|a| a.fail("the prompt is too long")),
            "error L0 execution failed: the prompt is too long",
            &[("component", "l0"), ("error_type", "failed")],
            &["l0", "failed", "{{ default }}"],
        ),
        (
            Script::new().attempt(|a| a),
            "error L0 execution failed: the answer is empty: no text with a letter or digit, and no tool call",
            &[("component", "l0"), ("error_type", "failed")],
            &["l0", "failed", "{{ default }}"],
        ),
    ] {
        let sentry = Sentry::start();
        // Tags of the host and the user do not hide those of the event.
        sentry.hub.configure_scope(|scope| {
            scope.set_tag("component", "api");
            scope.set_tag("error_type", "none");
        });
        let pattern = CustomPattern::phrases(["deadly"]).unwrap();
        let pattern = pattern.severity(Severity::Fatal).rule("no-death");
        let pattern = pattern.message("Not fit to be read");
        let builder = l0(sentry.config().tag("service", "chat").tag("rule", "none")).retry(retry());
        let rules = Guardrails::none().with(move || pattern.clone());
        paused().block_on(read(builder.guardrails(rules), &script));

        let (told, all, parts) = identity(&sentry);
        assert_eq!(told, title);
        let mut expected: Vec<_> = own.to_vec();
        if !own.iter().any(|(key, _)| *key == "rule") {
            expected.push(("rule", "none"));
        }
        expected.push(("service", "chat"));
        let all: Vec<_> = all.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(all, expected, "{title}");
        assert_eq!(parts, fingerprint, "{title}");
    }
}

#[test]
fn a_network_error_that_is_retried_is_no_error() {
    let sentry = Sentry::start();
    let script = Script::new()
        .attempt(|a| a.fail(ErrorKind::ConnectionReset))
        .attempt(|a| a.fail(Failure::status(503)))
        .attempt(|a| a.token("Hello"));
    paused().block_on(read(sentry.l0(), &script));
    assert!(sentry.sent().events.is_empty());
    let trail = sentry.trail();
    let errors = trail.iter().filter(|line| line.contains("l0.network"));
    assert_eq!(errors.count(), 2);
}

#[test]
fn a_connection_that_breaks_after_an_answer_without_output_is_not_what_the_run_fails_with() {
    let empty = |script: Script| {
        // Complete, but empty; and then the connection breaks.
        script.attempt(|a| {
            a.finish(FinishReason::Stop)
                .fail(ErrorKind::ConnectionReset)
        })
    };
    let failed = |script: Script| script.attempt(|a| a.fail("no such model"));
    let hung = |script: Script| script.attempt(l0_core::testing::ScriptedAttempt::hang);
    for (script, titles) in [
        (
            failed(empty(Script::new())),
            &["error L0 execution failed: no such model"] as &[_],
        ),
        // Dropped by its consumer, which is no error.
        (hung(empty(Script::new())), &[]),
        // Not asked for again in the end.
        (
            empty(Script::new()),
            &[
                "error L0 execution failed: the answer is empty: no text with a letter or digit, and no tool call",
            ],
        ),
    ] {
        let sentry = Sentry::start();
        paused().block_on(async {
            let read = read(sentry.l0(), &script);
            let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
        });
        assert_eq!(sentry.sent().titles(), titles);
    }
}

#[test]
fn a_violation_is_captured_once_for_its_rule_and_message() {
    let sentry = Sentry::start();
    let script = Script::new()
        .attempt(|a| a.tokens(["a ", "b "]))
        .attempt(|a| a.tokens(["a ", "b "]));
    let retry = Retry::new().model_retries(1).backoff(Backoff::none());
    let builder = reports(
        sentry.l0().retry(retry),
        &[
            ("one", Severity::Error, "a"),
            ("one", Severity::Error, "b"),
            ("two", Severity::Error, "a"),
            ("three", Severity::Warning, "c"),
        ],
    );
    paused().block_on(read(builder, &script));
    let sent = sentry.sent();
    let mut seen = sent.events.iter();
    let told: Vec<_> = seen
        .by_ref()
        .map(|event| (&*event.tags["rule"], event.message.as_deref().unwrap()))
        .collect();
    let message = |text| format!("Guardrail violation: {text}");
    let (a, b) = (message("a"), message("b"));
    assert_eq!(told, [("one", &*a), ("one", &*b), ("two", &*a)]);
    let trail = sentry.trail();
    let left = trail.iter().filter(|line| line.contains("l0.guardrail"));
    assert_eq!(left.count(), 8);
}

#[test]
fn violations_are_captured_up_to_a_number() {
    let sentry = Sentry::start();
    let mut execution = l0_sentry::SentryIntegration::new(sentry.config())
        .start_execution("many", [("kind", "test")]);
    for number in 0..100 {
        let message = format!("number {number}");
        execution.record_violations(&[Violation::new("many", Severity::Error, message)]);
    }
    execution.complete(None);
    assert_eq!(sentry.sent().events.len(), 32);
    assert_eq!(sentry.trail().len(), 102);
}

#[test]
fn a_failure_that_no_captured_violation_explains_is_captured() {
    let halting = || {
        let pattern = CustomPattern::phrases(["bad"]).unwrap();
        pattern.recoverable(false).message("not fit")
    };
    type Change = fn(SentryConfig) -> SentryConfig;
    for (change, titles) in [
        (
            (|config| config) as Change,
            &["error Guardrail violation: not fit"][..],
        ),
        (
            |config| config.min_guardrail_severity(Severity::Fatal),
            &["error L0 execution failed: guardrail violation: pattern-custom (error): not fit"],
        ),
        (|config| config.capture_guardrail_violations(false), &[]),
    ] {
        let sentry = Sentry::start();
        let rules = Guardrails::none().with(halting);
        let builder = l0(change(sentry.config())).guardrails(rules);
        let script = Script::new().attempt(|a| a.token("a bad answer "));
        paused().block_on(read(builder, &script));
        assert_eq!(sentry.sent().titles(), titles);
    }
}

#[test]
fn a_watched_stream_that_fails_after_a_fatal_violation_tells_both() {
    let sentry = Sentry::start();
    let builder = reports(sentry.l0(), &[("harm", Severity::Fatal, "not fit")]);
    let l0 = builder.build();
    let script = Script::new().attempt(|a| a.token("a").fail("broken"));
    paused().block_on(async {
        let watched = l0.watch(script.stream()).start();
        watched.for_each(|_| async {}).await;
    });
    assert_eq!(
        sentry.sent().titles(),
        [
            "fatal Guardrail violation: not fit",
            "error L0 execution failed: broken",
        ]
    );
}

#[test]
fn an_unmeasured_run_is_told_without_numbers() {
    let sentry = Sentry::start();
    let builder = sentry.l0().monitoring(l0_core::Monitoring::off());
    let script = Script::new().attempt(|a| a.wait(Duration::from_millis(5)).token("a").fail("bad"));
    paused().block_on(read(builder, &script));
    let sent = sentry.sent();
    assert_eq!(sent.titles(), ["error L0 execution failed: bad"]);
    assert_eq!(
        sent.spans(),
        [
            "l0.execution internal_error",
            "l0.stream.consume internal_error"
        ]
    );
    let context = serde_json::json!(sent.event().contexts["l0_telemetry"]);
    let fields: Vec<_> = context.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["session_id", "type"]);
    let data = &common::span(sent.transaction(), "l0.stream.consume").data;
    assert!(!data.contains_key("tokens") && !data.contains_key("ttft_ms"));
}

#[test]
fn the_error_is_the_one_that_the_consumer_got_redacted() {
    let sentry = Sentry::start();
    let error = Error::other("401: Bearer abcdefghijklmnop0123456789");
    let script = Script::new().attempt(|a| a.fail(error));
    paused().block_on(read(sentry.l0(), &script));
    let sent = sentry.sent();
    assert!(!sent.text.contains("abcdefghijklmnop"), "{}", sent.text);
    assert!(
        sent.titles()[0].contains("[redacted]"),
        "{:?}",
        sent.titles()
    );
}
