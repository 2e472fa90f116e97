//! Stops runs: by a handle, by a future, and by going away. What was measured is there each time.
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

    // By its handle, from anywhere.
    let mut run = l0.stream_from(client.chat(&request)).start();
    let handle = run.handle();
    tokio::spawn(async move {
        sleep(Duration::from_millis(400)).await;
        handle.abort();
    });
    if let Err(error) = run.text().await {
        println!("by its handle: {error}");
    }
    println!("{}\n", run.telemetry().ok_or("monitoring is on")?);

    // By any future; several add up. Ctrl-C, a cancellation token, the end of a request.
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
            Ok(_) => drop(stop.take()), // the future is ready
            Err(error) => println!("by a future, after {tokens} items: {error}"),
        }
    }

    // By going away: nothing of a run goes on without it.
    let run = l0.stream_from(client.chat(&request)).start();
    let handle = run.handle();
    drop(run);
    let telemetry = handle.telemetry().ok_or("it has ended")?;
    println!("by going away: {:?}", telemetry.outcome);
    Ok(())
}
