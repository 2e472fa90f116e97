//! Streams a chat over HTTP through L0, and then prints what was measured.
//!
//! ```console
//! $ cargo run -p l0-examples --bin chat
//! ```
//!
//! Without a key it talks to a server inside the process, whose first connection breaks in
//! mid-stream. With `OPENAI_API_KEY` set it talks to `OpenAI`, with `OPENAI_BASE_URL` to any
//! compatible server. Ctrl-C aborts, and still prints what was measured. With `--json`, standard
//! output holds the telemetry only.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a terminal program"
)]

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use futures_util::StreamExt;
use l0_core::{
    Backoff, Chunk, Event, Interest, L0, Monitoring, Retry, Timeouts, TokenKind, keys, observe_fn,
};
use l0_providers::ProviderError;
use l0_providers::openai::ChatRequest;

/// Streams a chat through L0, and then prints what was measured.
#[derive(Parser)]
struct Arguments {
    /// What to ask.
    #[arg(default_value = "What is a token stream? Answer in a short paragraph.")]
    prompt: String,

    /// The model to ask for.
    #[arg(long, default_value = "gpt-4o-mini")]
    model: String,

    /// Prints the telemetry as JSON, and everything else to standard error.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match chat(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn chat(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let (client, server) = l0_examples::client(1).await?;
    if let Some(server) = &server {
        eprintln!(
            "No OPENAI_API_KEY: this talks to a server inside the process, at {}, whose first \
             connection breaks in mid-stream.\n",
            server.base_url()
        );
    }

    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().backoff(Backoff::fixed_jitter(
            Duration::from_millis(300),
            Duration::from_secs(5),
        )))
        .timeouts(
            Timeouts::new()
                .first_token(Duration::from_secs(60))
                .inter_token(Duration::from_secs(30)),
        )
        .interceptor(observe_fn(|_run, event| notice(event)).interest(Interest::LIFECYCLE))
        .build();

    let request = ChatRequest::new(&arguments.model).user(&arguments.prompt);
    let mut run = l0
        .stream(|_attempt| client.chat_stream(&request))
        .metadata(keys::MODEL, arguments.model.as_str())
        .metadata(keys::OPERATION, "chat")
        .until(tokio::signal::ctrl_c())
        .start();

    let mut failed = None;
    while let Some(chunk) = run.next().await {
        match chunk {
            Ok(Chunk::Item(token)) if token.kind == TokenKind::Text => {
                show(&token.text, arguments.json)?;
            }
            Ok(Chunk::Restart { .. }) => show("\n\n", arguments.json)?,
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    show("\n\n", arguments.json)?;

    if let Some(telemetry) = run.telemetry() {
        if arguments.json {
            println!("{}", l0_export::json::to_string_pretty(&telemetry)?);
        } else {
            println!("{telemetry}");
        }
    }
    match failed {
        None => Ok(()),
        Some(error) => {
            explain(&error);
            Err(error.into())
        }
    }
}

/// Says what the provider says about its error, which is not part of the error's own text since
/// it may repeat the prompt.
fn explain(error: &l0_core::Error<ProviderError<reqwest::Error>>) {
    if let l0_core::Error::Source {
        source: ProviderError::Api(error),
        ..
    } = error
        && let Some(message) = &error.message
    {
        eprintln!("the provider says: {message}");
    }
}

/// Prints a piece of the answer at once.
fn show(text: &str, json: bool) -> io::Result<()> {
    fn put(mut out: impl Write, text: &str) -> io::Result<()> {
        out.write_all(text.as_bytes())?;
        out.flush()
    }

    if json {
        put(io::stderr(), text)
    } else {
        put(io::stdout(), text)
    }
}

/// Says what the user would otherwise only see as a pause.
fn notice(event: &Event<'_>) {
    match event {
        Event::NetworkError { kind, message, .. } => eprintln!("\n[{kind}: {message}]"),
        Event::Retry {
            attempt,
            reason,
            delay,
            ..
        } => {
            eprintln!(
                "[{reason}: attempt {attempt} follows in {} ms]",
                delay.as_millis()
            );
        }
        _ => {}
    }
}

/// An error and what caused it, without repetitions.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
