//! A first run: prints its tokens as they arrive, and then its telemetry.
//!
//! ```console
//! $ cargo run -p l0-examples --bin quick_start
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::io::{Write, stdout};

use futures_util::StreamExt;
use l0_core::{Chunk, L0, Monitoring};
use l0_providers::openai::ChatRequest;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, _server) = l0_examples::client(0).await?;
    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");

    let l0 = L0::builder().monitoring(Monitoring::new()).build();
    let mut run = l0.stream_from(client.chat(&request)).start();
    while let Some(chunk) = run.next().await {
        match chunk? {
            Chunk::Item(token) => print!("{}", token.answer()),
            Chunk::Restart { .. } => println!("\n--"),
        }
        stdout().flush()?;
    }
    println!("\n");

    let telemetry = run.telemetry().ok_or("monitoring is on")?;
    println!("Session ID: {}", telemetry.session_id);
    if let Some(duration) = telemetry.duration {
        println!("Duration: {:.0} ms", duration.as_secs_f64() * 1e3);
    }
    println!("Tokens: {}", telemetry.metrics.total_tokens);
    if let Some(rate) = telemetry.metrics.tokens_per_second {
        println!("Tokens/sec: {rate:.1}");
    }
    println!("Network errors: {}", telemetry.network.error_count);
    Ok(())
}
