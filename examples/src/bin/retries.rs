//! Retries, and the classification of errors: a rate limit, a server that is down, a custom error.
//!
//! ```console
//! $ cargo run -p l0-examples --bin retries
//! ```
//!
//! It needs no server: the source is scripted.
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::time::Duration;

use l0_core::testing::Script;
use l0_core::{Backoff, Event, Failure, Interest, L0, Monitoring, Retry, Timeouts, observe_fn};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(
            Retry::new()
                .model_retries(1)
                .max_retries(4)
                .backoff(Backoff::exponential(
                    Duration::from_millis(20),
                    Duration::from_millis(200),
                )),
        )
        .timeouts(Timeouts::new().inter_token(Duration::from_millis(200)))
        .interceptor(
            observe_fn(|_run, event| {
                if let Event::Retry { reason, delay, .. } = event {
                    println!("retry in {} ms: {reason}", delay.as_millis());
                }
            })
            .interest(Interest::LIFECYCLE),
        )
        .build();

    println!("-- four faults, and then an answer");
    let source = Script::new()
        .attempt(|a| a.connect_error(Failure::status(429)))
        .attempt(|a| a.connect_error("status 503: try later"))
        .attempt(|a| a.token("A token stream").hang())
        .attempt(|a| a.token(" \n")) // no visible text: a model fault
        .attempt(|a| a.tokens(["A token stream", " is a promise."]));
    let mut run = l0.stream(|_attempt| source.connect()).start();
    println!("{}", run.text().await?);
    let telemetry = run.telemetry().ok_or("monitoring is on")?;
    println!(
        "{} attempts, {} network and {} model retries, {} tokens discarded",
        telemetry.metrics.attempts,
        telemetry.metrics.network_retries,
        telemetry.metrics.model_retries,
        telemetry.metrics.wasted_tokens
    );

    println!("\n-- an unknown error is not retried");
    let source = Script::new().attempt(|a| a.connect_error("the gateway is busy"));
    let mut run = l0.stream(|_attempt| source.connect()).start();
    if let Err(error) = run.text().await {
        println!("{error}");
        if let Some(cause) = error.source() {
            println!("  caused by: {cause}");
        }
    }

    println!("\n-- unless it is classified");
    let source = Script::new()
        .attempt(|a| a.connect_error("the gateway is busy"))
        .attempt(|a| a.token("Here I am."));
    let mut run = l0
        .stream(|_attempt| source.connect())
        .classify(|error| {
            error
                .to_string()
                .contains("busy")
                .then(|| Failure::status(503))
        })
        .start();
    println!("{}", run.text().await?);
    Ok(())
}
