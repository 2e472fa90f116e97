//! Metrics of live runs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{measured, paused, recorder, samples};
use futures_util::StreamExt;
use l0_core::testing::Script;
use l0_core::{Backoff, Failure, Monitoring, Retry, Stalls};
use l0_metrics::MetricsInterceptor;
use metrics::with_local_recorder;
use tokio::time::{advance, timeout};

const SECOND: Duration = Duration::from_secs(1);

const LIVE: [&str; 5] = [
    "l0_streams_started_total",
    "l0_streams_active",
    "l0_stream_oldest_seconds",
    "l0_streams_active_seconds_total",
    "l0_backoff_seconds_total",
];

fn live(samples: &BTreeMap<String, f64>) -> [f64; 5] {
    LIVE.map(|name| samples[name])
}

#[test]
fn a_refresh_updates_times_measured_or_not() {
    let metrics = Arc::new(MetricsInterceptor::new());
    let recorder = recorder(&metrics);
    let handle = recorder.handle();
    let l0 = measured(&metrics).monitoring(Monitoring::off()).build();
    let refreshed = || {
        metrics.refresh();
        live(&samples(&handle))
    };
    let runs = async {
        let script = Script::new().attempt(|a| a.token("a").wait(60 * SECOND));
        let first = l0.stream(script.source()).start();
        assert_eq!(refreshed(), [1.0, 1.0, 0.0, 0.0, 0.0]);
        advance(10 * SECOND).await;
        assert_eq!(refreshed(), [1.0, 1.0, 10.0, 10.0, 0.0]);
        let second = l0.stream(script.source()).start();
        advance(SECOND).await;
        assert_eq!(refreshed(), [2.0, 2.0, 11.0, 12.0, 0.0]);
        drop(first);
        assert_eq!(live(&samples(&handle)), [2.0, 1.0, 1.0, 12.0, 0.0]);
        drop(second);
        assert_eq!(live(&samples(&handle)), [2.0, 0.0, 0.0, 12.0, 0.0]);
        advance(SECOND).await;
        assert_eq!(refreshed(), [2.0, 0.0, 0.0, 12.0, 0.0]);
    };
    with_local_recorder(&recorder, || paused().block_on(runs));
}

#[test]
fn a_refresh_counts_stalled_runs_without_polling_them() {
    let metrics = MetricsInterceptor::new();
    let metrics = Arc::new(metrics.label_keys(["model"]).unwrap());
    let counting = MetricsInterceptor::new().stalls(Stalls::new());
    let counting = Arc::new(counting.label_keys(["model"]).unwrap());
    let recorder = recorder(&metrics);
    let handle = recorder.handle();
    let stalled = || {
        counting.refresh();
        metrics.refresh();
        let of = |model| format!("l0_streams_stalled{{model=\"{model}\"}}");
        let samples = samples(&handle);
        ["silent", "held", "asks"].map(|model| samples.get(&of(model)).copied())
    };
    let l0 = measured(&counting).build();
    let runs = async {
        assert_eq!(stalled(), [None; 3]);
        let tokens = Script::new().attempt(|a| a.tokens(["one", "two"]).hang());
        let nothing = Script::new().attempt(|a| a.connect_hang());
        let start = |script: &Script, model| {
            let run = l0.stream(script.source());
            run.metadata("model", model).start()
        };
        let mut silent = start(&tokens, "silent");
        let mut held = start(&tokens, "held");
        let mut asks = start(&nothing, "asks");
        assert!(silent.next().await.is_some() && silent.next().await.is_some());
        assert!(held.next().await.is_some());
        assert!(timeout(SECOND, silent.next()).await.is_err());
        assert!(timeout(SECOND, asks.next()).await.is_err());
        assert_eq!(stalled(), [Some(0.0); 3]);
        advance(8 * SECOND).await;
        assert_eq!(stalled(), [Some(1.0), Some(0.0), Some(0.0)]);
        advance(51 * SECOND).await;
        assert_eq!(stalled(), [Some(1.0), Some(0.0), Some(1.0)]);
        drop((silent, held, asks));
        assert_eq!(stalled(), [Some(0.0); 3]);
        // If stalls are not counted, nothing is reported or kept.
        let l0 = measured(&metrics).build();
        let mut run = l0.stream(tokens.source()).metadata("model", "x").start();
        assert!(run.next().await.is_some());
        assert_eq!(run.handle().progress(), None);
    };
    with_local_recorder(&recorder, || paused().block_on(runs));
    let text = handle.render();
    assert!(!text.contains("l0_streams_stalled{model=\"x\"}"), "{text}");
}

#[test]
fn a_wait_for_a_retry_shows_before_it_ends() {
    let metrics = Arc::new(MetricsInterceptor::new());
    let recorder = recorder(&metrics);
    let handle = recorder.handle();
    let retry = Retry::new().backoff(Backoff::fixed(10 * SECOND));
    let l0 = measured(&metrics).retry(retry).build();
    let runs = async {
        let script = Script::new()
            .attempt(|a| a.fail(Failure::status(503)))
            .attempt(|a| a.token("a"));
        let mut run = l0.stream(script.source()).start();
        assert!(timeout(4 * SECOND, run.next()).await.is_err());
        metrics.refresh();
        assert_eq!(samples(&handle)["l0_backoff_seconds_total"], 4.0);
        run.text().await.unwrap();
        assert_eq!(samples(&handle)["l0_backoff_seconds_total"], 10.0);
        assert_eq!(samples(&handle)["l0_retries_network_total"], 1.0);
    };
    with_local_recorder(&recorder, || paused().block_on(runs));
}
