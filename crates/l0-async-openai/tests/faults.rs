//! Failing requests, with the real client and a server with faults: each attempt is one request, and its failure is
//! reported.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_openai::config::OpenAIConfig;
use async_openai::error::OpenAIError;
use async_openai::middleware::ReqwestService;
use async_openai::middleware::retry::OpenAIRetryLayer;
use async_openai::types::chat::{CreateChatCompletionRequest, CreateChatCompletionStreamResponse};
use l0_async_openai::{
    AnswerStream, Client, ClientRequest, Error, chat, chat_once, embeddings, responses,
    responses_once,
};
use l0_core::source::ByToken;
use l0_core::{
    Backoff, Failure, FailureKind, FinishReason, L0, Monitoring, NetworkErrorKind, Outcome, Retry,
    Source, Telemetry, Token, TokenView, Usage, source,
};
use l0_providers::testing::{Answer, ScriptedProvider};
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};

const PROMPT: &str = "canary-of-the-prompt";
const BODY: &str = "canary of the body";

fn client(base: &str) -> Client {
    Client::with_config(OpenAIConfig::new().with_api_base(base).with_api_key("k"))
}

/// A request body that every API accepts.
fn question<T: DeserializeOwned>() -> T {
    let messages = json!([{ "role": "user", "content": PROMPT }]);
    from_value(json!({ "model": "m", "messages": messages, "input": PROMPT })).unwrap()
}

/// At most three attempts, with the delays that the server asks for.
fn patient() -> L0 {
    let retry = Retry::new().max_retries(2).backoff(Backoff::none());
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(retry)
        .build()
}

/// How a run or a call ended.
struct End {
    text: String,
    error: Option<String>,
    telemetry: Telemetry,
}

async fn stream<T>(source: ClientRequest<AnswerStream<T>>) -> End
where
    ClientRequest<AnswerStream<T>>: Source<
            Error = Error,
            View = ByToken,
            Answer: futures_util::Stream<Item = Result<l0_async_openai::Viewed<T>, Error>> + Send,
        > + 'static,
    l0_async_openai::Viewed<T>: Token + Send,
{
    let mut run = patient().stream_from(source).start();
    let text = run.text().await;
    let error = text
        .as_ref()
        .err()
        .map(|error| format!("{error} {error:?}"));
    End {
        text: text.unwrap_or_default(),
        error,
        telemetry: run.telemetry().unwrap(),
    }
}

async fn whole<T>(source: ClientRequest<T>) -> End
where
    T: Token + Send + 'static,
{
    let mut call = patient().call_from(source).start();
    let answer = (&mut call).await;
    let error = answer
        .as_ref()
        .err()
        .map(|error| format!("{error} {error:?}"));
    End {
        text: answer
            .map(|answer| answer.view().answer().to_owned())
            .unwrap_or_default(),
        error,
        telemetry: call.telemetry().unwrap(),
    }
}

const STREAMS: [&str; 2] = ["chat", "responses"];
const WHOLE: [&str; 3] = ["chat_once", "responses_once", "embeddings"];

async fn ask(api: &str, client: &Client) -> End {
    match api {
        "chat" => stream(chat(client, question())).await,
        "responses" => stream(responses(client, question())).await,
        "chat_once" => whole(chat_once(client, question())).await,
        "responses_once" => whole(responses_once(client, question())).await,
        _ => whole(embeddings(client, question())).await,
    }
}

/// A successful answer of an API.
fn good(api: &str) -> Answer {
    if api == "embeddings" {
        // The client does not read embeddings without their token counts.
        return Answer::embeddings([[0.5]]).usage(Usage::new().input(1));
    }
    Answer::text(["Hi"])
}

fn error(code: impl Into<Value>, message: &str) -> Value {
    json!({ "error": { "message": message, "type": "x", "param": null, "code": code.into() } })
}

/// A fault, the error type that is reported for it, and whether it is retried.
struct Fault {
    name: &'static str,
    answer: Answer,
    error_type: &'static str,
    is_retried: bool,
}

fn fault(name: &'static str, answer: Answer, error_type: &'static str, is_retried: bool) -> Fault {
    Fault {
        name,
        answer,
        error_type,
        is_retried,
    }
}

fn faults_of_all() -> Vec<Fault> {
    let html = format!("<html>{BODY}</html>");
    let json = "application/json";
    let quota = error("insufficient_quota", BODY);
    let text = format!("{BODY}: connection refused");
    vec![
        fault("401", Answer::status(401).message(BODY), "401", false),
        fault("400", Answer::status(400).message(BODY), "400", false),
        fault(
            "429",
            Answer::status(429).message(BODY),
            "rate_limited",
            true,
        ),
        fault(
            "500",
            Answer::status(500).message(BODY),
            "server_error",
            true,
        ),
        fault(
            "no credit",
            Answer::status(429).body(json, quota.to_string()),
            "429",
            false,
        ),
        fault(
            "a number for a code",
            Answer::status(503).body(json, error(503, BODY).to_string()),
            "server_error",
            true,
        ),
        fault(
            "other shape",
            Answer::status(422).body(json, json!({ "detail": BODY }).to_string()),
            "422",
            false,
        ),
        fault(
            "text",
            Answer::status(502).body("text/plain", text.clone()),
            "server_error",
            true,
        ),
        fault(
            "text, fatal",
            Answer::status(404).body("text/plain", text),
            "404",
            false,
        ),
        fault(
            "web page, failed",
            Answer::status(503).body("text/html", html.clone()),
            "server_error",
            true,
        ),
        fault(
            "nothing",
            Answer::status(503).body(json, ""),
            "server_error",
            true,
        ),
        fault(
            "web page",
            Answer::new().body("text/html", html),
            "_OTHER",
            false,
        ),
        fault(
            "error with success",
            Answer::new().body(json, error("server_error", BODY).to_string()),
            "server_error",
            true,
        ),
        fault(
            "x-should-retry",
            Answer::status(400).header("x-should-retry", "true"),
            "server_error",
            true,
        ),
    ]
}

fn faults_of_streams() -> Vec<Fault> {
    let events = "text/event-stream";
    let after = |payload: String| {
        Answer::text(["a"])
            .raw(format!("data: {payload}\n\n"))
            .end()
    };
    vec![
        fault("ended", Answer::text(["a"]).end(), "truncated", true),
        fault("cut", Answer::text(["a"]).cut(), "partial_chunks", true),
        fault(
            "no event",
            Answer::new().body(events, ""),
            "truncated",
            true,
        ),
        fault(
            "error in mid-stream",
            after(error("rate_limit_exceeded", BODY).to_string()),
            "rate_limited",
            true,
        ),
        fault(
            "invalid JSON in mid-stream",
            after(format!("{{{BODY}")),
            "partial_chunks",
            true,
        ),
        fault(
            "scripted error",
            Answer::text(["a"]).error(503, BODY),
            "server_error",
            true,
        ),
        fault(
            "JSON instead of a stream",
            Answer::new().body("application/json", json!({ "x": BODY }).to_string()),
            "_OTHER",
            false,
        ),
    ]
}

fn faults_of_whole_answers() -> Vec<Fault> {
    let json = "application/json";
    vec![
        fault(
            "JSON that is not an answer",
            Answer::new().body(json, json!({ "x": BODY }).to_string()),
            "_OTHER",
            false,
        ),
        fault(
            "half of the JSON",
            Answer::new().body(json, format!("{{\"id\": \"{BODY}")),
            "partial_chunks",
            true,
        ),
    ]
}

/// For every fault, the server gets as many requests as attempts are reported, and no body is printed.
async fn check(api: &str, fault: &Fault) {
    let name = format!("{api}: {}", fault.name);
    // The second attempt succeeds.
    let provider = ScriptedProvider::start([fault.answer.clone(), good(api)])
        .await
        .unwrap();
    let end = ask(api, &client(&provider.base_url())).await;
    let requests = provider.requests().len();
    assert_eq!(requests, if fault.is_retried { 2 } else { 1 }, "{name}");
    assert_eq!(end.telemetry.attempts.len(), requests, "{name}");
    let first = end.telemetry.attempts[0].error.as_ref().unwrap();
    assert_eq!(first.error_type, fault.error_type, "{name}");
    let outcome = end.telemetry.outcome.unwrap();
    assert_eq!(
        outcome == Outcome::Completed,
        fault.is_retried,
        "{name}: {outcome:?}"
    );
    if fault.is_retried && api != "embeddings" {
        assert_eq!(end.text, "Hi", "{name}");
    }

    // Every attempt fails.
    let answer = fault.answer.clone();
    let provider = ScriptedProvider::answering(move |_| answer.clone())
        .await
        .unwrap();
    let end = ask(api, &client(&provider.base_url())).await;
    let requests = provider.requests().len();
    assert_eq!(requests, if fault.is_retried { 3 } else { 1 }, "{name}");
    assert_eq!(end.telemetry.attempts.len(), requests, "{name}");
    assert_eq!(
        end.telemetry.error.as_ref().unwrap().error_type,
        fault.error_type,
        "{name}"
    );
    let json = serde_json::to_string(&end.telemetry).unwrap();
    let printed = format!("{} {json}", end.error.unwrap());
    assert!(!printed.contains("canary"), "{name}: {printed}");
}

#[tokio::test]
async fn each_attempt_is_one_request_and_reports_its_failure() {
    for api in STREAMS.into_iter().chain(WHOLE) {
        for fault in faults_of_all() {
            check(api, &fault).await;
        }
    }
    for api in STREAMS {
        for fault in faults_of_streams() {
            check(api, &fault).await;
        }
    }
    for api in WHOLE {
        for fault in faults_of_whole_answers() {
            check(api, &fault).await;
        }
    }
}

#[tokio::test]
async fn the_servers_delay_is_kept() {
    let waits = [
        (Answer::status(429).header("retry-after-ms", "30"), 30),
        (Answer::status(503).header("retry-after", "0.03"), 30),
        (Answer::status(429).message("Please try again in 30ms."), 30),
    ];
    for (answer, millis) in waits {
        for api in STREAMS.into_iter().chain(WHOLE) {
            let provider = ScriptedProvider::start([answer.clone(), good(api)])
                .await
                .unwrap();
            let end = ask(api, &client(&provider.base_url())).await;
            assert_eq!(end.telemetry.outcome, Some(Outcome::Completed), "{api}");
            let delay = end.telemetry.attempts[1].delay;
            // No other delay is added.
            let wait = Some(Duration::from_millis(millis));
            assert!(delay >= wait, "{api}: {answer:?}: {delay:?}");
        }
    }
}

/// Closes each connection with a reset, after this many bytes of a response.
async fn resetting(response: &'static str) -> (String, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU32::new(0));
    let requests = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !String::from_utf8_lossy(&request).contains(PROMPT) {
                assert_ne!(socket.read_buf(&mut request).await.unwrap(), 0);
            }
            requests.fetch_add(1, Ordering::Relaxed);
            socket.write_all(response.as_bytes()).await.unwrap();
            // The bytes must arrive before the reset.
            tokio::time::sleep(Duration::from_millis(20)).await;
            socket.set_zero_linger().unwrap();
        }
    });
    (format!("http://{address}"), count)
}

#[tokio::test]
async fn connections_that_are_refused_or_reset() {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 999\r\n\r\n: a\n\n";
    for api in STREAMS.into_iter().chain(WHOLE) {
        let (address, requests) = resetting("").await;
        let end = ask(api, &client(&address)).await;
        assert_eq!(requests.load(Ordering::Relaxed), 3, "{api}");
        assert_eq!(end.telemetry.attempts.len(), 3, "{api}");
        let errors = end.telemetry.network.errors_by_type;
        assert_eq!(
            errors.get(&NetworkErrorKind::Econnreset),
            Some(&3),
            "{api}: {errors:?}"
        );
    }
    for api in STREAMS {
        let (address, requests) = resetting(head).await;
        let end = ask(api, &client(&address)).await;
        assert_eq!(requests.load(Ordering::Relaxed), 3, "{api}");
        // The client keeps no more detail.
        let errors = end.telemetry.network.errors_by_type;
        assert_eq!(
            errors.get(&NetworkErrorKind::PartialChunks),
            Some(&3),
            "{api}: {errors:?}"
        );
    }
    // Bound but not listening, so no other program gets the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = socket.local_addr().unwrap();
    let end = ask("chat", &client(&format!("http://{closed}/?key=canary"))).await;
    let errors = end.telemetry.network.errors_by_type;
    assert_eq!(
        errors.get(&NetworkErrorKind::Econnrefused),
        Some(&3),
        "{errors:?}"
    );
    assert!(!end.error.unwrap().contains("canary"));
    let refused = reqwest::get(format!("http://{closed}/")).await.unwrap_err();
    let refused = Error::from(OpenAIError::Reqwest(refused));
    let failure = Failure::network(NetworkErrorKind::Econnrefused);
    assert_eq!((refused.failure(), refused.api()), (failure, None));
}

/// Answers each request with this head and then this text without an end, up to 256 MiB. Returns the number of bytes
/// that were accepted.
async fn endless(head: &'static str, text: &'static str) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let sent = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !String::from_utf8_lossy(&request).contains(PROMPT) {
                assert_ne!(socket.read_buf(&mut request).await.unwrap(), 0);
            }
            socket.write_all(head.as_bytes()).await.unwrap();
            let text = text.repeat(64 * 1024 / text.len());
            for _ in 0..4096 {
                if socket.write_all(text.as_bytes()).await.is_err() {
                    break;
                }
                sent.fetch_add(text.len() as u64, Ordering::Relaxed);
            }
        }
    });
    (format!("http://{address}"), count)
}

#[tokio::test]
async fn an_event_or_an_answer_without_an_end_is_cut_off() {
    const MIB: u64 = 1024 * 1024;
    /// Bytes on the way, in buffers of the system.
    const IN_TRANSIT: u64 = 16 * MIB;

    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    // Lines, as the client searches the start of a line again with each chunk.
    let comment = ": a comment that keeps the connection open for ever\n";
    let data = "data: a line of an event whose empty line never comes\n";
    for (api, text) in [("chat", comment), ("responses", data)] {
        let (address, sent) = endless(events, text).await;
        let end = ask(api, &client(&address)).await;
        assert_eq!(end.telemetry.outcome, Some(Outcome::Failed), "{api}");
        // A stream that broke off: the client keeps no reason.
        assert_eq!(end.telemetry.attempts.len(), 3, "{api}");
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent < 3 * (8 * MIB + IN_TRANSIT), "{api}: {sent}");
    }
    let json = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":\"";
    for api in WHOLE {
        let (address, sent) = endless(json, "x").await;
        let end = ask(api, &client(&address)).await;
        assert_eq!(end.telemetry.attempts.len(), 1, "{api}");
        let error = end.telemetry.error.expect("a reason");
        let message = error.message;
        assert!(
            message.starts_with("the response is too large"),
            "{api}: {message}"
        );
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent < 64 * MIB + IN_TRANSIT, "{api}: {sent}");
    }
}

/// The provider's message is available on request.
#[tokio::test]
async fn errors_are_typed() {
    let body = error("invalid_api_key", BODY).to_string();
    let answer = Answer::status(401)
        .body("application/json", body)
        .header("x-request-id", "r-1");
    let provider = ScriptedProvider::start([answer]).await.unwrap();
    let source = chat(&client(&provider.base_url()), question());
    let attempt = L0::default()
        .stream_from(source)
        .start()
        .text()
        .await
        .unwrap_err();
    let l0_core::Error::Source { source: failed, .. } = &attempt else {
        panic!("{attempt:?}");
    };
    let error = failed.api().expect("reported by the provider");
    assert_eq!(error.status(), Some(401));
    assert_eq!(error.code(), Some("invalid_api_key"));
    assert_eq!(error.message(), Some(BODY));
    assert_eq!(error.request_id(), Some("r-1"));
    assert_eq!(failed.failure().kind, FailureKind::Fatal);
    let printed = "the provider reports an error (status 401)";
    assert_eq!(failed.to_string(), printed);
    assert!(!format!("{failed:?}").contains("invalid_api_key"));
    let printed = format!("the provider reports an error (status 401, x, invalid_api_key): {BODY}");
    assert_eq!(format!("{failed:#}"), printed);

    let own = OpenAIError::InvalidArgument(BODY.to_owned());
    let own = Error::from(own);
    assert_eq!(own.failure().kind, FailureKind::Fatal);
    assert_eq!(own.api(), None);
    assert_eq!(own.to_string(), "the client rejected the request");
    assert!(!format!("{own:?}").contains(BODY));
}

#[tokio::test]
async fn a_stream_labeled_as_json_is_read() {
    let choice = |delta: Value, finish: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        let chunk = json!({
            "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [choice],
        });
        format!("data: {chunk}\n\n")
    };
    let text = choice(json!({ "content": "Hi" }), Value::Null);
    let body = format!("\n{text}{}", choice(json!({}), json!("stop")));
    let answer = Answer::new().body("application/json", body);
    let provider = ScriptedProvider::start([answer]).await.unwrap();
    let end = ask("chat", &client(&provider.base_url())).await;
    assert_eq!(end.text, "Hi");
    assert_eq!(end.telemetry.outcome, Some(Outcome::Completed));
}

/// Unknown event types are skipped if nothing of the answer is lost.
#[tokio::test]
async fn events_of_unknown_types_are_skipped() {
    let unknown = "data: {\"type\": \"response.hologram.delta\", \"delta\": \"x\"}\n\n";
    let answer = Answer::new()
        .raw(unknown)
        .token("a")
        .raw(unknown)
        .token("b");
    let provider = ScriptedProvider::start([answer]).await.unwrap();
    let end = ask("responses", &client(&provider.base_url())).await;
    assert_eq!(end.text, "ab");
    assert_eq!(end.telemetry.finish_reason, Some(FinishReason::Stop));

    // A known event with an unknown value is not skipped.
    let broken = "data: {\"type\": \"response.output_text.delta\", \"delta\": 1}\n\n";
    let answer = Answer::new().raw(broken).token("a");
    let provider = ScriptedProvider::start([answer]).await.unwrap();
    let end = ask("responses", &client(&provider.base_url())).await;
    assert_eq!(end.telemetry.outcome, Some(Outcome::Failed));
    assert_eq!(
        end.telemetry.error.unwrap().message,
        "async-openai cannot read the answer"
    );
}

/// An application's own middleware, which does not retry.
#[tokio::test]
async fn the_applications_own_middleware_is_kept() {
    let provider = ScriptedProvider::answering(|_| Answer::status(500))
        .await
        .unwrap();
    let http = ReqwestService::new(reqwest::Client::new());
    let service = tower::ServiceBuilder::new().service(http.clone());
    let once = client(&provider.base_url()).with_http_service(service);
    let end = ask("chat", &once).await;
    assert_eq!(
        (provider.requests().len(), end.telemetry.attempts.len()),
        (3, 3)
    );

    // An error that it reads itself is read further.
    let body = error("rate_limit_exceeded", "Please try again in 5ms.").to_string();
    let limited = ScriptedProvider::answering(move |_| {
        Answer::status(429).body("application/json", body.clone())
    });
    let limited = limited.await.unwrap();
    let service = tower::ServiceBuilder::new()
        .layer(OpenAIRetryLayer::new(0))
        .service(http);
    let once = client(&limited.base_url()).with_http_service(service);
    let end = ask("chat", &once).await;
    let attempts = &end.telemetry.attempts;
    assert_eq!((limited.requests().len(), attempts.len()), (3, 3));
    assert!(attempts[1].delay >= Some(Duration::from_millis(5)));
}

/// The application's item and error types, for any client.
#[derive(Debug)]
struct TextItem(String, Option<FinishReason>);

impl Token for TextItem {
    const SENDS_FINISH: bool = true;

    fn view(&self) -> TokenView<'_> {
        let mut view = TokenView::text(&self.0);
        view.finish = self.1;
        view
    }
}

#[derive(Debug)]
struct Failed(Error);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request failed")
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn sources_of_different_clients_can_be_combined() {
    fn mapped(
        source: ClientRequest<AnswerStream<CreateChatCompletionStreamResponse>>,
    ) -> impl Source<
        Answer: futures_util::Stream<Item = Result<TextItem, Failed>> + Send,
        Error = Failed,
        View = ByToken,
    > {
        source.map(
            |chunk| {
                let view = chunk.view();
                TextItem(view.answer().to_owned(), view.finish)
            },
            Failed,
        )
    }
    let request = || question::<CreateChatCompletionRequest>();
    let refusing = ScriptedProvider::answering(|_| Answer::status(503))
        .await
        .unwrap();
    let answering = ScriptedProvider::start([Answer::text(["Hel", "lo"])])
        .await
        .unwrap();
    let first = mapped(chat(&client(&refusing.base_url()), request()));
    let second = mapped(chat(&client(&answering.base_url()), request()));
    let mut run = patient().stream_from(first).fallback(second).start();
    assert_eq!(run.text().await.unwrap(), "Hello");
    let telemetry = run.telemetry().unwrap();
    // Failures are read through the application's error.
    assert_eq!(telemetry.attempts.len(), 4);
    assert_eq!(
        telemetry.network.errors_by_type[&NetworkErrorKind::ServerError],
        3
    );
    assert_eq!(
        (refusing.requests().len(), answering.requests().len()),
        (3, 1)
    );

    // The other direction works too.
    let other = source(|_attempt| async {
        let ended = futures_util::stream::iter([Ok::<_, Failed>(TextItem("x".into(), None))]);
        Ok::<_, Failed>(ended)
    });
    let answering = ScriptedProvider::start([Answer::text(["Hi"])])
        .await
        .unwrap();
    let second = mapped(chat(&client(&answering.base_url()), request()));
    let mut run = patient().stream_from(other).fallback(second).start();
    assert_eq!(run.text().await.unwrap(), "Hi");
}

#[test]
fn the_failure_of_a_response_that_is_not_an_answer_names_it() {
    let failure = Error::NotAnAnswer.failure();
    let expected = Failure::fatal().detail("the response is not an answer of the API");
    assert_eq!(failure, expected);
}
