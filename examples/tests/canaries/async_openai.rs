//! The same search with requests through `async-openai`.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use async_openai::config::OpenAIConfig;
use async_openai::types::chat::CreateChatCompletionRequest;
use l0_async_openai::{Client, chat};
use l0_core::Monitoring;
use serde_json::{from_value, json};

use crate::canary::{
    ANSWER, API_KEY, ARGUMENTS, CANARIES, Canary, SYSTEM, TOOL, URL_PASSWORD, URL_QUERY, URL_USER,
    USER,
};
use crate::echo::{Echo, SHAPES, Shape};
use crate::sinks::{Captured, Found, carries_messages, chain, listen, own};
use crate::{ALONE, runtime};

/// Runs against a server with this answer, and returns the output of each sink.
async fn run(echo: &Echo, shape: &Shape, canary: &Canary, monitoring: Monitoring) -> Vec<Captured> {
    let (answer, text) = (shape.answer, canary.text);
    let call =
        json!([{ "index": 0, "id": "c", "function": { "name": "f", "arguments": ARGUMENTS } }]);
    let deltas = [json!({ "content": ANSWER }), json!({ "tool_calls": call })];
    let payloads = deltas.map(|delta| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": null });
        let chunk = json!({
            "id": "r-1", "object": "chat.completion.chunk", "created": 1, "model": "m-1",
            "choices": [choice],
        });
        chunk.to_string()
    });
    echo.answer(move |request| answer(text, request, &payloads));

    let address = echo.address;
    // The rest of the URL becomes part of the query value.
    let base = format!("http://{URL_USER}:{URL_PASSWORD}@{address}/v1?key={URL_QUERY}&path=");
    let config = OpenAIConfig::new().with_api_base(base);
    let client = Client::with_config(config.with_api_key(API_KEY));
    let request: CreateChatCompletionRequest = from_value(json!({
        "model": "m",
        "messages": [
            { "role": "system", "content": SYSTEM },
            { "role": "user", "content": USER },
        ],
        "tools": [{ "type": "function", "function": { "name": "f", "description": TOOL } }],
    }))
    .unwrap();
    let (l0, listening) = listen(monitoring, |builder| builder);
    let run = l0.stream_from(chat(&client, request)).start();
    let print = |error: &l0_core::Error<l0_async_openai::Error>| {
        let mut captured = own(error);
        captured.push(chain(error));
        captured
    };
    listening.read(run, print).await
}

#[test]
fn no_canary_is_exported_through_async_openai() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Found::default();
    runtime().block_on(async {
        let echo = Echo::start().await;
        for shape in &SHAPES {
            for canary in &CANARIES {
                let captured = run(&echo, shape, canary, Monitoring::new()).await;
                found.look(&format!("async-openai: {}", shape.name), &captured);
            }
        }
    });
    println!("{}", found.numbers());
    assert!(found.leaks.is_empty(), "{}", found.report());
    assert!(found.logged > 0, "nothing was logged");
}

#[test]
fn error_text_exports_the_message_of_the_provider_through_async_openai() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Found::default();
    runtime().block_on(async {
        let echo = Echo::start().await;
        let monitoring = Monitoring::new().error_text(true);
        let of_providers = |shape: &&Shape| {
            ["400 with an error in JSON", "error in mid-stream"].contains(&shape.name)
        };
        for shape in SHAPES.iter().filter(of_providers) {
            for canary in &CANARIES {
                let captured = run(&echo, shape, canary, monitoring.clone()).await;
                found.look(shape.name, &captured);
            }
        }
    });
    let messages = found.sinks.iter().copied();
    let messages: BTreeSet<_> = messages.filter(|sink| carries_messages(sink)).collect();
    let sinks: BTreeSet<_> = found.leaks.iter().map(|leak| leak.1).collect();
    assert_eq!(sinks, messages);
    // A key is recognized by its form.
    assert!(found.leaks.iter().all(|leak| leak.2.text != API_KEY));
}
