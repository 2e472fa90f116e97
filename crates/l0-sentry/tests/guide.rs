//! The uses of Sentry in the monitoring guide, each with the results that its comments promise.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Sentry, message, paused, span, stable, tags, trace};
use futures_util::StreamExt;
use l0_core::testing::Script;
use l0_core::{
    Cause, Chunk, DriftReport, End, Failure, L0, LimitKind, Monitor, Monitoring, NetworkErrorKind,
    RetryKind, RetryReason, Severity, TimeoutKind, Violation,
};
use l0_sentry::{SentryConfig, SentryExecution, SentryIntegration, SentryInterceptor, with_sentry};
use sentry::Hub;
use serde_json::json;

const MS: Duration = Duration::from_millis(1);

/// Returns a script of 250 tokens in 1.5 s, the first after 280 ms.
fn model() -> Script {
    Script::new().attempt(|a| {
        let a = a.wait(280 * MS).tokens(vec!["token "; 249]);
        a.wait(1220 * MS).token("end")
    })
}

/// Returns the context that the guide sets on completion of a run with one attempt.
fn context_of_the_guide() -> serde_json::Value {
    json!({
        "duration_ms": 1500,
        "tokens": 250,
        "tokens_per_second": 166.667,
        "ttft_ms": 280,
        "retries": 0,
        "network_errors": 0,
        "guardrail_violations": 0,
    })
}

/// Returns the numbers that the guide shows.
fn shown(context: &impl serde::Serialize) -> serde_json::Value {
    let mut numbers = stable(context);
    let expected = context_of_the_guide();
    let fields = numbers.as_object_mut().unwrap();
    fields.retain(|key, _| expected.get(key).is_some());
    numbers
}

/// Runs code with a current hub that has a client, like after `sentry::init`.
fn initialized<T>(code: impl Future<Output = T>) -> (T, common::Sent, Vec<String>) {
    let sentry = Sentry::start();
    let value = Hub::run(Arc::clone(&sentry.hub), || paused().block_on(code));
    (value, sentry.sent(), sentry.trail())
}

#[test]
fn quick_start() {
    let client = model();
    let ((), sent, trail) = initialized(async {
        let l0 = L0::builder()
            .monitoring(Monitoring::new())
            .interceptor(SentryInterceptor::new(SentryConfig::new()))
            .build();
        let mut run = l0.stream(|_attempt| client.connect()).start();
        run.text().await.unwrap();
    });
    let spans = ["l0.execution ok", "l0.attempt ok", "l0.stream.consume ok"];
    assert_eq!(sent.spans(), spans);
    let context = &sent.transaction().contexts["l0_telemetry"];
    assert_eq!(shown(context), context_of_the_guide());
    assert_eq!(trail.len(), 5);
}

#[test]
fn wrapper() {
    let client = model();
    let (text, sent, trail) = initialized(async {
        let l0 = L0::builder().monitoring(Monitoring::new()).build();
        with_sentry(SentryConfig::new(), async {
            l0.stream(|_attempt| client.connect()).start().text().await
        })
        .await
    });
    assert!(text.unwrap().ends_with("token end"));
    assert_eq!(sent.spans(), ["l0.execution ok"]);
    assert_eq!(
        trail,
        [
            "info l0: L0 execution started",
            r#"info l0: L0 execution completed {"outcome":"completed"}"#,
        ]
    );
}

#[test]
fn configuration() {
    let reset = std::io::ErrorKind::ConnectionReset;
    let client = Script::new().attempt(|a| a.token("a").fail(reset));
    let ((), sent, _) = initialized(async {
        let config = SentryConfig::new()
            .hub(Hub::current())
            .capture_network_errors(true)
            .capture_guardrail_violations(true)
            .min_guardrail_severity(Severity::Error)
            .breadcrumbs_for_tokens(false)
            .enable_tracing(true)
            .tag("model", "gpt-4")
            .tag("environment", "production");
        let l0 = common::l0(config).build();
        let text = l0.stream(|_attempt| client.connect()).start().text().await;
        text.unwrap_err();
    });
    assert_eq!(
        tags(&sent.event().tags),
        [
            ("component", "l0.network"),
            ("environment", "production"),
            ("error_type", "econnreset"),
            ("model", "gpt-4"),
        ]
    );
}

#[test]
fn manual_integration() {
    let client = model();
    let ((), sent, trail) = initialized(async {
        let sentry = SentryIntegration::new(SentryConfig::new());

        // Start tracking
        let mut execution = sentry.start_execution("my-chat-request", [("user_id", "123")]);
        execution.start_stream();

        let l0 = L0::builder().monitoring(Monitoring::new()).build();
        let mut run = l0.stream(|_attempt| client.connect()).start();
        let mut count = 0;
        while let Some(chunk) = run.next().await {
            if let Chunk::Item(token) = chunk.unwrap() {
                count += 1;
                if count == 1 {
                    let telemetry = run.telemetry().unwrap();
                    let after = telemetry.metrics.time_to_first_token;
                    execution.record_first_token(after.unwrap_or_default());
                }
                execution.record_token(&token.text);
            }
        }

        // Complete tracking
        execution.complete_stream(count);
        execution.complete(run.telemetry().as_ref());
    });
    let transaction = sent.transaction();
    assert_eq!(transaction.name.as_deref(), Some("my-chat-request"));
    assert_eq!(trace(transaction).op.as_deref(), Some("l0.execution"));
    assert_eq!(trace(transaction).data["user_id"], "123");
    assert_eq!(sent.spans(), ["l0.execution ok", "l0.stream.consume ok"]);
    let context = &transaction.contexts["l0_telemetry"];
    assert_eq!(shown(context), context_of_the_guide());
    let stream = &span(transaction, "l0.stream.consume").data;
    assert_eq!(
        (&stream["tokens"], &stream["ttft_ms"]),
        (&json!(250), &json!(280))
    );
    assert_eq!(
        trail[..4],
        [
            r#"info l0: L0 execution started {"user_id":"123"}"#,
            "info l0.stream: Stream started",
            r#"info l0.stream: First token received {"ttft_ms":280}"#,
            r#"info l0.stream: Stream completed {"token_count":250}"#,
        ]
    );
    assert!(trail[4].starts_with("info l0: L0 execution completed"));
}

#[test]
fn error_handling() {
    let client = Script::new().attempt(|a| a.wait(5 * MS).token("a").fail(Failure::status(404)));
    let (result, sent, trail) = initialized(async {
        let sentry = SentryIntegration::new(SentryConfig::new());
        let execution = sentry.start_execution("", [("user_id", "123")]);

        let l0 = L0::builder().monitoring(Monitoring::new()).build();
        let mut run = l0.stream(|_attempt| client.connect()).start();
        let text = run.text().await;
        match &text {
            Ok(_) => execution.complete(run.telemetry().as_ref()),
            Err(error) => execution.fail(error, run.telemetry().as_ref()),
        }
        text
    });
    result.unwrap_err();
    assert_eq!(sent.spans(), ["l0.execution internal_error"]);
    let message = message(Failure::status(404));
    assert_eq!(
        sent.titles(),
        [format!("error L0 execution failed: {message}")]
    );
    assert_eq!(
        tags(&sent.event().tags),
        [("component", "l0"), ("error_type", "404")]
    );
    let context = stable(&sent.event().contexts["l0_telemetry"]);
    assert_eq!(
        (&context["duration_ms"], &context["tokens"]),
        (&json!(5), &json!(1))
    );
    assert_eq!(trail.len(), 2);
}

#[test]
fn a_manual_report_has_the_same_breadcrumbs_as_a_run() {
    let ((), sent, trail) = initialized(async {
        let sentry = SentryIntegration::new(SentryConfig::new().breadcrumbs_for_tokens(true));
        let mut execution = sentry.start_execution("manual", [("model", "gpt-4")]);
        let dropped = Failure::network(NetworkErrorKind::ConnectionDropped);
        execution.start_stream();
        execution.record_token("secret");
        execution.record_network_error(&dropped, true);
        execution.record_retry(2, RetryReason::NetworkError, RetryKind::Network);
        let found = Violation::new("json-structure", Severity::Warning, "Unbalanced braces");
        execution.record_violations(&[found.clone(), found]);
        execution.record_drift(&DriftReport::none());
        execution.record_drift(&DriftReport::new(["tone_shift", "repetition"], 0.5));
        execution.record_network_error(&dropped, false);
        let timeout = End::of(Cause::Timeout(TimeoutKind::Total));
        execution.finish(&timeout, None);
    });
    let message = message(Failure::network(NetworkErrorKind::ConnectionDropped));
    let expected = [
        r#"info l0: L0 execution started {"model":"gpt-4"}"#,
        "info l0.stream: Stream started",
        "debug l0.token: Token received",
        r#"error l0.network: Network error: connection_dropped {"error_type":"connection_dropped","message":"{message}","retried":true}"#,
        r#"warning l0.retry: Retry attempt 2 {"attempt":2,"is_network_error":true,"reason":"network_error"}"#,
        r#"warning l0.guardrail: Guardrail violation: json-structure {"message":"Unbalanced braces","recoverable":true,"rule":"json-structure","severity":"warning"}"#,
        r#"warning l0.guardrail: Guardrail violation: json-structure {"message":"Unbalanced braces","recoverable":true,"rule":"json-structure","severity":"warning"}"#,
        r#"warning l0.drift: Drift detected: tone_shift, repetition {"types":["tone_shift","repetition"]}"#,
        r#"error l0.network: Network error: connection_dropped {"error_type":"connection_dropped","message":"{message}","retried":false}"#,
        r#"error l0: L0 execution timed out {"outcome":"timed_out"}"#,
    ];
    assert_eq!(
        trail,
        expected.map(|line| line.replace("{message}", &message))
    );
    assert_eq!(
        sent.titles(),
        [format!(
            "error Network error: connection_dropped: {message}"
        )]
    );
    assert_eq!(
        sent.spans(),
        [
            "l0.execution deadline_exceeded",
            "l0.stream.consume deadline_exceeded"
        ]
    );
}

/// The titles and the error type of the events, and the statuses of the spans.
type Reported = (Vec<String>, Option<String>, Vec<String>);

/// Returns the data sent for an execution that ends with `finish`.
fn reported(finish: impl FnOnce(SentryExecution)) -> Reported {
    let ((), sent, _) = initialized(async {
        let sentry = SentryIntegration::new(SentryConfig::new());
        finish(sentry.start_execution("", [("user_id", "123")]));
    });
    let mut events = sent.events.iter();
    let error_type = events.next().map(|event| event.tags["error_type"].clone());
    (sent.titles(), error_type, sent.spans())
}

/// Telemetry alone has the same information as the end, whichever error comes with it.
#[test]
fn an_end_is_reported_the_same_way_by_every_method() {
    let not_found = message(Failure::status(404));
    let server_error = message(Failure::status(503));
    let of_status = |status| End::failed(&Failure::status(status));
    let failed = |title: &str| vec![format!("error L0 execution failed: {title}")];
    let network = |title: &str| vec![format!("error Network error: {title}")];
    for (end, titles, error_type, status) in [
        (End::completed(), vec![], None, "ok"),
        (End::dropped(), vec![], None, "cancelled"),
        (End::of(Cause::Aborted), vec![], None, "cancelled"),
        (
            of_status(404),
            failed(&not_found),
            Some("404"),
            "internal_error",
        ),
        (
            of_status(503),
            network(&format!("server_error: {server_error}")),
            Some("server_error"),
            "internal_error",
        ),
        (
            End::of(Cause::ZeroOutput),
            failed(&Cause::ZeroOutput.to_string()),
            Some("zero_output"),
            "internal_error",
        ),
        (
            End::of(Cause::Truncated),
            network("partial_chunks: the stream ended without a finish reason"),
            Some("truncated"),
            "internal_error",
        ),
        (
            End::of(Cause::Timeout(TimeoutKind::Total)),
            network("timeout: the run took too long"),
            Some("timeout"),
            "deadline_exceeded",
        ),
        (
            End::of(Cause::Limit(LimitKind::OutputTokens)),
            failed("the limit of tokens was reached"),
            Some("limit"),
            "resource_exhausted",
        ),
        (
            End::refused("the budget is spent"),
            failed("refused: the budget is spent"),
            Some("refused"),
            "internal_error",
        ),
        (
            End::of(Cause::Panic),
            failed("the source, the factory or a hook panicked"),
            Some("panic"),
            "internal_error",
        ),
    ] {
        let expected = (
            titles,
            error_type.map(str::to_owned),
            vec![format!("l0.execution {status}")],
        );
        let mut monitor = Monitor::new(Monitoring::new());
        monitor.complete(end.clone());
        let telemetry = monitor.telemetry();
        let telemetry = telemetry.as_ref();
        let other = std::io::Error::other("what the application makes of it");

        assert_eq!(reported(|execution| execution.finish(&end, None)), expected);
        assert_eq!(
            reported(|execution| execution.complete(telemetry)),
            expected
        );
        if error_type.is_some() || status == "cancelled" {
            let fail = |execution: SentryExecution| execution.fail(&other, telemetry);
            assert_eq!(reported(fail), expected);
        }
    }
}

/// The violation is one that was recorded before, or it is captured as any other failure.
#[test]
fn a_violation_in_telemetry_is_captured_once() {
    let violation = Violation::new("no-harm", Severity::Fatal, "not fit");
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.record_violations(std::slice::from_ref(&violation));
    monitor.complete(End::of(Cause::Violation(violation.clone())));
    let telemetry = monitor.telemetry();
    for (recorded, title) in [
        (true, "fatal Guardrail violation: no-harm: not fit"),
        (
            false,
            "error L0 execution failed: guardrail violation: no-harm (fatal): not fit",
        ),
    ] {
        let (titles, error_type, _) = reported(|mut execution| {
            if recorded {
                execution.record_violations(std::slice::from_ref(&violation));
            }
            execution.complete(telemetry.as_ref());
        });
        assert_eq!(titles, [title]);
        assert_eq!(error_type.as_deref(), Some("guardrail_violation"));
    }
}

/// The class of a failure is read from the types in the error's source chain, at any depth.
#[test]
fn an_error_without_telemetry_is_read_by_its_types() {
    let wrapped = |failure: Failure| std::io::Error::other(std::io::Error::other(failure));
    for (error, class) in [
        (wrapped(Failure::status(401)), "401"),
        (wrapped(Failure::status(429)), "rate_limited"),
        (wrapped(Failure::model()), "model_error"),
        (std::io::ErrorKind::ConnectionRefused.into(), "econnrefused"),
        (std::io::Error::other("prose"), "_OTHER"),
    ] {
        let (_, error_type, spans) = reported(|execution| execution.fail(&error, None));
        assert_eq!(error_type.as_deref(), Some(class));
        assert_eq!(spans, ["l0.execution internal_error"]);
    }
}

/// Such telemetry comes from a failed attempt, or is read before the run has ended.
#[test]
fn telemetry_without_a_failure_does_not_hide_the_error() {
    let mut completed = Monitor::new(Monitoring::new());
    let live = completed.telemetry();
    completed.complete(End::completed());
    for telemetry in [live, completed.telemetry()] {
        let error = Failure::status(404);
        let (_, error_type, spans) =
            reported(|execution| execution.fail(&error, telemetry.as_ref()));
        assert_eq!(error_type.as_deref(), Some("404"));
        assert_eq!(spans, ["l0.execution internal_error"]);
    }
}

#[test]
fn failed_telemetry_without_a_reason_is_captured() {
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.fail(&Failure::status(404));
    let mut telemetry = monitor.telemetry().unwrap();
    telemetry.error = None;
    let (titles, error_type, spans) = reported(|execution| execution.complete(Some(&telemetry)));
    assert_eq!(
        titles,
        ["error L0 execution failed: its telemetry has no reason"]
    );
    assert_eq!(error_type.as_deref(), Some("_OTHER"));
    assert_eq!(spans, ["l0.execution internal_error"]);
    let error = Failure::status(404);
    let (_, error_type, _) = reported(|execution| execution.fail(&error, Some(&telemetry)));
    assert_eq!(error_type.as_deref(), Some("404"));
}
