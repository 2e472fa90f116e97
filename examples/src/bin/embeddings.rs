//! A call whose answer does not stream: retried, counted, with its usage. The provider is scripted.
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
        // How long an attempt of a call may wait for its answer.
        .timeouts(Timeouts::new().answer(Duration::from_secs(30)))
        .build();

    let request = json!({
        "model": "text-embedding-3-small",
        "input": ["What is a monad?", "What is a functor?"],
    });
    let mut call = l0.call_from(client.embeddings(&request)).start();
    // By reference, so that it can be asked afterwards.
    let embeddings = (&mut call).await?;

    for vector in &embeddings.vectors {
        println!("{} dimensions: {vector:?}", vector.len());
    }
    println!("\n{}", call.telemetry().expect("monitoring is on"));
    Ok(())
}
