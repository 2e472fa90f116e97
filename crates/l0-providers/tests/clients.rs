//! The clients of all providers' APIs against a small server on the loopback interface.
#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::Duration;

use common::server::{APIS, Api, KEY, answer, server, streamed};
use common::*;
use futures_util::StreamExt;
use l0_core::{Failure, FailureKind, FinishReason};
use l0_providers::{ApiError, ProviderError, ProviderStream, ProviderToken, anthropic, gemini};
use serde_json::{Value, json};

type Error = ProviderError<reqwest::Error>;

/// "Hello" in one piece, complete.
fn hello(api: Api) -> String {
    let payloads: &[&str] = match api.dialect.name {
        "openai-chat" => &[r#"{"choices":[{"delta":{"content":"Hello"},"finish_reason":"stop"}]}"#],
        "openai-responses" => &[
            r#"{"type":"response.output_text.delta","delta":"Hello"}"#,
            r#"{"type":"response.completed","response":{"status":"completed"}}"#,
        ],
        "anthropic" => &[
            r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"Hello"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
        ],
        _ => {
            &[r#"{"candidates":[{"content":{"parts":[{"text":"Hello"}]},"finishReason":"STOP"}]}"#]
        }
    };
    sse(payloads)
}

async fn ask(api: Api, answer: impl Into<Vec<u8>>) -> Result<ProviderStream, Error> {
    let (address, _requests) = server(answer).await;
    (api.ask)(&address, "hi").await
}

async fn api_error(api: Api, answer: impl Into<Vec<u8>>) -> ApiError {
    match ask(api, answer).await {
        Err(ProviderError::Api(error)) => *error,
        other => panic!("{}: no API error: {other:?}", api.dialect.name),
    }
}

async fn collect(stream: ProviderStream) -> (Vec<ProviderToken>, Option<Error>) {
    let mut tokens = Vec::new();
    let mut error = None;
    for item in stream.collect::<Vec<_>>().await {
        match item {
            Ok(token) => tokens.push(token),
            Err(e) => error = Some(e),
        }
    }
    (tokens, error)
}

#[tokio::test]
async fn each_client_sends_its_own_kind_of_request() {
    for api in APIS {
        let (path, key, body) = match api.dialect.name {
            "openai-chat" => (
                "/v1/chat/completions",
                "authorization: bearer a-canary-key",
                json!({
                    "model": "m", "messages": [{"role": "user", "content": "hi"}],
                    "stream": true, "stream_options": {"include_usage": true},
                }),
            ),
            "openai-responses" => (
                "/v1/responses",
                "authorization: bearer a-canary-key",
                json!({"model": "m", "input": "hi", "stream": true}),
            ),
            "anthropic" => (
                "/v1/messages",
                "x-api-key: a-canary-key",
                json!({
                    "model": "m", "max_tokens": 99,
                    "messages": [{"role": "user", "content": "hi"}], "stream": true,
                }),
            ),
            _ => (
                "/v1/models/m:streamgeneratecontent?alt=sse",
                "x-goog-api-key: a-canary-key",
                json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
            ),
        };
        let (address, mut requests) = server(streamed(&hello(api))).await;
        let (tokens, error) = collect((api.ask)(&address, "hi").await.unwrap()).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(text_of(&tokens), "Hello");
        let finish = tokens.iter().find_map(|token| token.finish);
        assert_eq!(finish, Some(FinishReason::Stop));

        let sent = requests.recv().await.unwrap();
        let (head, sent) = sent.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with(&format!("post {path} http/1.1")), "{head}");
        assert_eq!(head.matches(KEY).count(), 1, "{head}");
        for line in [
            key,
            "content-type: application/json",
            "accept: text/event-stream",
        ] {
            assert!(head.lines().any(|other| other == line), "{line}: {head}");
        }
        let version = head
            .lines()
            .any(|line| line == "anthropic-version: 2023-06-01");
        assert_eq!(version, api.dialect.name == "anthropic");
        assert_eq!(serde_json::from_str::<Value>(sent).unwrap(), body);
    }
}

#[tokio::test]
async fn a_response_to_a_request_of_your_own() {
    for api in APIS {
        let (address, _requests) = server(streamed(&hello(api))).await;
        let response = reqwest::get(address).await.unwrap();
        let stream = (api.from_response)(response).await.unwrap();
        assert_eq!(text_of(&collect(stream).await.0), "Hello");

        let head = "503 Busy\r\nretry-after: 2";
        let (address, _requests) = server(answer(head, "")).await;
        let response = reqwest::get(address).await.unwrap();
        let error = (api.from_response)(response).await.unwrap_err();
        let failure = Failure::status(503).retry_after(Duration::from_secs(2));
        assert_eq!(error.failure(), failure);
    }
}

#[tokio::test]
async fn addresses_are_completed() {
    for (base, path) in [
        ("", "/v1/messages"),
        ("/", "/v1/messages"),
        ("/v1", "/v1/messages"),
        ("/v1/", "/v1/messages"),
        ("/v1/messages", "/v1/messages"),
        ("/proxy/anthropic", "/proxy/anthropic/v1/messages"),
        ("/v1?key=1", "/v1/messages?key=1"),
    ] {
        let (address, mut requests) = server(answer("500 No", "")).await;
        let address = address.replace("/v1", base);
        let client = anthropic::Client::new(&address).unwrap();
        assert!(client.messages_stream(&json!({})).await.is_err());
        let sent = requests.recv().await.unwrap();
        assert!(
            sent.starts_with(&format!("POST {path} HTTP")),
            "{base}: {sent}"
        );
    }
}

#[tokio::test]
async fn errors_in_place_of_a_stream_are_the_providers_own() {
    let json = "content-type: application/json";
    for api in APIS {
        let (head, body, error_type, kind) = match api.dialect.name {
            "anthropic" => (
                "529 Overloaded\r\nrequest-id: r-1",
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"},"request_id":"r-2"}"#,
                "overloaded_error",
                FailureKind::Server,
            ),
            "gemini" => (
                "429 Too Many\r\nx-request-id: r-1",
                r#"{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"3s"}]}}"#,
                "RESOURCE_EXHAUSTED",
                FailureKind::RateLimited,
            ),
            _ => (
                "429 Too Many\r\nx-request-id: r-1",
                r#"{"error":{"message":"m","type":"tokens","code":"rate_limit_exceeded"}}"#,
                "tokens",
                FailureKind::RateLimited,
            ),
        };
        let error = api_error(api, answer(&format!("{head}\r\n{json}"), body)).await;
        assert_eq!(error.status(), head[..3].parse().ok());
        assert_eq!(error.error_type(), Some(error_type));
        assert_eq!(error.message(), Some("m"));
        assert_eq!(error.request_id(), Some("r-1"));
        assert_eq!(error.failure().kind, kind);
        let wait = (api.dialect.name == "gemini").then_some(Duration::from_secs(3));
        assert_eq!(error.retry_after(), wait);

        let head = format!("{head}\r\n{json}\r\nretry-after: 7");
        let error = api_error(api, answer(&head, body)).await;
        assert_eq!(error.failure().retry_after, Some(Duration::from_secs(7)));

        // The same with a successful status.
        let error = api_error(api, answer(&format!("200 OK\r\n{json}"), body)).await;
        assert_eq!(error.failure().kind, kind);
        let error = ask(api, answer(&format!("200 OK\r\n{json}"), "[{}]")).await;
        assert!(
            matches!(error, Err(ProviderError::NotAnAnswer(_))),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_the_transports_error() {
    for api in APIS {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n";
        let body = hello(api);
        let first = body.split_inclusive("\n\n").next().unwrap();
        let stream = ask(api, format!("{head}{first}")).await.unwrap();
        let (tokens, error) = collect(stream).await;
        assert_eq!(text_of(&tokens), "Hello");
        assert!(
            matches!(error, Some(ProviderError::Transport(_))),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn no_redirect_is_followed() {
    for api in APIS {
        let (elsewhere, mut requests) = server(streamed(&hello(api))).await;
        let head = format!("307 Temporary Redirect\r\nlocation: {elsewhere}");
        let error = api_error(api, answer(&head, "")).await;
        assert_eq!(error.failure(), Failure::status(307));
        assert!(
            requests.try_recv().is_err(),
            "nothing reached the other server"
        );
    }
}

#[tokio::test]
async fn nothing_secret_shows() {
    for api in APIS {
        let body = format!(r#"{{"error":{{"type":"x {KEY}","message":"bad key {KEY}"}}}}"#);
        let head = "401 No\r\ncontent-type: application/json";
        let error = api_error(api, answer(head, &body)).await;
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert_eq!(error.message(), Some("bad key [redacted]"));
        assert_eq!(error.error_type(), Some("x [redacted]"));
        let error = (api.ask)("http://user:canary@127.0.0.1:1/canary?key=canary", "canary").await;
        let shown = format!("{error:?}");
        assert!(matches!(error, Err(ProviderError::Transport(_))), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }
    let url = "http://user:canary@h/v1?key=canary";
    let anthropic = anthropic::Client::new(url)
        .unwrap()
        .api_key("canary")
        .unwrap();
    let gemini = gemini::Client::new(url).unwrap().api_key("canary").unwrap();
    let shown = format!("{anthropic:?} {gemini:?}");
    assert!(!shown.contains("canary"), "{shown}");
}
