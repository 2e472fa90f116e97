//! Profiles many runs: their outcomes, and the distribution of their times.
//!
//! ```console
//! $ cargo run -p l0-examples --bin profiling --features profiling         # 100 runs, 20 at a time
//! $ cargo run -p l0-examples --bin profiling --features profiling -- 500
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use l0_core::{Backoff, L0, Monitoring, Retry, keys};
use l0_providers::openai::ChatRequest;
use l0_report::Profile;

const AT_A_TIME: usize = 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let runs = match std::env::args().nth(1) {
        Some(runs) => runs.parse()?,
        None => 100,
    };
    let (client, _server) = l0_examples::client(5).await?;
    let backoff = Backoff::fixed_jitter(Duration::from_millis(100), Duration::from_secs(1));
    let l0 = L0::builder()
        .monitoring(Monitoring::new().metadata(keys::MODEL, "gpt-4o-mini"))
        .retry(Retry::new().backoff(backoff))
        .build();

    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");
    let runs = (0..runs).map(async |_| {
        let mut run = l0.stream_from(client.chat(&request)).start();
        // The telemetry has the outcome.
        let _ = run.text().await;
        run.telemetry()
    });
    let mut profile = Profile::new();
    let mut runs = stream::iter(runs).buffer_unordered(AT_A_TIME);
    while let Some(telemetry) = runs.next().await {
        if let Some(telemetry) = telemetry {
            profile.add(&telemetry);
        }
    }

    println!("{profile}");
    let total = profile.total();
    let duration = total.sample("duration");
    if let (Some(mean), Some(p95)) = (duration.mean(), duration.p95()) {
        println!(
            "\n{} runs took {mean:.0} ms each, one in 20 more than {p95:.0} ms",
            total.runs
        );
    }
    Ok(())
}
