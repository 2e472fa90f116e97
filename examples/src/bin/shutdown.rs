//! Serves a chat as server-sent events, and shuts down without losing what was measured: the intake
//! stops, live answers may end, the rest is aborted, and every sink is flushed within a bound.
//!
//! ```console
//! $ cargo run -p l0-examples --bin shutdown
//! $ curl -N http://127.0.0.1:3000/chat -H 'content-type: application/json' -d '{"prompt": "What is a monad?"}'
//! $ kill -TERM $(pgrep -x shutdown)
//! ```
//!
//! It goes to JSON Lines and Prometheus always, to OpenTelemetry, Sentry and `StatsD` if
//! `OTEL_EXPORTER_OTLP_ENDPOINT`, `SENTRY_DSN` and `DD_DOGSTATSD_URL` are set. Ctrl-C and SIGTERM stop
//! it; a second one ends the wait for live answers.
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
use l0_examples::serve::told_to_stop;
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

/// Serves a chat as server-sent events, and shuts down without losing what was measured.
#[derive(Parser)]
struct Arguments {
    /// The address to listen on; port 0 is any free one.
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// The address where metrics are served, also while it shuts down.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    metrics: SocketAddr,

    /// The file that a line is appended to for each run.
    #[arg(long, default_value = "l0.jsonl", value_name = "FILE")]
    file: PathBuf,

    /// How long live answers may take to end, in seconds.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    grace: u64,

    /// How long sinks may take to send what is left, in seconds.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    flush: u64,
}

/// How long answers that are aborted may take to tell their clients; and then tasks to be dropped.
const LAST: Duration = Duration::from_secs(1);

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// What is left to be sent, and by whom.
type Flush = (&'static str, Box<dyn FnOnce() -> Outcome + Send>);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let bound = Duration::from_secs(arguments.flush);
    let mut sinks: Vec<Flush> = Vec::new();

    // Sinks come first, and outside of the runtime: they have to outlive it.
    let sentry = match std::env::var_os("SENTRY_DSN") {
        Some(_) => {
            let options = sentry::ClientOptions::new()
                .traces_sample_rate(1.0)
                // 30 by default, which is less than what ends at once when all runs are aborted.
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
    // There is nothing to flush: what a run says has gone out when the run has ended.
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
                dropped => Err(format!("{dropped} runs found the queue full").into()),
            }
        }),
    ));
    let collector = Collector::builder().build()?;
    let metrics = TcpListener::bind(arguments.metrics)?;
    println!("metrics on http://{}/metrics", metrics.local_addr()?);
    sinks.push(("the last scrape", serve_metrics(metrics, collector.clone())));

    let runtime = runtime::Runtime::new()?;
    let l0 = runtime.block_on(async {
        let (client, _server) = l0_examples::client(0).await?;
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

    // Runs that nobody polls, of tasks that hang, end here: when their tasks are dropped.
    runtime.shutdown_timeout(LAST);
    let live = l0.live();
    if live > 0 {
        eprintln!("{live} runs have not ended");
    }
    let flushed = flush(sinks, bound);
    // Not by returning: what hangs in a sink, or in its drop, ends with the process. What no sink was
    // told is not sent either.
    process::exit(i32::from(live > 0 || !flushed));
}

/// Serves until Ctrl-C or SIGTERM, and then until all runs have ended, which are aborted after a
/// while.
async fn serve(arguments: &Arguments, router: Router, l0: &L0) -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(arguments.listen).await?;
    println!("listening on http://{}", listener.local_addr()?);
    io::stdout().flush()?;

    let (open, closed) = oneshot::channel::<()>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        let _ = closed.await;
    });
    let server = tokio::spawn(server.into_future());
    told_to_stop().await;

    // The intake: no connection is accepted any more, and none takes another request.
    drop(open);

    // Requests that have come in may start a run yet: first they end, and then the runs.
    let mut ended = Box::pin(async {
        let _ = server.await;
        l0.ended().await;
    });
    let grace = Duration::from_secs(arguments.grace);
    tokio::select! {
        () = &mut ended => return Ok(()),
        () = tokio::time::sleep(grace) => {}
        () = told_to_stop() => {}
    }
    eprintln!("{} runs are aborted", l0.live());
    l0.abort_all();
    let _ = timeout(LAST, ended).await;
    Ok(())
}

/// Lets all sinks send what they have left at the same time, each from a thread of its own, and waits no
/// longer than this for all of them together. Returns whether all did.
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
        // The other error is that a thread panicked: it says so itself.
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

/// Sentry's own timeout does not hold for what is on its way: a thread is joined that may be sending.
fn flush_sentry(
    guard: sentry::ClientInitGuard,
    bound: Duration,
) -> Box<dyn FnOnce() -> Outcome + Send> {
    Box::new(move || match guard.close(Some(bound)) {
        true => Ok(()),
        false => Err("it took too long".into()),
    })
}

/// What exports from threads of its own, so that no run waits for it.
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
            // The next line may be written again: the disk is not full for ever.
            outcome = outcome.and(json::write_line(&mut file, &telemetry));
        }
        Ok(outcome?)
    })
}

/// Serves metrics from a thread of its own, which goes on while the service shuts down. Flushing it is
/// to wait until whoever has scraped it has done so once more.
fn serve_metrics(
    listener: TcpListener,
    collector: Collector,
) -> Box<dyn FnOnce() -> Outcome + Send> {
    #[derive(Default)]
    struct Scrapes {
        /// Whether there was one: somebody will come again.
        any: AtomicBool,
        /// Whether all runs have ended.
        final_numbers: AtomicBool,
        /// Told once there was one after that.
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
            // Ends once that response is out.
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
