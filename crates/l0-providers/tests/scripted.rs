//! The scripted provider, read by the clients of all APIs: everything in the script arrives.
#![cfg(all(
    feature = "anthropic",
    feature = "gemini",
    feature = "reqwest",
    feature = "responses",
    feature = "testing"
))]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::{Duration, Instant};

use common::server::{APIS, Api, KEY, OLLAMA_API};
use common::*;
use futures_util::StreamExt;
use l0_core::{Failure, FailureKind, FinishReason, Token, TokenKind, Usage};
use l0_providers::testing::{Answer, ScriptedProvider};
use l0_providers::{ProviderError, ProviderStream, ProviderToken, ToolCalls};
use reqwest::StatusCode;
use serde_json::{Value, json};

type Error = ProviderError<reqwest::Error>;

async fn ask(api: Api, answer: &Answer) -> (ScriptedProvider, Result<ProviderStream, Error>) {
    let provider = ScriptedProvider::start([answer.clone()]).await.unwrap();
    let url = format!("{}{}", provider.base_url(), api.base);
    let stream = (api.ask)(&url, "hi").await;
    (provider, stream)
}

/// All tokens, and the error after them.
async fn answered(api: Api, answer: &Answer) -> (Vec<ProviderToken>, Option<Error>) {
    let (_provider, stream) = ask(api, answer).await;
    let mut stream = match stream {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut tokens = Vec::new();
    while let Some(item) = stream.next().await {
        match item {
            Ok(token) => tokens.push(token),
            Err(error) => return (tokens, Some(error)),
        }
    }
    (tokens, None)
}

fn apis() -> impl Iterator<Item = Api> {
    APIS.into_iter().chain([OLLAMA_API])
}

fn of(tokens: &[ProviderToken], kind: TokenKind) -> Vec<&str> {
    let of_kind = tokens.iter().filter(|token| token.kind == kind);
    of_kind.map(|token| token.view().text).collect()
}

#[tokio::test]
async fn an_answer_arrives_as_scripted() {
    let mut usage = Usage::new().input(100).output(30).total(130);
    usage = usage.cached_input(40).cache_write_input(20).reasoning(10);
    let answer = Answer::new()
        .reasoning("Let me ")
        .reasoning("think.")
        .tokens(["H\u{e4}", "l\n\"lo"])
        .tool_call("call_1", "get_weather", [r#"{"city":"#, r#""Bern"}"#])
        .tool_call("call_2", "now", [""; 0])
        .token("!")
        .usage(usage);
    for api in apis() {
        let name = api.dialect.name;
        let answer = match name {
            "ollama" => answer.clone().raw("\n{\"unknown\":1}\n"),
            _ => answer.clone().raw(": a comment\n\n"),
        };
        let (tokens, error) = answered(api, &answer).await;
        assert!(error.is_none(), "{name}: {error:?}");
        assert_eq!(
            of(&tokens, TokenKind::Reasoning),
            ["Let me ", "think."],
            "{name}"
        );
        assert_eq!(
            of(&tokens, TokenKind::Text),
            ["H\u{e4}", "l\n\"lo", "!"],
            "{name}"
        );

        let mut calls = ToolCalls::new();
        for token in &tokens {
            calls.push(token).unwrap();
        }
        let calls = calls.finish();
        let calls: Vec<_> = calls
            .iter()
            .map(|call| {
                (
                    call.index,
                    call.id.as_deref(),
                    &*call.name,
                    &*call.arguments,
                )
            })
            .collect();
        let expected = [
            (0, Some("call_1"), "get_weather", r#"{"city":"Bern"}"#),
            (1, Some("call_2"), "now", "{}"),
        ];
        assert_eq!(calls, expected, "{name}");

        let finish = tokens.iter().find_map(|token| token.finish);
        assert_eq!(finish, Some(FinishReason::ToolCalls), "{name}");
        let actual = tokens.iter().filter_map(|token| token.usage).next_back();
        let mut expected = usage;
        if name == "ollama" {
            expected = Usage::new().input(100).output(30).total(130);
        }
        if name == "anthropic" {
            // The API has no field for them.
            expected.reasoning = None;
        }
        if name == "gemini" {
            expected.cache_write_input = None;
        }
        assert_eq!(actual, Some(expected), "{name}");
        let first = |field: fn(&ProviderToken) -> Option<&str>| tokens.iter().find_map(field);
        assert_eq!(first(|token| token.model.as_deref()), Some("m"), "{name}");
        let id = first(|token| token.response_id.as_deref());
        let expected = (name != "ollama").then_some("scripted-1");
        assert_eq!(id, expected, "{name}");
    }
}

#[tokio::test]
async fn every_finish_reason_arrives() {
    for api in apis() {
        let name = api.dialect.name;
        let (tokens, _) = answered(api, &Answer::text(["a"])).await;
        let finish = tokens.iter().find_map(|token| token.finish);
        assert_eq!(finish, Some(FinishReason::Stop), "{name}");
        assert!(tokens.iter().all(|token| token.usage.is_none()), "{name}");
        for finish in [
            FinishReason::Stop,
            FinishReason::Length,
            FinishReason::ContentFilter,
            FinishReason::Refusal,
            FinishReason::Other,
        ] {
            let answer = Answer::text(["a"]).finish(finish);
            let (tokens, error) = answered(api, &answer).await;
            assert!(error.is_none(), "{name}: {error:?}");
            let actual = tokens.iter().find_map(|token| token.finish);
            assert_eq!(actual, Some(finish), "{name}");
        }
    }
}

#[tokio::test]
async fn errors_arrive_with_their_meaning_before_the_stream_and_in_it() {
    for api in apis() {
        let name = api.dialect.name;
        for status in [400, 401, 403, 404, 429, 500, 503, 529] {
            let expected = Failure::status(status);
            let answer = Answer::status(status)
                .message("my words")
                .header("retry-after", "7")
                .header("x-request-id", "r-1");
            let (_, error) = answered(api, &answer).await;
            let Some(ProviderError::Api(error)) = error else {
                panic!("{name}, {status}: {error:?}")
            };
            assert_eq!(error.status(), Some(status), "{name}");
            assert_eq!(error.failure().kind, expected.kind, "{name}, {status}");
            assert_eq!(error.message(), Some("my words"), "{name}");
            assert_eq!(error.retry_after(), Some(Duration::from_secs(7)), "{name}");
            assert_eq!(error.request_id(), Some("r-1"), "{name}");

            let answer = Answer::text(["a"]).error(status, "my words").token("never");
            let (tokens, error) = answered(api, &answer).await;
            assert_eq!(of(&tokens, TokenKind::Text), ["a"], "{name}");
            let Some(ProviderError::Api(error)) = error else {
                panic!("{name}, {status} in the stream: {error:?}")
            };
            // Ollama sends no status in the stream.
            let kind = match name {
                "ollama" => FailureKind::Server,
                _ => expected.kind,
            };
            assert_eq!(error.failure().kind, kind, "{name}, {status}: {error:?}");
            assert_eq!(error.message(), Some("my words"), "{name}");
        }
    }
}

#[tokio::test]
async fn a_stream_ends_early_in_each_way() {
    for api in apis() {
        let name = api.dialect.name;
        let begun = Answer::text(["a", "b"]);
        let (tokens, error) = answered(api, &begun.clone().end().token("never")).await;
        assert!(error.is_none(), "{name}: {error:?}");
        assert_eq!(of(&tokens, TokenKind::Text), ["a", "b"], "{name}");
        assert!(tokens.iter().all(|token| token.finish.is_none()), "{name}");

        let (tokens, error) = answered(api, &begun.clone().cut().token("never")).await;
        assert_eq!(of(&tokens, TokenKind::Text), ["a", "b"], "{name}");
        assert!(
            matches!(error, Some(ProviderError::Transport(_))),
            "{name}: {error:?}"
        );

        let (_provider, stream) = ask(api, &begun.hang()).await;
        let mut stream = stream.unwrap();
        let mut text = String::new();
        while text.len() < 2 {
            text.push_str(stream.next().await.unwrap().unwrap().answer());
        }
        let more = tokio::time::timeout(Duration::from_millis(30), stream.next()).await;
        assert!(more.is_err(), "{name}: {more:?}");

        let silent = Answer::text(["never"]).connect_hang();
        let connected = tokio::time::timeout(Duration::from_millis(30), ask(api, &silent)).await;
        assert!(connected.is_err(), "{name}");
    }
}

#[tokio::test]
async fn scripted_waits_are_kept() {
    const PAUSE: Duration = Duration::from_millis(30);
    for api in apis() {
        let name = api.dialect.name;
        let start = Instant::now();
        let answer = Answer::text(["a"])
            .wait(PAUSE)
            .token("b")
            .connect_wait(PAUSE);
        let (_provider, stream) = ask(api, &answer).await;
        assert!(start.elapsed() >= PAUSE, "{name}");
        let tokens: Vec<_> = stream.unwrap().map(Result::unwrap).collect().await;
        assert!(start.elapsed() >= 2 * PAUSE, "{name}");
        assert_eq!(of(&tokens, TokenKind::Text), ["a", "b"], "{name}");
    }
}

#[tokio::test]
async fn requests_are_kept_without_secrets() {
    for api in apis() {
        let name = api.dialect.name;
        let (provider, stream) = ask(api, &Answer::text(["a"])).await;
        drop(stream.unwrap());
        let requests = provider.requests();
        assert_eq!(requests.len(), 1, "{name}");
        let request = &requests[0];
        let (path, key) = match name {
            "openai-chat" => ("/v1/chat/completions", "authorization"),
            "openai-responses" => ("/v1/responses", "authorization"),
            "anthropic" => ("/v1/messages", "x-api-key"),
            "ollama" => ("/api/chat", "authorization"),
            _ => ("/v1beta/models/m:streamGenerateContent", "x-goog-api-key"),
        };
        assert_eq!((&*request.method, &*request.path), ("POST", path));
        assert_eq!(request.headers[key], "(hidden)", "{name}");
        assert_eq!(request.headers["content-type"], "application/json");
        assert_eq!(request.model(), Some("m"), "{name}");
        assert!(request.body.to_string().contains("\"hi\""), "{name}");
        assert!(!format!("{requests:?}{provider:?}").contains(KEY), "{name}");
    }
}

async fn post(url: &str, body: &str) -> (StatusCode, Value) {
    let response = reqwest::Client::new().post(url).body(body.to_owned());
    let response = response.send().await.unwrap();
    let status = response.status();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test]
async fn a_request_without_a_fitting_answer_gets_an_error() {
    let whole = json!({"object": "list", "data": []});
    let provider = ScriptedProvider::start([
        Answer::text(["a"]),
        Answer::json(&whole).header("x-extra", "1"),
        Answer::status(503),
    ])
    .await
    .unwrap();
    let chat = format!("{}/any/v1/chat/completions", provider.base_url());
    let other = format!("{}/v1/embeddings", provider.base_url());
    let stream = r#"{"model":"m","stream":true}"#;

    let refused = async |url: &str| {
        let (status, body) = post(url, stream).await;
        let message = body["error"]["message"].as_str().unwrap().to_owned();
        (status.as_u16(), message)
    };
    let (status, message) = refused(&other).await;
    assert_eq!(status, 400);
    assert!(
        message.starts_with("the request asks for embeddings"),
        "{message}"
    );
    assert!(message.contains("/v1/embeddings"), "{message}");
    let unknown = format!("{}/v1/images", provider.base_url());
    assert_eq!(refused(&unknown).await.0, 404);
    let vectors = ScriptedProvider::start([Answer::embeddings([[0.5]])]);
    let vectors = vectors.await.unwrap();
    let (status, message) = refused(&format!("{}/v1/messages", vectors.base_url())).await;
    assert_eq!(status, 400);
    assert!(
        message.starts_with("the request does not ask for embeddings"),
        "{message}"
    );

    // The answers are still available.
    assert_eq!(post(&chat, stream).await.0, 200);
    let (status, body) = post(&other, "no JSON").await;
    assert_eq!((status.as_u16(), &body), (200, &whole));
    assert_eq!(post(&other, "").await.0, 503);

    let (status, body) = post(&chat, stream).await;
    assert_eq!(status, 404);
    let message = body["error"]["message"].as_str().unwrap();
    assert_eq!(message, "the script has no answer for request 6");
    let bodies: Vec<_> = provider.requests().into_iter().map(|r| r.body).collect();
    assert_eq!(bodies[3], "no JSON");
    assert_eq!(bodies[4], Value::Null);

    let (status, _) = post(&chat, &" ".repeat(17 * 1024 * 1024)).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn answers_can_depend_on_the_request() {
    let provider = ScriptedProvider::answering(|request| {
        let prompt = request.body["messages"][0]["content"].as_str();
        Answer::text(["You said: ", prompt.unwrap_or_default()])
    })
    .await
    .unwrap();
    for prompt in ["a", "b"] {
        let url = format!("{}/v1", provider.base_url());
        let stream = (APIS[0].ask)(&url, prompt).await.unwrap();
        let tokens: Vec<_> = stream.map(Result::unwrap).collect().await;
        assert_eq!(text_of(&tokens), format!("You said: {prompt}"));
    }
}

#[tokio::test]
async fn a_server_that_is_dropped_stops() {
    let (provider, stream) = ask(APIS[0], &Answer::text(["a"]).hang()).await;
    let url = provider.base_url();
    assert!(url.starts_with("http://127.0.0.1:"), "{url}");
    drop(provider);
    // Its connections end too.
    let items = tokio::time::timeout(Duration::from_secs(60), stream.unwrap().collect::<Vec<_>>());
    let items = items.await.expect("its connections end");
    assert!(items.last().unwrap().is_err());
    let refused = reqwest::Client::new().post(url).send().await.unwrap_err();
    assert!(refused.is_connect(), "{refused:?}");
}

#[test]
#[should_panic(expected = "100 is not a final status")]
fn a_status_that_is_not_final_panics() {
    let _ = Answer::status(100);
}
