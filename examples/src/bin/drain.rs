//! A service that stops without losing telemetry: live answers end within a deadline, then its sinks are flushed.
//!
//! ```console
//! $ OPENAI_API_KEY=.. cargo run -p l0-examples --bin drain --features drain
//! $ curl -N http://127.0.0.1:3000/chat -d 'What is a monad?'
//! $ kill -TERM $(pgrep -x drain)
//! ```
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "prints where it listens, and errors"
)]

use std::error::Error;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, io, process, thread};

use axum::{Router, body::Body, extract::State, routing::post};
use futures_util::TryStreamExt;
use l0_core::{Chunk, L0};
use l0_export::{AppendFile, QueueReceiver, json};
use l0_providers::openai::{ChatRequest, Client};
use l0_sentry::{SentryConfig, SentryInterceptor};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::{runtime, sync::oneshot, time::timeout};

const GRACE: Duration = Duration::from_secs(20); // for live answers to end
const LAST: Duration = Duration::from_secs(1); // for aborted answers to reach their clients, and for tasks
const FLUSH: Duration = Duration::from_secs(5); // for all sinks together

type Flushed = Result<(), Box<dyn Error + Send + Sync>>;
/// The name of a sink, and the function that sends the rest of its data.
type Flush = (&'static str, Box<dyn FnOnce() -> Flushed + Send>);

fn main() -> Result<(), Box<dyn Error>> {
    // Sinks come before the runtime and outlive it.
    // Sentry's default queue of 30 is too small for all runs that an abort can end at once.
    let options = sentry::ClientOptions::new().transport_channel_capacity(4_096);
    let sentry = sentry::init(options); // does nothing without SENTRY_DSN
    let file = AppendFile::open(env::var("L0_FILE").as_deref().unwrap_or("l0.jsonl"))?;
    let (queue, receiver) = l0_export::queue(4_096);
    let writer = thread::spawn(move || write_lines(file, receiver));
    let l0 = L0::builder()
        .interceptor(SentryInterceptor::new(SentryConfig::new()))
        .interceptor(queue.clone())
        .build();

    let runtime = runtime::Runtime::new()?;
    let served = runtime.block_on(serve(&l0));
    runtime.shutdown_timeout(LAST); // drops tasks that hang, and their runs
    if let Err(error) = &served {
        eprintln!("error: {error}");
    }

    let flush_sentry = move || -> Flushed {
        let closed = sentry.close(Some(FLUSH));
        closed.then_some(()).ok_or("the server is slow".into())
    };
    let flush_lines = move || -> Flushed {
        queue.close(); // the writer ends after the last run
        writer.join().map_err(|_| "the thread panicked")?
    };
    let flushed = flush(vec![
        ("Sentry", Box::new(flush_sentry)),
        ("JSON Lines", Box::new(flush_lines)),
    ]);
    // Does not return: a sink that hangs could block the return too.
    process::exit(i32::from(served.is_err() || l0.live() > 0 || !flushed))
}

async fn serve(l0: &L0) -> Result<(), Box<dyn Error>> {
    let app = Router::new()
        .route("/chat", post(chat))
        .with_state((l0.clone(), Client::from_env()?));
    let listener =
        TcpListener::bind(env::var("LISTEN").as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let (open, closed) = oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async { drop(closed.await) });
    let server = tokio::spawn(server.into_future());
    stop_signal().await?;

    drop(open); // accepts no more connections, and no more requests on open ones
    let mut ended = Box::pin(async {
        let _ = server.await; // requests already received can still start a run
        l0.ended().await;
    });
    if timeout(GRACE, &mut ended).await.is_err() {
        l0.abort_all();
        let _ = timeout(LAST, ended).await;
    }
    Ok(())
}

/// Waits for Ctrl-C or SIGTERM.
async fn stop_signal() -> io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminated.recv() => Ok(()),
    }
}

/// Streams the text of an answer. If its run fails, the connection is closed before the end of the body.
async fn chat(State((l0, client)): State<(L0, Client)>, prompt: String) -> Body {
    let request = ChatRequest::new("gpt-4o-mini").user(prompt);
    let run = l0.stream_from(client.chat(&request)).start();
    Body::from_stream(run.map_ok(|chunk| match chunk {
        Chunk::Item(token) => token.answer().to_owned(),
        Chunk::Restart { .. } => "\n(again)\n".to_owned(),
    }))
}

/// Writes a line for each run, in a thread, until the queue is closed and empty.
fn write_lines(mut file: AppendFile, mut receiver: QueueReceiver) -> Flushed {
    let runtime = runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let mut outcome = Ok(());
        while let Some(telemetry) = receiver.recv().await {
            // Continues after an error: the disk can have space again for the next line.
            outcome = outcome.and(json::write_line(&mut file, &telemetry));
        }
        Ok(outcome?)
    })
}

/// Flushes all sinks at the same time, each in its own thread. Returns `true` if all succeeded in time.
fn flush(sinks: Vec<Flush>) -> bool {
    let deadline = Instant::now() + FLUSH;
    let (count, (sender, flushed)) = (sinks.len(), mpsc::channel());
    for (name, flush) in sinks {
        let sender = sender.clone();
        thread::spawn(move || sender.send((name, flush())));
    }
    let mut all = true;
    for _ in 0..count {
        match flushed.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((_, Ok(()))) => {}
            Ok((name, Err(error))) => {
                eprintln!("not flushed: {name}: {error}");
                all = false; // the other sinks still have until the deadline
            }
            Err(_) => return false, // out of time
        }
    }
    all
}
