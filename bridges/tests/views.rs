//! What L0 reads from the items of other crates' streams.

use std::convert::Infallible;
use std::future::ready;

use futures_util::{FutureExt, StreamExt, stream};
use l0_core::{FinishReason, L0, Monitoring, Outcome, Telemetry, TokenView};
use serde_json::{Value, from_value, json};

/// What a run over these items gives.
fn run<T: Send + 'static>(
    items: Vec<T>,
    view: for<'t> fn(&'t T) -> TokenView<'t>,
) -> (String, Telemetry) {
    let l0 = L0::builder().monitoring(Monitoring::new()).build();
    let mut items = Some(items);
    let mut run = l0
        .stream(move |_attempt| {
            let items = items.take().into_iter().flatten().map(Ok::<_, Infallible>);
            ready(Ok::<_, Infallible>(stream::iter(items.collect::<Vec<_>>())))
        })
        .view_with(view)
        .start();
    let text = run.text().now_or_never().expect("never pending");
    assert!(run.next().now_or_never().expect("never pending").is_none());
    (
        text.expect("a text"),
        run.telemetry().expect("monitoring is on"),
    )
}

#[test]
fn async_openai() {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m-1",
            "choices": choices, "usage": usage,
        });
        from_value(chunk).expect("a chunk")
    };
    let delta = |delta: Value, reason: Value| json!([{ "index": 0, "delta": delta, "finish_reason": reason, "logprobs": null }]);
    let call = json!({ "tool_calls": [{ "index": 0, "id": "i", "function": { "name": "f" } }] });
    let (text, telemetry) = run(
        vec![
            chunk(
                delta(json!({ "role": "assistant", "content": "" }), Value::Null),
                Value::Null,
            ),
            chunk(delta(json!({ "content": "Hel" }), Value::Null), Value::Null),
            chunk(delta(json!({ "content": "lo" }), Value::Null), Value::Null),
            chunk(delta(call, Value::Null), Value::Null),
            chunk(delta(json!({}), json!("tool_calls")), Value::Null),
            chunk(
                json!([]),
                json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 }),
            ),
        ],
        l0_bridges::async_openai::view,
    );
    assert_eq!(text, "Hello");
    assert_eq!(telemetry.outcome, Some(Outcome::Completed));
    assert_eq!(telemetry.finish_reason, Some(FinishReason::ToolCalls));
    assert_eq!(telemetry.metrics.total_tokens, 3);
    assert_eq!(telemetry.usage.and_then(|usage| usage.total), Some(5));
}

#[test]
fn genai() {
    use genai::chat::{ChatStreamEvent, StopReason, StreamChunk, StreamEnd, Usage};
    let chunk = |content: &str| StreamChunk {
        content: content.to_owned(),
    };
    let usage = Usage {
        prompt_tokens: Some(3),
        ..Usage::default()
    };
    let end = StreamEnd {
        captured_usage: Some(usage),
        captured_stop_reason: Some(StopReason::Completed("stop".to_owned())),
        ..StreamEnd::default()
    };
    let (text, telemetry) = run(
        vec![
            ChatStreamEvent::Start,
            ChatStreamEvent::ReasoningChunk(chunk("thinking")),
            ChatStreamEvent::Chunk(chunk("Hel")),
            ChatStreamEvent::Chunk(chunk("lo")),
            ChatStreamEvent::End(end),
        ],
        l0_bridges::genai::view,
    );
    assert_eq!(text, "Hello");
    assert_eq!(telemetry.finish_reason, Some(FinishReason::Stop));
    assert_eq!(telemetry.metrics.total_tokens, 3);
    let usage = telemetry.usage.expect("usage");
    assert_eq!((usage.input, usage.output), (Some(3), None));
}

#[test]
fn rig() {
    let items = [
        json!({ "event": "start", "part": 0, "kind": "text" }),
        json!({ "event": "text", "part": 0, "text": "Hel" }),
        json!({ "event": "text", "part": 0, "text": "lo" }),
        json!({ "event": "start", "part": 1, "kind": "tool_call", "name": "f" }),
        json!({ "event": "arguments", "part": 1, "json": "{}" }),
    ];
    let items = items.map(|value| json!({ "item": "event", "value": value }));
    let items = items.map(|item| from_value(item).expect("an item"));
    let (text, telemetry) = run(items.into(), l0_bridges::rig::view);
    assert_eq!(text, "Hello");
    assert_eq!(telemetry.metrics.total_tokens, 4);
    assert_eq!(telemetry.finish_reason, None);
}
