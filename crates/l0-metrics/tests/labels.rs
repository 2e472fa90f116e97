//! Labels: only the listed ones, each source's own, and a limited number of sets.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{measured, paused, recorder, samples};
use l0_core::testing::Script;
use l0_core::{Failure, L0, Retry, Source, source};
use l0_metrics::MetricsInterceptor;
use metrics::with_local_recorder;

fn metrics() -> MetricsInterceptor {
    MetricsInterceptor::new().label_keys(["model"]).unwrap()
}

fn recorded(metrics: MetricsInterceptor, runs: impl AsyncFnOnce(&L0)) -> BTreeMap<String, f64> {
    let recorder = recorder(&metrics);
    let l0 = measured(&Arc::new(metrics)).retry(Retry::none()).build();
    with_local_recorder(&recorder, || paused().block_on(runs(&l0)));
    samples(&recorder.handle())
}

#[test]
fn only_listed_keys_with_values_become_labels() {
    let samples = recorded(metrics(), async |l0| {
        for model in ["a", ""] {
            let script = Script::new().attempt(|a| a.token("x"));
            let run = l0.stream(script.source());
            let run = run.metadata("model", model).metadata("user", "secret");
            run.start().text().await.unwrap();
        }
    });
    assert_eq!(samples["l0_tokens_total{model=\"a\"}"], 1.0);
    assert_eq!(samples["l0_tokens_total"], 1.0);
    assert!(samples.keys().all(|series| !series.contains("secret")));
}

#[test]
fn measurements_of_attempts_are_counted_under_the_labels_of_their_source() {
    let samples = recorded(metrics(), async |l0| {
        let failing = Script::new().attempt(|a| a.tokens(["a", "b"]).fail(Failure::status(503)));
        let answering = Script::new().attempt(|a| a.tokens(["a", "b", "c"]));
        let run = l0.stream(failing.source()).metadata("model", "a");
        let other = answering.source();
        let run = run.fallback(source(other).metadata("model", "b"));
        run.start().text().await.unwrap();
    });
    for (series, expected) in [
        ("l0_tokens_total{model=\"a\"}", 2.0),
        ("l0_tokens_total{model=\"b\"}", 3.0),
        ("l0_wasted_tokens_total{model=\"a\"}", 2.0),
        ("l0_network_errors_total{model=\"a\"}", 1.0),
        ("l0_network_errors_total{model=\"b\"}", 0.0),
        ("l0_inter_token_seconds_count{model=\"a\"}", 1.0),
        ("l0_inter_token_seconds_count{model=\"b\"}", 2.0),
        ("l0_attempts_total{model=\"a\",result=\"failed\"}", 1.0),
        ("l0_attempts_total{model=\"b\",result=\"completed\"}", 1.0),
        ("l0_requests_total{model=\"a\"}", 0.0),
        ("l0_requests_total{model=\"b\"}", 1.0),
        ("l0_streams_started_total{model=\"a\"}", 1.0),
        (
            "l0_streams_finished_total{model=\"a\",outcome=\"completed\"}",
            1.0,
        ),
        ("l0_fallbacks_total{model=\"a\",from=\"a\",to=\"b\"}", 1.0),
    ] {
        assert_eq!(
            samples.get(series),
            Some(&expected),
            "{series}: {samples:#?}"
        );
    }
    assert!(!samples.contains_key("l0_streams_started_total{model=\"b\"}"));
}

#[test]
fn label_sets_beyond_the_limit_are_counted_together_and_exactly() {
    let samples = recorded(metrics().max_series(2), async |l0| {
        for model in ["a", "b", "c", "d", "a", "c"] {
            let script = Script::new().attempt(|a| a.token("x"));
            let run = l0.stream(script.source()).metadata("model", model);
            run.start().text().await.unwrap();
        }
    });
    let requests = |model| samples.get(&format!("l0_requests_total{{model=\"{model}\"}}"));
    let requests = ["a", "b", "c", "d", "other"].map(requests);
    assert_eq!(requests, [Some(&2.0), Some(&1.0), None, None, Some(&3.0)]);
    assert_eq!(samples["l0_series_overflow_total"], 3.0);
}

#[test]
fn values_of_error_types_are_limited_and_their_sum_is_exact() {
    let samples = recorded(metrics(), async |l0| {
        for status in 400..600 {
            let script = Script::new().attempt(|a| a.fail(Failure::status(status)));
            let run = l0.stream(script.source()).metadata("model", "a");
            run.start().text().await.unwrap_err();
        }
    });
    let failures = samples.iter();
    let failures = failures.filter(|(series, _)| series.starts_with("l0_failures_total"));
    let failures = Vec::from_iter(failures);
    assert_eq!(failures.len(), 65);
    let sum: f64 = failures.iter().map(|(_, count)| **count).sum();
    assert_eq!(sum, 200.0);
}

#[test]
fn an_invalid_label_key_is_reported() {
    for (key, error) in [
        ("le", "the metadata key \"le\" cannot be sent as `le`"),
        (
            "a-b",
            "the metadata key \"a-b\" cannot be sent: it is not of the form",
        ),
    ] {
        let keys = MetricsInterceptor::new().label_keys([key]);
        let said = keys.unwrap_err().to_string();
        assert!(said.starts_with(error), "{said}");
    }
}
