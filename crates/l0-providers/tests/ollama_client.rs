//! The client of Ollama's own API: what it sends, and how a run ends for each failure.
#![cfg(all(feature = "reqwest", feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::server::{KEY, OLLAMA_API, answer, server};
use common::*;
use futures_util::StreamExt;
use l0_core::{Backoff, FailureKind, FinishReason, L0, Monitoring, Outcome, Retry, Telemetry};
use l0_providers::ollama::Client;
use l0_providers::testing::{Answer, ScriptedProvider};
use l0_providers::{ProviderError, ProviderStream};
use serde_json::{Value, json};

type Error = ProviderError<reqwest::Error>;

fn chat() -> Value {
    json!({
        "model": "llama3.2",
        "messages": [{"role": "user", "content": "hi", "images": ["aGk="]}],
        "options": {"num_ctx": 8192, "temperature": 0.2},
        "keep_alive": "10m",
        "think": true,
    })
}

fn l0() -> L0 {
    let retry = Retry::new().model_retries(1).max_retries(2);
    let retry = retry.backoff(Backoff::none());
    let l0 = L0::builder().monitoring(Monitoring::new()).retry(retry);
    l0.build()
}

/// Runs a chat. Returns its text or error, and the telemetry.
async fn run(url: &str) -> (Result<String, l0_core::Error<Error>>, Telemetry) {
    let client = Client::new(url).unwrap();
    let mut run = l0().stream_from(client.chat(&chat())).start();
    let text = run.text().await;
    (text, run.telemetry().unwrap())
}

#[tokio::test]
async fn a_request_is_sent_unchanged_except_for_the_stream_field() {
    let provider = ScriptedProvider::answering(|_| Answer::text(["Hel", "lo"]));
    let provider = provider.await.unwrap();
    let client = Client::new(&provider.base_url()).unwrap();
    let tokens = client.chat_stream(&chat()).await.unwrap();
    let tokens: Vec<_> = tokens.map(Result::unwrap).collect().await;
    assert_eq!(text_of(&tokens), "Hello");
    let prompt = json!({"model": "m", "prompt": "hi", "keep_alive": -1});
    let tokens = client.generate_stream(&prompt).await.unwrap();
    let tokens: Vec<_> = tokens.map(Result::unwrap).collect().await;
    assert_eq!(text_of(&tokens), "Hello");

    let sent = provider.requests();
    let mut body = chat();
    body["stream"] = true.into();
    assert_eq!((&*sent[0].path, &sent[0].body), ("/api/chat", &body));
    assert_eq!(sent[0].headers["accept"], "application/x-ndjson");
    assert_eq!(sent[0].headers["content-type"], "application/json");
    assert!(!sent[0].headers.contains_key("authorization"), "no key");
    let body = json!({"model": "m", "prompt": "hi", "keep_alive": -1, "stream": true});
    assert_eq!((&*sent[1].path, &sent[1].body), ("/api/generate", &body));

    let keyed = client.api_key(KEY).unwrap();
    drop(keyed.chat(&chat()));
    let _ = keyed.chat_stream(&chat()).await.unwrap();
    let sent = provider.requests();
    assert_eq!(sent[2].headers["authorization"], "(hidden)");
    assert!(!format!("{keyed:?}").contains("canary"));
}

#[tokio::test]
async fn statuses_have_their_meaning() {
    // Synthetic, in the form of the server's own errors.
    for (head, body, kind, calls) in [
        (
            "404 Not Found",
            r#"{"error":"model 'llama3.2' not found"}"#,
            FailureKind::Fatal,
            1,
        ),
        (
            "400 Bad Request",
            r#"{"error":"\"llama3.2\" does not support thinking"}"#,
            FailureKind::Fatal,
            1,
        ),
        (
            "401 Unauthorized",
            r#"{"error":"unauthorized","signin_url":"https://h/connect?key=canary"}"#,
            FailureKind::Fatal,
            1,
        ),
        (
            "429 Too Many Requests",
            r#"{"error":"you have reached your limit"}"#,
            FailureKind::RateLimited,
            3,
        ),
        (
            "500 Internal Server Error",
            r#"{"error":"the model runner has stopped"}"#,
            FailureKind::Server,
            3,
        ),
        (
            "502 Bad Gateway",
            r#"{"error":"the cloud cannot be reached"}"#,
            FailureKind::Server,
            3,
        ),
        (
            "503 Service Unavailable",
            r#"{"error":"server busy, please try again"}"#,
            FailureKind::Server,
            3,
        ),
        // A server with another API.
        ("404 Not Found", "404 page not found", FailureKind::Fatal, 1),
    ] {
        let head = format!("{head}\r\ncontent-type: application/json");
        let (url, mut requests) = server(answer(&head, body)).await;
        let (text, telemetry) = run(&url.replace("/v1", "")).await;
        let Err(l0_core::Error::Source { source, .. }) = text else {
            panic!("{body}: {text:?}")
        };
        let ProviderError::Api(error) = &source else {
            panic!("{body}: {source:?}")
        };
        assert_eq!(error.failure().kind, kind, "{body}");
        assert_eq!(error.status(), head[..3].parse().ok());
        let shown = format!("{source} {source:?} {telemetry:?}");
        for words in ["canary", "llama3.2' not", "busy"] {
            assert!(!shown.contains(words), "{shown}");
        }
        let mut sent = 0;
        while requests.try_recv().is_ok() {
            sent += 1;
        }
        assert_eq!(sent, calls, "{body}");
    }
}

#[tokio::test]
async fn without_ollama_the_connection_is_refused_and_retried() {
    // Bound but not listening, so no other program gets the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let (text, telemetry) = run(&format!("http://{address}")).await;
    let Err(l0_core::Error::Source { source, .. }) = text else {
        panic!("{text:?}")
    };
    assert!(matches!(source, ProviderError::Transport(_)), "{source:?}");
    assert_eq!(telemetry.outcome, Some(Outcome::Failed));
    let json = serde_json::to_value(&telemetry).unwrap();
    assert_eq!(
        json["network"]["errorsByType"],
        json!({"econnrefused": 3}),
        "{json}"
    );
}

#[tokio::test]
async fn a_stream_without_its_last_line_is_truncated_and_retried() {
    for broken in [
        Answer::text(["Hel"]).end(),
        Answer::text(["Hel"]).cut(),
        Answer::text(["Hel"]).error(500, "the model runner has stopped"),
        Answer::text(["Hel"])
            .raw("{\"message\":{\"content\":\"lo\"},\"do")
            .end(),
        Answer::text(["Hel"]).raw("{\"message\":{\"content\":\"lo\"\n"),
    ] {
        let good = Answer::new()
            .reasoning("Hm.")
            .tokens(["Hel", "lo"])
            .usage(l0_core::Usage::new().input(3).output(4));
        let provider = ScriptedProvider::start([broken.clone(), good]);
        let provider = provider.await.unwrap();
        let (text, telemetry) = run(&provider.base_url()).await;
        assert_eq!(text.unwrap(), "Hello", "{broken:?}");
        assert_eq!(telemetry.outcome, Some(Outcome::Completed));
        assert_eq!(telemetry.finish_reason, Some(FinishReason::Stop));
        let usage = telemetry.usage.unwrap();
        assert_eq!((usage.input, usage.output), (Some(3), Some(4)));
        assert_eq!(provider.requests().len(), 2, "{broken:?}");
    }
}

#[tokio::test]
async fn a_model_is_loaded_by_a_call_without_a_prompt() {
    let loaded = Answer::json(&json!({
        "model": "m", "created_at": "2026-01-01T00:00:00Z", "response": "", "done": true,
        "done_reason": "load",
    }));
    let provider = ScriptedProvider::start([loaded]).await.unwrap();
    let client = Client::new(&provider.base_url()).unwrap();
    let request = client.generate_once(&json!({"model": "m", "keep_alive": "10m"}));
    let completion = l0().call_from(request).start().await.unwrap();
    assert_eq!(completion.finish_reason.as_deref(), Some("load"));
    assert_eq!(completion.finish, Some(FinishReason::Other));
    assert_eq!(completion.text, "");
}

#[tokio::test]
async fn the_body_decides_for_any_content_type() {
    let lines =
        "{\"message\":{\"content\":\"Hi\"},\"done\":false}\n{\"message\":{},\"done\":true}\n";
    for label in [
        "application/x-ndjson",
        "application/json",
        "application/jsonl",
        "text/event-stream",
        "text/plain",
        "application/octet-stream",
    ] {
        for body in [lines.to_owned(), format!("\u{feff}\n{lines}")] {
            let head = format!("200 OK\r\ncontent-type: {label}");
            let (url, _requests) = server(answer(&head, &body)).await;
            let stream: Result<ProviderStream, Error> = (OLLAMA_API.ask)(&url, "hi").await;
            let tokens: Vec<_> = stream.unwrap().map(Result::unwrap).collect().await;
            assert_eq!(text_of(&tokens), "Hi", "{label}");
            assert_eq!(finishes(&tokens), [(None, Some(FinishReason::Other))]);
        }
    }
    for (label, body, named) in [
        ("text/event-stream", "data: {}\n\n", "text/event-stream"),
        ("application/x-ndjson", "data: {}\n\n", "text/event-stream"),
        ("text/html", "<html>", "text/html"),
        (
            "application/x-ndjson",
            "{\"choices\":[]}\n",
            "application/json",
        ),
        ("application/grpc", "\0\0\0", "application/grpc"),
    ] {
        let head = format!("200 OK\r\ncontent-type: {label}");
        let (url, _requests) = server(answer(&head, body)).await;
        let error = match (OLLAMA_API.ask)(&url, "hi").await {
            Ok(mut stream) => stream.next().await.unwrap().unwrap_err(),
            Err(error) => error,
        };
        let ProviderError::NotAnAnswer(not) = error else {
            panic!("{label}: {error:?}")
        };
        assert_eq!(not.content_type, named, "{label} {body}");
    }
}
