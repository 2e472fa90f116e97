//! Views of answers, with the real client.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use async_openai::config::OpenAIConfig;
use futures_util::StreamExt;
use l0_async_openai::{Client, chat, chat_once, embeddings, responses, responses_once};
use l0_core::{
    AttemptStats, Chunk, FinishReason, L0, Monitoring, Outcome, Token, TokenKind, Usage,
};
use l0_providers::testing::{Answer, ScriptedProvider};
use serde_json::{Value, from_value, json};

fn client(provider: &ScriptedProvider) -> Client {
    let config = OpenAIConfig::new().with_api_base(provider.base_url());
    Client::with_config(config.with_api_key("k"))
}

fn measuring() -> L0 {
    L0::builder().monitoring(Monitoring::new()).build()
}

fn question() -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }], "input": "Hi" })
}

/// Checks the single attempt of a run or a call.
#[track_caller]
fn check_attempt(attempt: &AttemptStats, finish: FinishReason, usage: Usage) {
    assert_eq!(attempt.outcome, Some(Outcome::Completed));
    assert_eq!(attempt.finish_reason, Some(finish));
    assert_eq!(attempt.usage, Some(usage));
    assert_eq!(attempt.response_model.as_deref(), Some("m"));
    assert_eq!(attempt.response_id.as_deref(), Some("scripted-1"));
}

const USAGE: Usage = Usage::new()
    .input(100)
    .output(30)
    .total(130)
    .cached_input(40)
    .cache_write_input(20)
    .reasoning(10);

fn scripted() -> Answer {
    Answer::text(["Hel", "lo"]).usage(USAGE)
}

fn calling() -> Answer {
    let answer = Answer::new().usage(USAGE);
    answer.tool_call("call_1", "get_weather", [r#"{"city":"#, r#""Bern"}"#])
}

#[tokio::test]
async fn streams_of_chat_completions() {
    let provider = ScriptedProvider::start([scripted(), calling()])
        .await
        .unwrap();
    let client = client(&provider);
    let source = chat(&client, from_value(question()).unwrap());
    let mut run = measuring().stream_from(source.clone()).start();
    assert_eq!(run.text().await.unwrap(), "Hello");
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.metrics.total_tokens, 2);
    check_attempt(&telemetry.attempts[0], FinishReason::Stop, USAGE);

    let mut run = measuring().stream_from(source).start();
    let (mut name, mut arguments, mut pieces) = (String::new(), String::new(), 0);
    while let Some(chunk) = run.next().await {
        let Chunk::Item(chunk) = chunk.unwrap() else {
            panic!("unexpected retry");
        };
        pieces += u32::from(chunk.view().kind == TokenKind::ToolCall);
        // The client's own fields, as without L0.
        for call in chunk
            .choices
            .iter()
            .flat_map(|c| c.delta.tool_calls.iter().flatten())
        {
            let function = call.function.clone().unwrap();
            name += function.name.as_deref().unwrap_or_default();
            arguments += function.arguments.as_deref().unwrap_or_default();
        }
    }
    assert_eq!((&*name, &*arguments), ("get_weather", r#"{"city":"Bern"}"#));
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.metrics.total_tokens, u64::from(pieces));
    assert_eq!(telemetry.finish_reason, Some(FinishReason::ToolCalls));
    assert_eq!(telemetry.usage, Some(USAGE));
}

#[tokio::test]
async fn whole_chat_completions() {
    let provider = ScriptedProvider::start([scripted(), calling()])
        .await
        .unwrap();
    let client = client(&provider);
    let source = chat_once(&client, from_value(question()).unwrap());
    let mut call = measuring().call_from(source.clone()).start();
    let answer = (&mut call).await.unwrap();
    assert_eq!(answer.view().text, "Hello");
    check_attempt(
        &call.telemetry().unwrap().attempts[0],
        FinishReason::Stop,
        USAGE,
    );

    let mut call = measuring().call_from(source).start();
    let answer = (&mut call).await.unwrap().into_inner();
    assert_eq!(
        answer.choices[0].message.tool_calls.as_ref().unwrap().len(),
        1
    );
    let telemetry = call.telemetry().unwrap();
    assert_eq!(telemetry.finish_reason, Some(FinishReason::ToolCalls));
}

#[tokio::test]
async fn streams_of_responses() {
    let answers = [scripted().reasoning("Hm."), calling()];
    let provider = ScriptedProvider::start(answers).await.unwrap();
    let client = client(&provider);
    let source = responses(&client, from_value(question()).unwrap());
    let mut run = measuring().stream_from(source.clone()).start();
    assert_eq!(run.text().await.unwrap(), "Hello");
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.metrics.total_tokens, 3);
    check_attempt(&telemetry.attempts[0], FinishReason::Stop, USAGE);

    let mut run = measuring().stream_from(source).start();
    let mut calls = Vec::new();
    while let Some(chunk) = run.next().await {
        if let Chunk::Item(event) = chunk.unwrap() {
            let view = event.view();
            let text = (view.kind == TokenKind::ToolCall).then(|| view.text.to_owned());
            calls.extend(text);
        }
    }
    assert_eq!(calls, ["get_weather", r#"{"city":"#, r#""Bern"}"#]);
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.finish_reason, Some(FinishReason::ToolCalls));
}

#[tokio::test]
async fn whole_responses() {
    let provider = ScriptedProvider::start([scripted(), calling()])
        .await
        .unwrap();
    let client = client(&provider);
    let source = responses_once(&client, from_value(question()).unwrap());
    let mut call = measuring().call_from(source.clone()).start();
    let answer = (&mut call).await.unwrap();
    assert_eq!(answer.view().text, "Hello");
    check_attempt(
        &call.telemetry().unwrap().attempts[0],
        FinishReason::Stop,
        USAGE,
    );

    let mut call = measuring().call_from(source).start();
    let answer = (&mut call).await.unwrap();
    assert_eq!(answer.view().text, "get_weather");
    let telemetry = call.telemetry().unwrap();
    assert_eq!(telemetry.finish_reason, Some(FinishReason::ToolCalls));
}

#[tokio::test]
async fn embeddings_of_texts() {
    let answer = Answer::embeddings([[0.5, 0.25]]).usage(Usage::new().input(4));
    let provider = ScriptedProvider::start([answer]).await.unwrap();
    let source = embeddings(&client(&provider), from_value(question()).unwrap());
    let mut call = measuring().call_from(source).start();
    let answer = (&mut call).await.unwrap();
    assert_eq!(answer.data[0].embedding, [0.5, 0.25]);
    let telemetry = call.telemetry().unwrap();
    assert_eq!(telemetry.usage.and_then(|usage| usage.input), Some(4));
    assert_eq!(telemetry.attempts[0].response_model.as_deref(), Some("m"));
    assert_eq!(
        telemetry.attempts[0].operation.as_deref(),
        Some("embeddings")
    );
}
