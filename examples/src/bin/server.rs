//! A chat service in one file: server-sent events, `/metrics` for Prometheus, `/l0` for a browser, Sentry.
//!
//! ```console
//! $ OPENAI_API_KEY=.. cargo run -p l0-examples --bin server --features server
//! $ curl -N http://127.0.0.1:3000/chat -H 'content-type: application/json' -d '{"prompt": "Hi"}'
//! ```
#![allow(clippy::print_stdout, reason = "prints where it listens")]

use std::{env, error::Error as StdError, sync::mpsc, thread, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::{Router, extract::Json, extract::State, http::StatusCode, routing::post};
use futures_util::{Stream, StreamExt, future, stream};
use l0_core::{Chunk, Error, L0, Outcome, Run, Stalls, Timeouts, keys};
use l0_live::Live;
use l0_prometheus::{Collector, metrics_route};
use l0_providers::openai::{ChatRequest, Client};
use l0_providers::{ProviderToken, RequestError};
use l0_sentry::{SentryConfig, SentryInterceptor};
use serde_json::{Value, json};
use tokio::signal::{ctrl_c, unix};
use tokio::{net::TcpListener, runtime::Runtime, sync::oneshot, time::timeout};

/// The models that clients can name; the first is the default.
const MODELS: [&str; 3] = ["gpt-4o-mini", "gpt-4.1-mini", "gpt-4o"];
type EventResult = Result<Event, axum::Error>;

// Not `#[tokio::main]`: Sentry starts before the runtime and is flushed after it.
fn main() -> Result<(), Box<dyn StdError>> {
    let sentry = sentry::init(sentry::ClientOptions::new()); // does nothing without SENTRY_DSN
    let runtime = Runtime::new()?;
    let served = runtime.block_on(serve(sentry.is_enabled()));
    runtime.shutdown_timeout(Duration::from_secs(1)); // drops tasks that hang, and their runs
    let (sender, flushed) = mpsc::channel();
    thread::spawn(move || sender.send(sentry.close(None))); // can take longer than its own timeout
    let _ = flushed.recv_timeout(Duration::from_secs(5));
    served
}

async fn serve(sentry: bool) -> Result<(), Box<dyn StdError>> {
    let seconds = env::var("TOKEN_TIMEOUT").map_or(Ok(30), |seconds| seconds.parse())?;
    let wait = Duration::from_secs(seconds); // for a token; a run is stalled after a third of it
    let timeouts = Timeouts::new().first_token(wait).inter_token(wait);
    let stalls = Stalls::new().after(wait / 3).first_token_after(wait / 3);
    let collector = Collector::builder().stalls(stalls).build()?;
    let live = Live::builder().stalls(stalls).build();
    let l0 = L0::builder()
        .timeouts(timeouts.total(10 * wait))
        .interceptor(collector.label_keys([keys::MODEL, keys::ENDPOINT])?)
        .interceptor(live.clone())
        .interceptor(sentry.then(|| SentryInterceptor::new(SentryConfig::new())))
        .build();
    let app = Router::new()
        .route("/chat", post(chat))
        .route("/metrics", metrics_route(collector))
        .nest_service("/l0", l0_live::routes(live))
        .with_state((l0.clone(), Client::from_env()?));
    let mut terminated = unix::signal(unix::SignalKind::terminate())?;
    let address = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let (open, closed) = oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async { drop(closed.await) });
    let server = tokio::spawn(server.into_future());
    future::select(Box::pin(ctrl_c()), Box::pin(terminated.recv())).await;
    drop(open); // accepts no more connections and requests
    let mut ended = Box::pin(async { (server.await, l0.ended().await) });
    if timeout(Duration::from_secs(20), &mut ended).await.is_err() {
        l0.abort_all();
        let _ = timeout(Duration::from_secs(1), ended).await; // the last events are sent
    }
    Ok(())
}

#[derive(serde::Deserialize)]
pub(crate) struct ChatBody {
    prompt: String,
    model: Option<String>,
}

pub(crate) async fn chat(
    State((l0, client)): State<(L0, Client)>,
    Json(body): Json<ChatBody>,
) -> Result<Sse<impl Stream<Item = EventResult>>, (StatusCode, &'static str)> {
    let model = body.model.as_deref().unwrap_or(MODELS[0]);
    let known = MODELS.contains(&model).then_some(model); // the model becomes a label
    let model = known.ok_or((StatusCode::BAD_REQUEST, "unknown model\n"))?;
    let request = ChatRequest::new(model).user(&body.prompt);
    let run = l0.stream_from(client.chat(&request));
    let events = events(run.metadata(keys::ENDPOINT, "/chat").start());
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Owns the run: a client that disconnects drops the response, and with it the run.
fn events(run: Run<'static, ProviderToken, RequestError>) -> impl Stream<Item = EventResult> {
    let handle = run.handle();
    let chunks = run.map(Some).chain(stream::iter([None])); // `None` is the end
    chunks.filter_map(move |chunk| {
        let event = match chunk {
            Some(Ok(Chunk::Item(token))) if token.answer().is_empty() => None, // such as usage
            Some(Ok(Chunk::Item(token))) => Some(("token", json!({ "text": token.answer() }))),
            Some(Ok(Chunk::Restart { .. })) => Some(("restart", json!({}))),
            Some(Err(error)) => Some(("error", failed(&error))),
            None => (handle.outcome() == Some(Outcome::Completed)).then(|| ("done", json!({}))),
        };
        future::ready(event.map(|(name, data)| Event::default().event(name).json_data(data)))
    })
}

/// Returns the message for the user. The text of the error is for operators.
fn failed(error: &Error<RequestError>) -> Value {
    let message = match error {
        Error::Timeout(_) => "The model takes too long.",
        Error::Truncated | Error::Aborted => "The answer broke off.",
        Error::ZeroOutput => "The model gave no answer.",
        _ => "The model is not available at the moment.",
    };
    json!({ "class": error.end().error_type(), "message": message })
}
