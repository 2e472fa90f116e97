//! The chat application inside the process, how its metrics are read, and what tests that run programs
//! share.

#![allow(dead_code, reason = "each test uses some of it")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
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

/// The value of a variable, unless it is not set.
#[allow(clippy::print_stdout, reason = "what is off is said")]
pub(crate) fn switched_on(variable: &str) -> Option<OsString> {
    let value = std::env::var_os(variable).filter(|value| !value.is_empty());
    if value.is_none() {
        println!("switched off: {variable} is not set");
    }
    value
}

/// An address of the loopback at which nobody listens.
pub(crate) fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
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

/// The labels of a sample; the name of the metric is one, `__name__`.
pub(crate) type Labels = BTreeMap<String, String>;

/// Samples by their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Samples(pub(crate) BTreeMap<Labels, f64>);

impl Samples {
    /// The sum over all samples of this name that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is = |sample: &Labels, (label, value): (&str, &str)| {
            sample.get(label).is_some_and(|one| one == value)
        };
        let samples = self.0.iter().filter(|(sample, _)| {
            is(sample, ("__name__", name)) && labels.iter().all(|label| is(sample, *label))
        });
        samples.map(|(_, value)| value).sum()
    }

    /// Adds the samples of another one to those with the same labels.
    pub(crate) fn add(&mut self, other: &Self) {
        for (labels, value) in &other.0 {
            *self.0.entry(labels.clone()).or_default() += value;
        }
    }

    /// Without those labels that whoever scrapes adds.
    pub(crate) fn without(mut self, added: &[&str]) -> Self {
        let samples = std::mem::take(&mut self.0).into_iter();
        for (mut labels, value) in samples {
            labels.retain(|label, _| !added.contains(&&**label));
            let before = self.0.insert(labels, value);
            assert_eq!(before, None, "two samples differ in {added:?} only");
        }
        self
    }
}

/// Reads the text format, as far as the labels of these tests need it: none has an escape, a comma
/// or a brace in its value.
pub(crate) fn read(text: &str) -> Samples {
    let mut samples = Samples::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(!line.contains('\\'), "{line}");
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, pairs) = match series.split_once('{') {
            Some((name, pairs)) => (name, pairs.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        let mut labels = Labels::from([("__name__".to_owned(), name.to_owned())]);
        for pair in pairs.split(',').filter(|pair| !pair.is_empty()) {
            let (label, value) = pair.split_once('=').unwrap();
            labels.insert(label.to_owned(), value.trim_matches('"').to_owned());
        }
        let before = samples.0.insert(labels, value.parse().unwrap());
        assert_eq!(before, None, "twice: {line}");
    }
    samples
}
