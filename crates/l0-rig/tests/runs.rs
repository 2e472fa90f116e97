//! The real client, called through L0, against a server with faults.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use futures_util::StreamExt;
use l0_core::{
    Backoff, Chunk, FailureKind, FinishReason, L0, Monitoring, NetworkErrorKind, Outcome, Retry,
    Source, Telemetry, Token, TokenKind, Usage,
};
use l0_providers::testing::{Answer, ScriptedProvider};
use l0_rig::{Error, Event, completion, completion_once, embeddings};
use rig_core::completion::CompletionRequest;
use rig_core::operation::Completion;
use rig_core::providers::anthropic::AnthropicConfig;
use rig_core::providers::openai::OpenAIConfig;
use rig_core::{DynModel, ProviderError};
use serde_json::json;

const KEY: &str = "sk-canary-0123456789abcdef";
const SECRET: &str = "the prompt was a secret";

fn openai(address: &str) -> DynModel<Completion> {
    let config = OpenAIConfig::new(KEY).with_base_url(format!("{address}/v1"));
    config.client().chat("m").erase()
}

fn anthropic(address: &str) -> DynModel<Completion> {
    let config = AnthropicConfig::new(KEY).with_base_url(address);
    config.client().completion("m").erase()
}

fn l0(retries: u32) -> L0 {
    let retry = Retry::new().max_retries(retries).backoff(Backoff::none());
    let monitoring = Monitoring::new().include_network_details(true);
    L0::builder().monitoring(monitoring).retry(retry).build()
}

fn request() -> CompletionRequest {
    CompletionRequest::new(SECRET)
        .temperature(0.5)
        .max_tokens(64)
}

/// How a run over these answers ended.
struct Ended {
    text: Result<String, l0_core::Error<Error>>,
    telemetry: Telemetry,
    provider: ScriptedProvider,
}

async fn run(
    model: fn(&str) -> DynModel<Completion>,
    retries: u32,
    answers: impl IntoIterator<Item = Answer>,
) -> Ended {
    let provider = ScriptedProvider::start(answers).await.unwrap();
    let model = model(&provider.base_url());
    let mut run = l0(retries)
        .stream_from(completion(&model, request()))
        .start();
    let text = run.text().await;
    let telemetry = run.telemetry().unwrap();
    // Nothing retries without L0.
    let requests = u32::try_from(provider.requests().len()).unwrap();
    assert_eq!(telemetry.metrics.attempts, requests);
    Ended {
        text,
        telemetry,
        provider,
    }
}

#[tokio::test]
async fn an_answer_is_read_with_its_metadata() {
    let usage = Usage::new().input(100).output(30).total(130);
    let usage = usage.cached_input(40);
    for (name, model) in [
        ("openai", openai as fn(&str) -> _),
        ("anthropic", anthropic),
    ] {
        let answer = Answer::new()
            .reasoning("Let me think.")
            .tokens(["Hel", "lo"])
            .usage(usage);
        let Ended {
            text,
            telemetry,
            provider,
        } = run(model, 0, [answer]).await;
        assert_eq!(text.unwrap(), "Hello", "{name}");
        assert_eq!(telemetry.outcome, Some(Outcome::Completed));
        assert_eq!(telemetry.finish_reason, Some(FinishReason::Stop));
        assert_eq!(telemetry.metrics.total_tokens, 3);
        let usage = telemetry.usage.unwrap();
        assert_eq!(
            (usage.input, usage.output, usage.total),
            (usage.input, usage.output, usage.total)
        );
        assert_eq!(usage.cached_input, Some(40), "{name}");
        let attempt = &telemetry.attempts[0];
        assert_eq!(attempt.provider.as_deref(), Some(name));
        assert_eq!(attempt.model.as_deref(), Some("m"));
        assert_eq!(attempt.response_model.as_deref(), Some("m"));
        assert_eq!(attempt.response_id.as_deref(), Some("scripted-1"));
        assert_eq!(provider.requests()[0].body["temperature"], 0.5);
    }
}

#[tokio::test]
async fn reasoning_is_counted() {
    let usage = Usage::new().input(10).output(30).total(40);
    let usage = usage.cached_input(0).reasoning(20);
    let ended = run(openai, 0, [Answer::text(["Hi"]).usage(usage)]).await;
    assert_eq!(ended.telemetry.usage, Some(usage));
}

#[tokio::test]
async fn faults_are_retried_and_each_request_is_an_attempt() {
    use NetworkErrorKind as N;
    let whole = || Answer::text(["Hello"]);
    for (name, fault, kind) in [
        ("cut", whole().cut(), None),
        ("no end", whole().end(), Some(N::PartialChunks)),
        (
            "429",
            Answer::status(429).header("retry-after", "0"),
            Some(N::RateLimited),
        ),
        ("503", Answer::status(503), Some(N::ServerError)),
        (
            "error in mid-stream",
            whole().error(503, SECRET),
            Some(N::ServerError),
        ),
    ] {
        let Ended {
            text, telemetry, ..
        } = run(openai, 3, [fault.clone(), fault.clone(), whole()]).await;
        assert_eq!(text.unwrap(), "Hello", "{name}");
        assert_eq!(telemetry.metrics.attempts, 3, "{name}");
        assert_eq!(telemetry.network.error_count, 2, "{name}");
        if let Some(kind) = kind {
            assert_eq!(telemetry.network.errors_by_type[&kind], 2, "{name}");
        }
        let printed = format!("{telemetry:?}");
        assert!(!printed.contains(SECRET), "{name}: {printed}");

        let failed = run(openai, 1, [fault.clone(), fault]).await;
        let outcome = match name {
            "no end" => Outcome::Truncated,
            _ => Outcome::Failed,
        };
        assert_eq!(failed.telemetry.outcome, Some(outcome), "{name}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_the_networks_failure() {
    // Bound but not listening, so no other program gets the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("http://{}", socket.local_addr().unwrap());
    let mut run = l0(1)
        .stream_from(completion(&openai(&address), request()))
        .start();
    let error = run.text().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the source failed after 2 attempts (connection refused)"
    );
    let errors = run.telemetry().unwrap().network.errors_by_type;
    assert_eq!(errors[&NetworkErrorKind::Econnrefused], 2);
}

#[tokio::test]
async fn permanent_faults_are_not_retried() {
    let no_credit = json!({ "error": {
        "message": SECRET, "type": "insufficient_quota", "code": "insufficient_quota",
    }});
    for (status, answer) in [
        (401, Answer::status(401).message(SECRET)),
        (400, Answer::status(400).message(SECRET)),
        (
            429,
            Answer::status(429).body("application/json", no_credit.to_string()),
        ),
    ] {
        let ended = run(openai, 3, [answer]).await;
        let error = ended.text.unwrap_err().into_source().unwrap();
        let failure = error.failure();
        assert_eq!(failure.kind, FailureKind::Fatal);
        assert_eq!(failure.status, Some(status));
        assert_eq!(error.api().unwrap().status(), Some(status));
    }
}

#[tokio::test]
async fn the_delay_is_read_from_the_headers() {
    let answer = Answer::status(429).header("retry-after", "7");
    let ended = run(openai, 0, [answer]).await;
    let error = ended.text.unwrap_err().into_source().unwrap();
    let wait = error.failure().retry_after;
    assert_eq!(wait, Some(Duration::from_secs(7)));
}

#[test]
fn a_fatal_error_without_a_status_says_why() {
    let error = Error::from(ProviderError::Provider(SECRET.into()));
    assert_eq!(
        error.failure().detail,
        Some("the provider reports an error")
    );
}

#[tokio::test]
async fn no_error_prints_a_body_or_a_request() {
    let canary = format!("{SECRET} {KEY}");
    let error = || json!({ "error": { "message": canary, "type": canary, "code": canary } });
    for answer in [
        Answer::status(400).message(&*canary),
        Answer::status(401).message(&*canary),
        Answer::status(500).body("text/plain", canary.clone()),
        Answer::status(500).body("text/html", canary.clone()),
        Answer::text(["Hi"]).error(400, &*canary),
        Answer::text(["Hi"]).raw(format!("data: {}\n\n", error())),
        Answer::text(["Hi"]).raw(format!("data: {{{canary}\n\n")),
        Answer::text(["Hi"])
            .raw([b"data: \xff\xfe ".as_slice(), canary.as_bytes(), b"\n\n"].concat()),
        Answer::new().body("application/json", canary.clone()),
    ] {
        let ended = run(openai, 0, [answer.clone()]).await;
        let error = ended.text.unwrap_err();
        let printed = format!("{error} {error:?}");
        assert!(!printed.contains("secret"), "{printed}");
        if let Some(source) = error.into_source() {
            let printed = format!("{source} {source:?} {source:#?}");
            assert!(!printed.contains("secret"), "{printed}");
            assert!(!printed.contains(KEY), "{printed}");
        }
        // The same for a whole answer.
        let provider = ScriptedProvider::start([answer]).await.unwrap();
        let call = completion_once(&openai(&provider.base_url()), request());
        let Err(error) = l0(0).call_from(call).start().await else {
            continue;
        };
        let source = error.into_source().unwrap();
        let printed = format!("{source} {source:?} {source:#?}");
        assert!(!printed.contains("secret"), "{printed}");
        assert!(!printed.contains(KEY), "{printed}");
    }
}

#[tokio::test]
async fn the_alternate_form_prints_the_providers_message() {
    let answer = Answer::status(400).message(SECRET);
    let ended = run(openai, 0, [answer]).await;
    let error = ended.text.unwrap_err().into_source().unwrap();
    assert!(format!("{error:#}").contains(SECRET));
}

#[tokio::test]
async fn tool_calls_arrive_in_pieces_and_whole_at_the_end() {
    let answer = Answer::new().tool_call("c1", "weather", [r#"{"city":"#, r#""Bern"}"#]);
    let provider = ScriptedProvider::start([answer]).await.unwrap();
    let model = openai(&provider.base_url());
    let mut run = l0(0).stream_from(completion(&model, request())).start();
    let (mut pieces, mut names) = (String::new(), Vec::new());
    while let Some(chunk) = run.next().await {
        let Chunk::Item(event) = chunk.unwrap() else {
            continue;
        };
        let view = event.view();
        if view.kind == TokenKind::ToolCall {
            pieces.push_str(view.text);
        }
        if let Event::Done(response) = event {
            let calls = response.tool_calls();
            names = calls.map(|call| call.function.name.to_string()).collect();
        }
    }
    assert_eq!(pieces, r#"weather{"city":"Bern"}"#);
    assert_eq!(names, ["weather"]);
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.finish_reason, Some(FinishReason::ToolCalls));
}

#[tokio::test]
async fn whole_answers_are_calls() {
    let usage = Usage::new().input(9).output(2).total(11);
    let usage = usage.cached_input(4).reasoning(1);
    let answers = [
        Answer::status(503),
        Answer::text(["Hel", "lo"]).end(),
        Answer::text(["Hel", "lo"]).usage(usage),
    ];
    let provider = ScriptedProvider::start(answers).await.unwrap();
    let source = completion_once(&openai(&provider.base_url()), request());
    let mut call = l0(2).call_from(source).start();
    let answer = (&mut call).await.unwrap();
    assert_eq!(answer.text(), "Hello");
    let telemetry = call.telemetry().unwrap();
    assert_eq!(telemetry.metrics.attempts, 3);
    assert_eq!(provider.requests().len(), 3);
    assert_eq!(telemetry.usage, Some(usage));
    assert_eq!(telemetry.finish_reason, Some(FinishReason::Stop));
    let last = telemetry.attempts.last().unwrap();
    assert_eq!(last.response_model.as_deref(), Some("m"));
    assert_eq!(last.response_id.as_deref(), Some("scripted-3"));
    assert_eq!(last.operation.as_deref(), Some("chat"));
}

#[tokio::test]
async fn embeddings_are_calls() {
    let answer = Answer::embeddings([[0.5, 1.0], [0.25, 0.0]]).usage(Usage::new().input(4));
    let provider = ScriptedProvider::start([Answer::status(503), answer])
        .await
        .unwrap();
    let address = format!("{}/v1", provider.base_url());
    let config = OpenAIConfig::new(KEY).with_base_url(address);
    let model = config.client().embedding("e", None);
    let source = embeddings(&model, ["a", "b"]);
    assert_eq!(source.input(), Some(json!({ "input": ["a", "b"] })));
    let mut call = l0(1).call_from(source).start();
    let answer = (&mut call).await.unwrap();
    assert_eq!(answer.embeddings[1].vec, [0.25, 0.0]);
    let telemetry = call.telemetry().unwrap();
    assert_eq!(telemetry.usage.and_then(|usage| usage.input), Some(4));
    assert_eq!(
        telemetry.attempts[0].operation.as_deref(),
        Some("embeddings")
    );
    assert_eq!(provider.requests().len(), 2);
}

#[test]
fn a_request_describes_itself() {
    let config = OpenAIConfig::new(KEY).with_base_url("http://127.0.0.1:81/v1");
    // A model of a known type works too.
    let source = completion(&config.client().chat("m"), request());
    let description = source.describe();
    assert_eq!(description.provider.as_deref(), Some("openai"));
    assert_eq!(description.model.as_deref(), Some("m"));
    assert_eq!(description.operation.as_deref(), Some("chat"));
    assert_eq!(description.streaming, Some(true));
    assert_eq!(description.parameters.get("temperature"), Some(&json!(0.5)));
    assert_eq!(description.parameters.get("max_tokens"), Some(&json!(64)));
    let input = source.input().unwrap();
    assert!(input["messages"].to_string().contains(SECRET));
    let printed = format!("{source:?}");
    assert!(
        !printed.contains(SECRET) && !printed.contains(KEY),
        "{printed}"
    );
}
