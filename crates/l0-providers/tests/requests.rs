//! Requests as sources: their descriptions, what they send, and how whole answers are read.
#![cfg(all(
    feature = "anthropic",
    feature = "gemini",
    feature = "reqwest",
    feature = "responses",
    feature = "testing"
))]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::server::{answer, server, streamed};
use common::*;
use futures_util::stream;
use l0_core::{
    Attempt, Failure, FailureKind, FinishReason, L0, NetworkErrorKind, Source, Token, TokenKind,
    Usage,
};
use l0_providers::testing::{Answer, ScriptedProvider};
use l0_providers::{
    Completion, Embeddings, ProviderError, ProviderRequest, ProviderStream, ToolCalls, anthropic,
    gemini, ollama, openai,
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

type Error = ProviderError<reqwest::Error>;

const KEY: &str = "a-canary-key";

/// An attempt, as a run passes it to its source.
fn attempt() -> Attempt {
    let seen = Mutex::new(None);
    let mut run = L0::default()
        .stream(|attempt| {
            *seen.lock().unwrap() = Some(attempt);
            async { Ok(stream::iter(["a"].map(Ok::<_, std::io::Error>))) }
        })
        .start();
    now(run.text()).unwrap();
    drop(run);
    seen.into_inner().unwrap().unwrap()
}

async fn send<A: Send + 'static>(request: ProviderRequest<A>) -> Result<A, Error> {
    request.send().await
}

fn openai(url: &str) -> openai::Client {
    let client = openai::Client::new(url).unwrap();
    client.api_key(KEY).unwrap()
}

fn anthropic(url: &str) -> anthropic::Client {
    let client = anthropic::Client::new(url).unwrap();
    client.api_key(KEY).unwrap()
}

fn gemini(url: &str) -> gemini::Client {
    let client = gemini::Client::new(url).unwrap();
    client.api_key(KEY).unwrap()
}

fn ollama(url: &str) -> ollama::Client {
    let client = ollama::Client::new(url).unwrap();
    client.api_key(KEY).unwrap()
}

/// An API: its requests for a stream and for a whole answer.
struct Api {
    name: &'static str,
    operation: &'static str,
    /// A request with this prompt.
    request: fn(&str) -> Value,
    stream: fn(&str, &Value) -> ProviderRequest<ProviderStream>,
    once: fn(&str, &Value) -> ProviderRequest<Completion>,
}

const APIS: [Api; 6] = [
    Api {
        name: "chat",
        operation: "chat",
        request: |prompt| json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}),
        stream: |url, request| openai(url).chat(request),
        once: |url, request| openai(url).chat_once(request),
    },
    Api {
        name: "responses",
        operation: "chat",
        request: |prompt| json!({"model": "m", "input": prompt}),
        stream: |url, request| openai(url).responses(request),
        once: |url, request| openai(url).responses_once(request),
    },
    Api {
        name: "messages",
        operation: "chat",
        request: |prompt| {
            let messages = json!([{"role": "user", "content": prompt}]);
            json!({"model": "m", "max_tokens": 9, "messages": messages})
        },
        stream: |url, request| anthropic(url).messages(request),
        once: |url, request| anthropic(url).messages_once(request),
    },
    Api {
        name: "gemini",
        operation: "generate_content",
        request: |prompt| json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]}),
        stream: |url, request| gemini(url).generate_content("m", request),
        once: |url, request| gemini(url).generate_content_once("m", request),
    },
    Api {
        name: "ollama/chat",
        operation: "chat",
        request: |prompt| json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}),
        stream: |url, request| ollama(url).chat(request),
        once: |url, request| ollama(url).chat_once(request),
    },
    Api {
        name: "ollama/generate",
        operation: "text_completion",
        request: |prompt| json!({"model": "m", "prompt": prompt}),
        stream: |url, request| ollama(url).generate(request),
        once: |url, request| ollama(url).generate_once(request),
    },
];

impl Api {
    fn is_ollama(&self) -> bool {
        self.name.starts_with("ollama")
    }
}

fn request_of(api: &Api) -> Value {
    (api.request)("hi")
}

#[test]
fn each_request_describes_itself() {
    for (url, provider, address, port) in [
        (
            "https://api.openai.com/v1",
            Some("openai"),
            "api.openai.com",
            443,
        ),
        (
            "https://API.Anthropic.com",
            Some("anthropic"),
            "api.anthropic.com",
            443,
        ),
        ("http://localhost:11434/v1", None, "localhost", 11434),
        ("http://user:pw@[::1]/v1?key=k", None, "::1", 80),
        (
            "https://evil-openai.com.example",
            None,
            "evil-openai.com.example",
            443,
        ),
    ] {
        for api in &APIS {
            let request = request_of(api);
            let description = (api.stream)(url, &request).describe();
            let whole = (api.once)(url, &request).describe();
            assert_eq!(description.streaming, Some(true), "{}", api.name);
            assert_eq!(whole.streaming, Some(false), "{}", api.name);
            for description in [description, whole] {
                assert_eq!(
                    description.provider.as_deref(),
                    provider,
                    "{} {url}",
                    api.name
                );
                assert_eq!(description.model.as_deref(), Some("m"), "{}", api.name);
                assert_eq!(
                    description.operation.as_deref(),
                    Some(api.operation),
                    "{}",
                    api.name
                );
                assert_eq!(description.server_address.as_deref(), Some(address));
                assert_eq!(description.server_port, Some(port));
                let shown = format!("{description:?}");
                assert!(
                    !shown.contains("canary") && !shown.contains("pw"),
                    "{shown}"
                );
            }
        }
        let description = openai(url)
            .embeddings(&json!({"model": "e", "input": "hi"}))
            .describe();
        assert_eq!(description.provider.as_deref(), provider);
        assert_eq!(description.operation.as_deref(), Some("embeddings"));
        assert_eq!(description.model.as_deref(), Some("e"));
        assert_eq!(description.streaming, Some(false));
        for request in [
            gemini(url).embed_content("models/e", &json!({})),
            gemini(url).batch_embed_contents("e", &json!({})),
            ollama(url).embed(&json!({"model": "e", "input": "hi"})),
        ] {
            let description = request.describe();
            assert_eq!(description.operation.as_deref(), Some("embeddings"));
            assert_eq!(description.model.as_deref(), Some("e"));
        }
    }
    let gateway = openai("http://localhost/v1").provider_name("mistral_ai");
    let description = gateway.chat(&json!({"stream": false})).describe();
    assert_eq!(description.provider.as_deref(), Some("mistral_ai"));
    assert_eq!(description.model, None);
    assert_eq!(
        description.streaming,
        Some(false),
        "set by the request itself"
    );
}

#[test]
fn parameters_have_the_names_of_the_conventions() {
    let openai = openai("http://h");
    let canary = json!({"a": "canary"});
    let chat = json!({
        "model": "m", "messages": "canary", "temperature": 0.5, "top_p": 1, "top_k": 40,
        "frequency_penalty": -0.25, "presence_penalty": 2, "seed": -3, "max_completion_tokens": 7,
        "n": 2, "stop": ["canary"], "user": "canary", "tools": [canary], "metadata": canary,
    });
    let all = json!({
        "temperature": 0.5, "top_p": 1, "top_k": 40, "frequency_penalty": -0.25,
        "presence_penalty": 2, "seed": -3, "max_tokens": 7, "choice.count": 2,
    });
    let nothing = json!({});
    let odd = json!({
        "temperature": "canary", "n": 1, "seed": null, "max_tokens": ["canary"], "top_p": canary,
        "encoding_format": "a canary sings", "dimensions": "canary", "stream": "canary",
    });
    let gemini_request = json!({
        "contents": "canary",
        "generationConfig": {
            "temperature": 0.5, "topP": 1, "topK": 40, "frequencyPenalty": -0.25,
            "presencePenalty": 2, "seed": -3, "maxOutputTokens": 7, "candidateCount": 2,
            "stopSequences": ["canary"],
        },
    });
    let ollama_request = json!({
        "model": "m", "messages": "canary", "keep_alive": "5m", "think": true,
        "options": {
            "temperature": 0.5, "top_p": 1, "top_k": 40, "frequency_penalty": -0.25,
            "presence_penalty": 2, "seed": -3, "num_predict": 7, "num_ctx": 9, "stop": ["canary"],
        },
    });
    let mut but_for_choices = all.clone();
    but_for_choices
        .as_object_mut()
        .unwrap()
        .remove("choice.count");
    let embeddings = json!({"input": "canary", "encoding_format": "base64", "dimensions": 256});
    let gemini = gemini("http://h");
    for (description, expected) in [
        (openai.chat(&chat).describe(), &all),
        (openai.chat_once(&chat).describe(), &all),
        (
            gemini.generate_content("m", &gemini_request).describe(),
            &all,
        ),
        (
            openai
                .responses(&json!({"max_output_tokens": 7}))
                .describe(),
            &json!({"max_tokens": 7}),
        ),
        (
            anthropic("http://h")
                .messages(&json!({"max_tokens": 7}))
                .describe(),
            &json!({"max_tokens": 7}),
        ),
        (
            ollama("http://h").chat(&ollama_request).describe(),
            &but_for_choices,
        ),
        (
            ollama("http://h").generate_once(&ollama_request).describe(),
            &but_for_choices,
        ),
        (
            // A negative value means no limit.
            ollama("http://h")
                .chat(&json!({"options": {"num_predict": -1}}))
                .describe(),
            &nothing,
        ),
        (
            ollama("http://h")
                .embed(&json!({"input": "canary", "dimensions": 256}))
                .describe(),
            &json!({"embeddings.dimension.count": 256}),
        ),
        (openai.chat(&odd).describe(), &nothing),
        (openai.chat("no object").describe(), &nothing),
        (
            openai.embeddings(&embeddings).describe(),
            &json!({"encoding_formats": ["base64"], "embeddings.dimension.count": 256}),
        ),
        (
            gemini
                .embed_content("m", &json!({"outputDimensionality": 256}))
                .describe(),
            &json!({"embeddings.dimension.count": 256}),
        ),
    ] {
        assert_eq!(
            &serde_json::to_value(&description.parameters).unwrap(),
            expected
        );
        assert!(
            !format!("{description:?}").contains("canary"),
            "{description:?}"
        );
    }
}

#[test]
fn the_input_is_the_prompt_of_the_request() {
    let openai = openai("http://h");
    let messages = json!([{"role": "user", "content": "hi"}]);
    let check = |input: Option<Value>, expected: Value| assert_eq!(input, Some(expected));
    let chat = json!({"model": "m", "messages": messages, "temperature": 0, "tools": [1]});
    let input = json!({"messages": messages, "tools": [1]});
    check(openai.chat(&chat).input(), input);
    let request = json!({"model": "m", "input": "hi", "instructions": "be brief"});
    let input = json!({"input": "hi", "instructions": "be brief"});
    check(openai.responses(&request).input(), input);
    check(
        openai
            .embeddings(&json!({"model": "m", "input": ["a", "b"]}))
            .input(),
        json!({"input": ["a", "b"]}),
    );
    let request = json!({"model": "m", "system": "be brief", "messages": messages});
    let input = json!({"system": "be brief", "messages": messages});
    check(anthropic("http://h").messages_once(&request).input(), input);
    let request = json!({"contents": messages, "systemInstruction": 1, "generationConfig": {}});
    let input = json!({"contents": messages, "systemInstruction": 1});
    check(
        gemini("http://h").generate_content("m", &request).input(),
        input,
    );
    let request =
        json!({"prompt": "hi", "suffix": "!", "system": "be brief", "images": ["x"], "raw": true});
    let input = json!({"prompt": "hi", "suffix": "!", "system": "be brief", "images": ["x"]});
    check(ollama("http://h").generate(&request).input(), input);
    assert_eq!(openai.chat(&json!({"model": "m"})).input(), None);
    assert_eq!(openai.chat("hi").input(), None);
}

/// A request that counts how often it is serialized.
struct Counted(AtomicUsize);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        json!({"model": "m", "messages": []}).serialize(serializer)
    }
}

#[tokio::test]
async fn a_request_is_serialized_once_for_all_attempts() {
    let answers = [
        Answer::status(503),
        Answer::status(503),
        Answer::text(["Hello"]),
    ];
    let provider = ScriptedProvider::start(answers).await.unwrap();
    let counted = Counted(AtomicUsize::new(0));
    let mut request = openai(&provider.base_url()).chat(&counted);
    assert_eq!(request.describe().model.as_deref(), Some("m"));
    assert!(request.input().is_some());
    let retry = l0_core::Retry::new().backoff(l0_core::Backoff::none());
    let l0 = L0::builder().retry(retry).build();
    let mut run = l0.stream(|attempt| request.connect(attempt)).start();
    assert_eq!(run.text().await.unwrap(), "Hello");
    drop(run);
    assert_eq!(counted.0.load(Ordering::Relaxed), 1);
    let sent = provider.requests();
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|other| other.body == sent[0].body));
}

#[tokio::test]
async fn a_request_that_does_not_serialize_fails_when_it_connects() {
    let request = openai("http://127.0.0.1:1").chat("text");
    let error = send(request).await.unwrap_err();
    assert!(matches!(error, ProviderError::Request(_)), "{error:?}");
    let error = send(openai("http://127.0.0.1:1").embeddings(&[1])).await;
    assert!(matches!(error, Err(ProviderError::Request(_))), "{error:?}");
}

#[tokio::test]
async fn whole_requests_ask_for_json_at_the_same_address() {
    let provider = ScriptedProvider::answering(|_| Answer::text(["a"]))
        .await
        .unwrap();
    let url = provider.base_url();
    for api in &APIS {
        drop(send((api.stream)(&url, &request_of(api))).await.unwrap());
        send((api.once)(&url, &request_of(api))).await.unwrap();
        let sent = provider.requests();
        let [.., streamed, whole] = &sent[..] else {
            panic!("two requests")
        };
        let accept = |request: &l0_providers::testing::Request| request.headers["accept"].clone();
        let mut body = request_of(api);
        if api.is_ollama() {
            assert_eq!(accept(streamed), "application/x-ndjson");
            body["stream"] = false.into();
        } else {
            assert_eq!(accept(streamed), "text/event-stream");
        }
        assert_eq!(accept(whole), "application/json");
        assert_eq!(whole.body, body, "{}: nothing else is added", api.name);
        let path = streamed
            .path
            .replace("streamGenerateContent", "generateContent");
        assert_eq!(whole.path, path);
    }
    let request = openai(&url)
        .header("accept", "x/y")
        .unwrap()
        .chat_once(&json!({}));
    send(request).await.unwrap();
    assert_eq!(provider.requests().last().unwrap().headers["accept"], "x/y");
}

/// Assembles a completion from a stream without the crate's own code.
async fn gathered(stream: ProviderStream) -> Completion {
    use futures_util::StreamExt;

    let tokens: Vec<_> = stream.map(Result::unwrap).collect().await;
    let mut all = Completion::new();
    let mut calls = ToolCalls::new();
    for token in tokens {
        calls.push(&token).unwrap();
        match token.kind {
            TokenKind::Text => all.text += &token.text,
            TokenKind::Reasoning => all.reasoning += &token.text,
            TokenKind::Media => all.media += 1,
            _ => {}
        }
        all.refusal |= token.refusal;
        all.usage = token.usage.or(all.usage);
        all.finish = token.finish.or(all.finish);
        all.finish_reason = token.finish_reason.or(all.finish_reason);
        all.model = token.model.or(all.model);
        all.response_id = token.response_id.or(all.response_id);
    }
    all.tool_calls = calls.finish();
    all
}

#[tokio::test]
async fn an_answer_is_the_same_whole_and_streamed() {
    let usage = Usage::new()
        .input(100)
        .output(30)
        .total(130)
        .cached_input(40);
    let usage = usage.cache_write_input(20).reasoning(10);
    let call =
        |answer: Answer| answer.tool_call("call_1", "get_weather", [r#"{"city":"#, r#""Bern"}"#]);
    let mut answers = vec![
        Answer::text(["H\u{e4}", "l\n\"lo"]).usage(usage),
        Answer::text(["a", "b"]),
        Answer::new()
            .reasoning("Let me ")
            .reasoning("think.")
            .token("So.")
            .usage(Usage::new().input(3).output(9).reasoning(7)),
        call(Answer::new()).usage(usage),
        call(Answer::text(["I look."])).tool_call("call_2", "now", [""; 0]),
        call(Answer::text(["I look."]))
            .token("!")
            .finish(FinishReason::Length),
    ];
    for finish in [
        FinishReason::Stop,
        FinishReason::Length,
        FinishReason::ContentFilter,
        FinishReason::Refusal,
        FinishReason::Other,
    ] {
        answers.push(Answer::text(["a"]).finish(finish));
        answers.push(
            Answer::new()
                .finish(finish)
                .usage(Usage::new().input(3).output(0)),
        );
    }
    for api in &APIS {
        for answer in &answers {
            let both = ScriptedProvider::start([answer.clone(), answer.clone()]);
            let provider = both.await.unwrap();
            let url = provider.base_url();
            let stream = send((api.stream)(&url, &request_of(api))).await.unwrap();
            let mut streamed = gathered(stream).await;
            let whole = send((api.once)(&url, &request_of(api))).await.unwrap();
            let id = |id| (!api.is_ollama()).then_some(id);
            assert_eq!(streamed.response_id.as_deref(), id("scripted-1"));
            assert_eq!(whole.response_id.as_deref(), id("scripted-2"));
            streamed.response_id.clone_from(&whole.response_id);
            assert_eq!(whole, streamed, "{}: {answer:?}", api.name);
            assert!(whole.finish.is_some());

            let view = whole.view();
            let call = whole.tool_calls.first().filter(|_| whole.text.is_empty());
            let expected = call.map_or(&whole.text, |call| &call.arguments);
            assert_eq!(view.text, expected);
            assert_eq!(view.tool, call.map(|call| &*call.name));
            assert_eq!((view.usage, view.finish), (whole.usage, whole.finish));
            assert_eq!(view.model, Some("m"));
            assert_eq!(view.response_id, id("scripted-2"));
            let json = serde_json::to_string(&whole).unwrap();
            assert_eq!(serde_json::from_str::<Completion>(&json).unwrap(), whole);
        }
    }
}

#[tokio::test]
async fn json_instead_of_a_stream_is_read_as_one_answer() {
    let answer = Answer::new()
        .reasoning("Hm.")
        .token("Hello")
        .usage(Usage::new().input(3).output(2));
    for api in &APIS {
        let script = [answer.clone()];
        let provider = ScriptedProvider::start(script).await.unwrap();
        let whole = send((api.once)(&provider.base_url(), &request_of(api)))
            .await
            .unwrap();
        // The same JSON from a server that ignores the request for a stream, with any content type.
        let json = body_of(api, &answer).await;
        for label in [
            "application/json",
            "text/plain",
            "application/problem+json",
            "x/y",
        ] {
            let other = ScriptedProvider::start([Answer::new().body(label, json.clone())]);
            let other = other.await.unwrap();
            let stream = send((api.stream)(&other.base_url(), &request_of(api)))
                .await
                .unwrap();
            assert_eq!(gathered(stream).await, whole, "{} {label}", api.name);
        }
    }
}

/// The JSON of a whole answer.
async fn body_of(api: &Api, answer: &Answer) -> String {
    let provider = ScriptedProvider::start([answer.clone()]).await.unwrap();
    let path = match api.name {
        "chat" => "chat/completions",
        "gemini" => "m:generateContent",
        name => name,
    };
    let url = format!("{}/{path}", provider.base_url());
    let mut request = request_of(api);
    request["stream"] = false.into();
    let request = reqwest::Client::new().post(url).body(request.to_string());
    request.send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn an_unrequested_stream_is_read_too() {
    for api in &APIS {
        let provider = ScriptedProvider::answering(|_| Answer::text(["Hel", "lo"]))
            .await
            .unwrap();
        // The request itself asks for a stream, which is not changed.
        let mut request = request_of(api);
        request["stream"] = true.into();
        let whole = send((api.once)(&provider.base_url(), &request))
            .await
            .unwrap();
        assert_eq!(whole.text, "Hello", "{}", api.name);
        assert_eq!(whole.finish, Some(FinishReason::Stop));

        // A truncated stream is not an answer.
        let provider = ScriptedProvider::answering(|_| Answer::text(["Hel"]).end())
            .await
            .unwrap();
        let error = send((api.once)(&provider.base_url(), &request)).await;
        let error = error.unwrap_err();
        assert!(matches!(error, ProviderError::Truncated), "{error:?}");
        let failure = Failure::network(NetworkErrorKind::PartialChunks);
        assert_eq!(error.failure(), failure);
        assert_eq!(error.to_string(), "the answer was truncated");
    }
}

#[tokio::test]
async fn whole_requests_fail_as_streams_do() {
    for api in &APIS {
        let name = api.name;
        let fail = async |answer: Answer| {
            let provider = ScriptedProvider::start([answer]).await.unwrap();
            let whole = send((api.once)(&provider.base_url(), &request_of(api))).await;
            whole.unwrap_err()
        };
        let kind = |error: &Error| error.failure().kind;

        let error = fail(Answer::status(429).header("retry-after", "7")).await;
        assert_eq!(kind(&error), FailureKind::RateLimited, "{name}");
        assert_eq!(error.api().unwrap().status(), Some(429));
        assert_eq!(error.failure().retry_after, Some(Duration::from_secs(7)));
        for (status, expected) in [
            (401, FailureKind::Fatal),
            (500, FailureKind::Server),
            (529, FailureKind::Server),
        ] {
            let error = fail(Answer::status(status).message("a canary")).await;
            assert_eq!(kind(&error), expected, "{name} {status}");
            assert_eq!(error.failure().status, Some(status));
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
        let error = fail(Answer::new().token("a").error(503, "a canary")).await;
        assert_eq!(kind(&error), FailureKind::Server, "{name}");

        // An error in a successful response.
        for body in [
            json!({"error": {"type": "overloaded_error", "message": "a canary"}}),
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "a canary"}}),
            json!({"code": 503, "message": "a canary"}),
        ] {
            let error = fail(Answer::json(&body)).await;
            let ProviderError::Api(api_error) = &error else {
                panic!("{name}: {body}: {error:?}");
            };
            assert_eq!(api_error.message(), Some("a canary"));
            assert!(!format!("{error} {error:?}").contains("canary"));
        }

        // Another protocol, and JSON that is not an answer.
        for (label, body) in [
            ("text/html", "<html>a canary</html>"),
            ("application/json", "{}"),
            ("application/json", r#"["a canary"]"#),
            ("application/json", r#"{"model":"a canary"}"#),
            ("application/json", ""),
            ("application/json", "{\"a\":1}\n{\"a\":2}\n"),
        ] {
            let error = fail(Answer::new().body(label, body)).await;
            let ProviderError::NotAnAnswer(_) = &error else {
                panic!("{name}: {body}: {error:?}");
            };
            assert_eq!(kind(&error), FailureKind::Fatal);
            assert!(!format!("{error} {error:?}").contains("canary"));
        }

        // A connection that breaks.
        let error = fail(Answer::text(["Hello"]).end()).await;
        assert!(matches!(error, ProviderError::Json(_)), "{name}: {error:?}");
        let failure = Failure::network(NetworkErrorKind::PartialChunks);
        assert_eq!(error.failure(), failure);
        let error = fail(Answer::text(["Hello"]).cut()).await;
        assert!(
            matches!(error, ProviderError::Transport(_)),
            "{name}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_whole_answer_has_a_size_limit() {
    let long = "a".repeat(2000);
    let answers = |_: &_| Answer::text(["a".repeat(1000), "a".repeat(1000)]);
    let provider = ScriptedProvider::answering(answers).await.unwrap();
    let client = openai(&provider.base_url());
    let too_large = |result: Result<Completion, Error>, limit| {
        let Err(ProviderError::AnswerTooLarge(error)) = result else {
            panic!("{result:?}");
        };
        assert_eq!((error.limit, error.of), (limit, "bytes"));
    };
    let request = json!({"model": "m"});
    let streamed = json!({"model": "m", "stream": true});
    let small = client.clone().max_answer_bytes(1500);
    too_large(send(small.chat_once(&request)).await, 1500);
    too_large(send(small.chat_once(&streamed)).await, 1500);
    let enough = client.max_answer_bytes(4000);
    assert_eq!(send(enough.chat_once(&request)).await.unwrap().text, long);
    assert_eq!(send(enough.chat_once(&streamed)).await.unwrap().text, long);

    let vectors = Answer::embeddings([vec![0.5; 400]]);
    let provider = ScriptedProvider::start([vectors]).await.unwrap();
    let client = openai(&provider.base_url()).max_answer_bytes(1000);
    let error = send(client.embeddings(&request)).await;
    assert!(
        matches!(error, Err(ProviderError::AnswerTooLarge(_))),
        "{error:?}"
    );

    // Small vectors take many times their size in memory.
    for (count, fits) in [(100_000, true), (100_001, false)] {
        let vectors = vec![[0]; count];
        let body = json!({"embeddings": vectors});
        let provider = ScriptedProvider::start([Answer::json(&body)])
            .await
            .unwrap();
        let answer = send(openai(&provider.base_url()).embeddings(&request)).await;
        match answer {
            Ok(embeddings) => assert!(fits && embeddings.vectors.len() == count),
            Err(ProviderError::AnswerTooLarge(error)) => {
                assert!(!fits && error.of == "vectors", "{error}");
            }
            Err(error) => panic!("{error}"),
        }
    }

    let calls = (0..300)
        .map(|n| json!({"id": n.to_string(), "function": {"name": "f", "arguments": "{}"}}));
    let choice = |index: usize, calls: Vec<Value>| json!({"index": index, "message": {"tool_calls": calls}, "finish_reason": "stop"});
    let calls = Vec::from_iter(calls);
    let body = json!({"choices": [choice(0, calls.clone()), choice(1, calls)]});
    let provider = ScriptedProvider::start([Answer::json(&body)])
        .await
        .unwrap();
    let error = send(openai(&provider.base_url()).chat_once(&request)).await;
    let Err(ProviderError::AnswerTooLarge(error)) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.to_string(), "the answer exceeds 256 tool calls");
}

#[tokio::test]
async fn each_of_several_answers_is_kept() {
    let choice = |index: usize, text: &str, reason: &str| json!({"index": index, "message": {"content": text}, "finish_reason": reason});
    let body = json!({
        "id": "r", "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 4},
        "choices": [choice(1, "second", "length"), choice(0, "first", "stop"), choice(2, "third", "content_filter")],
    });
    let provider = ScriptedProvider::start([Answer::json(&body)])
        .await
        .unwrap();
    let whole = send(openai(&provider.base_url()).chat_once(&json!({"n": 3})))
        .await
        .unwrap();
    assert_eq!(
        (whole.text.as_str(), whole.finish),
        ("first", Some(FinishReason::Stop))
    );
    assert_eq!(whole.usage, Some(Usage::new().input(1).output(4).total(5)));
    let others = whole
        .others
        .iter()
        .map(|other| (other.text.as_str(), other.finish));
    let expected = [
        ("second", Some(FinishReason::Length)),
        ("third", Some(FinishReason::ContentFilter)),
    ];
    assert_eq!(others.collect::<Vec<_>>(), expected);
    assert!(
        whole
            .others
            .iter()
            .all(|other| other.usage.is_none() && other.model.is_none())
    );
}

#[tokio::test]
async fn content_that_only_whole_answers_have() {
    let once = async |api: &Api, body: Value| {
        let provider = ScriptedProvider::start([Answer::json(&body)])
            .await
            .unwrap();
        send((api.once)(&provider.base_url(), &request_of(api))).await
    };
    let [chat, responses, messages, gemini, ..] = &APIS;

    // Not every provider reports a finish reason, but a whole answer has ended.
    let whole = once(chat, json!({"choices": [{"message": {"content": "hi"}}]}))
        .await
        .unwrap();
    assert_eq!(
        (whole.text.as_str(), whole.finish),
        ("hi", Some(FinishReason::Other))
    );
    let body = json!({"type": "message", "content": [{"type": "text", "text": "hi"}], "stop_reason": null});
    assert_eq!(
        once(messages, body).await.unwrap().finish,
        Some(FinishReason::Other)
    );

    // A background response has no output yet.
    let body =
        json!({"id": "r", "object": "response", "model": "m", "status": "queued", "output": []});
    let whole = once(responses, body).await.unwrap();
    assert_eq!(whole.finish_reason.as_deref(), Some("queued"));
    assert_eq!(whole.response_id.as_deref(), Some("r"));
    let body = json!({"object": "response", "status": "failed", "error": {"code": "server_error", "message": "m"}, "output": []});
    assert!(matches!(
        once(responses, body).await,
        Err(ProviderError::Api(_))
    ));

    // Media, refusals and a blocked prompt.
    let body = json!({"choices": [{"message": {"content": null, "refusal": "no"}, "finish_reason": "stop"}]});
    let whole = once(chat, body).await.unwrap();
    assert_eq!((whole.text.as_str(), whole.refusal), ("no", true));
    let parts = json!([{"inlineData": {"data": "AAAA"}}, {"text": "so"}]);
    let body = json!({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]});
    let whole = once(gemini, body).await.unwrap();
    assert_eq!((whole.text.as_str(), whole.media), ("so", 1));
    let whole = once(gemini, json!({"promptFeedback": {"blockReason": "SAFETY"}}))
        .await
        .unwrap();
    assert_eq!(whole.finish, Some(FinishReason::ContentFilter));

    // Half a character, which JSON can contain.
    for reason in [r#","finish_reason":"stop""#, ""] {
        let body = format!(r#"{{"choices":[{{"message":{{"content":"a\ud83e"}}{reason}}}]}}"#);
        let answer = Answer::new().body("application/json", body);
        let provider = ScriptedProvider::start([answer]).await.unwrap();
        let whole = send(openai(&provider.base_url()).chat_once(&json!({})));
        assert_eq!(whole.await.unwrap().text, "a\u{fffd}");
    }
}

#[tokio::test]
async fn embeddings_come_in_the_order_of_the_inputs() {
    let vectors = [vec![0.5_f32, -0.25, 1e-8], vec![1.0, 2.0, 3.0]];
    let scripted = Answer::embeddings(vectors.clone()).usage(Usage::new().input(8));
    let provider = ScriptedProvider::answering(move |_| scripted.clone())
        .await
        .unwrap();
    let url = provider.base_url();
    let openai = openai(&url);
    for format in ["float", "base64"] {
        let request = json!({"model": "e", "input": ["a", "b"], "encoding_format": format});
        let embeddings = send(openai.embeddings(&request)).await.unwrap();
        assert_eq!(embeddings.vectors, vectors, "{format}");
        assert_eq!(embeddings.usage, Some(Usage::new().input(8).total(8)));
        assert_eq!(embeddings.model.as_deref(), Some("e"));
        let view = embeddings.view();
        assert_eq!((view.kind, view.text), (TokenKind::Other, ""));
        assert_eq!((view.usage, view.model), (embeddings.usage, Some("e")));
        assert!(!format!("{embeddings:?}").contains("0.5"));
        let json = serde_json::to_string(&embeddings).unwrap();
        assert_eq!(
            serde_json::from_str::<Embeddings>(&json).unwrap(),
            embeddings
        );
    }
    let gemini = gemini(&url);
    let one = send(gemini.embed_content("e", &json!({}))).await.unwrap();
    assert_eq!(one.vectors, vectors[..1]);
    assert_eq!(one.usage.unwrap().input, Some(8));
    let both = send(gemini.batch_embed_contents("e", &json!({})))
        .await
        .unwrap();
    assert_eq!(both.vectors, vectors);
    let lists = send(ollama(&url).embed(&json!({"model": "e"}))).await;
    let lists = lists.unwrap();
    assert_eq!(lists.vectors, vectors);
    assert_eq!(lists.usage.unwrap().input, Some(8));
    assert_eq!(lists.model.as_deref(), Some("e"));
    let paths = provider.requests();
    let paths: Vec<_> = paths.iter().map(|request| request.path.as_str()).collect();
    let gemini = [
        "/v1beta/models/e:embedContent",
        "/v1beta/models/e:batchEmbedContents",
    ];
    let [one, several] = gemini;
    assert_eq!(
        paths,
        ["/embeddings", "/embeddings", one, several, "/api/embed"]
    );
}

#[tokio::test]
async fn embeddings_of_every_shape() {
    let read = async |body: &str| {
        let answer = Answer::new().body("application/json", body.to_owned());
        let provider = ScriptedProvider::start([answer]).await.unwrap();
        send(openai(&provider.base_url()).embeddings(&json!({}))).await
    };
    for (body, firsts) in [
        (
            r#"{"data":[{"index":1,"embedding":[1]},{"index":0,"embedding":[0]}]}"#,
            &[0.0, 1.0][..],
        ),
        (
            r#"{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[0]}]}"#,
            &[1.0, 0.0],
        ),
        (
            r#"{"data":[{"index":1,"embedding":[1]},{"embedding":[0]}]}"#,
            &[1.0, 0.0],
        ),
        (
            r#"{"data":[{"index":5,"embedding":[1]},{"index":0,"embedding":[0]}]}"#,
            &[1.0, 0.0],
        ),
        (r#"{"data":[],"error":null,"usage":null,"model":7}"#, &[]),
    ] {
        let vectors = read(body).await.unwrap().vectors;
        let found: Vec<_> = vectors.iter().map(|vector| vector[0]).collect();
        assert_eq!(found, firsts, "{body}");
    }
    for body in [
        "{}",
        r#"{"data":null}"#,
        r#"{"data":["a"]}"#,
        r#"{"data":[{"index":0}]}"#,
        r#"{"data":[{"embedding":[1]},{"index":0}]}"#,
        r#"{"data":[{"embedding":["a canary"]}]}"#,
        r#"{"data":[{"embedding":[null]}]}"#,
        r#"{"data":[{"embedding":"a canary"}]}"#,
        r#"{"data":[{"embedding":"AAA="}]}"#,
        "[]",
        "a canary",
        "",
    ] {
        let error = read(body).await.unwrap_err();
        assert!(
            matches!(error, ProviderError::NotAnAnswer(_)),
            "{body}: {error:?}"
        );
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
    for body in [
        r#"{"data":[{"embedding":[1,"#,
        r#"{"data":[{"embedding":[NaN]}]}"#,
    ] {
        let error = read(body).await.unwrap_err();
        assert!(matches!(error, ProviderError::Json(_)), "{body}: {error:?}");
    }
    let error = read(r#"{"error":{"type":"overloaded_error","message":"m"}}"#).await;
    assert!(matches!(error, Err(ProviderError::Api(_))), "{error:?}");
    let provider = ScriptedProvider::start([Answer::status(429)])
        .await
        .unwrap();
    let error = send(openai(&provider.base_url()).embeddings(&json!({})))
        .await
        .unwrap_err();
    assert_eq!(error.failure().kind, FailureKind::RateLimited);
}

#[tokio::test]
async fn nothing_secret_shows() {
    let url = "http://user:canary@h:1/v1?key=canary";
    for api in &APIS {
        let request = (api.request)("canary");
        for shown in [
            format!("{:?}", (api.stream)(url, &request)),
            format!("{:#?}", (api.once)(url, &request)),
        ] {
            assert!(!shown.contains("canary"), "{shown}");
            assert!(shown.contains("http://h:1/v1"), "{shown}");
        }
    }
    let request = openai(url).embeddings(&json!({"input": "canary"}));
    assert!(!format!("{request:?}").contains("canary"));

    // A server can repeat the key in values that are exported.
    let body = format!(
        r#"{{"id":"x-{KEY}","model":"{KEY}","choices":[{{"message":{{"content":"a"}},"finish_reason":"stop"}}],"data":[]}}"#
    );
    let (address, _requests) =
        server(answer("200 OK\r\ncontent-type: application/json", &body)).await;
    let whole = send(openai(&address).chat_once(&json!({}))).await.unwrap();
    assert_eq!(whole.model.as_deref(), Some("[redacted]"));
    assert!(!format!("{whole:?}").contains("canary"));
    let embeddings = send(openai(&address).embeddings(&json!({}))).await.unwrap();
    assert_eq!(embeddings.model.as_deref(), Some("[redacted]"));
    assert!(!format!("{embeddings:?}").contains("canary"));

    let body = format!(r#"{{"error":{{"type":"{KEY}","message":"bad key {KEY}"}}}}"#);
    let label = "content-type: application/json";
    for reply in [
        answer(&format!("401 No\r\n{label}"), &body),
        answer(&format!("200 OK\r\n{label}"), &body),
        streamed(&sse(&[&body])),
    ] {
        let (address, _requests) = server(reply).await;
        for api in &APIS {
            let error = send((api.once)(&address, &request_of(api)))
                .await
                .unwrap_err();
            if matches!(error, ProviderError::NotAnAnswer(_)) && api.is_ollama() {
                // Events are another protocol for this API.
                continue;
            }
            let ProviderError::Api(error) = error else {
                panic!("{error:?}");
            };
            let shown = format!("{error:#} {error:?}");
            assert!(!shown.contains("canary"), "{shown}");
        }
    }
}

#[test]
fn types_can_cross_threads() {
    fn send_sync<T: Send + Sync + Unpin + Clone + 'static>() {}
    fn is_send<T: Send>(_: &T) {}
    send_sync::<ProviderRequest<ProviderStream>>();
    send_sync::<ProviderRequest<Completion>>();
    send_sync::<ProviderRequest<Embeddings>>();
    let mut request = openai("http://h").chat_once(&json!({}));
    is_send(&request.connect(attempt()));
}
