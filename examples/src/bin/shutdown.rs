//! Serves a chat as server-sent events, and shuts down without losing telemetry: it stops accepting
//! requests, lets live answers end, aborts the rest, and flushes every sink within a deadline.
//!
//! ```console
//! $ cargo run -p l0-examples --bin shutdown --features shutdown
//! $ curl -N http://127.0.0.1:3000/chat -H 'content-type: application/json' -d '{"prompt": "What is a monad?"}'
//! $ kill -TERM $(pgrep -x shutdown)
//! ```
//!
//! It always exports to JSON Lines and Prometheus. It exports to OpenTelemetry, Sentry and `StatsD` if
//! `OTEL_EXPORTER_OTLP_ENDPOINT`, `SENTRY_DSN` and `DD_DOGSTATSD_URL` are set. Ctrl-C and SIGTERM stop it.
//! A second signal ends the wait for live answers.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is a terminal program"
)]

use std::error::Error;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use clap::Parser;
use l0_core::{L0, keys};
use l0_examples::chat_app::ChatApp;
use l0_examples::serve::stop_signal;
use l0_export::{AppendFile, QueueReceiver, json};
use l0_otel::OtelInterceptor;
use l0_prometheus::{Collector, metrics_route};
use l0_sentry::{SentryConfig, SentryInterceptor};
use l0_statsd::StatsdInterceptor;
use opentelemetry::global;
use opentelemetry_otlp::{MetricExporter, SpanExporter};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// Serves a chat as server-sent events, and shuts down without losing telemetry.
#[derive(Parser)]
struct Arguments {
    /// Address to listen on; port 0 selects a free port.
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Address of the metrics, which are also served during shutdown.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    metrics: SocketAddr,

    /// File to append a line to for each run.
    #[arg(long, default_value = "l0.jsonl", value_name = "FILE")]
    file: PathBuf,

    /// Time for live answers to end, in seconds.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    grace: u64,

    /// Time for aborted answers to reach their clients, and then for tasks to be dropped, in seconds.
    #[arg(long, default_value_t = 1, value_name = "SECONDS")]
    last: u64,

    /// Time for sinks to send the rest, in seconds.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    flush: u64,

    /// Share of connections of the server inside the process that break, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_parser = l0_examples::share, value_name = "SHARE")]
    faults: f64,
}

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The name of a sink, and the function that flushes it.
type Flush = (&'static str, Box<dyn FnOnce() -> Outcome + Send>);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let bound = Duration::from_secs(arguments.flush);
    let mut sinks: Vec<Flush> = Vec::new();

    // Sinks are created first and outside the runtime, because they must outlive it.
    let sentry = match std::env::var_os("SENTRY_DSN") {
        Some(_) => {
            let options = sentry::ClientOptions::new()
                .traces_sample_rate(1.0)
                // The default of 30 is less than the number of runs that can end at once in an abort.
                .transport_channel_capacity(4_096);
            let guard = sentry::init(options);
            sinks.push(("Sentry", flush_sentry(guard, bound)));
            Some(SentryInterceptor::new(SentryConfig::new()))
        }
        None => None,
    };
    let otel = match std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT") {
        Some(_) => {
            let (tracers, meters) = otel()?;
            sinks.push((
                "spans",
                Box::new(move || Ok(tracers.shutdown_with_timeout(bound)?)),
            ));
            sinks.push((
                "metrics",
                Box::new(move || Ok(meters.shutdown_with_timeout(bound)?)),
            ));
            Some(OtelInterceptor::default())
        }
        None => None,
    };
    // Nothing to flush: the numbers of a run are sent before its end is reported.
    let statsd = match std::env::var("DD_DOGSTATSD_URL") {
        Ok(address) => {
            let builder = StatsdInterceptor::builder(address).tag_keys([keys::MODEL])?;
            Some(builder.build()?)
        }
        Err(_) => None,
    };
    let (queue, receiver) = l0_export::queue(4_096);
    let file = AppendFile::open(&arguments.file)?;
    let writer = thread::spawn(move || write_lines(file, receiver));
    let to_close = queue.clone();
    sinks.push((
        "JSON Lines",
        Box::new(move || {
            to_close.close();
            joined(writer)?;
            match to_close.dropped() {
                0 => Ok(()),
                dropped => {
                    Err(format!("runs dropped because the queue was full: {dropped}").into())
                }
            }
        }),
    ));
    let collector = Collector::builder().build()?;
    let metrics = TcpListener::bind(arguments.metrics)?;
    println!("metrics on http://{}/metrics", metrics.local_addr()?);
    sinks.push(("the last scrape", serve_metrics(metrics, collector.clone())));

    let runtime = runtime::Runtime::new()?;
    let l0 = runtime.block_on(async {
        let (client, server) = l0_examples::client(0).await?;
        if let Some(server) = &server {
            server.break_share(arguments.faults);
        }
        let app = ChatApp {
            sentry,
            ..ChatApp::new(client, collector)
        };
        let l0 = app.l0()?.to_builder();
        let l0 = l0.interceptor(otel).interceptor(statsd).interceptor(queue);
        let l0 = l0.build();
        serve(&arguments, app.router_of(l0.clone()), &l0).await?;
        Ok::<_, Box<dyn Error>>(l0)
    })?;

    // Runs of tasks that hang end here, when their tasks are dropped.
    runtime.shutdown_timeout(Duration::from_secs(arguments.last));
    let live = l0.live();
    if live > 0 {
        eprintln!("live runs that did not end: {live}");
    }
    let flushed = flush(sinks, bound);
    // Exits instead of returning, so a sink that hangs, also in its drop, ends with the process. Runs that
    // did not end are not in any sink, so they count as a failure too.
    process::exit(i32::from(live > 0 || !flushed));
}

/// Serves until Ctrl-C or SIGTERM, and then until all runs have ended. Aborts the runs that are still
/// live after the grace period.
async fn serve(arguments: &Arguments, router: Router, l0: &L0) -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    io::stdout().flush()?;

    let (open, closed) = oneshot::channel::<()>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        let _ = closed.await;
    });
    let server = tokio::spawn(server.into_future());
    stop_signal().await;

    // Stops accepting connections, and requests on open connections.
    drop(open);

    // Accepted requests can still start runs, so this waits for the requests first and then for the runs.
    let mut ended = Box::pin(async {
        let _ = server.await;
        l0.ended().await;
    });
    let grace = Duration::from_secs(arguments.grace);
    tokio::select! {
        () = &mut ended => return Ok(()),
        () = tokio::time::sleep(grace) => {}
        () = stop_signal() => {}
    }
    eprintln!("live runs that are aborted: {}", l0.live());
    l0.abort_all();
    let _ = timeout(Duration::from_secs(arguments.last), ended).await;
    Ok(())
}

/// Flushes all sinks concurrently, each on its own thread, and waits for all of them up to `bound`.
/// Returns `true` if all succeeded.
fn flush(sinks: Vec<Flush>, bound: Duration) -> bool {
    let deadline = Instant::now() + bound;
    let mut waiting: Vec<_> = sinks.iter().map(|(name, _)| *name).collect();
    let (sender, flushed) = mpsc::channel();
    for (name, flush) in sinks {
        let sender = sender.clone();
        thread::spawn(move || sender.send((name, flush())));
    }
    drop(sender);
    let mut all = true;
    while !waiting.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        // The other error is a panic of a thread, which prints its own message.
        let Ok((name, outcome)) = flushed.recv_timeout(left) else {
            eprintln!("not flushed: {}", waiting.join(", "));
            return false;
        };
        waiting.retain(|waiting| *waiting != name);
        if let Err(error) = outcome {
            eprintln!("not flushed: {name}: {error}");
            all = false;
        }
    }
    all
}

/// Returns the function that flushes Sentry. Sentry's own timeout is not a limit, because `close` joins the
/// sending thread.
fn flush_sentry(
    guard: sentry::ClientInitGuard,
    bound: Duration,
) -> Box<dyn FnOnce() -> Outcome + Send> {
    Box::new(move || match guard.close(Some(bound)) {
        true => Ok(()),
        false => Err("it took too long".into()),
    })
}

/// Creates providers that export from their own threads, so no run waits for them.
fn otel() -> Result<(SdkTracerProvider, SdkMeterProvider), Box<dyn Error>> {
    let spans = SpanExporter::builder().with_http().build()?;
    let metrics = MetricExporter::builder().with_http().build()?;
    let tracers = SdkTracerProvider::builder().with_batch_exporter(spans);
    let meters = SdkMeterProvider::builder().with_periodic_exporter(metrics);
    let (tracers, meters) = (tracers.build(), meters.build());
    global::set_tracer_provider(tracers.clone());
    global::set_meter_provider(meters.clone());
    Ok((tracers, meters))
}

/// Writes a line for each run, until the queue is closed and empty.
fn write_lines(mut file: AppendFile, mut receiver: QueueReceiver) -> Outcome {
    let runtime = runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let mut outcome = Ok(());
        while let Some(telemetry) = receiver.recv().await {
            // Keeps writing after an error, because the disk can have space again.
            outcome = outcome.and(json::write_line(&mut file, &telemetry));
        }
        Ok(outcome?)
    })
}

/// Serves metrics from its own thread, also while the service shuts down. Flushing waits for one more
/// scrape, if there was one before.
fn serve_metrics(
    listener: TcpListener,
    collector: Collector,
) -> Box<dyn FnOnce() -> Outcome + Send> {
    #[derive(Default)]
    struct Scrapes {
        /// `true` after the first scrape: a scraper exists and will return.
        any: AtomicBool,
        /// `true` once all runs have ended.
        final_numbers: AtomicBool,
        /// Notified at the first scrape after that.
        last: Notify,
    }

    let scrapes = Arc::new(Scrapes::default());
    let shared = Arc::clone(&scrapes);
    let server = thread::spawn(move || -> Outcome {
        let runtime = runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build()?;
        runtime.block_on(async {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let scraped = Arc::clone(&shared);
            let count = move |request: Request, next: Next| {
                let scrapes = Arc::clone(&scraped);
                async move {
                    scrapes.any.store(true, Ordering::Relaxed);
                    let is_last = scrapes.final_numbers.load(Ordering::Acquire);
                    let response = next.run(request).await;
                    if is_last {
                        scrapes.last.notify_one();
                    }
                    response
                }
            };
            let router = Router::new()
                .route("/metrics", metrics_route(collector))
                .layer(middleware::from_fn(count));
            let last = async move { shared.last.notified().await };
            // Ends when that response is sent.
            Ok(axum::serve(listener, router)
                .with_graceful_shutdown(last)
                .await?)
        })
    });
    Box::new(move || {
        scrapes.final_numbers.store(true, Ordering::Release);
        if scrapes.any.load(Ordering::Relaxed) {
            joined(server)
        } else {
            Ok(())
        }
    })
}

/// Waits for a thread.
fn joined(thread: JoinHandle<Outcome>) -> Outcome {
    match thread.join() {
        Ok(outcome) => outcome,
        Err(_) => Err("its thread panicked".into()),
    }
}
