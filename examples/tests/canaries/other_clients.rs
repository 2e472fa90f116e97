//! The same search with requests through `genai` and `rig`.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use genai::adapter::AdapterKind;
use genai::chat::ChatRequest;
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ServiceTarget};
use l0_core::Monitoring;
use rig_core::DynModel;
use rig_core::completion::CompletionRequest;
use rig_core::operation::Completion;
use rig_core::providers::openai::OpenAIConfig;
use serde_json::json;

use crate::canary::{ANSWER, API_KEY, ARGUMENTS, CANARIES, Canary, SYSTEM, USER};
use crate::echo::{Echo, SHAPES, Shape};
use crate::sinks::{Captured, Found, carries_messages, chain, listen, own};
use crate::{ALONE, runtime};

const CLIENTS: [&str; 3] = ["genai", "rig", "rig's agent"];

/// The server and its clients, which are slow to create.
struct Asked {
    echo: Echo,
    genai: Client,
    target: ServiceTarget,
    rig: DynModel<Completion>,
}

impl Asked {
    async fn start() -> Self {
        let echo = Echo::start().await;
        let address = format!("http://{}/v1", echo.address);
        let config = OpenAIConfig::new(API_KEY).with_base_url(&*address);
        Self {
            echo,
            genai: Client::new().unwrap(),
            target: ServiceTarget {
                endpoint: Endpoint::from_owned(format!("{address}/")),
                auth: AuthData::from_single(API_KEY),
                model: ModelIden::new(AdapterKind::OpenAI, "m"),
            },
            rig: config.client().chat("m").erase(),
        }
    }
}

/// Runs this client against a server with this answer, and returns the output of each sink.
async fn run(
    client: &str,
    asked: &Asked,
    shape: &Shape,
    canary: &Canary,
    monitoring: Monitoring,
) -> Vec<Captured> {
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
    asked
        .echo
        .answer(move |request| answer(text, request, &payloads));

    let (l0, listening) = listen(monitoring, |builder| builder);
    if client == "genai" {
        let request = ChatRequest::from_user(USER).with_system(SYSTEM);
        let source = l0_genai::chat(&asked.genai, asked.target.clone(), request);
        let run = l0.stream_from(source).start();
        let print = |error: &l0_core::Error<l0_genai::Error>| with_chain(own(error), error);
        return listening.read(run, print).await;
    }
    if client == "rig" {
        let source = l0_rig::completion(&asked.rig, CompletionRequest::new(USER));
        let run = l0.stream_from(source).start();
        let print = |error: &l0_core::Error<l0_rig::Error>| with_chain(own(error), error);
        return listening.read(run, print).await;
    }
    let agent = rig_agent::AgentBuilder::new(asked.rig.clone())
        .preamble(SYSTEM)
        .build();
    let source = l0_rig::agent(agent.prompt(USER));
    let run = l0.stream_from(source).start();
    let print = |error: &l0_core::Error<l0_rig::AgentError>| with_chain(own(error), error);
    listening.read(run, print).await
}

fn with_chain(
    mut captured: Vec<Captured>,
    error: &(dyn std::error::Error + 'static),
) -> Vec<Captured> {
    captured.push(chain(error));
    captured
}

#[test]
fn no_canary_is_exported_through_other_clients() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Found::default();
    runtime().block_on(async {
        let asked = Asked::start().await;
        for client in CLIENTS {
            // The errors of an agent are those of its model, so a few are enough.
            let step = if client == CLIENTS[2] { 4 } else { 1 };
            for shape in SHAPES.iter().step_by(step) {
                for canary in &CANARIES {
                    let captured = run(client, &asked, shape, canary, Monitoring::new()).await;
                    found.look(&format!("{client}: {}", shape.name), &captured);
                }
            }
        }
    });
    println!("{}", found.numbers());
    assert!(found.leaks.is_empty(), "{}", found.report());
    assert!(found.logged > 0, "nothing was logged");
}

#[test]
fn error_text_exports_the_message_of_the_provider_through_other_clients() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for client in CLIENTS {
        let mut found = Found::default();
        runtime().block_on(async {
            let asked = Asked::start().await;
            let monitoring = Monitoring::new().error_text(true);
            let of_providers = |shape: &&Shape| {
                ["400 with an error in JSON", "error in mid-stream"].contains(&shape.name)
            };
            for shape in SHAPES.iter().filter(of_providers) {
                for canary in &CANARIES {
                    let captured = run(client, &asked, shape, canary, monitoring.clone()).await;
                    found.look(shape.name, &captured);
                }
            }
        });
        let messages = found.sinks.iter().copied();
        let messages: BTreeSet<_> = messages.filter(|sink| carries_messages(sink)).collect();
        let sinks: BTreeSet<_> = found.leaks.iter().map(|leak| leak.1).collect();
        assert_eq!(sinks, messages, "{client}");
        // A key is recognized by its form.
        assert!(found.leaks.iter().all(|leak| leak.2.text != API_KEY));
    }
}
