//! Streams a chat over HTTP through L0, and then prints what was measured.
//!
//! ```console
//! $ cargo run -p l0-examples --bin chat
//! ```
//!
//! Without a key it talks to a server inside the process, whose first connection breaks in
//! mid-stream. `--provider` says whose API it speaks; with that provider's key set
//! (`OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `GEMINI_API_KEY`) it talks to the provider, with the
//! address (`OPENAI_BASE_URL`, `OLLAMA_HOST`, ..) to any compatible server. Ctrl-C aborts, and still prints what
//! was measured. With `--json`, standard output holds the telemetry only.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a terminal program"
)]

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use l0_core::{Backoff, Chunk, Event, Interest, L0, Monitoring, Retry, Timeouts, keys, observe_fn};
use l0_examples::client_of;
use l0_examples::server::Server;
use l0_providers::openai::ChatRequest;
use l0_providers::{
    ProviderError, ProviderStream, RequestError, anthropic, gemini, ollama, openai,
};
use serde_json::json;

/// Streams a chat through L0, and then prints what was measured.
#[derive(Parser)]
struct Arguments {
    /// What to ask.
    #[arg(default_value = "What is a token stream? Answer in a short paragraph.")]
    prompt: String,

    /// Whose API to speak.
    #[arg(long, value_enum, default_value_t)]
    provider: Provider,

    /// The model to ask for [default: a small one of the provider's].
    #[arg(long)]
    model: Option<String>,

    /// Prints the telemetry as JSON, and everything else to standard error.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Provider {
    /// `OpenAI`'s Chat Completions, and what is compatible.
    #[default]
    Openai,
    /// `OpenAI`'s Responses.
    Responses,
    /// Anthropic's Messages.
    Anthropic,
    /// Google's Gemini.
    Gemini,
    /// Ollama's own API.
    Ollama,
}

impl Provider {
    /// As telemetry names it.
    fn name(self) -> &'static str {
        match self {
            Self::Openai | Self::Responses => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
        }
    }

    fn model(self) -> &'static str {
        match self {
            Self::Openai | Self::Responses => "gpt-4o-mini",
            Self::Anthropic => "claude-haiku-4-5",
            Self::Gemini => "gemini-2.5-flash",
            Self::Ollama => "llama3.2",
        }
    }
}

/// A client of one of the APIs. What they give is the same.
enum Client {
    Openai(openai::Client),
    Responses(openai::Client),
    Anthropic(anthropic::Client),
    Gemini(gemini::Client),
    Ollama(ollama::Client),
}

type Opening = BoxFuture<'static, Result<ProviderStream, RequestError>>;

impl Client {
    async fn new(provider: Provider) -> Result<(Self, Option<Server>), Box<dyn Error>> {
        Ok(match provider {
            Provider::Openai => {
                let (client, server) = client_of(1).await?;
                (Self::Openai(client), server)
            }
            Provider::Responses => {
                let (client, server) = client_of(1).await?;
                (Self::Responses(client), server)
            }
            Provider::Anthropic => {
                let (client, server) = client_of(1).await?;
                (Self::Anthropic(client), server)
            }
            Provider::Gemini => {
                let (client, server) = client_of(1).await?;
                (Self::Gemini(client), server)
            }
            // It needs no key.
            Provider::Ollama if std::env::var_os("OLLAMA_HOST").is_none() => {
                let server = Server::start(1).await?;
                let client = ollama::Client::new(&server.base_url())?;
                (Self::Ollama(client), Some(server))
            }
            Provider::Ollama => (Self::Ollama(ollama::Client::from_env()?), None),
        })
    }

    fn ask(&self, model: &str, prompt: &str) -> Opening {
        match self {
            Self::Openai(client) => client
                .chat_stream(&ChatRequest::new(model).user(prompt))
                .boxed(),
            Self::Responses(client) => {
                let request = json!({ "model": model, "input": prompt });
                client.responses_stream(&request).boxed()
            }
            Self::Anthropic(client) => {
                let messages = json!([{ "role": "user", "content": prompt }]);
                let request = json!({ "model": model, "max_tokens": 1024, "messages": messages });
                client.messages_stream(&request).boxed()
            }
            Self::Gemini(client) => {
                let parts = json!([{ "text": prompt }]);
                let request = json!({ "contents": [{ "role": "user", "parts": parts }] });
                client.generate_content_stream(model, &request).boxed()
            }
            Self::Ollama(client) => {
                let messages = json!([{ "role": "user", "content": prompt }]);
                let request = json!({ "model": model, "messages": messages });
                client.chat_stream(&request).boxed()
            }
        }
    }
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
    let provider = arguments.provider;
    let (client, server) = Client::new(provider).await?;
    if let Some(server) = &server {
        eprintln!(
            "No key: this talks to a server inside the process, at {}, whose first \
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
                .inter_token(Duration::from_secs(30))
                .total(Duration::from_secs(300)),
        )
        .interceptor(observe_fn(|_run, event| notice(event)).interest(Interest::LIFECYCLE))
        .build();

    let model = arguments.model.as_deref().unwrap_or(provider.model());
    let mut run = l0
        .stream(|_attempt| client.ask(model, &arguments.prompt))
        .metadata(keys::MODEL, model)
        .metadata(keys::PROVIDER, provider.name())
        .metadata(keys::OPERATION, "chat")
        .until(tokio::signal::ctrl_c())
        .start();

    let mut failed = None;
    while let Some(chunk) = run.next().await {
        match chunk {
            Ok(Chunk::Item(token)) => show(token.answer(), arguments.json)?,
            Ok(Chunk::Restart { .. }) => show("\n\n", arguments.json)?,
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
fn explain(error: &l0_core::Error<RequestError>) {
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
