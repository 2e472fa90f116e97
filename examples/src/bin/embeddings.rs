//! A call with an answer that does not stream: retried and measured, with its usage. The provider is
//! scripted.
//!
//! ```console
//! $ cargo run -p l0-examples --bin embeddings
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::time::Duration;

use l0_core::{L0, Monitoring, Timeouts, Usage};
use l0_providers::openai::Client;
use l0_providers::testing::{Answer, ScriptedProvider};
use serde_json::json;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let provider = ScriptedProvider::start([
        Answer::status(429).header("retry-after", "0"),
        Answer::embeddings([[0.5, -0.25, 0.125], [0.0, 1.0, 0.5]]).usage(Usage::new().input(8)),
    ])
    .await?;
    let client = Client::new(&provider.base_url())?;
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        // The time for the answer of each attempt.
        .timeouts(Timeouts::new().answer(Duration::from_secs(30)))
        .build();

    let request = json!({
        "model": "text-embedding-3-small",
        "input": ["What is a monad?", "What is a functor?"],
    });
    let mut call = l0.call_from(client.embeddings(&request)).start();
    // By reference, to read its telemetry afterwards.
    let embeddings = (&mut call).await?;

    for vector in &embeddings.vectors {
        println!("{} dimensions: {vector:?}", vector.len());
    }
    println!("\n{}", call.telemetry().expect("monitoring is on"));
    Ok(())
}
