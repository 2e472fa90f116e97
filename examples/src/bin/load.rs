//! Sends many chats to the example `server`, and prints their results.
//!
//! ```console
//! $ cargo run -p l0-examples --bin faulty_model    # prints its address
//! $ OPENAI_BASE_URL=http://127.0.0.1:43210/v1 cargo run -p l0-examples --bin server --features server
//! $ cargo run -p l0-examples --bin load --features load
//! $ cargo run -p l0-examples --bin load --features load -- --chats 1000 --at-a-time 50 --drop 0.3
//! ```
//!
//! Some of the clients disconnect mid-stream.
#![allow(clippy::print_stdout, reason = "it is a terminal program")]

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use futures_util::{StreamExt, stream};
use l0_examples::MODELS;
use l0_examples::chat_client::{Refused, chat};
use l0_examples::share;

/// The number of tokens before a client disconnects.
const HALFWAY: u64 = 10;
/// The maximum silence of a server, which sends comments while its model is silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends many chats to the example `server`, and prints their results.
#[derive(Parser)]
struct Arguments {
    /// Address of the server.
    #[arg(long, default_value = "127.0.0.1:3000", value_parser = loopback)]
    address: SocketAddr,

    /// Number of chats, up to a million.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    chats: u32,

    /// Number of concurrent chats, up to a thousand.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    at_a_time: u16,

    /// Share of clients that disconnect mid-stream, from 0 to 1.
    #[arg(long, default_value_t = 0.1, value_parser = share, value_name = "SHARE")]
    drop: f64,

    /// Model to use; repeat the option to use several in turn.
    #[arg(long = "model", default_values = MODELS, value_name = "NAME")]
    models: Vec<String>,
}

/// Accepts only loopback addresses, because this program must not put load on other machines.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|error| format!("{error}"))?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("not a loopback address".to_owned())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    // A server that hangs must not hang this program too.
    let http = reqwest::Client::builder().read_timeout(PATIENCE).build()?;
    let start = Instant::now();
    let chats = (0..arguments.chats).zip(arguments.models.iter().cycle());
    let chats = chats.map(|(index, model)| {
        // Spreads the disconnects evenly over all chats.
        let so_far = |chats: u32| (f64::from(chats) * arguments.drop).round() as u32;
        let goes_away = so_far(index + 1) > so_far(index);
        one_chat(&http, arguments.address, model, goes_away)
    });
    let mut chats = stream::iter(chats).buffer_unordered(arguments.at_a_time.into());
    let mut seen = Seen::default();
    while let Some(one) = chats.next().await {
        seen.add(&one);
    }
    println!("{seen}");
    println!("took:     {:.1} s", start.elapsed().as_secs_f64());
    if seen.failed == arguments.chats {
        return Err("no chat reached the server: is it running?".into());
    }
    Ok(())
}

/// The end of one chat.
#[derive(Default)]
enum End {
    Done,
    /// The server sent the event `error`.
    Error,
    /// This program disconnected.
    Dropped,
    /// The server refused the chat.
    Refused,
    /// The server was not reached, or the connection broke.
    #[default]
    Failed,
}

/// The observations of one chat.
#[derive(Default)]
struct Chat {
    end: End,
    tokens: u64,
    restarts: u64,
    first_token: Option<Duration>,
}

async fn one_chat(
    http: &reqwest::Client,
    address: SocketAddr,
    model: &str,
    goes_away: bool,
) -> Chat {
    let start = Instant::now();
    let mut seen = Chat::default();
    let mut events = match chat(http, address, Some(model), "What is a token stream?").await {
        Ok(events) => events,
        Err(error) => {
            if error.is::<Refused>() {
                seen.end = End::Refused;
            }
            return seen;
        }
    };
    while let Some(Ok(event)) = events.next().await {
        match &*event.name {
            "token" => {
                seen.tokens += 1;
                seen.first_token.get_or_insert_with(|| start.elapsed());
            }
            "restart" => seen.restarts += 1,
            "done" => seen.end = End::Done,
            "error" => seen.end = End::Error,
            _ => {}
        }
        if goes_away && seen.tokens == HALFWAY {
            seen.end = End::Dropped;
            break;
        }
    }
    seen
}

/// The observations of all chats.
#[derive(Default)]
struct Seen {
    chats: u32,
    done: u32,
    errors: u32,
    dropped: u32,
    refused: u32,
    failed: u32,
    tokens: u64,
    restarts: u64,
    /// The times to the first token of the chats that had one.
    first_tokens: Vec<Duration>,
}

impl Seen {
    fn add(&mut self, chat: &Chat) {
        self.chats += 1;
        *match chat.end {
            End::Done => &mut self.done,
            End::Error => &mut self.errors,
            End::Dropped => &mut self.dropped,
            End::Refused => &mut self.refused,
            End::Failed => &mut self.failed,
        } += 1;
        self.tokens += chat.tokens;
        self.restarts += chat.restarts;
        self.first_tokens.extend(chat.first_token);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "chats:    {}", self.chats)?;
        writeln!(f, "done:     {}", self.done)?;
        writeln!(f, "errors:   {}", self.errors)?;
        writeln!(f, "dropped:  {}", self.dropped)?;
        writeln!(f, "refused:  {}", self.refused)?;
        writeln!(f, "failed:   {}", self.failed)?;
        writeln!(f, "tokens:   {}", self.tokens)?;
        write!(f, "restarts: {}", self.restarts)?;
        let all: Duration = self.first_tokens.iter().sum();
        if let Some(mean) = all.checked_div(self.first_tokens.len() as u32) {
            write!(f, "\nfirst token after: {} ms on average", mean.as_millis())?;
        }
        Ok(())
    }
}
