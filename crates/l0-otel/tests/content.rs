//! Prompts and answers are not sent unless enabled. If they are, they are limited, redacted and masked.
//!
//! `L0_CONTENT_RUNS` sets the number of runs with a canary. Default: 10,000.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Sdk, value};
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{Backoff, Content, FinishReason, L0, Monitoring, Retry, TokenKind, TokenView, Usage};
use l0_otel::{OPENINFERENCE, OtelBuilder, OtelInterceptor};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use serde_json::{Value, json};

const INPUT: &str = "gen_ai.input.messages";
const OUTPUT: &str = "gen_ai.output.messages";
const TOOLS: &str = "gen_ai.tool.definitions";
const INSTRUCTIONS: &str = "gen_ai.system_instructions";
/// In capitals, because no run id contains them.
const CANARY: &str = "CANARY";
const MARK: &str = "…[cut]";

fn l0(builder: OtelBuilder) -> L0 {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(builder.build())
        .build()
}

/// Runs a script with an input, and returns the span of its last attempt.
async fn last(sdk: &Sdk, builder: OtelBuilder, script: &Script, input: Value) -> SpanData {
    let l0 = l0(builder);
    let run = l0.stream(script.source()).input(input);
    let _ = run.start().text().await;
    assert_eq!(l0.observer_panics(), 0);
    sdk.attempts().pop().unwrap()
}

fn messages(span: &SpanData, key: &str) -> Option<Value> {
    let text = value(&span.attributes, key)?;
    Some(serde_json::from_str(&text).unwrap())
}

fn message(role: &str, text: &str) -> Value {
    json!({ "role": role, "parts": [{ "type": "text", "content": text }] })
}

/// Returns the message of a model's answer, with its finish reason.
fn answers(text: &str, finish_reason: &str) -> Value {
    let mut message = message("assistant", text);
    message["finish_reason"] = finish_reason.into();
    message
}

/// Returns the first piece of a tool call, which names the tool.
fn named(tool: &str, text: &str) -> ScriptedToken {
    let mut token = ScriptedToken::new(TokenKind::ToolCall, text);
    token.tool = Some(tool.to_owned());
    token
}

#[tokio::test(start_paused = true)]
async fn no_content_is_sent_unless_enabled() {
    let sdk = Sdk::new();
    let script = Script::new().attempt(|a| a.token(CANARY).tool_call(CANARY));
    last(&sdk, sdk.builder(), &script, json!(CANARY)).await;
    assert!(!format!("{:?}", sdk.spans()).contains(CANARY));
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_only_its_own_answer() {
    let sdk = Sdk::new();
    let script = Script::new()
        .attempt(|a| a.token("first").fail(std::io::ErrorKind::ConnectionReset))
        .attempt(|a| {
            a.reasoning("hm")
                .token("sec")
                .token("ond")
                .item(named("weather", "weather"))
                .tool_call("{\"city\":")
                .tool_call("\"Rome\"}")
                .item(named("time", "{}"))
                .finish(FinishReason::ToolCalls)
        });
    let builder = sdk
        .builder()
        .content(Content::new())
        .dialect(&OPENINFERENCE);
    last(&sdk, builder, &script, json!("hi")).await;
    let sent: Vec<_> = sdk
        .attempts()
        .iter()
        .map(|one| messages(one, OUTPUT))
        .collect();
    let second = json!([{ "role": "assistant", "finish_reason": "tool_call", "parts": [
        { "type": "text", "content": "second" },
        { "type": "tool_call", "name": "weather", "arguments": "{\"city\":\"Rome\"}" },
        { "type": "tool_call", "name": "time", "arguments": "{}" },
    ] }]);
    let first = json!([answers("first", "error")]);
    assert_eq!(sent, [Some(first), Some(second.clone())]);
    let answer = sdk.attempts().pop().unwrap();
    assert_eq!(messages(&answer, "output.value"), Some(second));
    assert_eq!(
        messages(&answer, "input.value"),
        Some(json!([message("user", "hi")]))
    );
    let run = sdk.run();
    assert!(!format!("{run:?}").contains("second"));
}

#[tokio::test(start_paused = true)]
async fn inputs_of_every_provider_become_messages() {
    for (input, input_messages, instructions) in [
        (json!("hi"), json!([message("user", "hi")]), None),
        (
            json!({ "input": "hi", "instructions": "be brief" }),
            json!([message("user", "hi")]),
            Some("be brief"),
        ),
        (
            json!({ "system": [{ "type": "text", "text": "be brief" }], "messages": [
                { "role": "user", "content": [{ "type": "text", "text": "hi" }] },
                { "role": "assistant", "content": "yes" },
            ] }),
            json!([message("user", "hi"), message("assistant", "yes")]),
            Some("be brief"),
        ),
        (
            json!({ "systemInstruction": { "parts": [{ "text": "be brief" }] },
                "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }] }),
            json!([message("user", "hi")]),
            Some("be brief"),
        ),
        (
            json!({ "messages": [
                { "role": "assistant", "content": null, "tool_calls": [{ "id": "c-1", "type": "odd" }] },
                { "role": "user", "content": [{ "image_url": { "url": "data:" }, "type": "image_url" }] },
            ] }),
            json!([
                { "role": "assistant", "parts": [{ "type": "odd",
                    "content": "{\"id\":\"c-1\",\"type\":\"odd\"}" }] },
                { "role": "user", "parts": [{ "type": "image_url",
                    "content": "{\"image_url\":{\"url\":\"data:\"},\"type\":\"image_url\"}" }] },
            ]),
            None,
        ),
    ] {
        let sdk = Sdk::new();
        let script = Script::new().attempt(|a| a.token("a"));
        let builder = sdk.builder().content(Content::new());
        let span = last(&sdk, builder, &script, input.clone()).await;
        assert_eq!(messages(&span, INPUT), Some(input_messages), "{input}");
        let expected = instructions.map(|text| json!([{ "type": "text", "content": text }]));
        assert_eq!(messages(&span, INSTRUCTIONS), expected, "{input}");
    }
}

#[tokio::test(start_paused = true)]
async fn tools_tool_calls_and_results_follow_the_schema_for_every_provider() {
    let schema = json!({ "type": "object" });
    let call = |id: Option<&str>| {
        let mut part = json!({ "type": "tool_call", "name": "sum", "arguments": "{\"a\":1}" });
        if let Some(id) = id {
            part["id"] = id.into();
        }
        json!({ "role": "assistant", "parts": [part] })
    };
    let result = |role: &str, id: Option<&str>, response: &str| {
        let mut part = json!({ "type": "tool_call_response", "response": response });
        if let Some(id) = id {
            part["id"] = id.into();
        }
        json!({ "role": role, "parts": [part] })
    };
    let id = Some("c-1");
    let arguments = json!({ "a": 1 });
    let function = json!({ "name": "sum", "description": "Adds", "parameters": schema });
    for (name, input, input_messages) in [
        (
            "Chat Completions",
            json!({ "tools": [{ "type": "function", "function": function }], "messages": [
                { "role": "assistant", "content": null, "tool_calls": [
                    { "id": "c-1", "type": "function", "function": { "name": "sum", "arguments": "{\"a\":1}" } },
                ] },
                { "role": "tool", "tool_call_id": "c-1", "content": "2" },
            ] }),
            json!([call(id), result("tool", id, "2")]),
        ),
        (
            "Responses",
            json!({ "tools": [{ "type": "function", "name": "sum", "description": "Adds", "parameters": schema }],
                "input": [
                    { "type": "function_call", "call_id": "c-1", "name": "sum", "arguments": "{\"a\":1}" },
                    { "type": "function_call_output", "call_id": "c-1", "output": "2" },
                ] }),
            json!([call(id), result("tool", id, "2")]),
        ),
        (
            "Anthropic",
            json!({ "tools": [{ "name": "sum", "description": "Adds", "input_schema": schema }], "messages": [
                { "role": "assistant", "content": [
                    { "type": "tool_use", "id": "c-1", "name": "sum", "input": arguments },
                ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "c-1", "content": "2" },
                ] },
            ] }),
            json!([call(id), result("user", id, "2")]),
        ),
        (
            "Gemini",
            json!({ "tools": [{ "functionDeclarations": [function] }], "contents": [
                { "role": "assistant", "parts": [{ "functionCall": { "name": "sum", "args": arguments } }] },
                { "role": "user", "parts": [
                    { "functionResponse": { "name": "sum", "response": { "sum": 2 } } },
                ] },
            ] }),
            json!([call(None), result("user", None, "{\"sum\":2}")]),
        ),
    ] {
        let sdk = Sdk::new();
        let script = Script::new().attempt(|a| a.token("a"));
        let builder = sdk.builder().content(Content::new());
        let span = last(&sdk, builder, &script, input.clone()).await;
        assert_eq!(messages(&span, INPUT), Some(input_messages), "{name}");
        let tools = json!([
            { "type": "function", "name": "sum", "description": "Adds", "parameters": schema },
        ]);
        assert_eq!(messages(&span, TOOLS), Some(tools), "{name}");

        let sdk = Sdk::new();
        let small = sdk.builder().content(Content::new().max_bytes(128));
        let span = last(&sdk, small, &script, input).await;
        assert_eq!(messages(&span, TOOLS), None, "{name}: no room");
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_is_sent_on_the_attempt_that_received_it() {
    let sdk = Sdk::new();
    let l0 = l0(sdk.builder().content(Content::new()));
    let script = Script::new()
        .attempt(|a| a.token("lost").fail(std::io::ErrorKind::ConnectionReset))
        .attempt(|a| a.token("se").token("cond").finish(FinishReason::Stop));
    let call = l0.call(script.answers()).input(json!("hi"));
    call.start().await.unwrap();
    let attempts = sdk.attempts();
    let sent: Vec<_> = attempts.iter().map(|one| messages(one, OUTPUT)).collect();
    assert_eq!(sent, [None, Some(json!([answers("second", "stop")]))]);
    let input_messages = Some(json!([message("user", "hi")]));
    assert!(
        attempts
            .iter()
            .all(|one| messages(one, INPUT) == input_messages)
    );
    assert!(!format!("{:?}", sdk.run()).contains("second"));

    let answer = |_| std::future::ready(Ok::<_, std::io::Error>(()));
    let call = l0.call(answer);
    let call = call.view_with(|_: &()| TokenView::tool_call("{\"a\":1}").tool("sum"));
    call.start().await.unwrap();
    let call = json!([{ "role": "assistant", "finish_reason": "", "parts": [
        { "type": "tool_call", "name": "sum", "arguments": "{\"a\":1}" },
    ] }]);
    assert_eq!(messages(sdk.attempts().last().unwrap(), OUTPUT), Some(call));
}

#[tokio::test(start_paused = true)]
async fn long_content_is_cut_between_characters_and_displaces_no_other_attribute() {
    let usage = Usage::new().input(12).output(2).total(14);
    let script = Script::new().attempt(|mut a| {
        for _ in 0..2_000 {
            a = a.token("éé, ").tool_call("ä ");
        }
        a.usage(usage).finish(FinishReason::Stop)
    });
    let turns = vec![json!({ "role": "user", "content": "ü ".repeat(500) }); 100];
    let input = json!({ "messages": turns, "system": "ö ".repeat(100_000), "x": "ß".repeat(9) });
    for max in [0, 1, 2, 99, 1_000, 4_096] {
        let sdk = Sdk::new();
        let builder = sdk.builder().content(Content::new().max_bytes(max));
        let span = last(&sdk, builder, &script, input.clone()).await;
        for key in [INPUT, OUTPUT, INSTRUCTIONS] {
            let text = value(&span.attributes, key).unwrap_or_default();
            assert!(text.len() <= max + 512, "{key} of {max}: {}", text.len());
            assert!(
                text.is_empty() || text.contains(MARK),
                "{key} of {max}: {text}"
            );
        }
        let of = |key: &str| value(&span.attributes, key);
        assert_eq!(of("gen_ai.usage.input_tokens").as_deref(), Some("12"));
        assert_eq!(of("l0.outcome").as_deref(), Some("completed"));
        assert_eq!(
            of("gen_ai.response.finish_reasons").as_deref(),
            Some("[\"stop\"]")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_messages_are_kept() {
    let turn = |index: usize| json!({ "role": "user", "content": format!("turn {index} {}", "x ".repeat(40)) });
    let turns: Vec<_> = (0..100).map(turn).collect();
    let sdk = Sdk::new();
    let script = Script::new().attempt(|a| a.token("a"));
    let builder = sdk.builder().content(Content::new().max_bytes(1_000));
    let span = last(&sdk, builder, &script, json!({ "messages": turns })).await;
    let sent = value(&span.attributes, INPUT).unwrap();
    assert!(
        sent.contains("turn 99") && !sent.contains("turn 9 "),
        "{sent}"
    );
    assert!(sent.contains(MARK), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn credentials_are_removed_from_every_part_of_the_content() {
    let secret = "Authorization: Bearer abcdef0123456789abcdef";
    let script = Script::new().attempt(|a| {
        a.token("Authorization: Bearer abcdef01")
            .token("23456789abcdef\nok")
            .tool_call(secret)
    });
    let long = format!("{}{secret}", "word ".repeat(195));
    for input in [
        json!(secret),
        json!({ "messages": [{ "role": "user", "content": [{ "type": "x", "header": secret }] }] }),
        json!(long),
    ] {
        let sdk = Sdk::new();
        let builder = sdk.builder().content(Content::new().max_bytes(1_000));
        let span = last(&sdk, builder, &script, input).await;
        let sent = format!("{:?}", span.attributes);
        assert!(!sent.contains("abcdef0"), "{sent}");
        assert!(
            value(&span.attributes, OUTPUT).unwrap().contains("\\nok"),
            "{sent}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_mask_loses_only_the_content() {
    let sdk = Sdk::new();
    let l0 = l0(sdk.builder().content(Content::new().mask(|_| panic!("no"))));
    let script = Script::new().attempt(|a| a.token("a").usage(Usage::new().input(12)));
    l0.stream(script.source()).start().text().await.unwrap();
    let attempt = sdk.attempt();
    let of = |key: &str| value(&attempt.attributes, key);
    assert_eq!(of("gen_ai.usage.input_tokens").as_deref(), Some("12"));
    assert_eq!(of("l0.outcome").as_deref(), Some("completed"));
    assert_eq!(of(OUTPUT), None);
    assert_eq!(sdk.runs().len(), 1);
}

/// Searches all exported data for the canary, and for a prefix of a canary that was cut.
#[derive(Debug, Default, Clone)]
struct Looks(Arc<[AtomicUsize; 2]>);

impl SpanExporter for Looks {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        for span in spans {
            let sent = format!("{span:?}");
            self.0[0].fetch_add(usize::from(sent.contains("[masked]")), Ordering::Relaxed);
            self.0[1].fetch_add(usize::from(sent.contains(&CANARY[..4])), Ordering::Relaxed);
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn no_masked_canary_is_exported() {
    let runs = std::env::var("L0_CONTENT_RUNS").ok();
    let runs = runs.map_or(10_000, |runs| runs.parse::<usize>().unwrap());
    let looks = Looks::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(looks.clone())
        .build();
    let content = Content::new()
        .max_bytes(64)
        .mask(|text| text.replace(CANARY, "[masked]"));
    let builder = OtelInterceptor::builder()
        .tracer(opentelemetry::trace::TracerProvider::tracer(
            &provider, "test",
        ))
        .metrics(false)
        .content(content);
    let l0 = l0(builder.dialect(&OPENINFERENCE));
    for index in 0..runs {
        // At every position, also across tokens and across the cut.
        let at = index % 80;
        let text = format!("{}{CANARY} and so on", "- ".repeat(at / 2));
        let (one, other) = text.split_at(at / 2 + 3);
        let token = |text: &str| ScriptedToken::new(TokenKind::Text, text);
        let script = Script::new().attempt(|a| a.item(token(one)).item(token(other)));
        let run = l0.stream(script.source()).input(json!({ "messages": [
            { "role": "user", "content": text }, { "role": CANARY, "content": { CANARY: [CANARY] } },
        ] }));
        run.start().text().await.unwrap();
    }
    let [masked, found] = [0, 1].map(|at| looks.0[at].load(Ordering::Relaxed));
    assert_eq!((masked, found), (runs, 0));
}
