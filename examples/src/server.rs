//! An OpenAI-compatible server inside the process, with the faults of a real one.
//!
//! It speaks HTTP on a loopback port and streams Chat Completions at a realistic pace, that of
//! models whose names end in `-mini` being three times as fast. Its first connections break in
//! mid-stream, as they do; other [`Fault`]s it has when it is told.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
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

    /// What an OpenAI client takes as its base URL.
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

async fn chat(State(faults): State<SharedFaults>, request: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&request).unwrap_or_default();
    let model = request["model"]
        .as_str()
        .unwrap_or("example-model")
        .to_owned();
    let fault = lock(&faults).take();
    let middle = || answer(&model, ANSWER).take(MIDDLE).map(Ok::<_, io::Error>);
    let body = match fault {
        None => Body::from_stream(answer(&model, ANSWER).map(Ok::<_, io::Error>)),
        Some(Fault::Empty) => Body::from_stream(answer(&model, "").map(Ok::<_, io::Error>)),
        Some(Fault::Bad) => Body::from_stream(answer(&model, BAD_ANSWER).map(Ok::<_, io::Error>)),
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

/// An error as the API gives it.
fn refuse(status: StatusCode) -> Response {
    let error = json!({ "error": { "message": status.canonical_reason(), "type": "example" } });
    let headers = [(CONTENT_TYPE, "application/json")];
    (status, headers, error.to_string()).into_response()
}

/// The events of one answer, at the pace of a hosted model.
fn answer(model: &str, text: &str) -> impl Stream<Item = Bytes> + Send + use<> {
    let pace = if model.ends_with("-mini") { 3 } else { 1 };
    let words = text
        .split_inclusive(' ')
        .map(|word| json!({ "content": word }));
    let count = text.split_inclusive(' ').count();
    let role = delta(model, &json!({ "role": "assistant", "content": "" }), None);
    let last = delta(model, &json!({}), Some("stop"));
    let usage = chunk(
        model,
        &json!([]),
        &json!({ "prompt_tokens": 9, "completion_tokens": count, "total_tokens": count + 9 }),
    );
    let deltas: Vec<_> = words.map(|word| delta(model, &word, None)).collect();
    let events = std::iter::once(role)
        .chain(deltas)
        .chain([last, usage, "[DONE]".to_owned()]);
    stream::iter(events)
        .enumerate()
        .then(move |(index, data)| async move {
            let pause = match index {
                0 => 180,
                // Now and then the model has to think.
                _ if index % 17 == 0 => fastrand::u64(120..180),
                _ => fastrand::u64(12..40),
            };
            sleep(Duration::from_millis(pause / pace)).await;
            Bytes::from(format!("data: {data}\n\n"))
        })
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
