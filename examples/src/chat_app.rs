//! The service that `sentry`, `shutdown` and the tests share: the chat of the program `server`, with prices, rules and
//! drift detection.
//!
//! | route | purpose |
//! |---|---|
//! | `POST /chat` | the handler of `server` |
//! | `GET /metrics` | the metrics for Prometheus |
//! | `GET /l0` | the page of live runs |

use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use l0_core::{
    Backoff, Currency, KeyError, L0, Money, Monitoring, Price, Retry, Timeouts, TokenPrices, keys,
};
use l0_guardrails::{Drift, Guardrails};
use l0_live::Live;
use l0_pricing::{Characters, PriceList};
use l0_prometheus::{Collector, metrics_route};
use l0_providers::openai::Client;
use l0_sentry::SentryInterceptor;

#[path = "bin/server.rs"]
#[allow(dead_code, reason = "only its handler is used")]
mod program;

/// The application and its settings.
#[derive(Debug, Clone)]
pub struct ChatApp {
    /// The client of the model.
    pub client: Client,
    /// The collector of its metrics.
    pub collector: Collector,
    /// The list of its live runs.
    pub live: Live,
    /// The timeouts of the runs.
    pub timeouts: Timeouts,
    /// The interceptor for Sentry, or `None`.
    pub sentry: Option<SentryInterceptor>,
}

impl ChatApp {
    /// Creates an application with the timeouts of a service.
    #[must_use]
    pub fn new(client: Client, collector: Collector) -> Self {
        Self {
            client,
            collector,
            live: Live::new(),
            timeouts: Timeouts::new()
                .first_token(Duration::from_secs(60))
                .inter_token(Duration::from_secs(30))
                .idle(Duration::from_secs(45))
                .total(Duration::from_secs(300)),
            sentry: None,
        }
    }

    /// Returns the application as a router.
    ///
    /// # Errors
    ///
    /// Never: the collector accepts these label names.
    pub fn router(self) -> Result<Router, KeyError> {
        let l0 = self.l0()?;
        Ok(self.router_of(l0))
    }

    /// Creates the `L0` of its runs.
    ///
    /// # Errors
    ///
    /// The same as for [`router`](Self::router).
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
            .interceptor(self.live.clone())
            .interceptor(self.sentry.clone())
            .build())
    }

    /// Returns the application as a router, with a variant of its own [`l0`](Self::l0).
    pub fn router_of(self, l0: L0) -> Router {
        let chat = post(program::chat).layer(middleware::from_fn(log));
        Router::new()
            .route("/chat", chat)
            .route("/metrics", metrics_route(self.collector))
            .nest_service("/l0", l0_live::routes(self.live))
            .with_state((l0, self.client))
    }
}

/// The prices of the models of `server`. A service reads them from a file.
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

/// Logs a request before it is handled.
async fn log(request: Request, next: Next) -> Response {
    tracing::info!("a chat begins");
    next.run(request).await
}
