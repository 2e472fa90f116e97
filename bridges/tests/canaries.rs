//! The canaries of the examples, from the streams of other crates' clients: what their errors say of
//! prompts, answers and providers is in no sink at default settings.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(
    dead_code,
    reason = "the sinks are those of the examples, which use more"
)]

#[path = "../../examples/tests/canaries/canary.rs"]
mod canary;
#[path = "../../examples/tests/common/samples.rs"]
mod common;
#[path = "../../examples/tests/canaries/echo.rs"]
mod echo;
#[path = "../../examples/tests/ends/exporters.rs"]
mod exporters;
#[path = "../../examples/tests/canaries/sinks.rs"]
mod sinks;

use std::collections::BTreeSet;

use async_openai::config::OpenAIConfig;
use async_openai::types::chat::CreateChatCompletionRequest;
use canary::{ANSWER, API_KEY, ARGUMENTS, CANARIES, Canary, Class, SYSTEM, TOOL, USER};
use echo::{Echo, SHAPES, Shape};
use l0_core::{L0, Monitoring};
use serde_json::{from_value, json};
use sinks::{Found, Heard, Listening, carries_messages, listen, own};

const CLIENTS: [&str; 1] = ["async-openai"];

/// What a run of this client says.
async fn ask(client: &str, address: &str, l0: &L0, listening: Listening) -> Vec<Heard> {
    assert_eq!(client, CLIENTS[0]);
    let config = OpenAIConfig::new().with_api_base(address);
    let client = async_openai::Client::with_config(config.with_api_key(API_KEY));
    let request: CreateChatCompletionRequest = from_value(json!({
        "model": "m",
        "messages": [
            { "role": "system", "content": SYSTEM },
            { "role": "user", "content": USER },
        ],
        "tools": [{ "type": "function", "function": { "name": "f", "description": TOOL } }],
    }))
    .unwrap();
    let run = l0
        .stream(|_attempt| {
            let (client, request) = (client.clone(), request.clone());
            async move { client.chat().create_stream(request).await }
        })
        .view_with(l0_bridges::async_openai::view)
        .classify(l0_bridges::async_openai::failure)
        .expect_finish()
        .start();
    listening.read(run, own).await
}

async fn answered(
    echo: &Echo,
    client: &str,
    shape: &Shape,
    canary: &Canary,
    monitoring: Monitoring,
) -> Vec<Heard> {
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
    let (l0, listening) = listen(monitoring, |builder| builder);
    ask(
        client,
        &format!("http://{}/v1", echo.address),
        &l0,
        listening,
    )
    .await
}

/// The clients' own back-off is not waited for.
fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap()
}

#[test]
fn what_other_clients_errors_say_leaves_only_if_it_is_switched_on() {
    for error_text in [false, true] {
        let mut found = Found::default();
        runtime().block_on(async {
            let echo = Echo::start().await;
            for client in CLIENTS {
                // With the switch on, a few are enough to see that it works.
                let shapes = if error_text {
                    &SHAPES[..1]
                } else {
                    &SHAPES[..]
                };
                for shape in shapes {
                    for canary in &CANARIES {
                        let monitoring = Monitoring::new().error_text(error_text);
                        let heard = answered(&echo, client, shape, canary, monitoring).await;
                        found.look(&format!("{client}: {}", shape.name), &heard);
                    }
                }
            }
        });
        println!("error_text({error_text}): {}", found.numbers());
        if !error_text {
            assert!(found.leaks.is_empty(), "{}", found.report());
            assert!(found.logged > 0, "nothing was logged");
            continue;
        }
        // Whatever carries messages then says what a provider said, and nothing else does. A key is known
        // by its form.
        let messages = found
            .sinks
            .iter()
            .copied()
            .filter(|sink| carries_messages(sink));
        let messages: BTreeSet<_> = messages.collect();
        for client in CLIENTS {
            let leaks = found.leaks.iter().filter(|leak| leak.0.starts_with(client));
            let sinks: BTreeSet<_> = leaks.map(|leak| leak.1).collect();
            assert_eq!(sinks, messages, "{client}");
        }
        let is_key = |canary: &Canary| canary.class == Class::Key && canary.text == API_KEY;
        let key = found.leaks.iter().find(|(_, _, canary, _)| is_key(canary));
        assert!(key.is_none(), "{key:?}");
    }
}
