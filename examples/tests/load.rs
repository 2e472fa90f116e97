//! The example `server` under load, while half of its clients disconnect and its metrics are scraped
//! continuously: each scrape is consistent, and nothing leaks.
//!
//! `L0_LOAD` is the number of chats, 2,000 by default; the full gate sends 100,000.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs};

use common::{Samples, ServerProgram, read, wait_for};

const MODELS: [&str; 2] = ["gpt-4o-mini", "gpt-4.1-mini"];

/// The number of concurrent chats. Each needs three descriptors, within the default limit of a process.
const AT_A_TIME: usize = 200;

/// The maximum time that a client keeps an idle connection. reqwest closes connections that were idle for
/// 90 s, and checks every 90 s.
const KEPT_OPEN: Duration = Duration::from_secs(200);

struct Server {
    program: ServerProgram,
    http: reqwest::Client,
}

impl Server {
    async fn start() -> Self {
        let program = ServerProgram::start(env!("CARGO_BIN_EXE_server"), 300).await;
        program.upstream.break_share(0.02);
        Self {
            program,
            http: reqwest::Client::new(),
        }
    }

    /// Returns the samples of a scrape, or `None` if the server rejects it as one too many.
    async fn scrape(&self) -> Option<Samples> {
        let url = format!("http://{}/metrics", self.program.address);
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
        load.args(["--address", &self.program.address.to_string()]);
        load.args(["--chats", &chats.to_string(), "--drop", "0.5"]);
        load.args(["--at-a-time", &AT_A_TIME.to_string()]);
        load.args(MODELS.iter().flat_map(|model| ["--model", model]));
        let output = tokio::task::spawn_blocking(move || load.output().unwrap());
        let output = output.await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
    }

    fn process_file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.program.process.id())
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

/// Checks the invariants of a scrape for each model. Returns `true` if a run is live.
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
async fn under_load_every_scrape_is_consistent_and_nothing_leaks() {
    let long = env::var("L0_LOAD").ok();
    let chats: usize = long.as_ref().map_or(2_000, |chats| chats.parse().unwrap());
    let long = long.is_some();
    let server = Arc::new(Server::start().await);
    // A first load creates threads, pools and caches before the measurement.
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
        assert!(scraper.await.unwrap() > 0, "no scrape saw a live run");
    }

    let samples = server.at_rest().await;
    let all = (first + chats) as f64;
    assert_eq!(samples.sum("l0_streams_started_total", &[]), all);
    assert_eq!(samples.sum("l0_requests_total", &[]), all);
    let finished = |outcome| samples.sum("l0_streams_finished_total", &[("outcome", outcome)]);
    let (completed, dropped) = (finished("completed"), finished("dropped"));
    assert!(completed >= all * 0.45, "{completed} of {all}");
    assert!(dropped >= all * 0.3, "{dropped} of {all}");

    // The client pools connections to the provider for some time.
    let most = descriptors + AT_A_TIME + 8;
    let closed = async || (server.descriptors() <= most).then_some(());
    wait_for("connections close", closed).await;
    if long {
        tokio::time::sleep(KEPT_OPEN).await;
        let now = server.descriptors();
        assert!(now <= descriptors + 8, "{now}, and {descriptors} before");
    }
    // The margin is for pages that the allocator keeps. In a long load, a leak of 200 bytes per chat exceeds it; in a
    // short one, a leak of whole answers.
    let now = server.memory();
    let margin = if long { 16 } else { 48 } * 1024 * 1024;
    assert!(
        now <= memory + margin,
        "{memory} bytes, and {now} afterwards"
    );
}
