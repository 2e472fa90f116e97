//! The example `shutdown`: stopped by a real signal while a hundred runs are live, it loses none of them in
//! any sink, and no sink can block it. The example `drain`, which is its short form.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::any;
use common::{DEADLINE, Samples, ServerProgram, get, read, wait_for};
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt};
use l0_core::{Outcome, Telemetry};
use l0_examples::chat_client::{BoxError, ChatEvent, chat};
use l0_examples::server::{Fault, Server};
use tokio::net::TcpListener;

/// The number of live runs at the signal, and the number of those that then end by themselves.
const LIVE: usize = 100;
const ENDING: usize = 10;

/// The example, with a model server in this process.
struct Example {
    process: Child,
    address: SocketAddr,
    metrics: String,
    file: PathBuf,
    upstream: Server,
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.file);
    }
}

impl Example {
    /// Starts the example with these sinks, and these times for answers, their ends and sinks, in seconds.
    async fn start(ingest: SocketAddr, statsd: SocketAddr, times: [u64; 3]) -> Self {
        let [grace, last, flush] = times;
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("l0-shutdown-{}-{number}.jsonl", std::process::id());
        let file = std::env::temp_dir().join(name);
        let _ = fs::remove_file(&file);
        let upstream = Server::start(0).await.unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shutdown"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("OTEL_") {
                command.env_remove(&variable);
            }
        }
        let child = command
            .args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .arg("--file")
            .arg(&file)
            .args(["--grace", &grace.to_string()])
            .args(["--last", &last.to_string()])
            .args(["--flush", &flush.to_string()])
            .env("SENTRY_DSN", format!("http://public@{ingest}/1"))
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{ingest}"))
            // An hour: a fast exit is not due to an exporter that has given up.
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000")
            .env("DD_DOGSTATSD_URL", statsd.to_string())
            .env("OPENAI_BASE_URL", upstream.base_url())
            .env("OPENAI_API_KEY", "sk-none")
            .stdout(Stdio::piped())
            .spawn();
        let mut process = child.unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut printed = |begin: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(begin).unwrap().to_owned()
        };
        let metrics = printed("metrics on ");
        let address = printed("listening on http://").parse().unwrap();
        Self {
            process,
            address,
            metrics,
            file,
            upstream,
        }
    }

    /// Starts a chat and reads it up to its first token.
    async fn begin(&self) -> impl Stream<Item = Result<ChatEvent, BoxError>> + Unpin + use<> {
        let http = reqwest::Client::new();
        let events = chat(&http, self.address, None, "What is a token?").await;
        let mut events = events.unwrap();
        assert_eq!(events.next().await.unwrap().unwrap().name, "token");
        events
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until the example has exited by itself.
    async fn exit(&mut self) -> ExitStatus {
        wait_for("it exits", async || self.process.try_wait().unwrap()).await
    }

    fn lines(&self) -> Vec<Telemetry> {
        let file = BufReader::new(File::open(&self.file).unwrap());
        let lines = l0_export::json::read_lines(file);
        lines.map(Result::unwrap).collect()
    }
}

/// The requests of an ingest: path and body.
type Sent = Arc<Mutex<Vec<(String, Bytes)>>>;

/// Starts an ingest for Sentry and OpenTelemetry on a free loopback port. With `answers` false, it reads
/// requests and never responds.
async fn ingest(answers: bool) -> (SocketAddr, Sent) {
    let sent = Sent::default();
    let kept = Arc::clone(&sent);
    let handler = any(move |uri: axum::http::Uri, body: Bytes| {
        kept.lock().unwrap().push((uri.path().to_owned(), body));
        async move {
            if !answers {
                std::future::pending::<()>().await;
            }
            StatusCode::OK
        }
    });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(handler);
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    (address, sent)
}

/// A `StatsD` server that keeps the received points.
struct Statsd {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: JoinHandle<String>,
}

impl Statsd {
    fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut received = String::new();
            let mut datagram = [0; 65_536];
            loop {
                // Checked before receiving, so points sent earlier are not missed.
                let over = asked.load(Ordering::Acquire);
                match socket.recv(&mut datagram) {
                    Ok(length) => {
                        received += std::str::from_utf8(&datagram[..length]).unwrap();
                        received.push('\n');
                    }
                    Err(_) if over => return received,
                    Err(_) => {}
                }
            }
        });
        Self {
            address,
            over,
            thread,
        }
    }

    fn received(self) -> Received {
        // While the socket exists.
        let has_lost = has_lost_datagrams(self.address.port());
        self.over.store(true, Ordering::Release);
        let points = self.thread.join().unwrap();
        Received { points, has_lost }
    }
}

/// Returns `true` if the system has dropped datagrams to this loopback port: the buffer of a socket is full if its
/// thread does not run while a hundred runs end.
fn has_lost_datagrams(port: u16) -> bool {
    let sockets = fs::read_to_string("/proc/net/udp").unwrap_or_default();
    let address = format!("0100007F:{port:04X}");
    let fields = sockets.lines().map(str::split_whitespace);
    let mut fields = fields.filter(|fields| fields.clone().nth(1) == Some(&*address));
    fields.any(|mut fields| fields.next_back() != Some("0"))
}

/// The points of a [`Statsd`].
struct Received {
    points: String,
    has_lost: bool,
}

impl Received {
    /// Checks the number of runs with this outcome.
    fn check(&self, outcome: Outcome, runs: usize) {
        let lines = self.points.lines();
        let lines = lines.filter(|line| line.starts_with("l0.runs:"));
        let tag = format!("outcome:{outcome}");
        let found = lines.filter(|line| line.contains(&tag)).count();
        assert!(
            found == runs || (self.has_lost && found < runs),
            "StatsD, {outcome}: {found} of {runs} runs"
        );
    }
}

/// Returns the ids that any of the bodies contains.
fn found<'a>(ids: &BTreeSet<&'a str>, bodies: &[&Bytes]) -> BTreeSet<&'a str> {
    let is_in = |id: &str, body: &Bytes| body.windows(id.len()).any(|part| part == id.as_bytes());
    let ids = ids.iter().copied();
    ids.filter(|id| bodies.iter().any(|body| is_in(id, body)))
        .collect()
}

/// Scrapes until the server is gone, and returns the last scrape. The interval is long, so an ordinary scrape
/// does not see the final numbers by chance.
async fn scrape(url: String) -> Samples {
    let mut last = None;
    loop {
        match reqwest::get(&url).await {
            Ok(response) => last = Some(response.text().await.unwrap()),
            Err(_) => return read(&last.unwrap()),
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn none_of_a_hundred_live_runs_is_lost_in_any_sink() {
    let (ingest, sent) = ingest(true).await;
    let statsd = Statsd::start();
    // Long enough for answers to end, and too short for a stalled run to time out.
    let mut example = Example::start(ingest, statsd.address, [14, 30, 30]).await;
    let scrapes = tokio::spawn(scrape(example.metrics.clone()));
    example.upstream.fail_next([Fault::Stall; LIVE - ENDING]);
    let stalled = join_all((0..LIVE - ENDING).map(|_| example.begin())).await;
    let ending = join_all((0..ENDING).map(|_| example.begin())).await;
    let metrics = read(&get(&example.metrics).await);
    assert_eq!(metrics.sum("l0_streams_started_total", &[]), LIVE as f64);

    example.signal("-TERM");
    // Clients receive the outcome.
    let last = async |events| {
        let events: Vec<_> = StreamExt::collect(events).await;
        let last: Result<ChatEvent, _> = events.into_iter().next_back().unwrap();
        let last = last.unwrap();
        match last.data["class"].as_str() {
            Some(class) => class.to_owned(),
            None => last.name,
        }
    };
    let completed = join_all(ending.into_iter().map(last)).await;
    let aborted = join_all(stalled.into_iter().map(last)).await;
    assert_eq!(completed, ["done"; ENDING]);
    assert_eq!(aborted, ["aborted"; LIVE - ENDING]);
    assert!(example.exit().await.success());

    let lines = example.lines();
    let ids: BTreeSet<_> = lines.iter().map(|line| &*line.session_id).collect();
    assert_eq!((lines.len(), ids.len()), (LIVE, LIVE), "JSON Lines");
    let ended = |outcome| {
        let lines = lines.iter();
        lines.filter(|line| line.outcome == Some(outcome)).count()
    };
    let outcomes = [
        (Outcome::Completed, ENDING),
        (Outcome::Aborted, LIVE - ENDING),
    ];
    let received = statsd.received();
    let last_scrape = scrapes.await.unwrap();
    for (outcome, runs) in outcomes {
        assert_eq!(ended(outcome), runs, "JSON Lines, {outcome}");
        received.check(outcome, runs);
        let labels = [("outcome", outcome.as_str())];
        let scraped = last_scrape.sum("l0_streams_finished_total", &labels);
        assert_eq!(scraped, runs as f64, "the last scrape, {outcome}");
    }
    let sent = sent.lock().unwrap();
    for (sink, path) in [("OpenTelemetry", "/v1/traces"), ("Sentry", "/api/1/")] {
        let bodies = sent.iter().filter(|(to, _)| to.starts_with(path));
        let bodies: Vec<_> = bodies.map(|(_, body)| body).collect();
        assert_eq!(found(&ids, &bodies), ids, "{sink}");
    }
    let metrics = sent.iter().filter(|(to, _)| to == "/v1/metrics");
    assert!(metrics.count() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_hangs_blocks_neither_the_exit_nor_the_other_sinks() {
    const GRACE: u64 = 1;
    const LAST: u64 = 1;
    const FLUSH: u64 = 2;
    // Reads requests and never responds.
    let (ingest, _sent) = ingest(false).await;
    let statsd = Statsd::start();
    let times = [GRACE, LAST, FLUSH];
    let mut example = Example::start(ingest, statsd.address, times).await;
    // The scraper scrapes once and never returns.
    get(&example.metrics).await;
    example.upstream.fail_next([Fault::Stall; LIVE]);
    let stalled = join_all((0..LIVE).map(|_| example.begin())).await;

    let start = Instant::now();
    example.signal("-INT");
    let status = example.exit().await;
    let took = start.elapsed();
    drop(stalled);
    // The exit status reports that not everything was sent.
    assert_eq!(status.code(), Some(1));
    // This includes two waits for aborted runs.
    let bound = Duration::from_secs(GRACE + 2 * LAST + FLUSH);
    assert!(took < bound + DEADLINE / 2, "{took:?}");
    let lines = example.lines();
    assert_eq!(lines.len(), LIVE);
    statsd.received().check(Outcome::Aborted, LIVE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_wait_for_live_answers() {
    let (ingest, _sent) = ingest(true).await;
    let statsd = Statsd::start();
    let hours = 7_200;
    let mut example = Example::start(ingest, statsd.address, [hours, 30, 30]).await;
    example.upstream.fail_next([Fault::Stall]);
    let stalled = example.begin().await;
    example.signal("-TERM");
    wait_for("the intake is closed", async || {
        let refused = tokio::net::TcpStream::connect(example.address).await;
        refused.is_err().then_some(())
    })
    .await;
    assert_eq!(example.process.try_wait().unwrap(), None);
    // The example may still be handling the first signal: then this repeats the second.
    wait_for("it exits", async || {
        example.signal("-TERM");
        example.process.try_wait().unwrap()
    })
    .await;
    assert!(example.exit().await.success());
    drop(stalled);
    assert_eq!(example.lines().len(), 1);
    statsd.received().check(Outcome::Aborted, 1);
}

#[tokio::test]
async fn drain_ends_live_answers_and_writes_every_run() {
    let file = std::env::temp_dir().join(format!("l0-drain-{}.jsonl", std::process::id()));
    let _ = fs::remove_file(&file);
    let mut command = Command::new(env!("CARGO_BIN_EXE_drain"));
    command.env("L0_FILE", &file);
    let mut drain = ServerProgram::spawn(command).await;
    // The first answer never ends by itself, and the second one ends after the signal.
    drain.upstream.fail_next([Fault::Stall]);
    let url = format!("http://{}/chat", drain.address);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = reqwest::Client::new().post(&url).body("What is a token?");
        let mut answer = request.send().await.unwrap();
        assert!(answer.chunk().await.unwrap().is_some());
        answers.push(answer);
    }
    let signaled = Instant::now();
    drain.signal("-TERM");
    let answer = answers.pop().unwrap().text().await.unwrap();
    assert!(answer.ends_with("it tells you what happened."), "{answer}");
    let late = reqwest::Client::new().post(&url).body("Hi").send().await;
    assert!(late.is_err(), "{late:?}");

    let status = wait_for("it exits", async || drain.process.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
    // 20 s for answers, 1 s each for their ends and for tasks, 5 s for the exporters. The first answer never ends.
    assert!(signaled.elapsed() < Duration::from_secs(28) + DEADLINE);
    let lines = l0_export::json::read_lines(BufReader::new(File::open(&file).unwrap()));
    let outcomes: Vec<_> = lines.map(|run| run.unwrap().outcome.unwrap()).collect();
    assert_eq!(outcomes, [Outcome::Completed, Outcome::Aborted]);
    fs::remove_file(&file).unwrap();
}
