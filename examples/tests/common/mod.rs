//! The chat application inside the process, readers of its metrics, and helpers for tests that run
//! programs.

#![allow(dead_code, unused_imports, reason = "each test uses a part")]
#![allow(clippy::print_stdout, reason = "disabled tests are reported")]

mod samples;

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::StreamExt;
use l0_core::{Stalls, Timeouts};
use l0_examples::chat_app::ChatApp;
use l0_examples::chat_client::{ChatEvent, chat};
use l0_examples::server::Server;
use l0_prometheus::{Collector, PrometheusBuilder};
use l0_providers::openai::Client;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) use samples::{Labels, Samples, read};

/// The maximum wait for something that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The number of tokens of a complete answer.
pub(crate) const ANSWER: usize = 58;

/// The stall threshold of the documents.
pub(crate) fn counting_stalls(
    builder: PrometheusBuilder<Collector>,
) -> PrometheusBuilder<Collector> {
    builder.stalls(Stalls::new())
}

/// The application on a free loopback port, with its own model server.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    pub(crate) upstream: Server,
    pub(crate) collector: Collector,
    task: JoinHandle<()>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::with(|app| app, |router| router).await
    }

    /// Starts a variant of the application, or adds a layer around it.
    pub(crate) async fn with(
        change: impl FnOnce(ChatApp) -> ChatApp,
        layer: impl FnOnce(Router) -> Router,
    ) -> Self {
        let upstream = Server::start(0).await.unwrap();
        let client = Client::new(&upstream.base_url()).unwrap();
        let collector = counting_stalls(Collector::builder()).build().unwrap();
        let app = change(ChatApp::new(client, collector));
        let collector = app.collector.clone();
        let router = layer(app.router().unwrap());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            upstream,
            collector,
            task,
        }
    }

    /// Starts a service with short timeouts that shares the collector.
    pub(crate) async fn impatient(&self) -> Self {
        let collector = self.collector.clone();
        let change = |app| ChatApp {
            collector,
            timeouts: Timeouts::new().total(Duration::from_millis(200)),
            ..app
        };
        Self::with(change, |router| router).await
    }

    /// Returns all events of one chat.
    pub(crate) async fn chat(&self, model: &str) -> Vec<ChatEvent> {
        let http = reqwest::Client::new();
        let events = chat(&http, self.address, Some(model), "What is a token?");
        events.await.unwrap().map(Result::unwrap).collect().await
    }

    /// Returns the events of one chat up to this number of tokens. Then the client disconnects.
    pub(crate) async fn go_away(&self, model: &str, tokens: usize) -> Vec<ChatEvent> {
        let http = reqwest::Client::new();
        let events = chat(&http, self.address, Some(model), "What is a token?");
        let mut events = events.await.unwrap();
        let mut seen = Vec::new();
        while count(&seen, "token") < tokens {
            seen.push(events.next().await.unwrap().unwrap());
        }
        seen
    }

    pub(crate) async fn metrics(&self) -> Samples {
        read(&get(&format!("http://{}/metrics", self.address)).await)
    }

    /// Waits until every run has ended, and returns the metrics.
    pub(crate) async fn at_rest(&self) -> Samples {
        wait_for("no run is active", async || {
            let samples = self.metrics().await;
            (samples.sum("l0_streams_active", &[]) == 0.0).then_some(samples)
        })
        .await
    }
}

/// The program `server` or `drain`, with a model server in this process.
pub(crate) struct ServerProgram {
    pub(crate) process: Child,
    pub(crate) address: SocketAddr,
    pub(crate) upstream: Server,
}

impl ServerProgram {
    /// Starts the program with this timeout for a token, in seconds.
    pub(crate) async fn start(program: &str, token_timeout: u64) -> Self {
        let mut command = Command::new(program);
        command.env("TOKEN_TIMEOUT", token_timeout.to_string());
        Self::spawn(command).await
    }

    /// Starts the program of a command.
    pub(crate) async fn spawn(mut command: Command) -> Self {
        let upstream = Server::start(0).await.unwrap();
        let mut process = command
            .env_remove("OPENAI_API_KEY")
            .env_remove("SENTRY_DSN")
            .env("OPENAI_BASE_URL", upstream.base_url())
            .env("LISTEN", "127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.strip_prefix("listening on http://").unwrap();
        Self {
            process,
            address: address.parse().unwrap(),
            upstream,
        }
    }

    /// Returns all events of one chat.
    pub(crate) async fn chat(&self, model: &str) -> Vec<ChatEvent> {
        let http = reqwest::Client::new();
        let events = chat(&http, self.address, Some(model), "What is a token?");
        events.await.unwrap().map(Result::unwrap).collect().await
    }

    pub(crate) async fn metrics(&self) -> Samples {
        read(&get(&format!("http://{}/metrics", self.address)).await)
    }

    /// Waits until every run has ended, and returns the metrics.
    pub(crate) async fn at_rest(&self) -> Samples {
        wait_for("no run is active", async || {
            let samples = self.metrics().await;
            (samples.sum("l0_streams_active", &[]) == 0.0).then_some(samples)
        })
        .await
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let told = Command::new("kill").args([signal, &pid]).status();
        assert!(told.unwrap().success());
    }
}

impl Drop for ServerProgram {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn get(url: &str) -> String {
    let response = reqwest::get(url).await.unwrap();
    assert!(response.status().is_success(), "{url}: {response:?}");
    response.text().await.unwrap()
}

/// Polls until there is an answer.
pub(crate) async fn wait_for<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = poll().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        pause().await;
    }
}

/// The delay between two polls.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Returns the value of a variable, or `None` if it is not set.
pub(crate) fn switched_on(variable: &str) -> Option<OsString> {
    let value = env::var_os(variable).filter(|value| !value.is_empty());
    if value.is_none() {
        println!("switched off: {variable} is not set");
    }
    value
}

/// Checks a text with a strict external parser, if available.
pub(crate) fn check_strictly(format: &str, text: &str) {
    let (Some(peers), Some(python)) = (switched_on("L0_PEERS"), switched_on("L0_PEERS_PYTHON"))
    else {
        return;
    };
    let script = Path::new(&peers).join("strict_exposition.py");
    let printed = pipe(Command::new(&python).arg(&script).arg(format), text);
    println!("{format}: {}", printed.trim());
}

/// Runs a program that must succeed.
pub(crate) fn pipe(command: &mut Command, input: &str) -> String {
    let mut process = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = process.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = process.wait_with_output().unwrap();
    // The program can exit before it has read everything.
    let _ = writer.join().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed).into_owned();
    assert!(output.status.success(), "{command:?}: {printed}");
    printed
}

/// Returns a loopback address without a listener.
pub(crate) fn free_address() -> SocketAddr {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// Counts the events with this name.
pub(crate) fn count(events: &[ChatEvent], name: &str) -> usize {
    events.iter().filter(|event| event.name == name).count()
}

/// Returns the names of the events without adjacent repetitions.
pub(crate) fn names(events: &[ChatEvent]) -> Vec<&str> {
    let mut names: Vec<_> = events.iter().map(|event| &*event.name).collect();
    names.dedup();
    names
}

/// Returns the text of the tokens after the last restart.
pub(crate) fn text(events: &[ChatEvent]) -> String {
    let last = events.split(|event| event.name == "restart").next_back();
    let tokens = last.unwrap().iter().filter(|event| event.name == "token");
    tokens
        .map(|token| token.data["text"].as_str().unwrap())
        .collect()
}
