//! What L0 reads from the items of other crates' streams.

use std::convert::Infallible;
use std::future::ready;

use futures_util::{FutureExt, StreamExt, stream};
use l0_core::{FinishReason, L0, Monitoring, Outcome, Telemetry, TokenView, Usage};
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
                json!({
                    "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 9,
                    "prompt_tokens_details": { "cached_tokens": 1 },
                    "completion_tokens_details": { "reasoning_tokens": 4 },
                }),
            ),
        ],
        l0_bridges::async_openai::view,
    );
    assert_eq!(text, "Hello");
    assert_eq!(telemetry.outcome, Some(Outcome::Completed));
    assert_eq!(telemetry.finish_reason, Some(FinishReason::ToolCalls));
    assert_eq!(telemetry.metrics.total_tokens, 3);
    // The total says that the reasoning lies beside the completion.
    let usage = Usage::new().input(3).output(6).total(9);
    assert_eq!(telemetry.usage, Some(usage.cached_input(1).reasoning(4)));
    let (text, telemetry) = run(
        vec![
            chunk(
                delta(json!({ "audio": { "transcript": "Hi" } }), Value::Null),
                Value::Null,
            ),
            chunk(
                delta(json!({ "audio": { "data": "AAA=" } }), json!("stop")),
                Value::Null,
            ),
        ],
        l0_bridges::async_openai::view,
    );
    assert_eq!(text, "Hi");
    assert_eq!(telemetry.metrics.total_tokens, 2);
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
