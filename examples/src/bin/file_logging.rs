//! Writes telemetry to files and logs: a line of JSON, a row of CSV, and a structured log record.
//!
//! ```console
//! $ cargo run -p l0-examples --bin file_logging --features file_logging            # into a temporary folder
//! $ cargo run -p l0-examples --bin file_logging --features file_logging -- folder  # into folder/l0.jsonl, folder/l0.csv
//! $ cargo run -p l0-report -- --by model folder/l0.jsonl   # summarizes them
//! ```
//!
//! You can run it again, or several at once: lines stay whole, and the CSV has one header.
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use l0_core::{L0, Monitoring, Telemetry};
use l0_export::log::LogRecord;
use l0_export::{AppendFile, csv, json};
use l0_providers::openai::ChatRequest;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The log goes to standard output. A service would send it to its own logs.
    tracing_subscriber::fmt().json().init();

    let folder = match std::env::args_os().nth(1) {
        Some(folder) => PathBuf::from(folder),
        None => std::env::temp_dir().join("l0-file-logging"),
    };
    fs::create_dir_all(&folder)?;

    let (client, _server) = l0_examples::client(1).await?;
    let l0 = L0::builder().monitoring(Monitoring::new()).build();
    for model in ["gpt-4o", "gpt-4o-mini"] {
        let request = ChatRequest::new(model).user("What is a token stream?");
        let mut run = l0.stream_from(client.chat(&request)).start();
        let answer = run.text().await;
        // A failed run has telemetry too.
        if let Some(telemetry) = run.telemetry() {
            append(&folder, &telemetry)?;
            LogRecord::from(&telemetry).emit();
        }
        answer?;
    }

    println!("\n{}", fs::read_to_string(folder.join("l0.csv"))?);
    println!("in {}", folder.display());
    Ok(())
}

fn append(folder: &Path, telemetry: &Telemetry) -> Result<(), Box<dyn Error>> {
    let mut lines = AppendFile::open(folder.join("l0.jsonl"))?;
    json::write_line(&mut lines, telemetry)?;
    csv::Writer::append(folder.join("l0.csv"))?.write(telemetry)?;
    Ok(())
}
