//! Rules for answers, including a custom one, and drift detection.
//!
//! ```console
//! $ cargo run -p l0-examples --bin guardrails --features guardrails
//! ```
//!
//! The first answer of the server inside the process talks about the model, and leaves a code block
//! open.
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::time::Duration;

use l0_core::{
    Backoff, Check, Event, Findings, Interest, L0, Monitoring, Retry, Severity, Violation,
    observe_fn,
};
use l0_examples::server::Fault;
use l0_guardrails::{Drift, Guardrails};
use l0_providers::openai::ChatRequest;

/// Limits the length of an answer, in bytes.
struct AtMost {
    left: usize,
}

impl Check for AtMost {
    fn name(&self) -> &'static str {
        "at-most"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        match self.left.checked_sub(delta.len()) {
            Some(left) => self.left = left,
            None => {
                let violation = Violation::new(self.name(), Severity::Error, "It is too long");
                findings.report(violation.recoverable(false));
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (client, server) = l0_examples::client(0).await?;
    if let Some(server) = &server {
        server.fail_next([Fault::Bad]);
    }
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().backoff(Backoff::fixed(Duration::from_millis(50))))
        .guardrails(Guardrails::recommended())
        .drift(Drift::new())
        .interceptor(observe_fn(|_run, event| print(event)).interest(Interest::LIFECYCLE))
        .build();
    let request = ChatRequest::new("gpt-4o-mini").user("What is a token stream?");

    println!("-- a bad answer is retried");
    let mut run = l0.stream_from(client.chat(&request)).start();
    println!("{}", run.text().await?);
    let telemetry = run.telemetry().ok_or("monitoring is on")?;
    println!("model retries: {}", telemetry.metrics.model_retries);

    println!("\n-- a violation that is not recoverable ends the run");
    let mut run = l0
        .stream_from(client.chat(&request))
        .guardrails(|| AtMost { left: 100 })
        .start();
    if let Err(error) = run.text().await {
        println!("{error}");
    }
    println!(
        "{:?}",
        run.telemetry().and_then(|telemetry| telemetry.guardrails)
    );
    Ok(())
}

fn print(event: &Event<'_>) {
    match event {
        Event::Violation { violation, .. } => println!("violation: {violation}"),
        Event::Drift { report, .. } => println!("drift: {}", report.types.join(", ")),
        Event::Retry { reason, .. } => println!("retry: {reason}"),
        _ => {}
    }
}
