//! Serves a chat as server-sent events, and tells Sentry of its runs, beside Sentry's integrations
//! of tower and tracing.
//!
//! ```console
//! $ SENTRY_DSN=https://key@example.ingest.sentry.io/1 cargo run -p l0-examples --bin sentry
//! $ curl -N http://127.0.0.1:3000/chat -H 'content-type: application/json' -d '{"prompt": "What is a monad?"}'
//! ```
//!
//! Each chat is two transactions in one trace: `POST /chat`, which ends when the response begins,
//! and `l0.execution`, which goes on to the end of the answer. Without a key it talks to a server
//! inside the process, half of whose connections break in mid-stream. With `OPENAI_API_KEY` set it
//! talks to `OpenAI`, with `OPENAI_BASE_URL` to any compatible server. Ctrl-C and SIGTERM stop it.
#![allow(clippy::print_stderr, reason = "it is a terminal program")]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use clap::Parser;
use l0_core::keys;
use l0_examples::chat_app::ChatApp;
use l0_examples::serve::serve;
use l0_prometheus::Collector;
use l0_sentry::{SentryConfig, SentryInterceptor};
use sentry::integrations::tower::{NewSentryLayer, SentryHttpLayer};
use sentry::integrations::tracing::{BreadcrumbLayer, ErrorLayer, SpanLayer};
use tokio::runtime::Runtime;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

/// Serves a chat as server-sent events, and tells Sentry of its runs.
#[derive(Parser)]
struct Arguments {
    /// The address to listen on; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// How many connections of the server inside the process break, as a share of 1.
    #[arg(long, default_value_t = 0.5, value_parser = l0_examples::share, value_name = "SHARE")]
    faults: f64,
}

/// How long Sentry may take to send what is left.
const FLUSH: Duration = Duration::from_secs(5);

// Not `#[tokio::main]`: the runtime's threads take their hubs from that of the main thread, so
// Sentry comes first, and sends what is left when the runtime is gone.
fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let options = sentry::ClientOptions::new() // the DSN from SENTRY_DSN
        .maybe_release(sentry::release_name!())
        .traces_sample_rate(1.0);
    let guard = sentry::init(options);
    if !guard.is_enabled() {
        eprintln!("No SENTRY_DSN: nothing is sent.");
    }
    tracing_subscriber::registry()
        .with(SpanLayer::new().with_filter(LevelFilter::INFO))
        .with(BreadcrumbLayer::new().with_filter(LevelFilter::INFO))
        .with(ErrorLayer::new().with_filter(LevelFilter::ERROR))
        .init();
    let served = Runtime::new()?.block_on(run(&arguments));
    if !l0_examples::close_sentry(guard, FLUSH) {
        eprintln!("Sentry did not get all in time.");
    }
    served
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let (client, server) = l0_examples::client(0).await?;
    if let Some(server) = &server {
        server.break_share(arguments.faults);
        eprintln!("No OPENAI_API_KEY: this talks to a server inside the process.");
    }
    // Sentry's AI dashboards show no call without it, and not every address tells who serves the model.
    let client = client.provider_name("openai");
    let config = SentryConfig::new()
        .tag("service", "chat")
        .tag_keys([keys::MODEL])?;
    let app = ChatApp {
        sentry: Some(SentryInterceptor::new(config)),
        ..ChatApp::new(client, Collector::builder().build()?)
    };
    serve(arguments.listen, with_requests(app.router()?)).await?;
    Ok(())
}

/// A hub for each request, and a transaction, which runs take for the span in scope.
fn with_requests(router: Router) -> Router {
    router
        .layer(SentryHttpLayer::new().enable_transaction())
        .layer(NewSentryLayer::new_from_top())
}
