//! The real client, called through L0, against a server with faults.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use futures_util::StreamExt;
use genai::adapter::AdapterKind;
use genai::chat::{ChatOptions, ChatRequest, ChatStreamEvent};
use genai::embed::{EmbedOptions, EmbedRequest};
use genai::resolver::{AuthData, Endpoint};
use genai::{Client, ModelIden, ModelSpec, ServiceTarget};
use l0_core::{
    Backoff, Chunk, FailureKind, FinishReason, L0, Monitoring, NetworkErrorKind, Outcome, Retry,
    Source, Telemetry, Token, TokenKind, Usage,
};
use l0_genai::{chat, chat_once, embeddings};
use l0_providers::testing::{Answer, ScriptedProvider};
use serde_json::json;

const KEY: &str = "sk-canary-0123456789abcdef";
const SECRET: &str = "the prompt was a secret";

fn client() -> Client {
    Client::new().unwrap()
}

fn target(kind: AdapterKind, address: &str) -> ModelSpec {
    let path = match kind {
        AdapterKind::Gemini => "v1beta/",
        _ => "v1/",
    };
    ModelSpec::Target(ServiceTarget {
        endpoint: Endpoint::from_owned(format!("{address}/{path}")),
        auth: AuthData::from_single(KEY),
        model: ModelIden::new(kind, "m"),
    })
}

fn l0(retries: u32) -> L0 {
    let retry = Retry::new().max_retries(retries).backoff(Backoff::none());
    let monitoring = Monitoring::new().include_network_details(true);
    L0::builder().monitoring(monitoring).retry(retry).build()
}

fn request() -> ChatRequest {
    ChatRequest::from_user(SECRET).with_system("Be brief.")
}

/// How a run over these answers ended.
struct Ended {
    text: Result<String, l0_core::Error<l0_genai::Error>>,
    telemetry: Telemetry,
    provider: ScriptedProvider,
}

async fn run(kind: AdapterKind, retries: u32, answers: impl IntoIterator<Item = Answer>) -> Ended {
    let provider = ScriptedProvider::start(answers).await.unwrap();
    let model = target(kind, &provider.base_url());
    let mut run = l0(retries)
        .stream_from(chat(&client(), model, request()))
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
    let usage = usage.cached_input(40).reasoning(10);
    let answer = Answer::new()
        .reasoning("Let me think.")
        .tokens(["Hel", "lo"])
        .usage(usage);
    let Ended {
        text,
        telemetry,
        provider,
    } = run(AdapterKind::OpenAI, 0, [answer]).await;
    assert_eq!(text.unwrap(), "Hello");
    assert_eq!(telemetry.outcome, Some(Outcome::Completed));
    assert_eq!(telemetry.finish_reason, Some(FinishReason::Stop));
    assert_eq!(telemetry.metrics.total_tokens, 3);
    assert_eq!(telemetry.usage, Some(usage));
    // The request asks for the counts.
    let body = &provider.requests()[0].body;
    assert_eq!(body["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn counts_have_the_same_meaning_for_every_provider() {
    let usage = Usage::new().input(100).output(30).total(130);
    let usage = usage.cached_input(40);
    for kind in [
        AdapterKind::OpenAI,
        AdapterKind::Anthropic,
        AdapterKind::Gemini,
    ] {
        let answer = Answer::text(["Hi"]).usage(usage);
        let ended = run(kind, 0, [answer]).await;
        assert_eq!(ended.text.unwrap(), "Hi", "{kind}");
        assert_eq!(ended.telemetry.usage, Some(usage), "{kind}");
        assert_eq!(ended.telemetry.finish_reason, Some(FinishReason::Stop));
    }
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
        } = run(
            AdapterKind::OpenAI,
            3,
            [fault.clone(), fault.clone(), whole()],
        )
        .await;
        assert_eq!(text.unwrap(), "Hello", "{name}");
        assert_eq!(telemetry.metrics.attempts, 3, "{name}");
        assert_eq!(telemetry.network.error_count, 2, "{name}");
        if let Some(kind) = kind {
            assert_eq!(telemetry.network.errors_by_type[&kind], 2, "{name}");
        }
        let printed = format!("{telemetry:?}");
        assert!(!printed.contains(SECRET), "{name}: {printed}");

        let failed = run(AdapterKind::OpenAI, 1, [fault.clone(), fault]).await;
        let outcome = match name {
            "no end" => Outcome::Truncated,
            _ => Outcome::Failed,
        };
        assert_eq!(failed.telemetry.outcome, Some(outcome), "{name}");
    }
}

#[tokio::test]
async fn a_truncated_answer_is_reported_although_the_client_adds_an_end() {
    let cut = || Answer::text(["Hel"]).end();
    let answers = [cut(), Answer::text(["Hello"])];
    let ended = run(AdapterKind::Gemini, 1, answers).await;
    assert_eq!(ended.text.unwrap(), "Hello");
    let ended = run(AdapterKind::Gemini, 0, [cut()]).await;
    assert_eq!(ended.telemetry.outcome, Some(Outcome::Truncated));
}

#[tokio::test]
async fn a_refused_connection_is_the_networks_failure() {
    // Bound but not listening, so no other program gets the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = format!("http://{}", socket.local_addr().unwrap());
    let model = target(AdapterKind::OpenAI, &address);
    let mut run = l0(1).stream_from(chat(&client(), model, request())).start();
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
    for (status, answer, kind) in [
        (401, Answer::status(401).message(SECRET), FailureKind::Fatal),
        (400, Answer::status(400).message(SECRET), FailureKind::Fatal),
        (
            429,
            Answer::status(429).body("application/json", no_credit.to_string()),
            FailureKind::Fatal,
        ),
    ] {
        let ended = run(AdapterKind::OpenAI, 3, [answer]).await;
        let error = ended.text.unwrap_err().into_source().unwrap();
        let failure = error.failure();
        assert_eq!((failure.kind, failure.status), (kind, Some(status)));
        assert_eq!(error.api().unwrap().status(), Some(status));
    }
}

#[tokio::test]
async fn the_delay_is_read_from_the_headers() {
    let answer = Answer::status(429).header("retry-after", "7");
    let ended = run(AdapterKind::OpenAI, 0, [answer]).await;
    let error = ended.text.unwrap_err().into_source().unwrap();
    let wait = error.failure().retry_after;
    assert_eq!(wait, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_web_page_is_named_as_the_reason() {
    let page = Answer::new().body("text/html", "<p>Sign in</p>");
    let provider = ScriptedProvider::start([page]).await.unwrap();
    let model = target(AdapterKind::OpenAI, &provider.base_url());
    let call = chat_once(&client(), model, request());
    let error = l0(0).call_from(call).start().await.unwrap_err();
    let failure = error.into_source().unwrap().failure();
    assert_eq!(
        failure.detail,
        Some("the response is not an answer of the API")
    );
}

#[tokio::test]
async fn no_error_prints_a_body_or_a_request() {
    let canary = format!("{SECRET} {KEY}");
    let error = || json!({ "error": { "message": canary, "type": canary, "code": canary } });
    for answer in [
        Answer::status(400).message(&*canary),
        Answer::status(500).body("text/plain", canary.clone()),
        Answer::status(500).body("text/html", canary.clone()),
        Answer::text(["Hi"]).error(400, &*canary),
        Answer::text(["Hi"]).raw(format!("data: {}\n\n", error())),
        Answer::text(["Hi"]).raw(format!("data: {{{canary}\n\n")),
        Answer::text(["Hi"])
            .raw([b"data: \xff\xfe ".as_slice(), canary.as_bytes(), b"\n\n"].concat()),
        Answer::new().body("application/json", canary.clone()),
    ] {
        let ended = run(AdapterKind::OpenAI, 0, [answer.clone()]).await;
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
        let model = target(AdapterKind::OpenAI, &provider.base_url());
        let call = chat_once(&client(), model, request());
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
    let ended = run(AdapterKind::OpenAI, 0, [answer]).await;
    let error = ended.text.unwrap_err().into_source().unwrap();
    assert!(format!("{error:#}").contains(SECRET));
}

#[tokio::test]
async fn tool_calls_arrive_in_pieces_and_whole_at_the_end() {
    let answer = || Answer::new().tool_call("c1", "weather", [r#"{"city":"#, r#""Bern"}"#]);
    for (kind, captured) in [
        (AdapterKind::OpenAI, true),
        (AdapterKind::OpenAI, false),
        (AdapterKind::Anthropic, true),
    ] {
        let provider = ScriptedProvider::start([answer()]).await.unwrap();
        let model = target(kind, &provider.base_url());
        let mut source = chat(&client(), model, request());
        if !captured {
            source = source.options(ChatOptions::default().with_capture_tool_calls(false));
        }
        let mut run = l0(0).stream_from(source).start();
        let (mut pieces, mut calls) = (String::new(), Vec::new());
        while let Some(chunk) = run.next().await {
            let Chunk::Item(event) = chunk.unwrap() else {
                continue;
            };
            let view = event.view();
            if view.kind == TokenKind::ToolCall {
                pieces.push_str(view.text);
            }
            if let ChatStreamEvent::End(end) = event.into_inner() {
                calls = end.captured_into_tool_calls().unwrap_or_default();
            }
        }
        assert_eq!(pieces, r#"weather{"city":"Bern"}"#, "{kind}");
        if captured {
            assert_eq!(calls[0].fn_name, "weather");
            assert_eq!(calls[0].fn_arguments, json!({ "city": "Bern" }));
        }
        let telemetry = run.telemetry().unwrap();
        assert_eq!(telemetry.finish_reason, Some(FinishReason::ToolCalls));
    }
}

#[tokio::test]
async fn options_of_the_user_are_kept() {
    let provider = ScriptedProvider::start([Answer::text(["Hi"]).usage(Usage::new().input(1))])
        .await
        .unwrap();
    let options = ChatOptions::default()
        .with_temperature(0.5)
        .with_max_tokens(7)
        .with_capture_usage(false);
    let model = target(AdapterKind::OpenAI, &provider.base_url());
    let source = chat(&client(), model, request()).options(options);
    let parameters = source.describe().parameters;
    assert_eq!(parameters.get("temperature"), Some(&json!(0.5)));
    assert_eq!(parameters.get("max_tokens"), Some(&json!(7)));
    let mut run = l0(0).stream_from(source).start();
    run.text().await.unwrap();
    assert_eq!(run.telemetry().unwrap().usage, None);
    assert_eq!(provider.requests()[0].body["temperature"], 0.5);
}

#[tokio::test]
async fn whole_answers_are_calls() {
    let usage = Usage::new().input(9).output(2).total(11);
    let answers = [
        Answer::status(503),
        Answer::text(["Hel", "lo"]).usage(usage),
    ];
    let provider = ScriptedProvider::start(answers).await.unwrap();
    let model = target(AdapterKind::OpenAI, &provider.base_url());
    let source = chat_once(&client(), model, request());
    let mut call = l0(1).call_from(source).start();
    let answer = (&mut call).await.unwrap();
    assert_eq!(answer.first_text(), Some("Hello"));
    let telemetry = call.telemetry().unwrap();
    assert_eq!(telemetry.metrics.attempts, 2);
    assert_eq!(provider.requests().len(), 2);
    assert_eq!(telemetry.usage, Some(usage));
    assert_eq!(telemetry.finish_reason, Some(FinishReason::Stop));
    let last = telemetry.attempts.last().unwrap();
    assert_eq!(last.response_model.as_deref(), Some("m"));
    assert_eq!(last.operation.as_deref(), Some("chat"));
}

#[tokio::test]
async fn embeddings_are_calls() {
    let answer = Answer::embeddings([[0.5, 1.0], [0.25, 0.0]]).usage(Usage::new().input(4));
    let provider = ScriptedProvider::start([Answer::status(503), answer])
        .await
        .unwrap();
    let model = target(AdapterKind::OpenAI, &provider.base_url());
    let texts = EmbedRequest::new_batch(vec!["a".to_owned(), "b".to_owned()]);
    let options = EmbedOptions::new().with_dimensions(2);
    let source = embeddings(&client(), model, texts).options(options);
    assert_eq!(source.input(), Some(json!({ "input": ["a", "b"] })));
    let mut call = l0(1).call_from(source).start();
    let answer = (&mut call).await.unwrap();
    assert_eq!(answer.into_vectors(), [[0.5, 1.0], [0.25, 0.0]]);
    let telemetry = call.telemetry().unwrap();
    assert_eq!(telemetry.usage.and_then(|usage| usage.input), Some(4));
    assert_eq!(provider.requests().len(), 2);
}

#[tokio::test]
async fn a_request_describes_itself() {
    let client = client();
    let describe = |model: ModelSpec| {
        let description = chat(&client, model, request()).describe();
        let provider = description.provider.map(std::borrow::Cow::into_owned);
        let model = description.model.map(std::borrow::Cow::into_owned);
        let server = description.server_address.zip(description.server_port);
        let server = server.map(|(host, port)| format!("{host}:{port}"));
        assert_eq!(description.operation.as_deref(), Some("chat"));
        assert_eq!(description.streaming, Some(true));
        (provider, model.unwrap(), server)
    };
    let described = |provider: Option<&str>, model: &str, server: Option<&str>| {
        (
            provider.map(str::to_owned),
            model.to_owned(),
            server.map(str::to_owned),
        )
    };
    assert_eq!(
        describe("gpt-4o-mini".into()),
        described(Some("openai"), "gpt-4o-mini", None)
    );
    assert_eq!(
        describe("groq::llama-x".into()),
        described(Some("groq"), "llama-x", None)
    );
    assert_eq!(
        describe(ModelIden::new(AdapterKind::Mistral, "m").into()),
        described(Some("mistral_ai"), "m", None)
    );
    // The provider at an unknown address is not known, as others speak this API too.
    assert_eq!(
        describe(target(AdapterKind::OpenAI, "http://127.0.0.1:81")),
        described(None, "m", Some("127.0.0.1:81"))
    );
    assert_eq!(
        describe(target(AdapterKind::Ollama, "http://[::1]:11434")),
        described(Some("ollama"), "m", Some("::1:11434"))
    );
    assert_eq!(
        describe(target(AdapterKind::OpenAI, "https://api.groq.com/openai")),
        described(Some("groq"), "m", Some("api.groq.com:443"))
    );

    let source = chat(
        &client,
        target(AdapterKind::OpenAI, "http://127.0.0.1:81"),
        request(),
    );
    let input = source.input().unwrap();
    assert_eq!(input["system"], "Be brief.");
    assert!(input["messages"].to_string().contains(SECRET));
    let printed = format!("{source:?}");
    assert!(
        !printed.contains(SECRET) && !printed.contains(KEY),
        "{printed}"
    );
}
