//! No credential and no text of a prompt or an answer is sent unless enabled.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io;

use common::{Sentry, l0, paused};
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{
    Backoff, Failure, L0Builder, Monitoring, NetworkErrorKind, NewRun, Refusal, Retry, Severity,
    TokenKind, Violation,
};
use l0_guardrails::{Drift, Guardrails};
use l0_sentry::{SentryConfig, SentryIntegration, with_sentry};

/// Part of everything that must not be sent.
const CANARY: &str = "c4n4ry";

/// Errors that contain a credential.
const SECRETS: [&str; 6] = [
    "connection reset: Authorization: Bearer c4n4ryAbCdEf0123456789",
    "timeout, x-api-key: c4n4ry-AbCdEf-0123456789",
    "status 401: Incorrect API key provided: sk-c4n4ryAbCdEf0123456789AbCdEf",
    "error sending request for url (https://api.example.com/v1/chat?key=c4n4ryAbCdEf0123): timeout",
    "connection refused: https://user:c4n4ryPassword@proxy.example.com:8080/v1",
    r#"status 500, body: {"api_key":"c4n4ryAbCdEf0123456789","model":"gpt-4"}"#,
];

/// Answers that rules and drift detection report.
const ANSWERS: [&str; 4] = [
    "As an AI language model, I c4n4ry cannot help with c4n4ry.",
    "{\"c4n4ry\": [1, 2",
    "```c4n4ry\nfn c4n4ry() {",
    "\\begin{c4n4ry} $c4n4ry",
];

struct Refuses;

impl l0_core::Interceptor for Refuses {
    fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
        Err(Refusal::new("no credit: api_key=c4n4ryAbCdEf0123456789"))
    }
}

async fn read(builder: L0Builder, script: &Script) {
    let l0 = builder.build();
    let run = l0
        .stream(script.source())
        .metadata("model", "gpt-4")
        .metadata("provider", "openai")
        .metadata("endpoint", "https://me:c4n4ry@example.com/chat?key=c4n4ry")
        .metadata("prompt", "c4n4ry")
        .metadata("user", "c4n4ry");
    run.start().for_each(|_| async {}).await;
}

async fn everything(sentry: &Sentry, config: fn(SentryConfig) -> SentryConfig) {
    let config = || config(sentry.config());
    let builder = || {
        let retry = Retry::new().max_retries(1).backoff(Backoff::none());
        l0(config().min_guardrail_severity(Severity::Warning))
            .retry(retry)
            // To send as much as possible.
            .monitoring(Monitoring::new().error_text(true))
            .guardrails(Guardrails::strict())
            .drift(Drift::new())
    };
    for secret in SECRETS {
        read(
            builder(),
            &Script::new().attempt(|a| a.token(CANARY).fail(secret)),
        )
        .await;
        read(
            builder(),
            &Script::new().attempt(|a| a.connect_error(secret)),
        )
        .await;
        let with_kind = io::Error::new(io::ErrorKind::ConnectionReset, secret);
        read(builder(), &Script::new().attempt(|a| a.fail(with_kind))).await;

        let script = Script::new().attempt(|a| a.fail(secret));
        let plain = l0_core::L0::default();
        let failing = async { plain.stream(script.source()).start().text().await };
        with_sentry(config(), failing).await.unwrap_err();

        let mut execution =
            SentryIntegration::new(config()).start_execution("", [("model", "gpt-4")]);
        let error = io::Error::other(secret);
        execution.record_token(CANARY);
        execution.record_network_error(&error, true);
        execution.record_violations(&[Violation::new("rule", Severity::Fatal, secret)]);
        execution.fail(&error, None);
    }
    for answer in ANSWERS {
        let token = |kind, text: &str| ScriptedToken::new(kind, text);
        let script = Script::new().attempt(|a| {
            let a = a.item(token(TokenKind::Reasoning, CANARY));
            let a = a.item(token(TokenKind::ToolCall, CANARY));
            a.token(answer)
        });
        read(builder(), &script).await;
    }
    let unknown = Failure::network(NetworkErrorKind::Unknown);
    read(builder().interceptor(Refuses), &Script::new()).await;
    read(
        builder(),
        &Script::new().attempt(|a| a.token(CANARY).fail(unknown)),
    )
    .await;
}

#[test]
fn no_envelope_has_a_canary() {
    for config in [
        (|config| config) as fn(SentryConfig) -> SentryConfig,
        |config| config.breadcrumbs_for_tokens(true).error_text(true),
    ] {
        let sentry = Sentry::start();
        paused().block_on(everything(&sentry, config));
        let sent = sentry.sent();
        assert!(sent.events.len() > 30, "{}", sent.events.len());
        assert!(sent.transactions.len() > 30, "{}", sent.transactions.len());
        let leak = sent.text.find(CANARY).map(|at| {
            let before = &sent.text[l0_core::keys::cut(&sent.text, at.saturating_sub(200)).len()..];
            l0_core::keys::cut(before, 300)
        });
        assert_eq!(leak, None);
        let trail = sentry.trail();
        let leak = trail.iter().find(|line| line.contains(CANARY));
        assert_eq!(leak, None);
    }
}

#[test]
fn the_canaries_are_found_when_they_are_sent() {
    let sentry = Sentry::start();
    let config = |config: SentryConfig| {
        let config = config.breadcrumbs_for_tokens(true);
        let config = config.include_token_text(true);
        config.tag_keys(["user"]).unwrap()
    };
    paused().block_on(everything(&sentry, config));
    let text = sentry.sent().text;
    assert!(text.contains("Token: c4n4ry"));
    assert!(text.contains(r#""user":"c4n4ry""#));
}
