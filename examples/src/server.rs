//! An OpenAI-compatible server inside the process, with the faults of a real one.
//!
//! It speaks HTTP on a loopback port and streams Chat Completions at a realistic pace, that of
//! models whose names end in `-mini` being three times as fast. Its first connections break in
//! mid-stream, as they do.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
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

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
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
        let app = Router::new()
            .route("/v1/chat/completions", post(chat))
            .with_state(Arc::new(AtomicUsize::new(faults)));
        let task = tokio::spawn(async move {
            // Ends only with its task.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, task })
    }

    /// What an OpenAI client takes as its base URL.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn chat(State(faults): State<Arc<AtomicUsize>>, request: Bytes) -> Response {
    let request: Value = serde_json::from_slice(&request).unwrap_or_default();
    let model = request["model"]
        .as_str()
        .unwrap_or("example-model")
        .to_owned();
    let breaks = faults
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        })
        .is_ok();
    let body = if breaks {
        let cut = answer(&model).take(14).map(Ok::<_, io::Error>);
        let reset = stream::once(async { Err(io::ErrorKind::ConnectionReset.into()) });
        Body::from_stream(cut.chain(reset))
    } else {
        Body::from_stream(answer(&model).map(Ok::<_, Infallible>))
    };
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// The events of one answer, at the pace of a hosted model.
fn answer(model: &str) -> impl Stream<Item = Bytes> + Send + use<> {
    let pace = if model.ends_with("-mini") { 3 } else { 1 };
    let words = ANSWER
        .split_inclusive(' ')
        .map(|word| json!({ "content": word }));
    let count = ANSWER.split(' ').count();
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
