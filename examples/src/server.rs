//! A server of all providers' APIs inside the process, with the faults of a real one.
//!
//! It speaks HTTP on a loopback port and streams answers at a realistic pace, that of models whose
//! names end in `-mini` being three times as fast. Its first connections break in mid-stream, as
//! they do; other [`Fault`]s it has when it is told.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const ANSWER: &str = "A token stream is a promise kept one word at a time. L0 listens while it is \
    kept: it notes when the first word came, how long each pause was, and what went wrong on the \
    way. If the connection breaks, it asks again. And when the stream is over, however it ended, \
    it tells you what happened.";

/// An answer that is about the model, and that leaves a block of code open.
const BAD_ANSWER: &str =
    "Sure!\n\nAs an AI language model, I would write it like this:\n\n```rust\nfn main() {";

/// How many events of an answer come before a fault in mid-stream.
const MIDDLE: usize = 14;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection breaks in mid-stream.
    Break,
    /// The answer ends in mid-stream.
    Cut,
    /// Nothing more comes from mid-stream on.
    Stall,
    /// Nothing comes at all.
    Silence,
    /// The answer is empty.
    Empty,
    /// The answer breaks rules, and drifts.
    Bad,
    /// The server is asked too often.
    RateLimited,
    /// The server is down.
    Unavailable,
    /// The request is not allowed.
    Forbidden,
}

/// The faults that are to come.
#[derive(Debug, Default)]
struct Faults {
    /// Of the next requests.
    next: VecDeque<Fault>,
    /// How many of all others break, as a share of 1.
    break_share: f64,
}

type SharedFaults = Arc<Mutex<Faults>>;

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    faults: SharedFaults,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts a server on a free loopback port, whose first `faults` connections break in
    /// mid-stream.
    ///
    /// # Errors
    ///
    /// If no loopback port can be had.
    pub async fn start(faults: usize) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Mutex::new(Faults {
            next: std::iter::repeat_n(Fault::Break, faults).collect(),
            break_share: 0.0,
        }));
        let app = Router::new()
            .route("/v1/chat/completions", post(chat))
            .route("/v1/responses", post(responses))
            .route("/v1/messages", post(messages))
            .route("/v1/models/{call}", post(generate_content))
            .with_state(Arc::clone(&faults));
        let task = tokio::spawn(async move {
            // Ends only with its task.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self {
            address,
            faults,
            task,
        })
    }

    /// What a client of any of the APIs takes as its base URL.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Lets the next requests go wrong, after those that are to go wrong already.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.faults).next.extend(faults);
    }

    /// Lets a share of all other connections break in mid-stream, from 0, none, to 1, all.
    pub fn break_share(&self, share: f64) {
        lock(&self.faults).break_share = share;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Faults {
    /// What goes wrong with the request that comes now.
    fn take(&mut self) -> Option<Fault> {
        let next = self.next.pop_front();
        next.or_else(|| (fastrand::f64() < self.break_share).then_some(Fault::Break))
    }
}

/// The events of an answer in these words, from this model.
type Events = fn(model: &str, words: &[&str]) -> Vec<String>;

async fn chat(State(faults): State<SharedFaults>, request: Bytes) -> Response {
    respond(&faults, &model_of(&request), chat_events).await
}

async fn responses(State(faults): State<SharedFaults>, request: Bytes) -> Response {
    respond(&faults, &model_of(&request), responses_events).await
}

async fn messages(State(faults): State<SharedFaults>, request: Bytes) -> Response {
    respond(&faults, &model_of(&request), messages_events).await
}

async fn generate_content(
    State(faults): State<SharedFaults>,
    Path(call): Path<String>,
) -> Response {
    let model = call.split(':').next().unwrap_or_default();
    respond(&faults, model, generate_content_events).await
}

fn model_of(request: &[u8]) -> String {
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let model = request["model"].as_str().unwrap_or("example-model");
    model.to_owned()
}

async fn respond(faults: &Mutex<Faults>, model: &str, events: Events) -> Response {
    let fault = lock(faults).take();
    let whole = |text| answer(model, text, events).map(Ok::<_, io::Error>);
    let middle = || whole(ANSWER).take(MIDDLE);
    let body = match fault {
        None => Body::from_stream(whole(ANSWER)),
        Some(Fault::Empty) => Body::from_stream(whole("")),
        Some(Fault::Bad) => Body::from_stream(whole(BAD_ANSWER)),
        Some(Fault::Break) => {
            let reset = stream::once(async { Err(io::ErrorKind::ConnectionReset.into()) });
            Body::from_stream(middle().chain(reset))
        }
        Some(Fault::Cut) => Body::from_stream(middle()),
        Some(Fault::Stall) => Body::from_stream(middle().chain(stream::pending())),
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::RateLimited) => return refuse(StatusCode::TOO_MANY_REQUESTS),
        Some(Fault::Unavailable) => return refuse(StatusCode::SERVICE_UNAVAILABLE),
        Some(Fault::Forbidden) => return refuse(StatusCode::FORBIDDEN),
    };
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// An error as the APIs give it.
fn refuse(status: StatusCode) -> Response {
    let error = json!({ "error": { "message": status.canonical_reason(), "type": "example" } });
    let headers = [(CONTENT_TYPE, "application/json")];
    (status, headers, error.to_string()).into_response()
}

/// The events of one answer, at the pace of a hosted model.
fn answer(model: &str, text: &str, events: Events) -> impl Stream<Item = Bytes> + Send + use<> {
    let pace = if model.ends_with("-mini") { 3 } else { 1 };
    let words: Vec<_> = text.split_inclusive(' ').collect();
    stream::iter(events(model, &words))
        .enumerate()
        .then(move |(index, event)| async move {
            let pause = match index {
                0 => 180,
                // Now and then the model has to think.
                _ if index % 17 == 0 => fastrand::u64(120..180),
                _ => fastrand::u64(12..40),
            };
            sleep(Duration::from_millis(pause / pace)).await;
            Bytes::from(event)
        })
}

/// An event without a name.
fn data(data: impl std::fmt::Display) -> String {
    format!("data: {data}\n\n")
}

/// An event with the name that its payload has as its type.
fn named(payload: &Value) -> String {
    let name = payload["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {payload}\n\n")
}

fn chat_events(model: &str, words: &[&str]) -> Vec<String> {
    let role = delta(model, &json!({ "role": "assistant", "content": "" }), None);
    let deltas = words
        .iter()
        .map(|word| delta(model, &json!({ "content": word }), None));
    let last = delta(model, &json!({}), Some("stop"));
    let count = words.len();
    let usage = chunk(
        model,
        &json!([]),
        &json!({ "prompt_tokens": 9, "completion_tokens": count, "total_tokens": count + 9 }),
    );
    let events = std::iter::once(role).chain(deltas);
    events
        .chain([last, usage, "[DONE]".to_owned()])
        .map(data)
        .collect()
}

fn delta(model: &str, delta: &Value, finish_reason: Option<&str>) -> String {
    let choice = json!([{ "index": 0, "delta": delta, "finish_reason": finish_reason }]);
    chunk(model, &choice, &Value::Null)
}

fn chunk(model: &str, choices: &Value, usage: &Value) -> String {
    json!({
        "id": "chatcmpl-example",
        "object": "chat.completion.chunk",
        "created": 1_700_000_000,
        "model": model,
        "choices": choices,
        "usage": usage,
    })
    .to_string()
}

fn responses_events(model: &str, words: &[&str]) -> Vec<String> {
    let response = |kind: &str, status: &str, usage: &Value| {
        json!({ "type": kind, "response": {
            "id": "resp_example", "model": model, "status": status, "usage": usage,
        } })
    };
    let created = response("response.created", "in_progress", &Value::Null);
    let deltas = words
        .iter()
        .map(|word| json!({ "type": "response.output_text.delta", "delta": word }));
    let count = words.len();
    let usage = json!({ "input_tokens": 9, "output_tokens": count, "total_tokens": count + 9 });
    let completed = response("response.completed", "completed", &usage);
    let events = std::iter::once(created).chain(deltas).chain([completed]);
    events.map(|event| named(&event)).collect()
}

fn messages_events(model: &str, words: &[&str]) -> Vec<String> {
    let start = json!({ "type": "message_start", "message": {
        "id": "msg_example", "model": model, "usage": { "input_tokens": 9, "output_tokens": 1 },
    } });
    let deltas = words.iter().map(|word| {
        let delta = json!({ "type": "text_delta", "text": word });
        json!({ "type": "content_block_delta", "index": 0, "delta": delta })
    });
    let last = json!({
        "type": "message_delta",
        "delta": { "stop_reason": "end_turn" },
        "usage": { "output_tokens": words.len() },
    });
    let events = std::iter::once(start).chain(deltas);
    let events = events.chain([last, json!({ "type": "message_stop" })]);
    events.map(|event| named(&event)).collect()
}

fn generate_content_events(model: &str, words: &[&str]) -> Vec<String> {
    let last = words.len().saturating_sub(1);
    let events = words.iter().enumerate().map(|(index, word)| {
        let finish = (index == last).then_some("STOP");
        json!({
            "candidates": [{
                "content": { "parts": [{ "text": word }], "role": "model" },
                "finishReason": finish,
                "index": 0,
            }],
            "usageMetadata": {
                "promptTokenCount": 9,
                "candidatesTokenCount": index + 1,
                "totalTokenCount": index + 10,
            },
            "modelVersion": model,
            "responseId": "example",
        })
    });
    events.map(data).collect()
}
