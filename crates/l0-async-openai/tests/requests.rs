//! Requests: what they send and how they describe themselves.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use async_openai::config::{AzureConfig, Config, OpenAIConfig};
use async_openai::types::chat::CreateChatCompletionRequest;
use async_openai::types::embeddings::CreateEmbeddingRequest;
use async_openai::types::responses::CreateResponse;
use l0_async_openai::{Client, chat, chat_once, embeddings, responses, responses_once};
use l0_core::{Description, L0, Source};
use l0_providers::testing::{Answer, ScriptedProvider};
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json};

fn parsed<T: DeserializeOwned>(value: Value) -> T {
    from_value(value).unwrap()
}

fn client(base: &str) -> Client {
    Client::with_config(OpenAIConfig::new().with_api_base(base).with_api_key("k"))
}

fn parameters(description: &Description) -> Value {
    serde_json::to_value(&description.parameters).unwrap()
}

#[test]
fn requests_describe_themselves() {
    let client = client("https://api.groq.com/openai/v1");
    let request: CreateChatCompletionRequest = parsed(json!({
        "model": "m-1",
        "messages": [{ "role": "user", "content": "Hi" }],
        "temperature": 0.7, "top_p": 0.1, "max_completion_tokens": 5, "frequency_penalty": 0.5,
        "presence_penalty": -0.5, "seed": 3, "n": 2,
    }));
    let messages = json!({ "messages": [{ "role": "user", "content": "Hi" }] });
    let expected = json!({
        "temperature": 0.7, "top_p": 0.1, "max_tokens": 5, "frequency_penalty": 0.5,
        "presence_penalty": -0.5, "seed": 3, "choice.count": 2,
    });
    let check = |description: &Description, operation: &str, streaming: bool| {
        assert_eq!(description.provider.as_deref(), Some("groq"));
        assert_eq!(description.model.as_deref(), Some("m-1"));
        assert_eq!(description.operation.as_deref(), Some(operation));
        assert_eq!(description.server_address.as_deref(), Some("api.groq.com"));
        assert_eq!(description.server_port, Some(443));
        assert_eq!(description.streaming, Some(streaming));
    };
    let stream = chat(&client, request.clone());
    let whole = chat_once(&client, request);
    for (description, input, streaming) in [
        (stream.describe(), stream.input(), true),
        (whole.describe(), whole.input(), false),
    ] {
        check(&description, "chat", streaming);
        assert_eq!(parameters(&description), expected);
        assert_eq!(input, Some(messages.clone()));
    }

    let request: CreateResponse = parsed(json!({
        "model": "m-1", "input": "Hi", "instructions": "Be brief.", "temperature": 0.2,
        "max_output_tokens": 9,
    }));
    let prompt = json!({ "input": "Hi", "instructions": "Be brief." });
    let expected = json!({ "temperature": 0.2, "max_tokens": 9 });
    let stream = responses(&client, request.clone());
    let whole = responses_once(&client, request);
    for (description, input, streaming) in [
        (stream.describe(), stream.input(), true),
        (whole.describe(), whole.input(), false),
    ] {
        check(&description, "chat", streaming);
        assert_eq!(parameters(&description), expected);
        assert_eq!(input, Some(prompt.clone()));
    }

    let request: CreateEmbeddingRequest = parsed(json!({
        "model": "m-1", "input": ["a", "b"], "dimensions": 8, "encoding_format": "float",
    }));
    let source = embeddings(&client, request);
    check(&source.describe(), "embeddings", false);
    let expected = json!({ "embeddings.dimension.count": 8, "encoding_formats": ["float"] });
    assert_eq!(parameters(&source.describe()), expected);
    assert_eq!(source.input(), Some(json!({ "input": ["a", "b"] })));
}

#[test]
fn details_that_the_address_lacks_are_absent() {
    let request = || parsed::<CreateChatCompletionRequest>(json!({ "model": "m", "messages": [] }));
    let place = |base: &str| {
        let description = chat(&client(base), request()).describe();
        let address = description.server_address.map(String::from);
        (description.provider, address, description.server_port)
    };
    let here = Some("127.0.0.1".to_owned());
    assert_eq!(place("http://127.0.0.1:8080/v1"), (None, here, Some(8080)));
    let here = Some("::1".to_owned());
    assert_eq!(place("http://[::1]:8080/v1"), (None, here, Some(8080)));
    assert_eq!(place("no address"), (None, None, None));

    let config = AzureConfig::new()
        .with_api_base("https://mine.openai.azure.com")
        .with_deployment_id("d");
    let description = chat(&Client::with_config(config), request()).describe();
    assert_eq!(description.provider.as_deref(), Some("azure.ai.openai"));
}

#[test]
fn neither_keys_nor_prompts_are_printed() {
    let client = client("http://user:canary@127.0.0.1/canary?key=canary");
    let request: CreateChatCompletionRequest = parsed(json!({
        "model": "m", "messages": [{ "role": "user", "content": "canary" }],
    }));
    let source = chat(&client, request);
    for printed in [format!("{client:?}"), format!("{source:?}")] {
        assert!(!printed.contains("canary"), "{printed}");
    }
}

#[tokio::test]
async fn streams_ask_for_token_counts_unless_disabled() {
    for (requested, sent) in [
        (Value::Null, json!({ "include_usage": true })),
        (
            json!({ "include_obfuscation": false }),
            json!({
                "include_usage": true, "include_obfuscation": false,
            }),
        ),
        (
            json!({ "include_usage": false }),
            json!({ "include_usage": false }),
        ),
    ] {
        let provider = ScriptedProvider::start([Answer::text(["a"]), Answer::text(["a"])]);
        let provider = provider.await.unwrap();
        let client = client(&provider.base_url());
        let request: CreateChatCompletionRequest = parsed(json!({
            "model": "m", "messages": [{ "role": "user", "content": "Hi" }], "stream_options": requested,
        }));
        let l0 = L0::default();
        let mut run = l0.stream_from(chat(&client, request.clone())).start();
        assert_eq!(run.text().await.unwrap(), "a");
        let answer = l0.call_from(chat_once(&client, request)).start();
        let answer = answer.await.unwrap();
        assert_eq!(answer.choices[0].message.content.as_deref(), Some("a"));
        let requests = provider.requests();
        assert_eq!(requests[0].path, "/chat/completions");
        assert_eq!(requests[0].body["stream"], true);
        assert_eq!(requests[0].body["stream_options"], sent);
        assert_eq!(requests[0].body["messages"][0]["content"], "Hi");
        assert_eq!(requests[1].body.get("stream"), None);
        assert_eq!(requests[1].body.get("stream_options"), None);
    }
}

/// The client's own APIs are available, and send once too.
#[tokio::test]
async fn requests_without_l0_are_sent_once_too() {
    let provider = ScriptedProvider::answering(|_| Answer::status(500))
        .await
        .unwrap();
    let client = client(&provider.base_url());
    assert_eq!(client.config().api_base(), provider.base_url());
    let request: CreateChatCompletionRequest = parsed(json!({
        "model": "m", "messages": [{ "role": "user", "content": "Hi" }],
    }));
    let error = client.chat().create(request).await.unwrap_err();
    let async_openai::error::OpenAIError::ApiError(error) = error else {
        panic!("{error:?}");
    };
    assert_eq!(error.status_code.as_u16(), 500);
    assert_eq!(provider.requests().len(), 1);
}
