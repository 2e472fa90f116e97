//! Every way a run can end: its breadcrumbs, errors, spans and their statuses.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use common::{Sentry, forbids, message, paused, span, stable, trace};
use futures_util::StreamExt;
use l0_core::testing::Script;
use l0_core::{
    Backoff, Checks, Failure, FinishReason, Interceptor, L0Builder, NewRun, Refusal, Retry,
    Severity, Timeouts, Violation,
};
use serde_json::{Value, json};

const MS: Duration = Duration::from_millis(1);

/// What the consumer does with the stream.
#[derive(Debug, Clone, Copy)]
enum Consumer {
    ReadsToTheEnd,
    AbortsAfterOneItem,
    DropsAfterOneItem,
    DropsBeforeTheFirstPoll,
    PanicsAfterOneItem,
    IsATaskThatIsAborted,
}
use Consumer::*;

struct Case {
    name: &'static str,
    script: Script,
    consumer: Consumer,
    configure: fn(L0Builder) -> L0Builder,
    /// Between the start of the execution and its end.
    trail: &'static [&'static str],
    /// The level of the last breadcrumb, how it ended; milliseconds, tokens, retries, network errors
    /// and violations.
    end: (&'static str, &'static str, [u64; 5]),
    /// The class of what it failed with, if it did.
    error_type: Option<&'static str>,
    /// `{reset}` and `{not found}` stand for what is said of such a failure.
    events: &'static [&'static str],
    /// Of the execution, and of the stream.
    status: &'static str,
}

const STREAM: &str = "info l0.stream: Stream started";
const FIRST_TOKEN: &str = r#"info l0.stream: First token received {"ttft_ms":5}"#;

fn as_it_is(builder: L0Builder) -> L0Builder {
    builder
}

/// Rules for words of the answer.
fn guarded(builder: L0Builder) -> L0Builder {
    let fatal = Violation::new("no-death", Severity::Fatal, "not fit").recoverable(false);
    let faulty = Violation::new("no-fault", Severity::Error, "not right");
    let rules = Checks::none().with(forbids("deadly", fatal));
    builder.guardrails(rules.with(forbids("faulty", faulty)))
}

struct Refuses;

impl Interceptor for Refuses {
    fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
        Err(Refusal::new("the budget is spent"))
    }
}

fn cases() -> Vec<Case> {
    let hello = || Script::new().attempt(|a| a.wait(5 * MS).token("Hello").wait(5 * MS).token("!"));
    let endless = || Script::new().attempt(|a| a.wait(5 * MS).token("Hello").hang());
    let reset = ErrorKind::ConnectionReset;
    vec![
        Case {
            name: "completed",
            script: hello(),
            consumer: ReadsToTheEnd,
            configure: as_it_is,
            trail: &[
                STREAM,
                FIRST_TOKEN,
                r#"info l0.stream: Stream completed {"token_count":2}"#,
            ],
            end: ("info", "completed", [10, 2, 0, 0, 0]),
            error_type: None,
            events: &[],
            status: "ok",
        },
        Case {
            name: "completed after a network retry",
            script: Script::new()
                .attempt(|a| a.wait(5 * MS).token("He").fail(reset))
                .attempt(|a| a.token("Hello")),
            consumer: ReadsToTheEnd,
            configure: as_it_is,
            trail: &[
                STREAM,
                FIRST_TOKEN,
                r#"error l0.network: Network error: econnreset {"error_type":"econnreset","message":"{reset}","retried":true}"#,
                r#"warning l0.retry: Retry attempt 2 {"attempt":2,"delay_ms":0,"is_network_error":true,"reason":"network_error"}"#,
                r#"info l0.stream: Stream completed {"token_count":2}"#,
            ],
            end: ("info", "completed", [5, 2, 1, 1, 0]),
            error_type: None,
            events: &[],
            status: "ok",
        },
        Case {
            name: "completed, and the connection breaks behind the finish reason",
            script: Script::new().attempt(|a| {
                let all = a.wait(5 * MS).token("Hello").finish(FinishReason::Stop);
                all.fail(reset)
            }),
            consumer: ReadsToTheEnd,
            configure: as_it_is,
            trail: &[
                STREAM,
                FIRST_TOKEN,
                r#"error l0.network: Network error: econnreset {"error_type":"econnreset","message":"{reset}","retried":false}"#,
                r#"info l0.stream: Stream completed {"token_count":1}"#,
            ],
            end: ("info", "completed", [5, 1, 0, 1, 0]),
            error_type: None,
            events: &[],
            status: "ok",
        },
        Case {
            name: "failed: the source's fatal error",
            script: Script::new()
                .attempt(|a| a.wait(5 * MS).token("He").fail(Failure::status(404))),
            consumer: ReadsToTheEnd,
            configure: as_it_is,
            trail: &[STREAM, FIRST_TOKEN],
            end: ("error", "failed", [5, 1, 0, 0, 0]),
            error_type: Some("404"),
            events: &["error L0 execution failed: {not found}"],
            status: "internal_error",
        },
        Case {
            name: "failed: a network error, and no retry is left",
            script: Script::new().attempt(|a| a.wait(5 * MS).token("He").fail(reset)),
            consumer: ReadsToTheEnd,
            configure: |builder| {
                builder.retry(Retry::new().max_retries(1).backoff(Backoff::none()))
            },
            trail: &[
                STREAM,
                FIRST_TOKEN,
                r#"error l0.network: Network error: econnreset {"error_type":"econnreset","message":"{reset}","retried":true}"#,
                r#"warning l0.retry: Retry attempt 2 {"attempt":2,"delay_ms":0,"is_network_error":true,"reason":"network_error"}"#,
                r#"error l0.network: Network error: econnreset {"error_type":"econnreset","message":"{reset}","retried":false}"#,
            ],
            end: ("error", "failed", [10, 2, 1, 2, 0]),
            error_type: Some("econnreset"),
            events: &["error Network error: econnreset: {reset}"],
            status: "internal_error",
        },
        Case {
            name: "failed: a fatal violation",
            script: Script::new().attempt(|a| a.wait(5 * MS).token("a deadly answer ")),
            consumer: ReadsToTheEnd,
            configure: guarded,
            trail: &[
                STREAM,
                FIRST_TOKEN,
                r#"fatal l0.guardrail: Guardrail violation: no-death {"message":"not fit","recoverable":false,"rule":"no-death","severity":"fatal"}"#,
            ],
            end: ("error", "failed", [5, 1, 0, 0, 1]),
            error_type: Some("guardrail_violation"),
            events: &["fatal Guardrail violation: not fit"],
            status: "internal_error",
        },
        Case {
            name: "completed with a violation that no retry repairs",
            script: Script::new()
                .attempt(|a| a.wait(5 * MS).token("a faulty answer "))
                .attempt(|a| a.token("a faulty answer ")),
            consumer: ReadsToTheEnd,
            configure: |builder| {
                let retry = Retry::new().model_retries(1);
                guarded(builder.retry(retry.backoff(Backoff::none())))
            },
            trail: &[
                STREAM,
                FIRST_TOKEN,
                r#"error l0.guardrail: Guardrail violation: no-fault {"message":"not right","recoverable":true,"rule":"no-fault","severity":"error"}"#,
                r#"warning l0.retry: Retry attempt 2 {"attempt":2,"delay_ms":0,"is_network_error":false,"reason":"guardrail_violation"}"#,
                r#"error l0.guardrail: Guardrail violation: no-fault {"message":"not right","recoverable":true,"rule":"no-fault","severity":"error"}"#,
                r#"info l0.stream: Stream completed {"token_count":2}"#,
            ],
            end: ("info", "completed", [5, 2, 1, 0, 2]),
            error_type: None,
            events: &["error Guardrail violation: not right"],
            status: "ok",
        },
        Case {
            name: "failed: refused",
            script: hello(),
            consumer: ReadsToTheEnd,
            configure: |builder| builder.interceptor(Refuses),
            trail: &[],
            end: ("error", "failed", [0, 0, 0, 0, 0]),
            error_type: Some("refused"),
            events: &["error L0 execution failed: refused: the budget is spent"],
            status: "internal_error",
        },
        Case {
            name: "timed out: the next token",
            script: endless(),
            consumer: ReadsToTheEnd,
            configure: |builder| {
                let timeouts = Timeouts::new().inter_token(20 * MS);
                builder
                    .timeouts(timeouts)
                    .retry(Retry::new().max_retries(0))
            },
            trail: &[
                STREAM,
                FIRST_TOKEN,
                r#"error l0.network: Network error: timeout {"error_type":"timeout","message":"the next token did not arrive in time","retried":false}"#,
            ],
            end: ("error", "timed out", [25, 1, 0, 1, 0]),
            error_type: Some("timeout"),
            events: &["error Network error: timeout: the next token did not arrive in time"],
            status: "deadline_exceeded",
        },
        Case {
            name: "truncated",
            script: Script::new().attempt(|a| a.wait(5 * MS).token("Hello")),
            consumer: ReadsToTheEnd,
            configure: |builder| builder.retry(Retry::new().max_retries(0)),
            trail: &[
                STREAM,
                FIRST_TOKEN,
                r#"error l0.network: Network error: partial_chunks {"error_type":"partial_chunks","message":"the stream ended without a finish reason","retried":false}"#,
            ],
            end: ("error", "truncated", [5, 1, 0, 1, 0]),
            error_type: Some("truncated"),
            events: &[
                "error Network error: partial_chunks: the stream ended without a finish reason",
            ],
            status: "internal_error",
        },
        Case {
            name: "aborted",
            script: endless(),
            consumer: AbortsAfterOneItem,
            configure: as_it_is,
            trail: &[STREAM, FIRST_TOKEN],
            end: ("info", "aborted", [5, 1, 0, 0, 0]),
            error_type: None,
            events: &[],
            status: "cancelled",
        },
        Case {
            name: "dropped",
            script: endless(),
            consumer: DropsAfterOneItem,
            configure: as_it_is,
            trail: &[STREAM, FIRST_TOKEN],
            end: ("info", "dropped", [5, 1, 0, 0, 0]),
            error_type: None,
            events: &[],
            status: "cancelled",
        },
        Case {
            name: "dropped before it was polled",
            script: endless(),
            consumer: DropsBeforeTheFirstPoll,
            configure: as_it_is,
            trail: &[],
            end: ("info", "dropped", [0, 0, 0, 0, 0]),
            error_type: None,
            events: &[],
            status: "cancelled",
        },
        Case {
            name: "the consumer panics",
            script: endless(),
            consumer: PanicsAfterOneItem,
            configure: as_it_is,
            trail: &[STREAM, FIRST_TOKEN],
            end: ("info", "dropped", [5, 1, 0, 0, 0]),
            error_type: None,
            events: &[],
            status: "cancelled",
        },
        Case {
            name: "the consumer's task is aborted",
            script: endless(),
            consumer: IsATaskThatIsAborted,
            configure: as_it_is,
            trail: &[STREAM, FIRST_TOKEN],
            end: ("info", "dropped", [5, 1, 0, 0, 0]),
            error_type: None,
            events: &[],
            status: "cancelled",
        },
        Case {
            name: "the source panics",
            script: Script::new().attempt(|a| a.wait(5 * MS).token("Hello").panic("a bug")),
            consumer: ReadsToTheEnd,
            configure: as_it_is,
            trail: &[STREAM, FIRST_TOKEN],
            end: ("error", "failed", [5, 1, 0, 0, 0]),
            error_type: Some("panic"),
            events: &["error L0 execution failed: the source, the factory or a hook panicked"],
            status: "internal_error",
        },
        Case {
            name: "the source panics while it connects",
            script: Script::new().attempt(|a| a.connect_panic("a bug")),
            consumer: ReadsToTheEnd,
            configure: as_it_is,
            trail: &[STREAM],
            end: ("error", "failed", [0, 0, 0, 0, 0]),
            error_type: Some("panic"),
            events: &["error L0 execution failed: the source, the factory or a hook panicked"],
            status: "internal_error",
        },
    ]
}

fn consume(case: &Case, builder: L0Builder) {
    let l0 = builder.build();
    let runtime = paused();
    let body = async {
        let run = l0.stream(case.script.source());
        let mut run = if case.name == "truncated" {
            run.expect_finish().start()
        } else {
            run.start()
        };
        match case.consumer {
            ReadsToTheEnd => while run.next().await.is_some() {},
            DropsBeforeTheFirstPoll => {}
            AbortsAfterOneItem => {
                run.next().await;
                run.handle().abort();
                assert!(run.next().await.unwrap().is_err());
            }
            DropsAfterOneItem => drop(run.next().await),
            PanicsAfterOneItem => {
                run.next().await;
                panic!("a bug of the consumer");
            }
            IsATaskThatIsAborted => {
                let task = tokio::spawn(async move { while run.next().await.is_some() {} });
                tokio::time::sleep(5 * MS).await;
                tokio::task::yield_now().await;
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            }
        }
    };
    let _ = catch_unwind(AssertUnwindSafe(|| runtime.block_on(body)));
}

/// The numbers that the guide shows, and how the run ended. The others are derived from the table of
/// core.
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

/// What is said of failures in the place of their names.
fn told(lines: &[&str]) -> Vec<String> {
    let reset = message(ErrorKind::ConnectionReset);
    let not_found = message(Failure::status(404));
    let lines = lines.iter();
    lines
        .map(|line| {
            let line = line.replace("{reset}", &reset);
            line.replace("{not found}", &not_found)
        })
        .collect()
}

#[test]
fn every_exit_is_told_in_full() {
    for case in cases() {
        let name = case.name;
        let sentry = Sentry::start();
        consume(&case, (case.configure)(sentry.l0()));

        let (level, outcome, [duration, tokens, retries, errors, violations]) = case.end;
        let label = outcome.replace(' ', "_");
        let last = format!(
            r#"{level} l0: L0 execution {outcome} {{"duration_ms":{duration},"outcome":"{label}","retries":{retries},"tokens":{tokens}}}"#
        );
        let mut expected = vec!["info l0: L0 execution started"];
        expected.extend(case.trail);
        expected.push(&last);
        assert_eq!(sentry.trail(), told(&expected), "{name}");

        let sent = sentry.sent();
        assert_eq!(sent.titles(), told(case.events), "{name}");
        let status = case.status;
        let mut spans = vec![format!("l0.execution {status}")];
        if !case.trail.is_empty() {
            spans.push(format!("l0.stream.consume {status}"));
        }
        assert_eq!(sent.spans(), spans, "{name}");

        let mut numbers = json!({
            "duration_ms": duration,
            "tokens": tokens,
            "retries": retries,
            "network_errors": errors,
            "guardrail_violations": violations,
            "outcome": label,
        });
        if tokens > 0 {
            numbers["ttft_ms"] = json!(5);
            let rate = tokens as f64 / duration as f64 * 1e3;
            numbers["tokens_per_second"] = json!((rate * 1e3).round() / 1e3);
        } else if duration > 0 {
            numbers["tokens_per_second"] = json!(0.0);
        }
        if let Some(error_type) = case.error_type {
            numbers["error_type"] = json!(error_type);
        }
        let transaction = sent.transaction();
        assert_eq!(transaction.name.as_deref(), Some("l0.execution"), "{name}");
        let context = &transaction.contexts["l0_telemetry"];
        assert_eq!(shown(context), numbers, "{name}");
        assert_eq!(stable(context), stable(&trace(transaction).data), "{name}");
        for event in &sent.events {
            assert_eq!(event.contexts["l0_telemetry"], *context, "{name}");
        }
        if !case.trail.is_empty() {
            let data = &span(transaction, "l0.stream.consume").data;
            assert_eq!(data["token_count"], tokens, "{name}");
            assert_eq!(data["tokens"], tokens, "{name}");
            assert_eq!(data.get("ttft_ms"), numbers.get("ttft_ms"), "{name}");
        }
    }
}
