//! The captured errors and their grouping.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{Error, ErrorKind};
use std::time::Duration;

use common::{Sentry, forbids, l0, message, paused, tags, title};
use futures_util::StreamExt;
use l0_core::testing::Script;
use l0_core::{
    Backoff, Cause, Check, End, Failure, Findings, FinishReason, L0Builder, Monitoring,
    NetworkErrorKind, Retry, Severity, Violation,
};
use l0_sentry::{SentryConfig, SentryIntegration};

/// A rule that reports violations for every piece of the answer.
struct Reports(&'static [(&'static str, Severity, &'static str)]);

impl Check for Reports {
    fn name(&self) -> &'static str {
        "reports"
    }

    fn text(&mut self, _: &str, findings: &mut Findings) {
        for (rule, severity, message) in self.0 {
            findings.report(Violation::new(*rule, *severity, *message));
        }
    }
}

fn reports(
    builder: L0Builder,
    violations: &'static [(&'static str, Severity, &'static str)],
) -> L0Builder {
    builder.guardrails(move || Reports(violations))
}

async fn read(builder: L0Builder, script: &Script) {
    let l0 = builder.build();
    l0.stream(script.source())
        .start()
        .for_each(|_| async {})
        .await;
}

/// Returns the title, the tags and the fingerprint of the only event.
#[track_caller]
fn identity(sentry: &Sentry) -> (String, Vec<(String, String)>, Vec<String>) {
    let sent = sentry.sent();
    let event = sent.event();
    let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    (
        title(event),
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
    let network = |kind: &str, error: Failure| {
        let message = message(error);
        format!("error Network error: {kind}: {message}")
    };
    let failure = |message: &str| format!("error L0 execution failed: {message}");
    let dns = Failure::network(NetworkErrorKind::DnsError);
    let cases = [
        (
            Script::new().attempt(|a| a.fail(ErrorKind::TimedOut)),
            format!(
                "error Network error: timeout: {}",
                message(ErrorKind::TimedOut)
            ),
            &[("component", "l0.network"), ("error_type", "timeout")][..],
            &["l0.network", "timeout"][..],
        ),
        (
            Script::new().attempt(|a| a.connect_error(dns)),
            network("dns_error", dns),
            &[("component", "l0.network"), ("error_type", "dns_error")],
            &["l0.network", "dns_error"],
        ),
        (
            Script::new().attempt(|a| a.fail(Failure::status(429))),
            network("rate_limited", Failure::status(429)),
            &[("component", "l0.network"), ("error_type", "rate_limited")],
            &["l0.network", "rate_limited"],
        ),
        (
            Script::new().attempt(|a| a.token("a harmful answer ")),
            "fatal Guardrail violation: no-harm: Not fit to be read".to_owned(),
            &[
                ("component", "l0.guardrail"),
                ("error_type", "guardrail_violation"),
                ("rule", "no-harm"),
            ],
            &["l0.guardrail", "no-harm"],
        ),
        (
            Script::new().attempt(|a| a.fail(Failure::status(401))),
            failure(&message(Failure::status(401))),
            &[("component", "l0"), ("error_type", "401")],
            &["l0", "401", "{{ default }}"],
        ),
        (
            Script::new().attempt(|a| a.fail(Failure::fatal())),
            failure(&message(Failure::fatal())),
            &[("component", "l0"), ("error_type", "_OTHER")],
            &["l0", "_OTHER", "{{ default }}"],
        ),
        (
            Script::new().attempt(|a| a),
            failure(&Cause::ZeroOutput.to_string()),
            &[("component", "l0"), ("error_type", "zero_output")],
            &["l0", "zero_output", "{{ default }}"],
        ),
    ];
    for (script, title, own, fingerprint) in cases {
        let sentry = Sentry::start();
        // Tags of the application and the configuration do not override those of the event.
        sentry.hub.configure_scope(|scope| {
            scope.set_tag("component", "api");
            scope.set_tag("error_type", "none");
        });
        let harmful = Violation::new("no-harm", Severity::Fatal, "Not fit to be read");
        let builder = l0(sentry.config().tag("service", "chat").tag("rule", "none"))
            .retry(Retry::new().max_retries(0))
            .guardrails(forbids("harmful", harmful));
        paused().block_on(read(builder, &script));

        let (sent, all, parts) = identity(&sentry);
        assert_eq!(sent, title);
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
fn a_network_error_that_is_retried_is_not_captured() {
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
fn a_broken_connection_after_an_empty_answer_is_not_the_failure_of_the_run() {
    let empty = |script: Script| {
        // The answer is complete but empty. Then the connection breaks.
        script.attempt(|a| {
            a.finish(FinishReason::Stop)
                .fail(ErrorKind::ConnectionReset)
        })
    };
    let failed = |script: Script| script.attempt(|a| a.fail(Failure::status(404)));
    let failure = |message: &str| vec![format!("error L0 execution failed: {message}")];
    let hung = |script: Script| script.attempt(l0_core::testing::ScriptedAttempt::hang);
    for (script, titles) in [
        (
            failed(empty(Script::new())),
            failure(&message(Failure::status(404))),
        ),
        // Dropped by its consumer, which is not an error.
        (hung(empty(Script::new())), vec![]),
        // Not retried at the end.
        (
            empty(Script::new()),
            failure(&Cause::ZeroOutput.to_string()),
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
    let sent: Vec<_> = seen
        .by_ref()
        .map(|event| (&*event.tags["rule"], title(event)))
        .collect();
    let title = |rule, text| (rule, format!("error Guardrail violation: {rule}: {text}"));
    assert_eq!(
        sent,
        [title("one", "a"), title("one", "b"), title("two", "a")]
    );
    let trail = sentry.trail();
    let left = trail.iter().filter(|line| line.contains("l0.guardrail"));
    assert_eq!(left.count(), 8);
}

#[test]
fn violations_are_captured_up_to_a_limit() {
    let sentry = Sentry::start();
    let mut execution =
        SentryIntegration::new(sentry.config()).start_execution("many", [("kind", "test")]);
    for number in 0..100 {
        let message = format!("number {number}");
        execution.record_violations(&[Violation::new("many", Severity::Error, message)]);
    }
    execution.complete(None);
    assert_eq!(sentry.sent().events.len(), 32);
    assert_eq!(sentry.trail().len(), 102);
}

#[test]
fn a_failure_without_a_captured_violation_is_captured() {
    let halting = Violation::new("no-harm", Severity::Error, "not fit").recoverable(false);
    type Change = fn(SentryConfig) -> SentryConfig;
    for (change, titles) in [
        (
            (|config| config) as Change,
            &["error Guardrail violation: no-harm: not fit"][..],
        ),
        (
            |config| config.min_guardrail_severity(Severity::Fatal),
            &["error L0 execution failed: guardrail violation: no-harm (error): not fit"],
        ),
        (|config| config.capture_guardrail_violations(false), &[]),
    ] {
        let sentry = Sentry::start();
        let builder = l0(change(sentry.config())).guardrails(forbids("bad", halting.clone()));
        let script = Script::new().attempt(|a| a.token("a bad answer "));
        paused().block_on(read(builder, &script));
        assert_eq!(sentry.sent().titles(), titles);
    }
}

/// The violation of an end is captured once, even if it was recorded before.
#[test]
fn an_end_by_a_violation_is_captured_once() {
    let not_fit = || Violation::new("no-harm", Severity::Fatal, "not fit");
    for recorded in [false, true] {
        let sentry = Sentry::start();
        let mut execution =
            SentryIntegration::new(sentry.config()).start_execution("", [("kind", "test")]);
        if recorded {
            execution.record_violations(&[not_fit()]);
        }
        execution.finish(&End::of(Cause::Violation(not_fit())), None);
        let titles = sentry.sent().titles();
        assert_eq!(titles, ["fatal Guardrail violation: no-harm: not fit"]);
    }
}

/// Beyond the limit of captured violations, the reason of the end is still captured.
#[test]
fn an_end_by_a_violation_beyond_the_limit_is_captured_as_a_failure() {
    let sentry = Sentry::start();
    let mut execution =
        SentryIntegration::new(sentry.config()).start_execution("", [("kind", "test")]);
    let number = |number: u32| {
        let message = format!("number {number}");
        Violation::new("many", Severity::Fatal, message)
    };
    for other in 0..32 {
        execution.record_violations(&[number(other)]);
    }
    execution.finish(&End::of(Cause::Violation(number(32))), None);
    let titles = sentry.sent().titles();
    assert_eq!(titles.len(), 33);
    assert_eq!(
        titles[32],
        "error L0 execution failed: guardrail violation: many (fatal): number 32"
    );
}

#[test]
fn a_watched_stream_that_fails_after_a_fatal_violation_reports_both() {
    let sentry = Sentry::start();
    let builder = reports(sentry.l0(), &[("harm", Severity::Fatal, "not fit")]);
    let l0 = builder.build();
    let script = Script::new().attempt(|a| a.token("a").fail(Failure::status(404)));
    paused().block_on(async {
        let watched = l0.watch(script.stream()).start();
        watched.for_each(|_| async {}).await;
    });
    assert_eq!(
        sentry.sent().titles(),
        [
            "fatal Guardrail violation: harm: not fit".to_owned(),
            format!(
                "error L0 execution failed: {}",
                message(Failure::status(404))
            ),
        ]
    );
}

#[test]
fn the_captured_error_is_the_consumers_error_redacted() {
    let sentry = Sentry::start();
    let error = Error::other("401: Bearer abcdefghijklmnop0123456789");
    let script = Script::new().attempt(|a| a.fail(error));
    let monitoring = Monitoring::new().error_text(true);
    paused().block_on(read(sentry.l0().monitoring(monitoring), &script));
    let sent = sentry.sent();
    assert!(!sent.text.contains("abcdefghijklmnop"), "{}", sent.text);
    assert!(
        sent.titles()[0].contains("[redacted]"),
        "{:?}",
        sent.titles()
    );
}
