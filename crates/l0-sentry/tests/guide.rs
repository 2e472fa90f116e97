//! The ways in which the monitoring guide uses Sentry, each with what its comments promise.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Sentry, paused, span, stable, tags, trace};
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedError};
use l0_core::{
    Chunk, DriftReport, Error, L0, Monitoring, Outcome, RetryKind, RetryReason, Severity,
    Telemetry, Violation,
};
use l0_sentry::{SentryConfig, SentryIntegration, SentryInterceptor, with_sentry};
use sentry::Hub;
use serde_json::json;

const MS: Duration = Duration::from_millis(1);

/// 250 tokens in a second and a half, the first after 280 ms.
fn model() -> Script {
    Script::new().attempt(|a| {
        let a = a.wait(280 * MS).tokens(vec!["token "; 249]);
        a.wait(1220 * MS).token("end")
    })
}

/// What the guide sets automatically on completion, of one attempt.
fn context() -> serde_json::Value {
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

/// Runs code with a hub of Sentry's as the current one, as after `sentry::init`.
fn initialised<T>(code: impl Future<Output = T>) -> (T, common::Sent, Vec<String>) {
    let sentry = Sentry::start();
    let value = Hub::run(Arc::clone(&sentry.hub), || paused().block_on(code));
    (value, sentry.sent(), sentry.trail())
}

#[test]
fn quick_start() {
    let client = model();
    let ((), sent, trail) = initialised(async {
        let l0 = L0::builder()
            .monitoring(Monitoring::new())
            .interceptor(SentryInterceptor::new(SentryConfig::new()))
            .build();
        let mut run = l0.stream(|_attempt| client.connect()).start();
        run.text().await.unwrap();
    });
    assert_eq!(sent.spans(), ["l0.execution ok", "l0.stream.consume ok"]);
    assert_eq!(
        stable(&sent.transaction().contexts["l0_telemetry"]),
        context()
    );
    assert_eq!(trail.len(), 5);
}

#[test]
fn wrapper() {
    let client = model();
    let (text, sent, trail) = initialised(async {
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
    let ((), sent, _) = initialised(async {
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
    let ((), sent, trail) = initialised(async {
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
    assert_eq!(stable(&transaction.contexts["l0_telemetry"]), context());
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
    let client = Script::new().attempt(|a| a.wait(5 * MS).token("a").fail("no such model"));
    let (result, sent, trail) = initialised(async {
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
    assert_eq!(
        sent.titles(),
        ["error L0 execution failed: the source failed, after 1 attempt: no such model"]
    );
    let context = stable(&sent.event().contexts["l0_telemetry"]);
    assert_eq!(
        (&context["duration_ms"], &context["tokens"]),
        (&json!(5), &json!(1))
    );
    assert_eq!(trail.len(), 2);
}

#[test]
fn everything_that_can_be_told_by_hand_leaves_the_same_trail_as_a_run() {
    let ((), sent, trail) = initialised(async {
        let sentry = SentryIntegration::new(SentryConfig::new().breadcrumbs_for_tokens(true));
        let mut execution = sentry.start_execution("by hand", [("model", "gpt-4")]);
        let dropped = ScriptedError::from("connection dropped");
        execution.start_stream();
        execution.record_token("secret");
        execution.record_network_error(&dropped, true);
        execution.record_retry(2, RetryReason::NetworkError, RetryKind::Network);
        let found = Violation::new("json-structure", Severity::Warning, "Unbalanced braces");
        execution.record_violations(&[found.clone(), found]);
        execution.record_drift(&DriftReport::none());
        execution.record_drift(&DriftReport::detected(["tone_shift", "repetition"], 0.5));
        execution.record_network_error(&dropped, false);
        let aborted = Error::<ScriptedError>::Timeout(l0_core::TimeoutKind::Total);
        execution.fail(&aborted, None);
    });
    assert_eq!(
        trail,
        [
            r#"info l0: L0 execution started {"model":"gpt-4"}"#,
            "info l0.stream: Stream started",
            "debug l0.token: Token received",
            r#"error l0.network: Network error: connection_dropped {"error_type":"connection_dropped","message":"connection dropped","retried":true}"#,
            r#"warning l0.retry: Retry attempt 2 {"attempt":2,"is_network_error":true,"reason":"network_error"}"#,
            r#"warning l0.guardrail: Guardrail violation: json-structure {"message":"Unbalanced braces","recoverable":true,"rule":"json-structure","severity":"warning"}"#,
            r#"warning l0.guardrail: Guardrail violation: json-structure {"message":"Unbalanced braces","recoverable":true,"rule":"json-structure","severity":"warning"}"#,
            r#"warning l0.drift: Drift detected: tone_shift, repetition {"types":["tone_shift","repetition"]}"#,
            r#"error l0.network: Network error: connection_dropped {"error_type":"connection_dropped","message":"connection dropped","retried":false}"#,
            r#"error l0: L0 execution timed out {"outcome":"timed_out"}"#,
        ]
    );
    assert_eq!(
        sent.titles(),
        ["error Network error: connection_dropped: connection dropped"]
    );
    assert_eq!(
        sent.spans(),
        [
            "l0.execution deadline_exceeded",
            "l0.stream.consume deadline_exceeded"
        ]
    );
}

#[test]
fn an_abort_that_is_told_by_hand_is_no_error() {
    for (error, outcome) in [
        (Error::Aborted, None),
        (Error::ZeroOutput, Some(Outcome::Aborted)),
        (Error::ZeroOutput, Some(Outcome::Dropped)),
    ] {
        let error: Error<ScriptedError> = error;
        let ((), sent, _) = initialised(async {
            let sentry = SentryIntegration::new(SentryConfig::new());
            let execution = sentry.start_execution("", [("user_id", "123")]);
            let telemetry = outcome.map(|outcome| {
                let mut telemetry = Telemetry::example();
                telemetry.outcome = Some(outcome);
                telemetry
            });
            execution.fail(&error, telemetry.as_ref());
        });
        assert!(sent.events.is_empty());
        assert_eq!(sent.spans(), ["l0.execution cancelled"]);
    }
}
