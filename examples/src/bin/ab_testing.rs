//! Compares two configurations: each run has its arm as metadata, and a profile groups the runs by it.
//!
//! ```console
//! $ cargo run -p l0-examples --bin ab_testing --features ab_testing
//! $ cargo run -p l0-examples --bin ab_testing --features ab_testing -- ab.jsonl 160   # writes a line for each of 160 runs
//! $ cargo run -p l0-report -- compare --arms ab_test=A,B ab.jsonl
//! ```
//!
//! `compare` shows which differences are statistically significant. A p95 needs 72 runs in each arm.
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;

use futures_util::{StreamExt, stream};
use l0_core::{L0, Monitoring};
use l0_export::{AppendFile, json};
use l0_providers::openai::ChatRequest;
use l0_report::Profile;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut lines = arguments.next().map(AppendFile::open).transpose()?;
    let runs = arguments.next().map_or(Ok(60), |runs| runs.parse())?;
    let (client, _server) = l0_examples::client(0).await?;
    let l0 = L0::builder().monitoring(Monitoring::new()).build();

    let runs = (0..runs).map(async |number: u32| {
        // Any assignment works. This one gives each arm half of the runs.
        let (arm, model) = match number % 2 {
            0 => ("A", "gpt-4o"),
            _ => ("B", "gpt-4o-mini"),
        };
        let request = ChatRequest::new(model).user("What is a token stream?");
        let mut run = l0
            .stream_from(client.chat(&request))
            .metadata("ab_test", arm)
            .start();
        // The telemetry has the outcome.
        let _ = run.text().await;
        run.telemetry()
    });
    let mut profile = Profile::new().group_by("ab_test");
    let mut runs = stream::iter(runs).buffer_unordered(20);
    while let Some(telemetry) = runs.next().await {
        if let Some(telemetry) = telemetry {
            profile.add(&telemetry);
            if let Some(lines) = &mut lines {
                json::write_line(lines, &telemetry)?;
            }
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
