//! Prints tokens as they arrive, and then the telemetry.
//!
//! ```console
//! $ cargo run -p l0-examples --bin console
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::io::{Write, stdout};

use l0_core::{Event, L0, Monitoring, observe_fn};
use l0_providers::openai::ChatRequest;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, _server) = l0_examples::client(0).await?;
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(observe_fn(|_run, event| {
            if let Event::Token { view, .. } = event {
                print!("{}", view.answer());
                // A failed write to the terminal does not stop the run.
                let _ = stdout().flush();
            }
        }))
        .build();

    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    let mut run = l0.stream_from(client.chat(&request)).start();
    run.text().await?;

    if let Some(telemetry) = run.telemetry() {
        println!("\n");
        println!("{telemetry}");

        // Or print single numbers. Unknown ones are absent.
        let metrics = &telemetry.metrics;
        if let (Some(duration), Some(rate)) = (telemetry.duration, metrics.tokens_per_second) {
            println!(
                "\n{} tokens in {duration:.2?}: {rate:.2}/s",
                metrics.total_tokens
            );
        }
    }
    Ok(())
}
