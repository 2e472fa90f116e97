//! Reports to Sentry manually: a whole future, or each step of an execution that is not one L0 run.
//!
//! ```console
//! $ cargo run -p l0-examples --bin sentry_by_hand --features sentry_by_hand
//! $ SENTRY_DSN=https://key@example.ingest.sentry.io/1 cargo run -p l0-examples --bin sentry_by_hand --features sentry_by_hand
//! ```
//!
//! Without `SENTRY_DSN`, the example prints what Sentry would receive. To report runs automatically, use the
//! interceptor: see the example `sentry`.
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::{Chunk, L0, Monitoring, Retry};
use l0_examples::server::Fault;
use l0_providers::openai::{ChatRequest, Client};
use l0_sentry::{SentryConfig, SentryIntegration, with_sentry};
use sentry::protocol::{Context, Envelope, EnvelopeItem};
use sentry::{ClientOptions, Transport};
use tokio::runtime::Runtime;

/// The time for Sentry to send the rest.
const FLUSH: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let options = ClientOptions::new().traces_sample_rate(1.0);
    let options = match std::env::var("SENTRY_DSN") {
        Ok(dsn) => options.dsn(&dsn),
        Err(_) => options
            .dsn("http://key@localhost/1")
            .transport(Arc::new(Print)),
    };
    let guard = sentry::init(options); // before the runtime, whose threads derive their hubs from this one
    let reported = Runtime::new()?.block_on(report());
    if !l0_examples::close_sentry(guard, FLUSH) {
        println!("Sentry did not receive everything in time.");
    }
    reported
}

async fn report() -> Result<(), Box<dyn Error>> {
    let (client, server) = l0_examples::client(0).await?;
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .build();
    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    let config = SentryConfig::new().tag("environment", "example");

    println!("-- around a future");
    with_sentry(config.clone(), async {
        let mut run = l0.stream(|_attempt| client.chat_stream(&request)).start();
        run.text().await
    })
    .await?;

    let sentry = SentryIntegration::new(config);
    println!("-- manually");
    manually(&sentry, &l0, &client, &request).await?;

    println!("-- manually, with a failure");
    if let Some(server) = &server {
        server.fail_next([Fault::Break]);
    }
    if let Err(error) = manually(&sentry, &l0, &client, &request).await {
        println!("{error}");
    }
    Ok(())
}

async fn manually(
    sentry: &SentryIntegration,
    l0: &L0,
    client: &Client,
    request: &ChatRequest,
) -> Result<String, Box<dyn Error>> {
    let mut execution = sentry.start_execution("my-chat-request", [("user_id", "123")]);
    execution.start_stream();
    let mut run = l0.stream(|_attempt| client.chat_stream(request)).start();
    let (mut text, mut tokens) = (String::new(), 0);
    while let Some(chunk) = run.next().await {
        match chunk {
            Ok(Chunk::Item(token)) if !token.answer().is_empty() => {
                tokens += 1;
                if tokens == 1 {
                    let telemetry = run.telemetry().unwrap_or_default();
                    let after = telemetry.metrics.time_to_first_token;
                    execution.record_first_token(after.unwrap_or_default());
                }
                execution.record_token(token.answer());
                text.push_str(token.answer());
            }
            Ok(Chunk::Restart { .. }) => text.clear(),
            Ok(_) => {}
            Err(error) => {
                execution.fail(&error, run.telemetry().as_ref());
                return Err(error.into());
            }
        }
    }
    execution.complete_stream(tokens);
    execution.complete(run.telemetry().as_ref());
    Ok(text)
}

/// Prints what Sentry would receive.
struct Print;

impl Transport for Print {
    fn send_envelope(&self, envelope: Envelope) {
        for item in envelope.items() {
            match item {
                EnvelopeItem::Event(event) => {
                    let title = event.exception.iter().find_map(|one| one.value.as_deref());
                    println!("[{}] {}", event.level, title.unwrap_or("no title"));
                    println!("  tags: {:?}", event.tags);
                    for crumb in &event.breadcrumbs {
                        println!("  {}", crumb.message.as_deref().unwrap_or_default());
                    }
                }
                EnvelopeItem::Transaction(transaction) => {
                    let name = transaction.name.as_deref().unwrap_or_default();
                    println!("[transaction] {name}");
                    for span in &transaction.spans {
                        println!("  {}", span.op.as_deref().unwrap_or_default());
                    }
                    if let Some(Context::Other(numbers)) = transaction.contexts.get("l0_telemetry")
                    {
                        println!("  l0_telemetry: {numbers:?}");
                    }
                }
                _ => {}
            }
        }
    }
}
