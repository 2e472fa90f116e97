//! Canaries: marked private texts at every source, and a search for them in every sink, with the default
//! settings.
//!
//! `cargo test -p l0-examples --all-features --test canaries -- --nocapture` prints the size of the search.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "the numbers are printed too")]

mod async_openai;
mod canary;
#[path = "../common/mod.rs"]
mod common;
mod echo;
#[path = "../ends/exporters.rs"]
#[allow(dead_code, reason = "the test `ends` uses the rest")]
mod exporters;
mod other_clients;
mod sinks;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use canary::{
    ANSWER, API_KEY, ARGUMENTS, BASIC, CANARIES, COOKIE, Canary, Class, IMAGE, OPAQUE, PERSON,
    REASONING, SYSTEM, TENANT, TOOL, URL_PASSWORD, URL_QUERY, URL_USER, USER,
};
use echo::{Echo, SHAPES, Shape};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use l0_core::testing::{Script, ScriptedError, ScriptedToken};
use l0_core::{Failure, L0Builder, Monitoring, NetworkErrorKind, TokenKind};
use l0_guardrails::{Drift, Guardrails};
use l0_providers::{
    Client, Provider, ProviderStream, RequestError, anthropic, gemini, ollama, openai,
};
use serde_json::{Value, json};
use sinks::{Captured, Found, carries_messages, chain, listen, own};

type Opened = BoxFuture<'static, Result<ProviderStream, RequestError>>;
type Ask = Box<dyn Fn() -> Opened + Send + Sync>;

/// A provider's client with a key in every possible place, and its requests.
struct KeyedClient {
    name: &'static str,
    ask: Ask,
    /// The first payloads of its answers, from the names of the model and of the response.
    payloads: fn(name: &str) -> Vec<String>,
    /// `true` if the payloads are lines instead of events.
    has_lines: bool,
}

fn client<P: Provider>(echo: &Echo) -> Client<P> {
    let address = echo.address;
    let url = format!("http://{URL_USER}:{URL_PASSWORD}@{address}/v1?key={URL_QUERY}");
    let client = Client::<P>::new(&url).unwrap().api_key(API_KEY).unwrap();
    let headers = [
        ("api-key", OPAQUE.to_owned()),
        ("x-tenant-secret", TENANT.to_owned()),
        ("x-basic", format!("Basic {BASIC}")),
        ("cookie", format!("a=1; session={COOKIE}")),
    ];
    let headers = headers.iter();
    let client = headers.fold(client, |client, (name, value)| {
        client.header(name, value).unwrap()
    });
    client.max_event_bytes(8 * 1024)
}

/// Adds the other private parts of a prompt to its messages.
fn request(mut request: Value) -> Value {
    request["user"] = PERSON.into();
    request["image"] = IMAGE.into();
    request["tools"] = json!([{ "description": TOOL }]);
    request
}

fn keyed_clients(echo: &Echo) -> [KeyedClient; 5] {
    let openai: openai::Client = client(echo);
    let responses = openai.clone();
    let anthropic: anthropic::Client = client(echo);
    let gemini: gemini::Client = client(echo);
    let ollama: ollama::Client = client(echo);
    [
        KeyedClient {
            name: "openai chat",
            ask: Box::new(move || {
                let request = openai::ChatRequest::new("m").system(SYSTEM).user(USER);
                let request = request.set("user", PERSON).set("image", IMAGE);
                openai
                    .chat_stream(&request.set("tools", json!([TOOL])))
                    .boxed()
            }),
            payloads: |name| {
                let call = json!([{ "index": 0, "id": "c", "function": { "name": "f", "arguments": ARGUMENTS } }]);
                let deltas = [
                    json!({ "content": ANSWER }),
                    json!({ "reasoning_content": REASONING }),
                    json!({ "tool_calls": call }),
                ];
                let chunk = |delta| json!({ "id": name, "model": name, "choices": [{ "index": 0, "delta": delta }] });
                deltas.map(|delta| chunk(delta).to_string()).into()
            },
            has_lines: false,
        },
        KeyedClient {
            name: "openai responses",
            ask: Box::new(move || {
                let request =
                    request(json!({ "model": "m", "instructions": SYSTEM, "input": USER }));
                responses.responses_stream(&request).boxed()
            }),
            payloads: |name| {
                let events = [
                    json!({ "type": "response.created", "response": { "id": name, "model": name } }),
                    json!({ "type": "response.output_text.delta", "delta": ANSWER }),
                    json!({ "type": "response.reasoning_text.delta", "delta": REASONING }),
                    json!({ "type": "response.function_call_arguments.delta", "delta": ARGUMENTS }),
                ];
                events.map(|event| event.to_string()).into()
            },
            has_lines: false,
        },
        KeyedClient {
            name: "anthropic",
            ask: Box::new(move || {
                let messages = json!([{ "role": "user", "content": USER }]);
                let request = request(
                    json!({ "model": "m", "max_tokens": 9, "system": SYSTEM, "messages": messages }),
                );
                anthropic.messages_stream(&request).boxed()
            }),
            payloads: |name| {
                let delta =
                    |delta| json!({ "type": "content_block_delta", "index": 0, "delta": delta });
                let events = [
                    json!({ "type": "message_start", "message": { "id": name, "model": name } }),
                    delta(json!({ "type": "text_delta", "text": ANSWER })),
                    delta(json!({ "type": "thinking_delta", "thinking": REASONING })),
                    delta(json!({ "type": "input_json_delta", "partial_json": ARGUMENTS })),
                ];
                events.map(|event| event.to_string()).into()
            },
            has_lines: false,
        },
        KeyedClient {
            name: "gemini",
            ask: Box::new(move || {
                let contents =
                    json!([{ "role": "user", "parts": [{ "text": SYSTEM }, { "text": USER }] }]);
                gemini
                    .generate_content_stream("m", &request(json!({ "contents": contents })))
                    .boxed()
            }),
            payloads: |name| {
                let parts = json!([
                    { "text": ANSWER },
                    { "text": REASONING, "thought": true },
                    { "functionCall": { "name": "f", "args": { "city": ARGUMENTS } } },
                ]);
                let candidates = json!([{ "content": { "parts": parts } }]);
                vec![
                    json!({ "responseId": name, "modelVersion": name, "candidates": candidates })
                        .to_string(),
                ]
            },
            has_lines: false,
        },
        KeyedClient {
            name: "ollama",
            ask: Box::new(move || {
                let messages = json!([
                    { "role": "system", "content": SYSTEM },
                    { "role": "user", "content": USER },
                ]);
                let request = request(json!({ "model": "m", "messages": messages }));
                ollama.chat_stream(&request).boxed()
            }),
            payloads: |name| {
                let arguments = json!({ "city": ARGUMENTS });
                let messages = [
                    json!({ "content": ANSWER }),
                    json!({ "content": "", "thinking": REASONING }),
                    json!({ "tool_calls": [{ "function": { "name": "f", "arguments": arguments } }] }),
                ];
                let line = |message| json!({ "model": name, "message": message, "done": false });
                messages.map(|message| line(message).to_string()).into()
            },
            has_lines: true,
        },
    ]
}

/// Returns the response with lines instead of events, and with the same length.
fn with_lines(mut response: Vec<u8>) -> Vec<u8> {
    for field in ["\ndata: ", "\nevent: error"] {
        let blank = format!("\n{}", " ".repeat(field.len() - 1));
        while let Some(at) = response
            .windows(field.len())
            .position(|bytes| bytes == field.as_bytes())
        {
            response[at..at + field.len()].copy_from_slice(blank.as_bytes());
        }
    }
    response
}

/// Runs this client against a server with this answer, and returns the output of each sink.
async fn run(
    echo: &Echo,
    client: &KeyedClient,
    shape: &Shape,
    canary: &Canary,
    monitoring: Monitoring,
) -> Vec<Captured> {
    let answer = shape.answer;
    let text = canary.text;
    // The model name of a response is the provider's, but a key in it is private.
    let is_key = matches!(canary.class, Class::Key | Class::Form);
    let payloads = (client.payloads)(if is_key { text } else { "m-1" });
    let has_lines = client.has_lines;
    echo.answer(move |request| {
        let answer = answer(text, request, &payloads);
        if has_lines {
            with_lines(answer)
        } else {
            answer
        }
    });
    let (l0, listening) = listen(monitoring, |builder| builder);
    let run = l0.stream(|_| (client.ask)()).start();
    let print = |error: &l0_core::Error<RequestError>| {
        let mut captured = own(error);
        captured.push(chain(error));
        captured
    };
    listening.read(run, print).await
}

/// Logs are global to the process, so one test runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}

/// A custom error type that contains all canaries in every printed form.
#[derive(Clone)]
struct Talkative {
    text: String,
    failure: Option<Failure>,
}

impl fmt::Display for Talkative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Talkative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Talkative({:?})", self.text)
    }
}

impl std::error::Error for Talkative {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(self.failure.as_ref()?)
    }
}

/// The custom errors that can contain a text.
fn errors(text: &str) -> Vec<(&'static str, ScriptedError)> {
    let text = text.to_owned();
    let talkative = |failure| Talkative {
        text: text.clone(),
        failure,
    };
    let kinds = io::Error::new(io::ErrorKind::ConnectionReset, talkative(None));
    vec![
        ("text", ScriptedError::from(text.clone())),
        ("error", ScriptedError::new(talkative(None))),
        (
            "error with a failure",
            ScriptedError::new(talkative(Some(Failure::status(400)))),
        ),
        (
            "error with a failure that is retried",
            ScriptedError::new(talkative(Some(Failure::network(NetworkErrorKind::Unknown)))),
        ),
        ("io error", io::Error::other(talkative(None)).into()),
        ("io error with a kind", kinds.into()),
    ]
}

/// Returns the output for custom errors: of a run that connects, of one that does not, and of a watched stream.
async fn own_errors(found: &mut Found, canary: &Canary, monitoring: &Monitoring) {
    for (name, error) in errors(canary.text) {
        let token = |kind, text| ScriptedToken::new(kind, text);
        let script = Script::new().attempt(|a| {
            a.item(token(TokenKind::Reasoning, REASONING))
                .item(token(TokenKind::ToolCall, ARGUMENTS))
                .token(ANSWER)
                .fail(error.clone())
        });
        let refusing = Script::new().attempt(|a| a.connect_error(error));

        let (l0, listening) = listen(monitoring.clone(), |builder| builder);
        let run = l0.stream(script.source()).start();
        let captured = listening.read(run, own).await;
        found.look(&format!("own source: {name}"), &captured);

        let (l0, listening) = listen(monitoring.clone(), |builder| builder);
        let run = l0.stream(refusing.source()).start();
        let captured = listening.read(run, own).await;
        found.look(&format!("own source, connecting: {name}"), &captured);

        let (l0, listening) = listen(monitoring.clone(), |builder| builder);
        let watched = l0.watch(script.stream()).start();
        let captured = listening.read(watched, |_| Vec::new()).await;
        found.look(&format!("own source, watched: {name}"), &captured);
    }
}

/// Returns the output for the findings of checks.
async fn checked(found: &mut Found, canary: &Canary) {
    let text = canary.text;
    let answers = [
        text.to_owned(),
        format!("As an AI language model, I {text} cannot help with {text}."),
        format!("{{\"{text}\": [1, 2"),
        format!("```{text}\nfn main() {{ {text}"),
        format!("\\begin{{{text}}} ${text}"),
        format!("{text} {text} {text}. ").repeat(30),
    ];
    for (sets, configure) in [
        (
            "strict",
            (|builder| builder.guardrails(Guardrails::strict()).drift(Drift::new()))
                as fn(L0Builder) -> L0Builder,
        ),
        ("JSON", |builder| {
            builder.guardrails(Guardrails::json_only())
        }),
    ] {
        for answer in &answers {
            let script = Script::new().attempt(|a| a.token(answer));
            let (l0, listening) = listen(Monitoring::new(), configure);
            let run = l0.stream(script.source()).start();
            found.look(&format!("checks: {sets}"), &listening.read(run, own).await);
        }
    }
}

#[test]
fn no_canary_is_exported_with_the_default_settings() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Found::default();
    runtime().block_on(async {
        let echo = Echo::start().await;
        for (number, client) in keyed_clients(&echo).iter().enumerate() {
            for (place, shape) in SHAPES.iter().enumerate() {
                for (index, canary) in CANARIES.iter().enumerate() {
                    // The same code reads non-streaming responses for all clients, so these alternate.
                    if shape.is_stream || (index + place) % 5 == number {
                        let captured = run(&echo, client, shape, canary, Monitoring::new()).await;
                        found.look(&format!("{}: {}", client.name, shape.name), &captured);
                    }
                }
            }
        }
        for canary in &CANARIES {
            own_errors(&mut found, canary, &Monitoring::new()).await;
            if matches!(canary.class, Class::Prompt | Class::Output) {
                checked(&mut found, canary).await;
            }
        }
    });
    let report = found.report();
    println!("{report}");
    assert!(found.leaks.is_empty(), "{report}");
    // The search works: it finds the metadata in every record.
    assert_eq!(found.metadata, 2 * 6 * found.runs);
    assert!(found.logged > 0, "nothing was logged");
}

#[test]
fn error_text_exports_the_text_of_errors_in_messages_without_keys() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut found = Found::default();
    runtime().block_on(async {
        let echo = Echo::start().await;
        let monitoring = Monitoring::new().error_text(true);
        let of_providers = |shape: &&Shape| {
            ["400 with an error in JSON", "error in mid-stream"].contains(&shape.name)
        };
        for client in keyed_clients(&echo) {
            for shape in SHAPES.iter().filter(of_providers) {
                for canary in &CANARIES {
                    let captured = run(&echo, &client, shape, canary, monitoring.clone()).await;
                    found.look(&format!("{}: {}", client.name, shape.name), &captured);
                }
            }
        }
        for canary in &CANARIES {
            own_errors(&mut found, canary, &monitoring).await;
        }
    });
    println!("With `error_text`: {}", found.numbers());

    // The text of an error reaches every sink with messages, and no other.
    let expected: BTreeSet<_> = found
        .sinks
        .iter()
        .copied()
        .filter(|sink| carries_messages(sink))
        .collect();
    for canary in CANARIES.iter().filter(|canary| {
        matches!(
            canary.class,
            Class::Prompt | Class::Output | Class::Provider
        )
    }) {
        for of_client in [true, false] {
            let leaks = found
                .leaks
                .iter()
                .filter(|leak| std::ptr::eq(leak.2, canary));
            let leaks = leaks.filter(|leak| leak.0.starts_with("own ") != of_client);
            let sinks: BTreeSet<_> = leaks.map(|leak| leak.1).collect();
            assert_eq!(sinks, expected, "{}", canary.name);
        }
    }
    // A client knows its own keys. In other texts, a key is recognized by its form or position.
    let keys = |class| matches!(class, Class::Key | Class::Form);
    for (source, sink, canary, around) in &found.leaks {
        let is_known = !source.starts_with("own ") || canary.text == API_KEY;
        assert!(
            !(keys(canary.class) && is_known),
            "{source} | {sink} | {} | {around}",
            canary.name
        );
    }
}
