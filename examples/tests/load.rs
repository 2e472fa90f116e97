//! The chat application under load, while half of its clients go away and its metrics are scraped all the
//! time: what each scrape says agrees, and in the end everything is as it was.
//!
//! `L0_LOAD` is the number of chats, 2,000 by default; the full gate sends 100,000.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs};

use common::{Samples, read, wait_for};

const MODELS: [&str; 2] = ["gpt-4o-mini", "gpt-4.1-mini"];

/// So many that three descriptors for each are not more than a process may have by default.
const AT_A_TIME: usize = 200;

/// For longer than this no client keeps a connection that it does not use: reqwest looks every 90 s which
/// of them were not used for as long.
const KEPT_OPEN: Duration = Duration::from_secs(200);

/// Ends its process with itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Server {
    process: Running,
    address: SocketAddr,
    http: reqwest::Client,
}

impl Server {
    fn start() -> Self {
        let mut server = Command::new(env!("CARGO_BIN_EXE_server"));
        for variable in ["OPENAI_API_KEY", "OPENAI_BASE_URL"] {
            server.env_remove(variable);
        }
        server.args(["--listen", "127.0.0.1:0", "--faults", "0.02"]);
        server.args(MODELS.iter().flat_map(|model| ["--model", model]));
        server.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Running(server.spawn().unwrap());
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.strip_prefix("listening on http://").unwrap();
        Self {
            process,
            address: address.parse().unwrap(),
            http: reqwest::Client::new(),
        }
    }

    /// The numbers of a scrape; an answer that there are too many is none.
    async fn scrape(&self) -> Option<Samples> {
        let url = format!("http://{}/metrics", self.address);
        let response = self.http.get(url).send().await.unwrap();
        if response.status() == reqwest::StatusCode::SERVICE_UNAVAILABLE {
            return None;
        }
        assert!(response.status().is_success(), "{response:?}");
        Some(read(&response.text().await.unwrap()))
    }

    /// Waits until every run has ended.
    async fn at_rest(&self) -> Samples {
        wait_for("no run is active", async || {
            let samples = self.scrape().await?;
            check(&samples);
            (samples.sum("l0_streams_active", &[]) == 0.0).then_some(samples)
        })
        .await
    }

    async fn load(&self, chats: usize) {
        let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
        load.args(["--address", &self.address.to_string()]);
        load.args(["--chats", &chats.to_string(), "--drop", "0.5"]);
        load.args(["--at-a-time", &AT_A_TIME.to_string()]);
        load.args(MODELS.iter().flat_map(|model| ["--model", model]));
        let output = tokio::task::spawn_blocking(move || load.output().unwrap());
        let output = output.await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }

    fn process_file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.process.0.id())
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(self.process_file("fd")).unwrap().count()
    }

    /// Resident memory in bytes.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(self.process_file("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
        kilobytes.parse::<u64>().unwrap() * 1_024
    }
}

/// What has to hold in every scrape, for each model.
fn check(samples: &Samples) -> bool {
    let mut live = false;
    for model in MODELS {
        let of = |name| samples.sum(name, &[("model", model)]);
        let (started, active) = (of("l0_streams_started_total"), of("l0_streams_active"));
        let finished = of("l0_streams_finished_total");
        assert_eq!(started, finished + active, "{model}");
        assert!(of("l0_requests_total") <= finished, "{model}");
        assert!(
            of("l0_backoff_seconds_total") <= of("l0_streams_active_seconds_total"),
            "{model}"
        );
        live |= active > 0.0;
    }
    live
}

#[tokio::test]
async fn under_load_every_scrape_agrees_and_nothing_is_left_behind() {
    let long = env::var("L0_LOAD").ok();
    let chats: usize = long.as_ref().map_or(2_000, |chats| chats.parse().unwrap());
    let long = long.is_some();
    let server = Arc::new(Server::start());
    // What is made once is made before it is looked at: threads, pools, caches.
    let first = 500;
    server.load(first).await;
    server.at_rest().await;
    let (memory, descriptors) = (server.memory(), server.descriptors());

    let done = Arc::new(AtomicBool::new(false));
    let scrapers: Vec<_> = (0..3)
        .map(|_| {
            let (server, done) = (Arc::clone(&server), Arc::clone(&done));
            tokio::spawn(async move {
                let mut with_live = 0_usize;
                while !done.load(Ordering::Relaxed) {
                    if let Some(samples) = server.scrape().await {
                        with_live += usize::from(check(&samples));
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                with_live
            })
        })
        .collect();
    server.load(chats).await;
    done.store(true, Ordering::Relaxed);
    for scraper in scrapers {
        assert!(scraper.await.unwrap() > 10, "no scrape saw a live run");
    }

    let samples = server.at_rest().await;
    let all = (first + chats) as f64;
    assert_eq!(samples.sum("l0_streams_started_total", &[]), all);
    assert_eq!(samples.sum("l0_requests_total", &[]), all);
    let finished = |outcome| samples.sum("l0_streams_finished_total", &[("outcome", outcome)]);
    let (completed, dropped) = (finished("completed"), finished("dropped"));
    assert!(completed >= all * 0.45, "{completed} of {all}");
    assert!(dropped >= all * 0.3, "{dropped} of {all}");

    // Of each connection to the provider, which is kept for a while, the process has both ends.
    let most = descriptors + 2 * AT_A_TIME + 8;
    assert!(server.descriptors() <= most, "of {descriptors} before");
    if long {
        tokio::time::sleep(KEPT_OPEN).await;
        let now = server.descriptors();
        assert!(now <= descriptors + 8, "{now}, and {descriptors} before");
    }
    // Pages that an allocator keeps are no leak: a leak of a hundred bytes per chat would be 10 MB.
    let now = server.memory();
    let room = 16 * 1024 * 1024;
    assert!(now <= memory + room, "{memory} bytes, and {now} afterwards");
}
