//! A tool loop: collects the tool calls of a model while they stream, runs them, and sends the results
//! back until the model answers with text. The provider is scripted.
//!
//! ```console
//! $ cargo run -p l0-examples --bin tool_loop
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::io::{Write, stdout};

use futures_util::StreamExt;
use l0_core::{Chunk, L0};
use l0_providers::openai::Client;
use l0_providers::testing::{Answer, ScriptedProvider};
use l0_providers::{ToolCalls, WholeCall};
use serde::Deserialize;
use serde_json::{Value, json};

const MODEL: &str = "gpt-4o-mini";

/// The maximum number of requests, because models can repeat their calls.
const MAX_STEPS: usize = 8;

#[derive(Deserialize)]
struct Weather {
    city: String,
}

/// Runs a tool. Errors are results too, so the model can correct its call.
fn run_tool(call: &WholeCall) -> String {
    match call.name.as_str() {
        "get_weather" => match call.parse::<Weather>() {
            Ok(Weather { city }) => format!("18 °C and sunny in {city}"),
            Err(error) => error.to_string(),
        },
        name => format!("unknown tool `{name}`"),
    }
}

/// Prints the answer of one request. Returns its text and its tool calls.
async fn step(
    l0: &L0,
    client: &Client,
    request: &Value,
) -> Result<(String, Vec<WholeCall>), Box<dyn Error>> {
    let mut run = l0.stream_from(client.chat(&request)).start();
    let (mut text, mut calls) = (String::new(), ToolCalls::new());
    while let Some(chunk) = run.next().await {
        match chunk? {
            Chunk::Item(token) => {
                print!("{}", token.answer());
                stdout().flush()?;
                text.push_str(token.answer());
                calls.push(&token)?;
            }
            Chunk::Restart { .. } => {
                println!("\n--");
                text.clear();
                calls.clear();
            }
        }
    }
    Ok((text, calls.finish()))
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
    let provider = ScriptedProvider::start([
        // The connection breaks in the middle of the first call.
        Answer::new()
            .tool_call("call_0", "get_weather", [r#"{"city": "#])
            .cut(),
        Answer::text(["Let me ", "look."])
            .tool_call("call_1", "get_weather", [r#"{"city": "#, r#""Bern"}"#])
            .tool_call("call_2", "get_weather", [r#"{"town": "Rome"}"#]),
        Answer::text(["It is sunny ", "in Bern, at 18 °C."]),
    ])
    .await?;
    let client = Client::new(&provider.base_url())?;
    let l0 = L0::default();

    let mut messages = vec![json!({ "role": "user", "content": "How is the weather in Bern?" })];
    let parameters = json!({
        "type": "object",
        "properties": { "city": { "type": "string" } },
        "required": ["city"],
    });
    let function = json!({ "name": "get_weather", "parameters": parameters });
    let tools = json!([{ "type": "function", "function": function }]);
    for _ in 0..MAX_STEPS {
        let request = json!({ "model": MODEL, "messages": messages, "tools": tools });
        let (text, calls) = step(&l0, &client, &request).await?;
        println!();
        if calls.is_empty() {
            println!("{} requests", provider.requests().len());
            return Ok(());
        }
        messages.push(assistant_message(&text, &calls));
        for call in &calls {
            let result = run_tool(call);
            println!("{}({}): {result}", call.name, call.arguments);
            messages.push(json!({ "role": "tool", "tool_call_id": call.id, "content": result }));
        }
    }
    Err("the model did not answer within the maximum number of requests".into())
}
