//! Stops runs: with a handle, with a future, and by dropping. Each run has telemetry.
//!
//! ```console
//! $ cargo run -p l0-examples --bin abort
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::{L0, Monitoring};
use l0_providers::openai::ChatRequest;
use tokio::sync::oneshot;
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, _server) = l0_examples::client(0).await?;
    let l0 = L0::builder().monitoring(Monitoring::new()).build();
    let request = ChatRequest::new("gpt-4o").user("What is a token stream?");

    // With its handle, from any task.
    let mut run = l0.stream_from(client.chat(&request)).start();
    let handle = run.handle();
    tokio::spawn(async move {
        sleep(Duration::from_millis(400)).await;
        handle.abort();
    });
    if let Err(error) = run.text().await {
        println!("with a handle: {error}");
    }
    println!("{}\n", run.telemetry().ok_or("monitoring is on")?);

    // With any future, or several: Ctrl-C, a cancellation token, the end of a request.
    let (stop, stopped) = oneshot::channel::<()>();
    let mut run = l0
        .stream_from(client.chat(&request))
        .until(stopped)
        .until(sleep(Duration::from_secs(30)))
        .start();
    let mut tokens = 0;
    let mut stop = Some(stop);
    while let Some(chunk) = run.next().await {
        tokens += 1;
        match chunk {
            Ok(_) if tokens < 5 => {}
            Ok(_) => drop(stop.take()), // completes the future
            Err(error) => println!("with a future, after {tokens} items: {error}"),
        }
    }

    // By dropping: a dropped run does no further work.
    let run = l0.stream_from(client.chat(&request)).start();
    let handle = run.handle();
    drop(run);
    let telemetry = handle.telemetry().ok_or("the run has ended")?;
    println!("by dropping: {:?}", telemetry.outcome);
    Ok(())
}
