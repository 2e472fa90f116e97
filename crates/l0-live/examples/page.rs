//! Serves the page with runs that stream, stall, wait for their consumer, fail, retry and fall back, forever.
//!
//! ```console
//! $ cargo run -p l0-live --features axum --example page -- 200
//! ```
//!
//! The number is that of concurrent runs. With thousands of runs, each is slower. A source stalls
//! after two seconds.
#![allow(clippy::print_stdout, reason = "a terminal program")]

use std::error::Error;
use std::io::{self, Write as _};
use std::time::Duration;

use axum::Router;
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedError};
use l0_core::{Backoff, Failure, L0, Retry, Source as _, Stalls, source};
use l0_live::{Live, routes};
use tokio::net::TcpListener;
use tokio::time::sleep;

/// A text that a client may send, and that a page must treat as plain text.
const HOSTILE: &str =
    "<img src=x onerror=alert(1)><script>document.title='owned'</script>\u{202e}abc";

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns the script of a run: one of eight behaviors, in turn.
fn script(number: u64, slower: u64) -> Script {
    let steady = |tokens: u64, gap: u64| {
        Script::new().attempt(move |mut a| {
            a = a.connect_wait(millis(150)).wait(millis(300));
            for _ in 0..tokens {
                a = a.token("word ").wait(millis(gap * slower));
            }
            a
        })
    };
    let breaks = ScriptedError::new(Failure::status(503));
    match number % 8 {
        0 | 1 => steady(100, 40 + number % 60),
        2 => steady(40, 150),
        // Stalls in the middle, then continues.
        3 => Script::new().attempt(|mut a| {
            a = a
                .wait(millis(200))
                .tokens(["one ", "two ", "three "])
                .wait(millis(6_000));
            for _ in 0..30 {
                a = a.token("more ").wait(millis(100));
            }
            a
        }),
        // Breaks, is retried, and completes.
        4 => Script::new()
            .attempt(|a| {
                a.wait(millis(200))
                    .token("one ")
                    .wait(millis(500))
                    .fail(breaks)
            })
            .attempt(|a| {
                a.wait(millis(400))
                    .tokens(["one ", "two"])
                    .wait(millis(300))
            }),
        // Is unauthorized.
        5 => Script::new().attempt(|a| {
            a.connect_wait(millis(900))
                .connect_error(ScriptedError::new(Failure::status(401)))
        }),
        // Fails to connect twice, and falls back to another model.
        6 => Script::new()
            .attempt(|a| {
                a.connect_wait(millis(1_500))
                    .connect_error(ScriptedError::new(Failure::status(503)))
            })
            .attempt(|a| {
                a.connect_wait(millis(800))
                    .connect_error(ScriptedError::new(Failure::status(503)))
            }),
        // Has a slow consumer.
        _ => Script::new().attempt(|a| a.tokens(["one ", "two ", "three "])),
    }
}

async fn one_run(l0: L0, number: u64, slower: u64) {
    let first = script(number, slower);
    let second = Script::new().attempt(|a| a.wait(millis(300)).tokens(["here ", "you ", "are"]));
    let user = match number {
        _ if number % 1_000 == 5 => HOSTILE.repeat(1_000_000 / HOSTILE.len()),
        _ if number % 10 == 0 => HOSTILE.to_owned(),
        _ => "alice".to_owned(),
    };
    let mut run = l0
        .stream(|_| first.connect())
        .metadata(
            "model",
            if number % 3 == 0 {
                "gpt-4o"
            } else {
                "gpt-4o-mini"
            },
        )
        .metadata("provider", "openai")
        .metadata(
            "endpoint",
            if number % 2 == 0 { "/chat" } else { "/summary" },
        )
        .metadata("user", user);
    if number % 8 == 6 {
        let other = source(|_| second.connect());
        run = run.fallback(
            other
                .metadata("model", "claude")
                .metadata("provider", "anthropic"),
        );
    }
    let mut run = run.start();
    while let Some(Ok(_)) = run.next().await {
        if number % 8 == 7 {
            sleep(millis(3_000)).await;
        }
        if number % 32 == 8 {
            return;
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let runs: u64 = std::env::args()
        .nth(1)
        .map_or(Ok(40), |runs| runs.parse())?;
    let live = Live::builder()
        .metadata_keys(["endpoint", "user"])?
        .max_listed(10_000)
        .stalls(
            Stalls::new()
                .after(millis(2_000))
                .first_token_after(millis(4_000)),
        )
        .build();
    let l0 = L0::builder()
        .interceptor(live.clone())
        .retry(
            Retry::new()
                .max_retries(1)
                .backoff(Backoff::fixed(millis(1_200))),
        )
        .build();
    // Keeps the load on the page and not on the server.
    let slower = 1 + runs / 500;
    for number in 0..runs {
        let l0 = l0.clone();
        tokio::spawn(async move {
            let mut number = number;
            sleep(millis(number * 37 % 3_000)).await;
            loop {
                one_run(l0.clone(), number, slower).await;
                number += runs;
                sleep(millis(200)).await;
            }
        });
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    io::stdout().flush()?;
    axum::serve(listener, Router::new().nest_service("/l0", routes(live))).await?;
    Ok(())
}
