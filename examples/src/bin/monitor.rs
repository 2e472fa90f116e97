//! Measures an execution that is not a stream, with a manual monitor.
//!
//! ```console
//! $ cargo run -p l0-examples --bin monitor
//! ```
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::io;
use std::time::Duration;

use l0_core::{End, Monitor, Monitoring, RetryKind, Severity, Violation};

fn main() -> Result<(), Box<dyn Error>> {
    let mut monitor = Monitor::new(Monitoring::new().metadata("model", "gpt-4"));
    monitor.start();

    monitor.record_attempt();
    monitor.record_token();
    let error = io::Error::from(io::ErrorKind::ConnectionReset);
    monitor.record_network_error(&error, true, Some(Duration::from_secs(1)), Some(1));
    monitor.record_retry(RetryKind::Network);

    monitor.record_attempt();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(20));
        monitor.record_token();
    }
    monitor.record_violations(&[Violation::new("style", Severity::Warning, "It shouts")]);
    monitor.log_event("cache", [("hit", true)]);
    monitor.complete(End::completed());

    let telemetry = monitor.telemetry().ok_or("monitoring is on")?;
    println!("{telemetry}\n");
    println!("{}\n", serde_json::to_string(&telemetry.summary())?);
    println!("{}", l0_export::json::to_string_pretty(&telemetry)?);
    Ok(())
}
