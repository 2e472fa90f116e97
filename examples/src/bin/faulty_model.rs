//! Serves a model with the faults of a real one on the loopback, for programs without a key.
//!
//! ```console
//! $ cargo run -p l0-examples --bin faulty_model    # prints its address
//! $ OPENAI_BASE_URL=http://127.0.0.1:43210/v1 cargo run -p l0-examples --bin server --features server
//! ```
//!
//! It serves the APIs of all providers. `--faults` and `--stalls` set the shares of faulty answers.
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::io::{self, Write};

use clap::Parser;
use l0_examples::server::Server;

/// Serves a model with the faults of a real one on the loopback.
#[derive(Parser)]
struct Arguments {
    /// The share of connections that break mid-stream, from 0 to 1.
    #[arg(long, default_value_t = 0.05, value_parser = l0_examples::share, value_name = "SHARE")]
    faults: f64,

    /// The share of the other answers that fall silent mid-stream, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = l0_examples::share, value_name = "SHARE")]
    stalls: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let server = Server::start(0).await?;
    server.break_share(arguments.faults);
    server.stall_share(arguments.stalls);
    // Other programs wait for this first line.
    println!("listening on {}", server.base_url());
    io::stdout().flush()?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}
