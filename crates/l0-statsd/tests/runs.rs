//! The lines that each kind of run sends.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fmt::Debug;

use common::Server;
use l0_core::testing::Script;
use l0_core::{Failure, Interceptor, L0, Monitoring};
use l0_statsd::{BuildError, MetricTypes, StatsdBuilder, StatsdInterceptor};

fn statsd(server: &Server) -> StatsdInterceptor {
    let builder = StatsdInterceptor::builder(server.address());
    builder.tag_keys(["model"]).unwrap().build().unwrap()
}

/// Returns the lines about the ends of runs.
fn ends(server: &Server) -> Vec<String> {
    let mut lines = server.lines();
    lines.retain(|line| line.starts_with("l0.runs:") || line.starts_with("l0.failures:"));
    lines
}

#[tokio::test(start_paused = true)]
async fn every_exit_sends_the_run_once() {
    let server = Server::start();
    let l0 = L0::builder().interceptor(statsd(&server)).build();
    let run = |script: Script| {
        l0.stream(script.source())
            .metadata("model", "gpt-4")
            .metadata("user", "secret")
            .start()
    };

    let mut completed = run(Script::new().attempt(|a| a.tokens(["Hel", "lo"])));
    completed.text().await.unwrap();
    let lines = server.lines();
    assert!(lines.contains(&"l0.tokens.total:2|c|#model:gpt-4".to_owned()));
    assert!(lines.contains(&"l0.runs:1|c|#model:gpt-4,outcome:completed".to_owned()));
    assert!(lines.iter().all(|line| !line.contains("secret")));
    drop(completed);
    assert_eq!(ends(&server), [] as [&str; 0]);

    for (failure, error_type) in [
        (Failure::fatal(), "_OTHER"),
        (Failure::status(401), "401"),
        (Failure::status(400), "400"),
    ] {
        let mut failed = run(Script::new().attempt(|a| a.token("Hel").fail(failure)));
        failed.text().await.unwrap_err();
        drop(failed);
        assert_eq!(
            ends(&server),
            [
                "l0.runs:1|c|#model:gpt-4,outcome:failed".to_owned(),
                format!("l0.failures:1|c|#model:gpt-4,error_type:{error_type}"),
            ]
        );
    }

    let empty = run(Script::new().attempt(|a| a)).text().await;
    empty.unwrap_err();
    let lines = ends(&server);
    assert!(lines[1].ends_with("error_type:zero_output"), "{lines:?}");

    // Neither of these failed.
    let mut aborted = run(Script::new().attempt(|a| a.token("Hel").hang()));
    aborted.handle().abort();
    aborted.text().await.unwrap_err();
    assert_eq!(ends(&server), ["l0.runs:1|c|#model:gpt-4,outcome:aborted"]);
    drop(run(Script::new().attempt(|a| a.token("Hel").hang())));
    assert_eq!(ends(&server), ["l0.runs:1|c|#model:gpt-4,outcome:dropped"]);
}

#[tokio::test(start_paused = true)]
async fn an_unmeasured_run_sends_nothing() {
    let server = Server::start();
    let script = Script::new().attempt(|a| a.token("Hello"));
    for monitoring in [Monitoring::off(), Monitoring::new().sample_rate(0.0)] {
        let l0 = L0::builder()
            .monitoring(monitoring)
            .interceptor(statsd(&server))
            .build();
        l0.stream(script.source()).start().text().await.unwrap();
        assert!(server.datagrams().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_completes_without_a_server() {
    let address = Server::start().address();
    let down = StatsdInterceptor::builder(address).build().unwrap();
    let l0 = L0::builder().interceptor(down).build();
    let script = Script::new().attempt(|a| a.token("Hello"));
    for _ in 0..3 {
        let mut run = l0.stream(script.source()).start();
        assert_eq!(run.text().await.unwrap(), "Hello");
    }
    assert_eq!(l0.observer_panics(), 0);
}

#[test]
fn the_names_in_the_docs_are_those_that_are_sent() {
    let docs = include_str!("../src/lib.rs").lines();
    let docs: String = docs.filter(|line| line.starts_with("//!")).collect();
    let names: Vec<_> = l0_export::metrics::names().collect();
    let documented = docs.split('`').filter(|word| word.starts_with("l0."));
    let documented: Vec<_> = documented.collect();
    assert!(!documented.is_empty());
    for name in documented {
        assert!(names.contains(&name), "the docs name `{name}`");
    }
}

#[test]
fn threads_share_an_interceptor() {
    fn check<T: Send + Sync + Unpin + Debug + 'static>() {}
    fn check_clone<T: Clone>() {}
    check::<StatsdInterceptor>();
    check::<StatsdBuilder>();
    check::<MetricTypes>();
    check::<BuildError>();
    check_clone::<StatsdInterceptor>();
    check_clone::<StatsdBuilder>();

    let server = Server::start();
    let statsd = statsd(&server);
    assert!(statsd.needs_telemetry());
    let debug = format!("{statsd:?}");
    assert!(debug.contains("dropped: 0"), "{debug}");
}
