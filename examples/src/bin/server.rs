//! Serves a chat as server-sent events, and its metrics for Prometheus.
//!
//! ```console
//! $ cargo run -p l0-examples --bin server
//! $ curl -N http://127.0.0.1:3000/chat -H 'content-type: application/json' -d '{"prompt": "What is a monad?"}'
//! $ curl http://127.0.0.1:3000/metrics
//! $ cargo run -p l0-examples --bin load      # many chats
//! ```
//!
//! Without a key it talks to a server inside the process, some of whose connections break in
//! mid-stream. With `OPENAI_API_KEY` set it talks to `OpenAI`, with `OPENAI_BASE_URL` to any
//! compatible server. Ctrl-C and SIGTERM stop it, and give answers that are being streamed a few
//! seconds to end.
#![allow(clippy::print_stderr, reason = "it is a terminal program")]

use std::error::Error;
use std::net::SocketAddr;

use clap::Parser;
use l0_examples::chat_app::{ChatApp, MODELS};
use l0_examples::serve::serve;
use l0_prometheus::Collector;

/// Serves a chat as server-sent events, and its metrics for Prometheus.
#[derive(Parser)]
struct Arguments {
    /// The address to listen on; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// A model that may be asked for; may be given more than once, and the first is the default.
    #[arg(long = "model", default_values = MODELS, value_name = "NAME")]
    models: Vec<String>,

    /// How many connections of the server inside the process break, as a share of 1.
    #[arg(long, default_value_t = 0.05, value_parser = l0_examples::share, value_name = "SHARE")]
    faults: f64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let (client, server) = l0_examples::client(0).await?;
    if let Some(server) = &server {
        server.break_share(arguments.faults);
        eprintln!("No OPENAI_API_KEY: this talks to a server inside the process.");
    }
    let collector = Collector::builder().label("service", "chat").build()?;
    let app = ChatApp {
        models: arguments.models,
        ..ChatApp::new(client, collector)
    };

    serve(arguments.listen, app.router()?).await?;
    Ok(())
}
