//! An agent: three steps of one conversation, with a tool that calls a model itself. Each run records its
//! conversation and its parent run. The provider is scripted.
//!
//! ```console
//! $ cargo run -p l0-examples --bin agent
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;

use futures_util::StreamExt;
use l0_core::{Chunk, L0, Monitoring, RunInfo, Usage, keys, on_finish};
use l0_providers::openai::{ChatRequest, Client};
use l0_providers::testing::{Answer, ScriptedProvider};
use l0_providers::{ToolCalls, WholeCall};
use serde_json::{Value, json};

const MODEL: &str = "gpt-4o-mini";

/// The maximum number of requests, because models can repeat their calls.
const MAX_STEPS: usize = 8;

/// A tool that calls a model. Its run has the calling run as its parent, and belongs to the same
/// conversation.
async fn summarize(
    l0: &L0,
    client: &Client,
    parent: &RunInfo,
    text: &str,
) -> Result<String, Box<dyn Error>> {
    let request = ChatRequest::new("gpt-4o-nano").user(format!("In one sentence: {text}"));
    let call = l0.call_from(client.chat_once(&request)).parent(parent);
    Ok(call.start().await?.text)
}

/// Returns the message of the model with its calls, for the next request.
fn assistant_message(text: &str, calls: &[WholeCall]) -> Value {
    let calls: Vec<_> = calls
        .iter()
        .map(|call| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        })
        .collect();
    json!({ "role": "assistant", "content": text, "tool_calls": calls })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let usage = |input, output| Usage::new().input(input).output(output);
    let provider = ScriptedProvider::start([
        Answer::new()
            .tool_call("call_1", "read", [r#"{"page": "#, r#""monads"}"#])
            .usage(usage(40, 12)),
        // The answer to the tool.
        Answer::text(["Monads chain steps."]).usage(usage(90, 5)),
        Answer::new()
            .tool_call("call_2", "read", [r#"{"page": "functors"}"#])
            .usage(usage(70, 12)),
        Answer::text(["Functors map."]).usage(usage(80, 4)),
        Answer::text(["Functors map, ", "monads chain."]).usage(usage(95, 8)),
    ])
    .await?;
    let client = Client::new(&provider.base_url())?;
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(on_finish(|finished| {
            let Some(telemetry) = finished.telemetry else {
                return;
            };
            let text = |key| keys::text(finished.metadata, key).unwrap_or_default();
            println!(
                "[{} {}: conversation {}, {}, {} tokens billed]",
                text(keys::OPERATION),
                text(keys::MODEL),
                text(keys::CONVERSATION_ID),
                if telemetry.parent_id.is_some() {
                    "nested"
                } else {
                    "top level"
                },
                telemetry
                    .billed()
                    .and_then(|usage| usage.total)
                    .unwrap_or_default(),
            );
        }))
        .build();

    let mut messages = vec![json!({ "role": "user", "content": "Functors or monads?" })];
    let function = json!({ "name": "read", "parameters": { "type": "object" } });
    let tools = json!([{ "type": "function", "function": function }]);
    for step in 1..=MAX_STEPS {
        let request = json!({ "model": MODEL, "messages": messages, "tools": tools });
        let mut run = l0
            .stream_from(client.chat(&request))
            .conversation_id("conversation-7")
            .metadata("step", step)
            .start();
        let (mut text, mut calls) = (String::new(), ToolCalls::new());
        while let Some(chunk) = run.next().await {
            match chunk? {
                Chunk::Item(token) => {
                    text.push_str(token.answer());
                    calls.push(&token)?;
                }
                Chunk::Restart { .. } => {
                    text.clear();
                    calls.clear();
                }
            }
        }
        let calls = calls.finish();
        if calls.is_empty() {
            println!("{text}");
            return Ok(());
        }
        messages.push(assistant_message(&text, &calls));
        for call in &calls {
            let page = format!("The content of {}", call.arguments);
            let result = summarize(&l0, &client, run.info(), &page).await?;
            println!("{}({}): {result}", call.name, call.arguments);
            messages.push(json!({ "role": "tool", "tool_call_id": call.id, "content": result }));
        }
    }
    Err("the model did not answer within the maximum number of requests".into())
}
