//! Usage of discarded attempts is counted, in every dialect.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::future::ready;

use common::*;
use futures_util::{StreamExt, stream};
use l0_core::testing::Script;
use l0_core::{
    FinishReason, L0, Monitoring, Outcome, Quantity, Retry, Telemetry, TokenKind, Usage, Value,
};
use l0_providers::ProviderToken;

/// An answer without visible text that used 1,000 tokens of input and 500 of output.
fn empty(dialect: Dialect) -> &'static [&'static str] {
    match dialect.name {
        "openai-chat" => &[
            r#"{"id":"x","model":"m","choices":[{"index":0,"delta":{"content":" \n"},"finish_reason":"stop"}]}"#,
            r#"{"id":"x","model":"m","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":500,"total_tokens":1500}}"#,
            "[DONE]",
        ],
        "openai-responses" => &[
            r#"{"type":"response.output_text.delta","output_index":0,"delta":" \n"}"#,
            r#"{"type":"response.completed","response":{"status":"completed","usage":{"input_tokens":1000,"output_tokens":500,"total_tokens":1500}}}"#,
        ],
        "anthropic" => &[
            r#"{"type":"message_start","message":{"id":"x","model":"m","usage":{"input_tokens":1000,"output_tokens":1}}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" \n"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":500}}"#,
            r#"{"type":"message_stop"}"#,
        ],
        _ => &[
            r#"{"candidates":[{"content":{"parts":[{"text":" \n"}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":1000,"candidatesTokenCount":500,"totalTokenCount":1500}}"#,
        ],
    }
}

fn counted(telemetry: &Telemetry, name: &str) -> Option<u64> {
    let quantity = Quantity::ALL.iter().find(|quantity| quantity.name == name);
    match quantity.unwrap().value(telemetry)? {
        Value::Count(count) => Some(count),
        other => panic!("{name} is {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_three_attempts_is_billed_three_times() {
    for dialect in DIALECTS {
        let name = dialect.name;
        let mut calls = 0;
        let body = sse(empty(dialect)).into_bytes();
        let l0 = L0::builder()
            .monitoring(Monitoring::new())
            .retry(Retry::new())
            .build();
        let mut run = l0
            .stream(|_| {
                calls += 1;
                let body = stream::iter([Ok(body.clone())]);
                ready(Ok((dialect.decoder)(body.boxed())))
            })
            .start();
        run.text().await.expect_err(name);
        assert_eq!(run.outcome(), Some(Outcome::Failed), "{name}");
        let telemetry = run.telemetry().unwrap();
        drop(run);
        assert_eq!(calls, 3, "{name}");
        for (quantity, count) in [
            ("usage.input", 3_000),
            ("usage.output", 1_500),
            ("usage.total", 4_500),
            ("usage.wasted_input", 2_000),
            ("usage.wasted_output", 1_000),
        ] {
            let counted = counted(&telemetry, quantity);
            assert_eq!(counted, Some(count), "{name}: {quantity}");
        }
        // The last attempt is not wasted, although the run failed with it.
        let last = telemetry.usage.unwrap();
        assert_eq!(
            (last.input, last.output),
            (Some(1_000), Some(500)),
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_scripted_source_may_yield_tokens_of_providers() {
    let token = |text| ProviderToken::new(TokenKind::Text, text);
    let mut last = token("lo");
    last.usage = Some(Usage::new().output(2));
    last.finish = Some(FinishReason::Stop);
    let mut thrown_away = token("Hel");
    thrown_away.usage = Some(Usage::new().output(1));
    let script = Script::of::<ProviderToken>()
        // These tokens always report a finish reason, so this attempt is truncated.
        .attempt(|a| a.item(thrown_away))
        .attempt(|a| a.items([token("Hel"), last]));
    let l0 = L0::builder().monitoring(Monitoring::new()).build();
    let mut run = l0.stream(script.source()).start();
    assert_eq!(run.text().await.unwrap(), "Hello");
    assert_eq!(script.calls(), 2);
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.billed(), Some(Usage::new().output(3)));
}
