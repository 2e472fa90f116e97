//! Compares two configurations: each run is told which one it has, and a profile groups by it.
//!
//! ```console
//! $ cargo run -p l0-examples --bin ab_testing
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;

use futures_util::{StreamExt, stream};
use l0_core::{L0, Monitoring};
use l0_export::profile::Profile;
use l0_providers::openai::ChatRequest;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, _server) = l0_examples::client(0).await?;
    let l0 = L0::builder().monitoring(Monitoring::new()).build();

    let runs = (0..60).map(async |number| {
        // Any draw will do; this one gives each arm half of the runs.
        let (arm, model) = match number % 2 {
            0 => ("A", "gpt-4o"),
            _ => ("B", "gpt-4o-mini"),
        };
        let request = ChatRequest::new(model).user("What is a token stream?");
        let mut run = l0
            .stream_from(client.chat(&request))
            .metadata("ab_test", arm)
            .start();
        // How it ended is part of the telemetry.
        let _ = run.text().await;
        run.telemetry()
    });
    let mut profile = Profile::new().group_by("ab_test");
    let mut runs = stream::iter(runs).buffer_unordered(20);
    while let Some(telemetry) = runs.next().await {
        if let Some(telemetry) = telemetry {
            profile.add(&telemetry);
        }
    }

    println!("{profile}");
    let median = |arm| {
        let (_, stats) = profile.groups().find(|(name, _)| *name == arm)?;
        stats.sample("duration").p50()
    };
    if let (Some(a), Some(b)) = (median("A"), median("B")) {
        println!("\nB takes {:.0} % of the time of A", b / a * 100.0);
    }
    Ok(())
}
