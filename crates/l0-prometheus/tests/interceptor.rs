//! Recording runs as they happen: labels from metadata, and gauges that are right on every exit.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use l0_core::testing::{Script, ScriptedAttempt, ScriptedError, ScriptedToken};
use l0_core::{
    Backoff, Check, Ended, Event, Failure, Findings, Interceptor, KeyError, L0, L0Builder,
    Monitoring, NewRun, Observer, Observers, Outcome, Refusal, Retry, Run, RunInfo, Severity,
    Source, Timeouts, Violation, source,
};
use l0_prometheus::Collector;
use support::Exposition;
use tokio::time::sleep;

fn collector() -> Collector {
    Collector::builder().build().expect("valid")
}

fn l0(collector: &Collector) -> L0Builder {
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

/// The outcomes that a run can reach by itself.
const DRIVEN: [Outcome; 6] = [
    Outcome::Completed,
    Outcome::Truncated,
    Outcome::Failed,
    Outcome::TimedOut,
    Outcome::Aborted,
    Outcome::Dropped,
];

/// Drives a run to this outcome, on the paused clock.
async fn drive(outcome: Outcome, l0: &L0) {
    let script = |attempt: fn(ScriptedAttempt) -> ScriptedAttempt| Script::new().attempt(attempt);
    let begin = |source| l0.stream(source).metadata("model", "m");
    match outcome {
        Outcome::Completed => {
            let script = script(|a| a.tokens(["a", "b"]));
            begin(script.source())
                .start()
                .text()
                .await
                .expect("it completes");
        }
        Outcome::Truncated => {
            let script = script(|a| a.token("a"));
            begin(script.source())
                .expect_finish()
                .start()
                .text()
                .await
                .expect_err("truncated");
        }
        Outcome::Failed => {
            let script = script(|a| a.token("a").fail("no"));
            begin(script.source())
                .start()
                .text()
                .await
                .expect_err("failed");
        }
        Outcome::TimedOut => {
            let script = script(|a| a.token("a").hang());
            let timeouts = Timeouts::new().total(Duration::from_secs(1));
            begin(script.source())
                .timeouts(timeouts)
                .start()
                .text()
                .await
                .expect_err("timed out");
        }
        Outcome::Aborted => {
            let script = script(|a| a.token("a").hang());
            let mut run = begin(script.source()).start();
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
            let mut run = begin(script.source()).start();
            run.next().await.expect("an item").expect("no error");
        }
        _ => panic!("{outcome} has no script"),
    }
}

#[tokio::test(start_paused = true)]
async fn every_outcome_is_counted_and_leaves_nothing_active() {
    for monitoring in [Monitoring::new(), Monitoring::off()] {
        for outcome in DRIVEN {
            let collector = collector();
            let l0 = l0(&collector).monitoring(monitoring.clone()).build();
            drive(outcome, &l0).await;
            drive(outcome, &l0).await;
            let read = read(&collector);
            let of = |name| read.get(name, [("model", "m")]);
            assert_eq!(of("l0_streams_active"), Some(0.0), "{outcome}");
            assert_eq!(of("l0_streams_started_total"), Some(2.0), "{outcome}");
            for &other in Outcome::ALL {
                let expected = if other == outcome { 2.0 } else { 0.0 };
                assert_eq!(finished(&read, other), expected, "{outcome}, {other}");
            }
            let failed = if outcome.is_failure() { 2.0 } else { 0.0 };
            assert_eq!(read.sum("l0_failures_total"), failed, "{outcome}");
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

type Setup = fn(L0Builder) -> L0Builder;

/// Failures with the same outcome have different error types.
#[tokio::test(start_paused = true)]
async fn every_failed_run_has_an_error_type_measured_or_not() {
    struct Halt;
    impl Check for Halt {
        fn name(&self) -> &'static str {
            "halt"
        }
        fn text(&mut self, _: &str, findings: &mut Findings) {
            findings.report(Violation::new("halt", Severity::Fatal, "wrong"));
        }
        fn end(&mut self, _: &Ended, _: &mut Findings) {}
    }
    struct Refuses;
    impl Interceptor for Refuses {
        fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
            Err(Refusal::new("no"))
        }
    }

    let status = |status| Script::new().attempt(|a| a.connect_error(Failure::status(status)));
    let plain = || Script::new().attempt(|a| a.token("a"));
    let same: Setup = |builder| builder;
    let table: [(Script, Setup, &str); 11] = [
        (status(401), same, "401"),
        (status(400), same, "400"),
        (status(404), same, "404"),
        (status(402), same, "402"),
        (status(429), same, "rate_limited"),
        (status(500), same, "server_error"),
        (Script::new(), same, "zero_output"),
        (
            plain(),
            |builder| builder.guardrails(|| Halt),
            "guardrail_violation",
        ),
        (plain(), |builder| builder.interceptor(Refuses), "refused"),
        (
            Script::new().attempt(|a| a.token("a").hang()),
            |builder| builder.timeouts(Timeouts::new().total(Duration::from_secs(1))),
            "timeout",
        ),
        (
            Script::new().attempt(|a| a.token("a").panic("no")),
            same,
            "panic",
        ),
    ];
    for monitoring in [Monitoring::new(), Monitoring::off()] {
        let collector = collector();
        for (script, setup, error_type) in &table {
            let builder = l0(&collector).monitoring(monitoring.clone());
            let l0 = setup(builder).build();
            let mut run = l0.stream(script.source()).metadata("model", "m").start();
            let _ = AssertUnwindSafe(run.text()).catch_unwind().await;
            let labels = [("error_type", *error_type), ("model", "m")];
            let count = read(&collector).get("l0_failures_total", labels);
            assert_eq!(count, Some(1.0), "{error_type}");
        }
        let read = read(&collector);
        assert_eq!(read.sum("l0_failures_total"), table.len() as f64);
        support::check_with_peers(&collector.expose());
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
    // Never more than the finished runs.
    assert_eq!(read.get("l0_requests_total", [("model", "m")]), Some(0.0));
    drop(after);
}

/// This includes counts under other labels, which the `clear` did not forget.
#[tokio::test(start_paused = true)]
async fn a_clear_forgets_all_of_a_run_that_falls_back() {
    let collector = collector();
    let l0 = l0(&collector).build();
    let denied = Script::new().attempt(|a| a.token("a").fail(Failure::status(401)));
    for cleared_at in 0..3 {
        collector.clear();
        let mut run = l0
            .stream(denied.source())
            .metadata("model", "m")
            .fallback(source(denied.source()).metadata("model", "n"))
            .start();
        for item in 0..3 {
            if item == cleared_at {
                collector.clear();
            }
            run.next().await.unwrap().unwrap();
        }
        run.next().await.unwrap().unwrap_err();
        for name in [
            "l0_requests_total",
            "l0_failures_total",
            "l0_attempts_total",
        ] {
            assert_eq!(read(&collector).sum(name), 0.0, "{name}");
        }
    }
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
        fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
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
async fn back_off_and_the_time_of_live_runs_show_before_the_end() {
    let collector = collector();
    let retry = Retry::new()
        .max_retries(2)
        .backoff(Backoff::fixed(Duration::from_millis(1_500)));
    let l0 = l0(&collector).retry(retry).build();
    let script = Script::new()
        .attempt(|a| a.connect_error(io::ErrorKind::ConnectionReset))
        .attempt(|a| a.token("a").hang());
    let mut run = l0.stream(script.source()).metadata("model", "m").start();
    let check = |backoff, active, oldest| {
        let read = read(&collector);
        for (name, expected) in [
            ("l0_backoff_seconds_total", Some(backoff)),
            ("l0_streams_active_seconds_total", Some(active)),
            ("l0_stream_oldest_seconds", oldest),
            ("l0_requests_total", Some(0.0)),
        ] {
            assert_eq!(read.get(name, [("model", "m")]), expected, "{name}");
        }
    };
    check(0.0, 0.0, Some(0.0));
    let waited = tokio::time::timeout(Duration::from_millis(500), run.next()).await;
    assert!(waited.is_err());
    check(0.5, 0.5, Some(0.5));
    run.next().await.unwrap().unwrap();
    check(1.5, 1.5, Some(1.5));
    tokio::time::advance(Duration::from_millis(250)).await;
    check(1.5, 1.75, Some(1.75));

    let younger = l0.stream(script.source()).metadata("model", "m").start();
    tokio::time::advance(Duration::from_millis(250)).await;
    check(1.5, 2.25, Some(2.0));
    run.handle().abort();
    run.next().await.unwrap().unwrap_err();
    let read = read(&collector);
    assert_eq!(
        read.get("l0_stream_oldest_seconds", [("model", "m")]),
        Some(0.25)
    );
    drop(younger);
    tokio::time::advance(Duration::from_secs(1)).await;
    let read = support::read(&collector.expose());
    assert_eq!(
        read.get("l0_streams_active_seconds_total", [("model", "m")]),
        Some(2.25)
    );
    assert_eq!(read.get("l0_stream_oldest_seconds", [("model", "m")]), None);
}

#[tokio::test]
async fn only_the_named_metadata_becomes_labels() {
    let collector = collector();
    let keys = [
        "model", "tier", "stream", "tags", "user", "empty", "missing",
    ];
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
        .metadata("empty", "")
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
fn an_interceptor_can_have_no_label_keys() {
    let collector = Collector::builder().label("service", "my-app");
    let collector = collector.build().unwrap();
    let l0 = L0::builder().interceptor(collector.interceptor()).build();
    let script = Script::new();
    drop(l0.stream(script.source()).metadata("model", "m").start());
    let requests = read(&collector).get("l0_requests_total", [("service", "my-app")]);
    assert_eq!(requests, Some(1.0));
}

#[test]
fn a_long_value_is_cut() {
    let collector = collector();
    let run = l0(&collector).build();
    let run = run.stream(Script::new().source());
    drop(run.metadata("model", "x".repeat(300)).start());
    let model = "x".repeat(256);
    let requests = read(&collector).get("l0_requests_total", [("model", &*model)]);
    assert_eq!(requests, Some(1.0));
}

#[test]
fn an_invalid_label_key_is_reported() {
    let collector = collector();
    let error = collector.label_keys(["model", "user.id"]).unwrap_err();
    assert!(matches!(error, KeyError::Invalid { .. }));
    assert_eq!(
        error.to_string(),
        "the metadata key \"user.id\" cannot be sent: it is not of the form \
         [a-zA-Z_][a-zA-Z0-9_]*: letters, digits and underscores"
    );
    for key in [
        "outcome",
        "result",
        "from",
        "to",
        "error_type",
        "severity",
        "rule",
        "le",
        "quantile",
        "__name__",
    ] {
        let error = collector.label_keys([key]).unwrap_err();
        assert!(matches!(error, KeyError::Reserved { .. }), "{error}");
    }
    // Names that none of L0's metrics use.
    collector.label_keys(["reason", "job", "status"]).unwrap();
}

#[test]
fn adding_an_interceptor_turns_monitoring_on() {
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

/// Starts a run of model `a` or `b`. Its number selects the model, and whether it will be dropped.
type Begin = fn(&L0, usize) -> Run<'static, ScriptedToken, ScriptedError>;

const MODELS: [&str; 2] = ["a", "b"];

fn answered() -> Script {
    Script::new().attempt(|a| a.tokens(["a", "b"]))
}

#[test]
fn in_every_scrape_each_started_run_has_finished_or_is_active() {
    let requests = scrape_while_runs_go_on(|l0, number| {
        let model = MODELS[number / 2 % 2];
        let run = l0.stream(answered().source());
        run.metadata("model", model).start()
    });
    assert_eq!(requests, [(THREADS * RUNS / 2) as f64; 2]);
}

/// They started under the labels of one model and are counted as requests to another.
#[test]
fn in_every_scrape_runs_with_fallbacks_have_finished_or_are_active_under_their_first_labels() {
    let requests = scrape_while_runs_go_on(|l0, number| {
        let (model, other) = (MODELS[number / 2 % 2], MODELS[number / 4 % 2]);
        let denied = Script::new().attempt(|a| a.connect_error(Failure::status(401)));
        let run = l0.stream(denied.source()).metadata("model", model);
        let other = source(answered().source()).metadata("model", other);
        run.fallback(other).start()
    });
    assert_eq!(requests, [(THREADS * RUNS / 2) as f64; 2]);
}

const THREADS: usize = 4;
const SCRAPERS: usize = 3;
const RUNS: usize = 1_000;

/// Scrapes while runs are live. Returns the requests of each model.
fn scrape_while_runs_go_on(begin: Begin) -> [f64; 2] {
    let collector = collector();
    let l0 = Arc::new(l0(&collector).build());
    let running = AtomicUsize::new(THREADS);
    // No run begins before every thread can scrape.
    let begins = Barrier::new(THREADS + SCRAPERS);
    let live = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                begins.wait();
                for number in 0..RUNS {
                    let mut run = begin(&l0, number);
                    if number % 2 == 0 {
                        run.text().now_or_never().unwrap().unwrap();
                    } else {
                        run.next().now_or_never().unwrap().unwrap().unwrap();
                    }
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        let scrapers: Vec<_> = (0..SCRAPERS)
            .map(|_| {
                scope.spawn(|| {
                    begins.wait();
                    scrape_until_none_runs(&collector, &running)
                })
            })
            .collect();
        let scrapers = scrapers.into_iter().map(|one| one.join().unwrap());
        scrapers.sum::<usize>()
    });
    assert!(live > 0, "no scrape saw a live run");
    let read = read(&collector);
    for outcome in [Outcome::Completed, Outcome::Dropped] {
        let runs: f64 = MODELS
            .iter()
            .map(|model| of_model(&read, model, outcome))
            .sum();
        assert_eq!(runs, (THREADS * RUNS / 2) as f64, "{outcome}");
    }
    assert_eq!(read.sum("l0_streams_active"), 0.0);
    MODELS.map(|model| read.get("l0_requests_total", [("model", model)]).unwrap())
}

fn of_model(read: &Exposition, model: &str, outcome: Outcome) -> f64 {
    let labels = [("model", model), ("outcome", outcome.as_str())];
    read.get("l0_streams_finished_total", labels).unwrap()
}

/// Checks the numbers that must agree in each scrape. Returns the number of live runs seen.
fn scrape_until_none_runs(collector: &Collector, running: &AtomicUsize) -> usize {
    let mut live = 0;
    let mut before = 0.0;
    while running.load(Ordering::Relaxed) > 0 {
        let read = read(collector);
        for labels in read.label_sets("l0_streams_active") {
            let model = &*labels["model"];
            let of = |name| read.get(name, [("model", model)]).unwrap();
            let finished = Outcome::ALL.iter().map(|one| of_model(&read, model, *one));
            let finished: f64 = finished.sum();
            let active = of("l0_streams_active");
            assert_eq!(of("l0_streams_started_total"), finished + active);
            assert!(active <= THREADS as f64, "{active}");
            let oldest = read.get("l0_stream_oldest_seconds", [("model", model)]);
            assert_eq!(oldest.is_some(), active > 0.0);
            assert_eq!(of("l0_backoff_seconds_total"), 0.0);
            live += usize::from(active > 0.0);
            if read.sum("l0_fallbacks_total") == 0.0 {
                assert!(of("l0_requests_total") <= finished);
            }
        }
        // Under whatever labels a run ends.
        let requests = read.sum("l0_requests_total");
        let finished = read.sum("l0_streams_finished_total");
        assert!(requests <= finished, "{requests} of {finished}");
        let now = read.sum("l0_streams_active_seconds_total");
        assert!(now >= before, "{now} after {before}");
        before = now;
    }
    live
}
