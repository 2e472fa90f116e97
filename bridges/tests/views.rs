//! What L0 reads from the items of other crates' streams.

use std::convert::Infallible;
use std::future::ready;

use futures_util::{FutureExt, StreamExt, stream};
use l0_core::{FinishReason, L0, Monitoring, Outcome, Telemetry, TokenView, Usage};
use serde_json::{from_value, json};

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
fn genai() {
    use genai::chat::{ChatStreamEvent, PromptTokensDetails, StopReason, StreamChunk, StreamEnd};
    let chunk = |content: &str| StreamChunk {
        content: content.to_owned(),
    };
    let usage = genai::chat::Usage {
        prompt_tokens: Some(3),
        prompt_tokens_details: Some(PromptTokensDetails {
            cached_tokens: Some(2),
            cache_creation_tokens: Some(1),
            ..PromptTokensDetails::default()
        }),
        ..genai::chat::Usage::default()
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
    let usage = Usage::new().input(3).cached_input(2).cache_write_input(1);
    assert_eq!(telemetry.usage, Some(usage));
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

#[test]
fn counts_mean_the_same_whatever_the_provider() {
    // Input, output, total; cached, written, reasoning; and what they mean.
    let cases = [
        ([50, 40, 90, 20, 5, 33], [50, 40, 90, 20, 5, 33]),
        ([50, 7, 90, 20, 5, 33], [50, 40, 90, 20, 5, 33]),
        ([25, 40, 90, 20, 5, 33], [50, 40, 90, 20, 5, 33]),
        ([25, 7, 90, 20, 5, 33], [50, 40, 90, 20, 5, 33]),
        ([20, 7, 0, 20, 5, 33], [45, 40, 85, 20, 5, 33]),
        ([10, 30, 40, 0, 0, 31], [10, 30, 40, 0, 0, 30]),
    ];
    let usage = |[input, output, total, cached, written, reasoning]: [u64; 6]| {
        let usage = Usage::new().input(input).output(output).total(total);
        let usage = usage.cached_input(cached).cache_write_input(written);
        usage.reasoning(reasoning)
    };
    for (counts, meant) in cases {
        let read = l0_bridges::usage::normalise(usage(counts));
        assert_eq!(read, usage(meant), "{counts:?}");
        assert_eq!(l0_bridges::usage::normalise(read), read);
    }
    assert_eq!(l0_bridges::usage::normalise(Usage::new()), Usage::new());
}
