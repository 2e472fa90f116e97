//! Live runs with a silent source.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::Stream;
use l0_core::testing::Script;
use l0_core::{L0, Stalls};
use l0_prometheus::Collector;
use tokio::time::advance;

fn poll(stream: &mut (impl Stream + Unpin)) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(stream).poll_next(&mut context).is_ready()
}

fn stalled(collector: &Collector) -> Vec<String> {
    let text = collector.expose();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("l0_streams_stalled"));
    lines.map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn stalled_runs_are_counted_without_polling_and_runs_waiting_for_their_consumer_are_not() {
    let second = Duration::from_secs(1);
    let collector = Collector::builder().stalls(Stalls::new()).build().unwrap();
    let l0 = L0::builder()
        .interceptor(collector.label_keys(["model"]).unwrap())
        .build();
    let script = || Script::new().attempt(|a| a.tokens(["one", "two"]).hang());
    let (first, second_run) = (script(), script());
    let mut silent = l0
        .stream(|_| first.connect())
        .metadata("model", "large")
        .start();
    let mut held = l0
        .stream(|_| second_run.connect())
        .metadata("model", "small")
        .start();
    assert!(poll(&mut silent) && poll(&mut silent) && !poll(&mut silent));
    assert!(poll(&mut held));

    advance(9 * second).await;
    let lines = |large, small| {
        [
            format!("l0_streams_stalled{{model=\"large\"}} {large}"),
            format!("l0_streams_stalled{{model=\"small\"}} {small}"),
        ]
    };
    assert_eq!(stalled(&collector), lines(0, 0));
    advance(second).await;
    assert_eq!(stalled(&collector), lines(1, 0));
    // Its consumer is back, and takes all pending items.
    assert!(poll(&mut held) && !poll(&mut held));
    advance(10 * second).await;
    assert_eq!(stalled(&collector), lines(1, 1));
    drop((silent, held));
    assert_eq!(stalled(&collector), lines(0, 0));
}

#[tokio::test(start_paused = true)]
async fn stalls_are_absent_unless_they_are_configured() {
    let collector = Collector::builder().build().unwrap();
    let l0 = L0::builder().interceptor(collector.interceptor()).build();
    let script = Script::new().attempt(|a| a.token("one").hang());
    let mut run = l0.stream(|_| script.connect()).start();
    assert!(poll(&mut run));
    assert_eq!(run.handle().progress(), None);
    assert_eq!(stalled(&collector), [] as [&str; 0]);
}
