//! Fallbacks between the supported clients of other crates.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io;

use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, CreateChatCompletionRequestArgs,
    CreateChatCompletionStreamResponse,
};
use genai::adapter::AdapterKind;
use genai::chat::ChatRequest;
use genai::resolver::{AuthData, Endpoint};
use genai::{ModelIden, ServiceTarget};
use l0_async_openai::{Client, Viewed};
use l0_core::{
    Backoff, FinishReason, L0, Monitoring, Outcome, Retry, Source, Token, TokenView, Usage,
};
use l0_providers::testing::{Answer, ScriptedProvider};

enum Event {
    OpenAi(Viewed<CreateChatCompletionStreamResponse>),
    Genai(l0_genai::Event),
}

impl Token for Event {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        match self {
            Self::OpenAi(item) => item.view(),
            Self::Genai(event) => event.view(),
        }
    }
}

#[tokio::test]
async fn genai_answers_where_async_openai_fails() {
    let usage = Usage::new().input(9).output(2).total(11);
    let usage = usage.cached_input(4).reasoning(1);
    for (faults, attempts) in [
        // One retry for each client.
        (vec![Answer::status(503), Answer::text(["Hel"]).end()], 3),
        (vec![Answer::status(401)], 2),
    ] {
        let first = ScriptedProvider::start(faults).await.unwrap();
        let answer = Answer::text(["Hel", "lo"]).usage(usage);
        let other = ScriptedProvider::start([answer]).await.unwrap();

        let config = OpenAIConfig::new().with_api_key("k");
        let config = config.with_api_base(format!("{}/v1", first.base_url()));
        let question = ChatCompletionRequestUserMessage::from("Hi");
        let request = CreateChatCompletionRequestArgs::default()
            .model("one")
            .messages([question.into()])
            .build()
            .unwrap();
        let openai = l0_async_openai::chat(&Client::with_config(config), request);
        let target = ServiceTarget {
            endpoint: Endpoint::from_owned(format!("{}/v1/", other.base_url())),
            auth: AuthData::from_single("k"),
            model: ModelIden::new(AdapterKind::OpenAI, "two"),
        };
        let asked = ChatRequest::from_user("Hi");
        let genai = l0_genai::chat(&genai::Client::new().unwrap(), target, asked);

        let retry = Retry::new().max_retries(1).backoff(Backoff::none());
        let l0 = L0::builder().monitoring(Monitoring::new()).retry(retry);
        let mut run = l0
            .build()
            .stream_from(openai.map(Event::OpenAi, io::Error::other))
            .fallback(genai.map(Event::Genai, io::Error::other))
            .start();
        assert_eq!(run.text().await.unwrap(), "Hello");

        let telemetry = run.telemetry().unwrap();
        assert_eq!(telemetry.outcome, Some(Outcome::Completed));
        assert_eq!(telemetry.finish_reason, Some(FinishReason::Stop));
        assert_eq!(telemetry.usage, Some(usage));
        assert_eq!(telemetry.fallbacks(), 1);
        assert_eq!(telemetry.attempts.len(), attempts);
        let requests = first.requests().len() + other.requests().len();
        assert_eq!(requests, attempts);
        let last = telemetry.attempts.last().unwrap();
        assert_eq!(last.model.as_deref(), Some("two"));
        // A loopback address does not identify a provider.
        assert_eq!(last.provider, None);
        assert_eq!(telemetry.attempts[0].model.as_deref(), Some("one"));
    }
}
