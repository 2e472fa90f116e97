//! A chat application behind axum: what a service with L0 looks like.
//!
//! | route | what it is |
//! |---|---|
//! | `POST /chat` | takes `{"prompt": "...", "model": "..."}`, where the model may be left out, and streams the answer as server-sent events |
//! | `GET /metrics` | what Prometheus scrapes |
//!
//! The events of an answer, each with JSON as its data:
//!
//! | event | data | meaning |
//! |---|---|---|
//! | `token` | `{"text": "..."}` | more of the answer |
//! | `restart` | `{"attempt": 2}` | discard the answer so far: it begins anew |
//! | `done` | `{"outcome": "completed"}` | the answer is complete; the last event |
//! | `error` | `{"outcome": "...", "message": "..."}` | the answer failed; the last event |

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Json, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{BoxError, Router};
use futures_util::{Stream, StreamExt, stream};
use l0_core::{
    Backoff, Chunk, Currency, Error, KeyError, L0, Money, Monitoring, Outcome, Price, Retry, Run,
    Timeouts, TokenPrices, keys,
};
use l0_guardrails::{Drift, Guardrails};
use l0_pricing::{Characters, PriceList};
use l0_prometheus::{Collector, metrics_route};
use l0_providers::openai::{ChatRequest, Client};
use l0_providers::{ProviderToken, RequestError};
use l0_sentry::SentryInterceptor;
use serde::Deserialize;
use serde_json::{Value, json};

/// The models that are offered unless others are named.
pub const MODELS: [&str; 3] = ["gpt-4o-mini", "gpt-4.1-mini", "gpt-4o"];

/// How large a request may be, in bytes.
const MAX_REQUEST: usize = 64 * 1024;

/// What the application is made from.
#[derive(Debug, Clone)]
pub struct ChatApp {
    /// Whom it asks.
    pub client: Client,
    /// Where its runs are counted.
    pub collector: Collector,
    /// The models that may be asked for; the first is the default. The model becomes a label, so it
    /// must not be any text that a client sends.
    pub models: Vec<String>,
    /// How long it waits for a model.
    pub timeouts: Timeouts,
    /// What tells Sentry of its runs, if anything does.
    pub sentry: Option<SentryInterceptor>,
}

impl ChatApp {
    /// An application with the [`MODELS`] and a service's timeouts.
    #[must_use]
    pub fn new(client: Client, collector: Collector) -> Self {
        Self {
            client,
            collector,
            models: MODELS.map(str::to_owned).into(),
            timeouts: Timeouts::new()
                .first_token(Duration::from_secs(60))
                .inter_token(Duration::from_secs(30))
                .idle(Duration::from_secs(45))
                .total(Duration::from_secs(300)),
            sentry: None,
        }
    }

    /// The application as a router.
    ///
    /// # Errors
    ///
    /// If the collector refuses the names of the labels, which it does not.
    pub fn router(self) -> Result<Router, KeyError> {
        let l0 = self.l0()?;
        Ok(self.router_of(l0))
    }

    /// What its runs are made from.
    ///
    /// # Errors
    ///
    /// As of [`router`](Self::router).
    pub fn l0(&self) -> Result<L0, KeyError> {
        let collector = self.collector.clone();
        Ok(L0::builder()
            .monitoring(Monitoring::new())
            .retry(Retry::new().backoff(Backoff::fixed_jitter(
                Duration::from_millis(200),
                Duration::from_secs(5),
            )))
            .timeouts(self.timeouts)
            .guardrails(Guardrails::recommended())
            .drift(Drift::new())
            .pricing(prices())
            .estimate_usage(Characters::per_token(4.0).estimator())
            .interceptor(collector.label_keys([keys::MODEL, keys::ENDPOINT])?)
            .interceptor(self.sentry.clone())
            .build())
    }

    /// The application as a router, of runs that are made from a variant of its own [`l0`](Self::l0).
    pub fn router_of(self, l0: L0) -> Router {
        let service = Service {
            l0,
            client: self.client,
            models: self.models.into(),
        };
        Router::new()
            .route("/chat", post(chat))
            .layer(DefaultBodyLimit::max(MAX_REQUEST))
            .route("/metrics", metrics_route(self.collector))
            .with_state(service)
    }
}

/// What the [`MODELS`] cost. A service reads it from a file.
fn prices() -> PriceList {
    let cents = |input, output| {
        let tokens = TokenPrices::per_million(Money::cents(input), Money::cents(output));
        Price::new(Currency::USD, tokens)
    };
    PriceList::new()
        .model("gpt-4o-mini", cents(15, 60))
        .model("gpt-4.1-mini", cents(40, 160))
        .model("gpt-4o", cents(250, 1_000))
}

/// What the handlers share.
#[derive(Clone)]
struct Service {
    l0: L0,
    client: Client,
    models: Arc<[String]>,
}

#[derive(Deserialize)]
struct ChatBody {
    prompt: String,
    model: Option<String>,
}

async fn chat(State(service): State<Service>, Json(body): Json<ChatBody>) -> Response {
    let model = match &body.model {
        Some(model) => service.models.iter().find(|known| *known == model),
        None => service.models.first(),
    };
    let Some(model) = model else {
        return (StatusCode::BAD_REQUEST, "there is no such model\n").into_response();
    };
    if body.prompt.trim().is_empty() {
        return (StatusCode::BAD_REQUEST, "the prompt is empty\n").into_response();
    }

    tracing::info!(model, "a chat begins");
    let request = ChatRequest::new(model).user(&body.prompt);
    // The source borrows nothing, so the run can leave this function.
    let run = service
        .l0
        .stream_from(service.client.chat(&request))
        .metadata(keys::ENDPOINT, "/chat")
        .start();
    // Comments while the model is silent: proxies would take the connection for idle.
    Sse::new(events(run))
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// The events of an answer. They own the run: a client that goes away drops the response's body, and
/// the run with it, which counts it as dropped and closes the connection to the model.
fn events(
    run: Run<'static, ProviderToken, RequestError>,
) -> impl Stream<Item = Result<Event, BoxError>> + Send {
    let events = stream::unfold(Some(run), |run| async {
        let mut run = run?;
        loop {
            let (name, data) = match run.next().await {
                Some(Ok(Chunk::Item(token))) => {
                    if token.answer().is_empty() {
                        continue;
                    }
                    ("token", json!({ "text": token.answer() }))
                }
                Some(Ok(Chunk::Restart { attempt, .. })) => {
                    ("restart", json!({ "attempt": attempt }))
                }
                Some(Err(error)) => return Some((failed(&error), None)),
                None => {
                    let outcome = run.outcome().map(Outcome::as_str);
                    return Some((("done", json!({ "outcome": outcome })), None));
                }
            };
            return Some(((name, data), Some(run)));
        }
    });
    events.map(|(name, data)| Ok(Event::default().event(name).json_data(data)?))
}

/// What a client is told of an error: not its own text, which is for the operator and may name
/// addresses, keys or a part of the prompt.
fn failed<E>(error: &Error<E>) -> (&'static str, Value) {
    let message = match error {
        Error::Timeout(_) => "The model takes too long.",
        Error::Guardrail(_) => "The answer was not fit to be shown.",
        Error::ZeroOutput => "The model gave no answer.",
        Error::Truncated => "The answer broke off.",
        _ => "The model cannot be asked at the moment.",
    };
    let outcome = error.outcome().as_str();
    ("error", json!({ "outcome": outcome, "message": message }))
}
