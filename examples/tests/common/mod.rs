//! The chat application inside the process, how its metrics are read, and what tests that run programs
//! share.

#![allow(dead_code, unused_imports, reason = "each test uses some of it")]
#![allow(clippy::print_stdout, reason = "what is off is said")]

mod samples;

use std::env;
use std::ffi::OsString;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::StreamExt;
use l0_core::Timeouts;
use l0_examples::chat_app::ChatApp;
use l0_examples::chat_client::{ChatEvent, chat};
use l0_examples::server::Server;
use l0_prometheus::Collector;
use l0_providers::openai::Client;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) use samples::{Labels, Samples, read};

/// How long anything is waited for that is bound to happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How many tokens a whole answer has.
pub(crate) const ANSWER: usize = 58;

/// The application on a free loopback port, with a model server of its own.
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

    /// With another application, or one more layer around it.
    pub(crate) async fn with(
        change: impl FnOnce(ChatApp) -> ChatApp,
        layer: impl FnOnce(Router) -> Router,
    ) -> Self {
        let upstream = Server::start(0).await.unwrap();
        let client = Client::new(&upstream.base_url()).unwrap();
        let app = change(ChatApp::new(client, Collector::builder().build().unwrap()));
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

    /// One whose models take too long, and which counts where this one does.
    pub(crate) async fn impatient(&self) -> Self {
        let collector = self.collector.clone();
        let change = |app| ChatApp {
            collector,
            timeouts: Timeouts::new().total(Duration::from_millis(200)),
            ..app
        };
        Self::with(change, |router| router).await
    }

    /// All events of one chat.
    pub(crate) async fn chat(&self, model: &str) -> Vec<ChatEvent> {
        let http = reqwest::Client::new();
        let events = chat(&http, self.address, Some(model), "What is a token?");
        events.await.unwrap().map(Result::unwrap).collect().await
    }

    /// The events of one chat until so many tokens are there; then the client goes away.
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

    /// Waits until every run has ended, and gives the metrics of then.
    pub(crate) async fn at_rest(&self) -> Samples {
        wait_for("no run is active", async || {
            let samples = self.metrics().await;
            (samples.sum("l0_streams_active", &[]) == 0.0).then_some(samples)
        })
        .await
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

/// Asks again and again until there is an answer.
pub(crate) async fn wait_for<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        pause().await;
    }
}

/// Between two questions.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// The value of a variable, unless it is not set.
pub(crate) fn switched_on(variable: &str) -> Option<OsString> {
    let value = env::var_os(variable).filter(|value| !value.is_empty());
    if value.is_none() {
        println!("switched off: {variable} is not set");
    }
    value
}

/// Lets a strict parser of others read a text, if it is there.
pub(crate) fn check_strictly(format: &str, text: &str) {
    let (Some(peers), Some(python)) = (switched_on("L0_PEERS"), switched_on("L0_PEERS_PYTHON"))
    else {
        return;
    };
    let script = Path::new(&peers).join("strict_exposition.py");
    let said = pipe(Command::new(&python).arg(&script).arg(format), text);
    println!("{format}: {}", said.trim());
}

/// Runs a program that must find nothing wrong.
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
    // It may know enough before the end.
    let _ = writer.join().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// A loopback address that nobody listens on.
pub(crate) fn free_address() -> SocketAddr {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// How many events have this name.
pub(crate) fn count(events: &[ChatEvent], name: &str) -> usize {
    events.iter().filter(|event| event.name == name).count()
}

/// The names of events, each once for any number of equal ones in a row.
pub(crate) fn names(events: &[ChatEvent]) -> Vec<&str> {
    let mut names: Vec<_> = events.iter().map(|event| &*event.name).collect();
    names.dedup();
    names
}

/// The text of the tokens after the last restart.
pub(crate) fn text(events: &[ChatEvent]) -> String {
    let last = events.split(|event| event.name == "restart").next_back();
    let tokens = last.unwrap().iter().filter(|event| event.name == "token");
    tokens
        .map(|token| token.data["text"].as_str().unwrap())
        .collect()
}
