//! A gateway: many concurrent streams at a fixed rate, from bytes to yielded tokens, on two threads.
//!
//! Transports are in memory: one thread puts an event of about 300 bytes into each stream's pipe when it is
//! due, and wakes the task that reads it. A row reads only the bytes, decodes them, or runs the decoded stream
//! through L0 with Prometheus metrics, which are scraped once a second. A row reports the share of one core
//! that the tasks and the feeding thread took, the memory of a stream beyond its pipe, and the delay from a
//! token's bytes until the token was yielded.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench gateway
//! $ cargo bench -p l0-bench --bench gateway -- --streams 1000 --rate 100 --seconds 60
//! ```
#![allow(clippy::print_stdout, reason = "prints its rows")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::env;
use std::fs;
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::task::AtomicWaker;
use l0_bench::bodies::CHAT;
use l0_core::{L0, Monitoring, Retry};
use l0_prometheus::Collector;
use l0_providers::{ProviderError, openai};

/// The work of a row on the bytes of a stream.
const ROWS: [&str; 3] = ["bytes", "decoded", "run"];

/// The number of threads for tasks.
const THREADS: usize = 2;

/// The names of these threads.
const TASKS: &str = "gateway";
const FEEDER: &str = "feeder";

#[derive(Debug, Clone)]
struct Settings {
    streams: usize,
    /// The rate, in tokens per second.
    rate: u64,
    seconds: u64,
    /// The row to run in this process. `None` runs all rows, each in its own process.
    row: Option<String>,
}

impl Settings {
    fn read() -> Self {
        // A test run only checks that it works.
        let is_bench = env::args().any(|argument| argument == "--bench");
        let (streams, seconds) = if is_bench { (10_000, 5) } else { (20, 1) };
        let mut settings = Self {
            streams,
            rate: 50,
            seconds,
            row: None,
        };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next()?.parse().ok();
            match &*argument {
                "--streams" => settings.streams = number().expect("a number") as usize,
                "--rate" => settings.rate = number().expect("a number"),
                "--seconds" => settings.seconds = number().expect("a number"),
                "--row" => settings.row = arguments.next(),
                _ => {}
            }
        }
        settings
    }

    fn tokens(&self) -> u64 {
        self.rate * self.seconds
    }
}

/// One stream's bytes, from the feeding thread to the task that reads them.
#[derive(Default)]
struct Pipe {
    queue: Mutex<VecDeque<(Instant, Bytes)>>,
    ended: AtomicBool,
    waker: AtomicWaker,
    /// The arrival time of what was read last, in nanoseconds since the start.
    arrived: AtomicU64,
}

impl Pipe {
    fn put(&self, bytes: Bytes) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back((Instant::now(), bytes));
        drop(queue);
        self.waker.wake();
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// The reading end of a pipe.
struct Body {
    pipe: Arc<Pipe>,
    began: Instant,
}

impl Stream for Body {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pipe.waker.register(cx.waker());
        // Read first: data that was put before the end is still there.
        let ended = self.pipe.ended.load(Ordering::Acquire);
        let mut queue = self
            .pipe
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match queue.pop_front() {
            Some((at, bytes)) => {
                let nanos = at.saturating_duration_since(self.began).as_nanos();
                self.pipe.arrived.store(nanos as u64, Ordering::Relaxed);
                Poll::Ready(Some(Ok(bytes)))
            }
            None if ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

/// Delays from bytes to yielded tokens: counts by tens of microseconds, up to a second.
struct Delays(Box<[AtomicU32]>);

impl Delays {
    const STEP: u64 = 10;

    fn new() -> Self {
        Self((0..100_000).map(|_| AtomicU32::new(0)).collect())
    }

    fn record(&self, nanos: u64) {
        let at = (nanos / (1_000 * Self::STEP)) as usize;
        self.0[at.min(self.0.len() - 1)].fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        let counts = self.0.iter();
        counts
            .map(|count| u64::from(count.load(Ordering::Relaxed)))
            .sum()
    }

    /// Returns the upper end of the step that contains this quantile, in microseconds.
    fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let reached = self.0.iter().position(|count| {
            seen += u64::from(count.load(Ordering::Relaxed));
            seen >= wanted
        });
        reached.map_or(0, |at| (at as u64 + 1) * Self::STEP)
    }
}

/// The data that all tasks share.
struct Gateway {
    began: Instant,
    delays: Delays,
    l0: L0,
}

impl Gateway {
    fn hand_out(&self, pipe: &Pipe) {
        let now = self.began.elapsed().as_nanos() as u64;
        let arrived = pipe.arrived.load(Ordering::Relaxed);
        self.delays.record(now.saturating_sub(arrived));
    }

    async fn serve(self: Arc<Self>, pipe: Arc<Pipe>, row: &str) {
        let mut body = Body {
            pipe: Arc::clone(&pipe),
            began: self.began,
        };
        match row {
            "bytes" => {
                while let Some(Ok(bytes)) = body.next().await {
                    std::hint::black_box(&bytes);
                    self.hand_out(&pipe);
                }
            }
            "decoded" => {
                let mut tokens = openai::decode(body);
                while let Some(token) = tokens.next().await {
                    std::hint::black_box(token.expect("a token"));
                    self.hand_out(&pipe);
                }
            }
            _ => {
                let mut body = Some(body);
                let source = move |_| {
                    let tokens = openai::decode(body.take().expect("one attempt"));
                    async { Ok::<_, ProviderError<Infallible>>(tokens) }
                };
                let mut run = self.l0.stream(source).metadata("model", "gpt-4o").start();
                while let Some(token) = run.next().await {
                    std::hint::black_box(token.expect("a token"));
                    self.hand_out(&pipe);
                }
            }
        }
    }
}

/// Puts each stream's events into its pipe when they are due, spread evenly over the milliseconds.
fn feed(pipes: &[Arc<Pipe>], settings: &Settings, began: Instant) {
    let events: Vec<Bytes> = CHAT.events(100).map(Bytes::from).collect();
    let (end, tokens) = events.split_last().expect("events");
    let period = (1_000 / settings.rate).max(1);
    for tick in 0..(settings.tokens() + 1) * period {
        let due = began + Duration::from_millis(tick);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let number = tick / period;
        let of_this_tick = pipes.iter().skip((tick % period) as usize);
        for pipe in of_this_tick.step_by(period as usize) {
            if number < settings.tokens() {
                pipe.put(tokens[number as usize % tokens.len()].clone());
            } else {
                pipe.put(end.clone());
                pipe.end();
            }
        }
    }
}

/// Returns the memory of this process, in bytes.
fn memory() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4_096
}

/// Returns the processor time of the threads with this name.
fn cpu(name: &str) -> Duration {
    let threads = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let nanos = threads.filter_map(|thread| {
        let comm = fs::read_to_string(thread.path().join("comm")).ok()?;
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let nanos: u64 = stat.split(' ').next()?.parse().ok()?;
        (comm.trim() == name).then_some(nanos)
    });
    Duration::from_nanos(nanos.sum())
}

fn run(settings: &Settings, row: &'static str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name(TASKS)
        .enable_time()
        .build()
        .expect("a runtime");
    let collector = Collector::builder().build().expect("valid");
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .interceptor(collector.label_keys(["model"]).expect("valid"));
    let began = Instant::now() + Duration::from_millis(200);
    let gateway = Arc::new(Gateway {
        began,
        delays: Delays::new(),
        l0: l0.build(),
    });
    let pipes: Vec<_> = (0..settings.streams)
        .map(|_| Arc::<Pipe>::default())
        .collect();
    let before = memory();
    let tasks = pipes.iter().map(|pipe| {
        let gateway = Arc::clone(&gateway);
        runtime.spawn(gateway.serve(Arc::clone(pipe), row))
    });
    let tasks: Vec<_> = tasks.collect();
    let (first, fed) = (cpu(TASKS), AtomicBool::new(false));
    thread::scope(|scope| {
        let feeder = thread::Builder::new().name(FEEDER.to_owned());
        let feeder = feeder.spawn_scoped(scope, || {
            feed(&pipes, settings, began);
            let took = cpu(FEEDER);
            fed.store(true, Ordering::Relaxed);
            took
        });
        let mut most = 0;
        while !fed.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_secs(1).min(Duration::from_secs(settings.seconds) / 2));
            most = memory().max(most);
            std::hint::black_box(collector.expose());
        }
        let feeder = feeder.expect("a thread").join().expect("no panic");
        for task in tasks {
            runtime.block_on(task).expect("no panic");
        }
        let share = |took: Duration| 100.0 * took.as_secs_f64() / began.elapsed().as_secs_f64();
        let delay = |share| gateway.delays.quantile(share);
        println!(
            "gateway/{row}: {} streams, {} tokens/s each, {} yielded: tasks {:.1} % of a core, \
             feeder {:.1} %, {:.1} kB a stream, p50 {} µs, p99 {} µs, p99.9 {} µs",
            settings.streams,
            settings.rate,
            gateway.delays.count(),
            share(cpu(TASKS).saturating_sub(first)),
            share(feeder),
            most.saturating_sub(before) as f64 / settings.streams as f64 / 1e3,
            delay(0.5),
            delay(0.99),
            delay(0.999),
        );
    });
}

fn main() {
    let settings = Settings::read();
    if let Some(row) = &settings.row {
        if let Some(row) = ROWS.into_iter().find(|known| known == row) {
            run(&settings, row);
        }
        return;
    }
    for row in ROWS {
        // In its own process, so no row sees the memory of another.
        let mut child = Command::new(env::current_exe().expect("this program"));
        let status = child
            .args(env::args().skip(1))
            .args(["--row", row])
            .status();
        assert!(status.expect("this program").success(), "{row}");
    }
}
