//! What shows while runs are live.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{measured, paused, recorder, samples};
use futures_util::StreamExt;
use l0_core::testing::Script;
use l0_core::{Backoff, Failure, Monitoring, Retry};
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
fn time_goes_by_when_it_is_refreshed_measured_or_not() {
    let metrics = MetricsInterceptor::new();
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
fn a_wait_for_a_retry_shows_before_it_ends() {
    let metrics = MetricsInterceptor::new();
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
