//! Serves a chat as server-sent events, and reports its runs to Sentry, next to Sentry's integrations for
//! tower and tracing.
//!
//! ```console
//! $ SENTRY_DSN=https://key@example.ingest.sentry.io/1 cargo run -p l0-examples --bin sentry --features sentry
//! $ curl -N http://127.0.0.1:3000/chat -H 'content-type: application/json' -d '{"prompt": "What is a monad?"}'
//! ```
//!
//! Each chat is two transactions in one trace. `POST /chat` ends when the response begins, and
//! `l0.execution` continues to the end of the answer. Without a key, the example talks to a server inside
//! the process that breaks half of the connections mid-stream. With `OPENAI_API_KEY` set, it talks to
//! `OpenAI`. With `OPENAI_BASE_URL` set, it talks to any compatible server. Ctrl-C and SIGTERM stop it.
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

/// Serves a chat as server-sent events, and reports its runs to Sentry.
#[derive(Parser)]
struct Arguments {
    /// Address to listen on; port 0 selects a free port.
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Share of connections of the server inside the process that break, from 0 to 1.
    #[arg(long, default_value_t = 0.5, value_parser = l0_examples::share, value_name = "SHARE")]
    faults: f64,
}

/// The time for Sentry to send the rest.
const FLUSH: Duration = Duration::from_secs(5);

// Without `#[tokio::main]`: the threads of the runtime derive their hubs from the main thread, so Sentry is
// initialized first, and flushed after the runtime is dropped.
fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let options = sentry::ClientOptions::new() // the DSN from SENTRY_DSN
        .maybe_release(sentry::release_name!())
        .traces_sample_rate(1.0);
    let guard = sentry::init(options);
    if !guard.is_enabled() {
        eprintln!("SENTRY_DSN is not set: nothing is sent.");
    }
    tracing_subscriber::registry()
        .with(SpanLayer::new().with_filter(LevelFilter::INFO))
        .with(BreadcrumbLayer::new().with_filter(LevelFilter::INFO))
        .with(ErrorLayer::new().with_filter(LevelFilter::ERROR))
        .init();
    let served = Runtime::new()?.block_on(run(&arguments));
    if !l0_examples::close_sentry(guard, FLUSH) {
        eprintln!("Sentry did not receive everything in time.");
    }
    served
}

async fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let (client, server) = l0_examples::client(0).await?;
    if let Some(server) = &server {
        server.break_share(arguments.faults);
        eprintln!("OPENAI_API_KEY is not set: using a server inside the process.");
    }
    // Sentry's AI dashboards need the provider, and some addresses do not identify it.
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

/// Adds a hub and a transaction for each request. The transaction is the parent of the runs.
fn with_requests(router: Router) -> Router {
    router
        .layer(SentryHttpLayer::new().enable_transaction())
        .layer(NewSentryLayer::new_from_top())
}
