//! Streams a chat over HTTP through L0, and then prints its telemetry.
//!
//! ```console
//! $ cargo run -p l0-examples --bin chat
//! ```
//!
//! Without a key, it talks to a server inside the process. The first connection of that server breaks in
//! mid-stream. `--provider` selects the API. With the key of that provider (`OPENAI_API_KEY`,
//! `ANTHROPIC_API_KEY`, `GEMINI_API_KEY`), the example talks to the provider. With an address
//! (`OPENAI_BASE_URL`, `OLLAMA_HOST`, ..), it talks to any compatible server. Ctrl-C aborts the run and prints
//! the telemetry. With `--json`, standard output has only the telemetry.
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
use l0_core::{
    Backoff, Chunk, Distribution, Event, Interest, L0, Monitoring, Retry, Timeouts, keys,
    observe_fn,
};
use l0_examples::client_of;
use l0_examples::server::Server;
use l0_providers::openai::ChatRequest;
use l0_providers::{
    ProviderError, ProviderStream, RequestError, anthropic, gemini, ollama, openai,
};
use serde_json::json;

/// Streams a chat through L0, and then prints its telemetry.
#[derive(Parser)]
struct Arguments {
    /// Prompt to send.
    #[arg(default_value = "What is a token stream? Answer in a short paragraph.")]
    prompt: String,

    /// API to use.
    #[arg(long, value_enum, default_value_t)]
    provider: Provider,

    /// Model to use [default: a small one of the provider].
    #[arg(long)]
    model: Option<String>,

    /// Print the telemetry as JSON, and everything else to standard error.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Provider {
    /// `OpenAI` Chat Completions, or a compatible server.
    #[default]
    Openai,
    /// `OpenAI` Responses.
    Responses,
    /// Anthropic Messages.
    Anthropic,
    /// Google Gemini.
    Gemini,
    /// The native Ollama API.
    Ollama,
}

impl Provider {
    /// Returns the name in telemetry.
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

/// A client of one of the APIs. All of them return the same stream type.
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
            // Ollama needs no key.
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
            "No key is set. Using a server inside the process, at {}. \
             Its first connection breaks mid-stream.\n",
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
            if let Some(gaps) = &telemetry.metrics.inter_token {
                println!("{}", sparkline(gaps));
            }
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

/// Draws the distribution of the gaps between tokens. The height of a bar is the number of gaps of its
/// length. The lengths are on a logarithmic scale, and its ends are printed.
fn sparkline(gaps: &Distribution) -> String {
    const WIDTH: usize = 24;
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shortest = gaps.buckets().map(|bucket| bucket.lower).min();
    let low = shortest.unwrap_or_default().max(Duration::from_micros(1));
    let high = gaps.max().max(low);
    let times = |length: Duration| (length.as_secs_f64() / low.as_secs_f64()).ln();
    let mut counts = [0; WIDTH];
    for bucket in gaps.buckets() {
        let share = times(bucket.lower.max(low)) / times(high).max(f64::MIN_POSITIVE);
        counts[((share * WIDTH as f64) as usize).min(WIDTH - 1)] += bucket.count;
    }
    let most = counts.into_iter().max().unwrap_or_default().max(1);
    let bars = counts.map(|count| BARS[(count * 8).div_ceil(most) as usize]);
    let millis = |length: Duration| (length.as_secs_f64() * 1_000.0).round();
    let bars = bars.iter().collect::<String>();
    format!("gaps {} ms {bars} {} ms", millis(low), millis(high))
}

/// Prints the message of the provider. The text of the error does not include it, because it can quote the
/// prompt.
fn explain(error: &l0_core::Error<RequestError>) {
    if let l0_core::Error::Source {
        source: ProviderError::Api(error),
        ..
    } = error
        && let Some(message) = error.message()
    {
        eprintln!("message of the provider: {message}");
    }
}

/// Prints a part of the answer immediately.
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

/// Prints errors and retries, which would otherwise look like a pause.
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
                "[{reason}: attempt {attempt} starts in {} ms]",
                delay.as_millis()
            );
        }
        _ => {}
    }
}

/// Returns the error and its causes as one text, without repetitions.
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
