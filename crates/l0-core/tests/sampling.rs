//! Sampling: drawn once per run, and it switches measuring off, not events. Seeds and ids.

use std::collections::HashSet;

use l0_core::testing::{Captured, OwnedEvent, Script};
use l0_core::{Backoff, Interceptor, L0, Monitoring, Outcome, Retry};

/// A run that needs no runtime.
fn run_to_end(l0: &L0, script: &Script) -> Option<l0_core::Telemetry> {
    let mut run = l0.stream(script.source()).start();
    futures_util::FutureExt::now_or_never(run.text())
        .expect("never pending")
        .expect("answered");
    run.telemetry()
}

fn two_tokens() -> Script {
    Script::new().attempt(|a| a.tokens(["Hel", "lo"]))
}

#[test]
fn half_of_a_hundred_thousand_runs_are_measured_each_of_them_completely() {
    const RUNS: usize = 100_000;
    let l0 = L0::builder()
        .monitoring(Monitoring::new().sample_rate(0.5))
        .seed(7)
        .build();
    let script = two_tokens();
    let mut measured = 0;
    for _ in 0..RUNS {
        if let Some(telemetry) = run_to_end(&l0, &script) {
            measured += 1;
            assert_eq!(telemetry.metrics.total_tokens, 2);
            assert_eq!(telemetry.metrics.attempts, 1);
            assert_eq!(telemetry.outcome, Some(Outcome::Completed));
            assert!(telemetry.metrics.time_to_first_token.is_some());
            assert_eq!(
                telemetry.metrics.inter_token.map(|gaps| gaps.count),
                Some(1)
            );
        }
    }
    println!("{measured} of {RUNS} measured");
    assert!((49_000..=51_000).contains(&measured), "{measured}");
}

#[test]
fn observers_of_a_run_that_is_sampled_out_get_every_event_without_times() {
    let untimed = |event: OwnedEvent| match event {
        OwnedEvent::Started { .. } => OwnedEvent::Started { at: None },
        OwnedEvent::FirstToken { .. } => OwnedEvent::FirstToken { after: None },
        OwnedEvent::Token {
            index, kind, text, ..
        } => OwnedEvent::Token {
            index,
            gap: None,
            kind,
            text,
        },
        OwnedEvent::Finished {
            outcome,
            error,
            message,
            ..
        } => OwnedEvent::Finished {
            outcome,
            telemetry: None,
            error,
            message,
            duration: None,
        },
        other => other,
    };
    let script = || {
        Script::new()
            .attempt(|a| a.token("Hel").fail(std::io::ErrorKind::ConnectionReset))
            .attempt(|a| a.tokens(["Hel", "lo"]))
    };
    let events = |monitoring| {
        let captured = Captured::new();
        let l0 = L0::builder()
            .monitoring(monitoring)
            .retry(Retry::new().backoff(Backoff::none()))
            .interceptor(captured.clone())
            .build();
        run_to_end(&l0, &script());
        captured.events()
    };
    let measured: Vec<_> = events(Monitoring::new()).into_iter().map(untimed).collect();
    assert_eq!(measured.len(), 10);
    assert_eq!(events(Monitoring::new().sample_rate(0.0)), measured);
    assert_eq!(events(Monitoring::off()), measured);
}

#[test]
fn rates_are_clamped_and_nan_is_never() {
    let script = two_tokens();
    for (rate, measured) in [
        (0.0, false),
        (-1.0, false),
        (f64::NAN, false),
        (f64::NEG_INFINITY, false),
        (1.0, true),
        (2.0, true),
        (f64::INFINITY, true),
    ] {
        let l0 = L0::builder()
            .monitoring(Monitoring::new().sample_rate(rate))
            .build();
        for _ in 0..100 {
            assert_eq!(run_to_end(&l0, &script).is_some(), measured, "{rate}");
        }
    }
}

#[test]
fn a_seed_repeats_samples_and_ids_and_other_seeds_differ() {
    let draw = |seed| {
        let l0 = L0::builder()
            .monitoring(Monitoring::new().sample_rate(0.5))
            .seed(seed)
            .build();
        let script = two_tokens();
        (0..50)
            .map(|_| {
                let mut run = l0.stream(script.source()).start();
                let id = run.info().id().to_owned();
                futures_util::FutureExt::now_or_never(run.text())
                    .unwrap()
                    .unwrap();
                (id, run.telemetry().is_some())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn ids_have_the_guides_form_and_are_unique_over_threads() {
    const THREADS: usize = 4;
    const RUNS: usize = 25_000;
    let l0 = L0::default();
    let script = two_tokens();
    let ids: HashSet<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let id = |_| l0.stream(script.source()).start().info().id().to_owned();
                    (0..RUNS).map(id).collect::<Vec<_>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(ids.len(), THREADS * RUNS);
    for id in &ids {
        let (time, random) = id.strip_prefix("l0_").unwrap().split_once('_').unwrap();
        assert!(time.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
        let is_base_36 = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        assert!(!random.is_empty() && random.bytes().all(is_base_36), "{id}");
    }
}

struct NeedsTelemetry;

impl Interceptor for NeedsTelemetry {
    fn needs_telemetry(&self) -> bool {
        true
    }
}

#[test]
fn an_interceptor_that_needs_telemetry_turns_monitoring_on_unless_it_was_set() {
    let script = two_tokens();
    let measured = |l0: &L0| run_to_end(l0, &script).is_some();
    let needs = || L0::builder().interceptor(NeedsTelemetry);
    assert!(!measured(&L0::default()));
    assert!(measured(&needs().build()));
    assert!(!measured(&needs().monitoring(Monitoring::off()).build()));
    assert!(measured(
        &needs()
            .monitoring(Monitoring::off())
            .build()
            .to_builder()
            .monitoring(Monitoring::new())
            .build()
    ));

    let added = L0::default()
        .stream(script.source())
        .interceptor(NeedsTelemetry)
        .start();
    assert!(added.telemetry().is_some(), "added for one run");
    let off = Monitoring::off();
    let set = needs()
        .build()
        .stream(script.source())
        .monitoring(off)
        .start();
    assert!(set.telemetry().is_none(), "set for one run");
}
