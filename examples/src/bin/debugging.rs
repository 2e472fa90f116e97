//! Prints all events of a run, and then its telemetry.
//!
//! ```console
//! $ cargo run -p l0-examples --bin debugging            # events
//! $ cargo run -p l0-examples --bin debugging -- tokens  # also each token
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;

use l0_core::{Event, Interest, L0, Monitoring, observe_fn};
use l0_providers::openai::ChatRequest;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let interest = match std::env::args().nth(1).as_deref() {
        Some("tokens") => Interest::TOKENS,
        _ => Interest::LIFECYCLE,
    };
    let (client, _server) = l0_examples::client(1).await?;
    let l0 = L0::builder()
        .monitoring(
            Monitoring::new() // every run, with all details
                .metadata("environment", "development")
                .metadata("test_id", 7),
        )
        .interceptor(
            observe_fn(|_run, event| match event {
                // Its telemetry is printed below.
                Event::Finished { end, .. } => println!("Finished: {}", end.outcome()),
                // `Debug` prints neither the text of a token nor the error of the source.
                event => println!("{event:?}"),
            })
            .interest(interest),
        )
        .build();

    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    let mut run = l0.stream_from(client.chat(&request)).start();
    let answer = run.text().await;
    if let Some(telemetry) = run.telemetry() {
        println!("{}", l0_export::json::to_string_pretty(&telemetry)?);
    }
    answer?;
    Ok(())
}
