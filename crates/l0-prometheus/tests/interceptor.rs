//! Runs recorded as they happen: labels from metadata, and gauges that are right on every exit.

mod support;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use l0_core::testing::{Script, ScriptedAttempt};
use l0_core::{
    Backoff, Event, Interceptor, L0, Monitoring, Observer, Observers, Outcome, Refusal, Request,
    Retry, RunInfo, Timeouts,
};
use l0_prometheus::{Collector, LabelError};
use support::Exposition;
use tokio::time::sleep;

fn collector() -> Collector {
    Collector::builder().build().expect("valid")
}

fn l0(collector: &Collector) -> l0_core::L0Builder {
    let interceptor = collector.label_keys(["model"]).expect("valid");
    L0::builder()
        .retry(
            Retry::new()
                .model_retries(0)
                .max_retries(1)
                .backoff(Backoff::none()),
        )
        .interceptor(interceptor)
}

fn read(collector: &Collector) -> Exposition {
    support::read(&collector.expose())
}

fn finished(read: &Exposition, outcome: Outcome) -> f64 {
    read.get(
        "l0_streams_finished_total",
        [("outcome", outcome.as_str()), ("model", "m")],
    )
    .expect("a sample of each outcome")
}

/// How a run may end; each is driven to its end on the paused clock.
async fn drive(outcome: Outcome, l0: &L0) {
    let script = |attempt: fn(ScriptedAttempt) -> ScriptedAttempt| Script::new().attempt(attempt);
    let begin = |script: &Script| l0.stream(script.source()).metadata("model", "m");
    match outcome {
        Outcome::Completed => {
            let script = script(|a| a.tokens(["a", "b"]));
            begin(&script).start().text().await.expect("it completes");
        }
        Outcome::Truncated => {
            let script = script(|a| a.token("a"));
            begin(&script)
                .expect_finish()
                .start()
                .text()
                .await
                .expect_err("truncated");
        }
        Outcome::Failed => {
            let script = script(|a| a.token("a").fail("no"));
            begin(&script).start().text().await.expect_err("failed");
        }
        Outcome::TimedOut => {
            let script = script(|a| a.token("a").hang());
            let timeouts = Timeouts::new().total(Duration::from_secs(1));
            begin(&script)
                .timeouts(timeouts)
                .start()
                .text()
                .await
                .expect_err("timed out");
        }
        Outcome::Aborted => {
            let script = script(|a| a.token("a").hang());
            let mut run = begin(&script).start();
            let handle = run.handle();
            tokio::join!(run.text(), async {
                sleep(Duration::from_secs(1)).await;
                handle.abort();
            })
            .0
            .expect_err("aborted");
        }
        Outcome::Dropped => {
            let script = script(|a| a.token("a").hang());
            let mut run = begin(&script).start();
            run.next().await.expect("an item").expect("no error");
        }
        _ => panic!("{outcome} has no script"),
    }
}

#[tokio::test(start_paused = true)]
async fn every_outcome_is_counted_and_leaves_nothing_active() {
    for monitoring in [Monitoring::new(), Monitoring::off()] {
        for outcome in Outcome::ALL {
            let collector = collector();
            let l0 = l0(&collector).monitoring(monitoring.clone()).build();
            drive(outcome, &l0).await;
            drive(outcome, &l0).await;
            let read = read(&collector);
            let of = |name| read.get(name, [("model", "m")]);
            assert_eq!(of("l0_streams_active"), Some(0.0), "{outcome}");
            assert_eq!(of("l0_streams_started_total"), Some(2.0), "{outcome}");
            for other in Outcome::ALL {
                let expected = if other == outcome { 2.0 } else { 0.0 };
                assert_eq!(finished(&read, other), expected, "{outcome}, {other}");
            }
            let measured = if monitoring == Monitoring::off() {
                0.0
            } else {
                2.0
            };
            assert_eq!(of("l0_requests_total"), Some(measured), "{outcome}");
            support::check_with_peers(&collector.expose());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_run_is_active() {
    let collector = collector();
    let l0 = l0(&collector).build();
    let script = Script::new().attempt(|a| a.token("a").hang());
    let begin = || l0.stream(script.source()).metadata("model", "m").start();
    let (mut one, two) = (begin(), begin());
    let active = || read(&collector).get("l0_streams_active", [("model", "m")]);
    assert_eq!(active(), Some(2.0));
    one.next().await.unwrap().unwrap();
    drop(two);
    assert_eq!(active(), Some(1.0));
    // In use, so it stays.
    assert_eq!(collector.retain(|_| false), 0);
    drop(one);
    assert_eq!(active(), Some(0.0));
    assert_eq!(collector.retain(|_| false), 1);
    assert_eq!(collector.expose(), "");
}

#[tokio::test(start_paused = true)]
async fn a_clear_forgets_live_runs() {
    let collector = collector();
    let l0 = l0(&collector).build();
    let script = Script::new().attempt(|a| a.token("a"));
    let begin = || l0.stream(script.source()).metadata("model", "m").start();
    let mut before = begin();
    collector.clear();
    let after = begin();
    before.text().await.unwrap();
    let read = read(&collector);
    assert_eq!(read.get("l0_streams_active", [("model", "m")]), Some(1.0));
    assert_eq!(
        read.get("l0_streams_started_total", [("model", "m")]),
        Some(1.0)
    );
    assert_eq!(finished(&read, Outcome::Completed), 0.0);
    assert_eq!(read.get("l0_requests_total", [("model", "m")]), Some(1.0));
    drop(after);
}

#[tokio::test(start_paused = true)]
async fn panics_leave_nothing_active() {
    struct Bad;
    impl Observer for Bad {
        fn on_event(&mut self, _: &Event<'_>) {
            panic!("on purpose");
        }
    }
    impl Interceptor for Bad {
        fn observe(&self, _: &RunInfo, observers: &mut Observers) {
            observers.push(Bad);
        }
    }

    let collector = collector();
    let script = Script::new().attempt(|a| a.token("a").panic("in the source"));
    let l0 = l0(&collector).interceptor(Bad).build();
    let mut run = l0.stream(script.source()).metadata("model", "m").start();
    let result = AssertUnwindSafe(run.text()).catch_unwind().await;
    assert!(result.is_err());
    let read = read(&collector);
    assert_eq!(read.get("l0_streams_active", [("model", "m")]), Some(0.0));
    assert_eq!(finished(&read, Outcome::Failed), 1.0);
    assert_eq!(read.get("l0_observer_panics_total", []), Some(1.0));
}

#[tokio::test]
async fn a_refused_run_failed() {
    struct Refuses;
    impl Interceptor for Refuses {
        fn before(&self, _: &mut Request) -> Result<(), Refusal> {
            Err(Refusal::new("no"))
        }
    }

    let collector = collector();
    let l0 = l0(&collector).interceptor(Refuses).build();
    let script = Script::new();
    let mut run = l0.stream(script.source()).metadata("model", "m").start();
    assert_eq!(finished(&read(&collector), Outcome::Failed), 1.0);
    run.text().await.unwrap_err();
    assert_eq!(script.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn back_off_shows_before_the_end() {
    let collector = collector();
    let retry = Retry::new()
        .max_retries(2)
        .backoff(Backoff::fixed(Duration::from_millis(1_500)));
    let l0 = l0(&collector).retry(retry).build();
    let script = Script::new()
        .attempt(|a| a.connect_error(io::ErrorKind::ConnectionReset))
        .attempt(|a| a.token("a").hang());
    let mut run = l0.stream(script.source()).metadata("model", "m").start();
    run.next().await.unwrap().unwrap();
    let read = read(&collector);
    assert_eq!(
        read.get("l0_backoff_seconds_total", [("model", "m")]),
        Some(1.5)
    );
    assert_eq!(read.get("l0_requests_total", [("model", "m")]), Some(0.0));
}

#[tokio::test]
async fn only_the_named_metadata_becomes_labels() {
    let collector = collector();
    let keys = ["model", "tier", "stream", "tags", "user", "missing"];
    let l0 = L0::builder()
        .interceptor(collector.label_keys(keys).unwrap())
        .build();
    let script = Script::new().attempt(|a| a.token("a"));
    let mut run = l0
        .stream(script.source())
        .metadata("model", "m")
        .metadata("tier", 2)
        .metadata("stream", true)
        .metadata("tags", vec!["a", "b"])
        .metadata("user", ())
        .metadata("secret", "s")
        .start();
    run.text().await.unwrap();
    let expected = [
        ("model", "m"),
        ("stream", "true"),
        ("tags", "[\"a\",\"b\"]"),
        ("tier", "2"),
    ];
    assert_eq!(
        read(&collector).get("l0_requests_total", expected),
        Some(1.0)
    );
}

#[test]
fn a_key_that_cannot_be_a_label_is_named() {
    let collector = collector();
    let error = collector.label_keys(["model", "user.id"]).unwrap_err();
    assert_eq!(error, LabelError::Invalid("user.id".to_owned()));
    let error = collector.label_keys(["outcome"]).unwrap_err();
    assert_eq!(error, LabelError::Reserved("outcome".to_owned()));
}

#[test]
fn monitoring_is_on_by_default_in_what_it_is_added_to() {
    let collector = collector();
    let l0 = l0(&collector).build();
    let run = l0
        .stream(Script::new().source())
        .metadata("model", "m")
        .start();
    drop(run);
    let read = read(&collector);
    assert_eq!(read.get("l0_requests_total", [("model", "m")]), Some(1.0));
}

#[test]
fn runs_on_many_threads_are_all_counted_and_no_scrape_shows_more_ends_than_starts() {
    const THREADS: usize = 4;
    let collector = collector();
    let l0 = Arc::new(l0(&collector).build());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..500 {
                        drop(
                            l0.stream(Script::new().source())
                                .metadata("model", "m")
                                .start(),
                        );
                    }
                })
            })
            .collect();
        while !threads
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            let read = read(&collector);
            let started = read.sum("l0_streams_started_total");
            assert!(read.sum("l0_streams_finished_total") <= started);
            let active = read.sum("l0_streams_active");
            assert!((0.0..=THREADS as f64).contains(&active), "{active}");
        }
    });
    let read = read(&collector);
    assert_eq!(finished(&read, Outcome::Dropped), 2_000.0);
    assert_eq!(read.get("l0_streams_active", [("model", "m")]), Some(0.0));
}
