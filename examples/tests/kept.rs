//! Kept runs and counted runs: of many runs, the files have the kept ones with the reason, and the counters
//! have all of them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use l0_core::testing::{Script, ScriptedAttempt};
use l0_core::{Failure, Keep, KeepReason, L0, Monitoring, Outcome, Telemetry, on_finish};
use l0_export::json;
use l0_prometheus::Collector;

const RUNS: usize = 100_000;

const MS: Duration = Duration::from_millis(1);

/// The fate of a run, by its number: a few fail, and a few are slow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Fine,
    Fails,
    Slow,
    SlowAndFails,
}

impl Kind {
    fn of(index: usize) -> Self {
        match (index % 97, index % 89) {
            (0, 0) => Self::SlowAndFails,
            (0, _) => Self::Fails,
            (_, 0) => Self::Slow,
            _ => Self::Fine,
        }
    }

    fn attempt(self, attempt: ScriptedAttempt) -> ScriptedAttempt {
        let attempt = attempt.token("a");
        let slow = |attempt: ScriptedAttempt| attempt.wait(11 * MS).token("b");
        let denied = Failure::status(401);
        match self {
            Self::Fine => attempt.wait(10 * MS).token("b"),
            Self::Fails => attempt.fail(denied),
            Self::Slow => slow(attempt),
            Self::SlowAndFails => slow(attempt).fail(denied),
        }
    }
}

/// Returns the value of a series, given as a name with optional labels.
fn series(text: &str, series: &str) -> f64 {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn every_failed_and_every_slow_run_is_in_the_file_and_all_runs_are_counted() {
    let keep = Keep::rate(0.01).failures().slower_than(10 * MS);
    let file = Arc::new(Mutex::new(Vec::<u8>::new()));
    let lines = Arc::clone(&file);
    let collector = Collector::builder().build().unwrap();
    let l0 = L0::builder()
        .monitoring(Monitoring::new().keep(keep))
        .seed(7)
        .interceptor(collector.interceptor())
        .interceptor(on_finish(move |finished| {
            if let (Some(telemetry), Some(_)) = (finished.telemetry, finished.kept) {
                json::write_line(&mut *lines.lock().unwrap(), telemetry).unwrap();
            }
        }))
        .build();

    let mut kinds = BTreeMap::new();
    let mut counts = BTreeMap::<Kind, usize>::new();
    for index in 0..RUNS {
        let kind = Kind::of(index);
        let script = Script::new().attempt(|attempt| kind.attempt(attempt));
        let mut run = l0.stream(script.source()).start();
        kinds.insert(run.info().id().to_owned(), kind);
        *counts.entry(kind).or_default() += 1;
        assert_eq!(
            run.text().await.is_ok(),
            matches!(kind, Kind::Fine | Kind::Slow)
        );
    }
    assert_eq!(l0.observer_panics(), 0);

    let mut kept = BTreeMap::<Kind, usize>::new();
    for telemetry in json::read_lines(&file.lock().unwrap()[..]) {
        let telemetry: Telemetry = telemetry.unwrap();
        let kind = kinds[&telemetry.session_id];
        let why = match kind {
            Kind::Fails | Kind::SlowAndFails => KeepReason::Failed,
            Kind::Slow => KeepReason::Slow,
            Kind::Fine => KeepReason::Rate,
        };
        assert_eq!(telemetry.kept, Some(why));
        let failed = why == KeepReason::Failed;
        assert_eq!(telemetry.outcome == Some(Outcome::Failed), failed);
        *kept.entry(kind).or_default() += 1;
    }
    for kind in [Kind::Fails, Kind::Slow, Kind::SlowAndFails] {
        assert_eq!(kept.get(&kind), counts.get(&kind));
    }
    let share = kept[&Kind::Fine] as f64 / counts[&Kind::Fine] as f64;
    assert!((0.008..0.012).contains(&share), "{share}");

    let text = collector.expose();
    let failed = (counts[&Kind::Fails] + counts[&Kind::SlowAndFails]) as f64;
    let two_tokens = counts[&Kind::Fine] + counts[&Kind::Slow] + counts[&Kind::SlowAndFails];
    for (name, expected) in [
        ("l0_requests_total", RUNS as f64),
        ("l0_request_duration_seconds_count", RUNS as f64),
        ("l0_tokens_total", (two_tokens + RUNS) as f64),
        ("l0_streams_finished_total{outcome=\"failed\"}", failed),
        (
            "l0_streams_finished_total{outcome=\"completed\"}",
            RUNS as f64 - failed,
        ),
    ] {
        assert_eq!(series(&text, name), expected, "{name}: {text}");
    }
}
