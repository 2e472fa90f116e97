//! Keep: which runs are exported individually, and why.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use l0_core::testing::{Script, ScriptedAttempt};
use l0_core::{
    Backoff, DriftReport, Failure, Findings, Keep, KeepReason, L0, Monitoring, Retry, Severity,
    Violation, on_finish,
};

const MS: Duration = Duration::from_millis(1);

type Kept = Arc<Mutex<Vec<Option<KeepReason>>>>;

fn l0(monitoring: Monitoring) -> (L0, Kept) {
    let kept = Kept::default();
    let recorded = Arc::clone(&kept);
    let l0 = L0::builder()
        .monitoring(monitoring)
        .retry(Retry::new().max_retries(1).backoff(Backoff::fixed(MS)))
        .interceptor(on_finish(move |finished| {
            let telemetry = finished.telemetry;
            assert_eq!(
                telemetry.map_or(finished.kept, |one| one.kept),
                finished.kept
            );
            recorded.lock().expect("no panic").push(finished.kept);
        }))
        .build();
    (l0, kept)
}

/// A rule that reports its finding.
struct Finds<F>(F);

impl<F: l0_core::Finding> l0_core::Check<F> for Finds<F> {
    fn name(&self) -> &'static str {
        "finds"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<F>) {
        if delta == "bad" {
            findings.report(self.0.clone());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_is_kept_for_the_first_reason_that_applies() {
    use KeepReason::{Failed, Rate, Retried, Slow, Violated};

    type Attempts = fn(Script) -> Script;
    let fine: Attempts = |script| script.attempt(|a| a.token("fine"));
    let failed: Attempts = |script| script.attempt(|a| a.fail(Failure::status(401)));
    let slow: Attempts = |script| script.attempt(|a| a.wait(20 * MS).token("fine"));
    let bad: Attempts = |script| script.attempt(|a| a.token("bad"));
    let again: Attempts = |script| {
        let reset = |a: ScriptedAttempt| a.fail(std::io::ErrorKind::ConnectionReset);
        script.attempt(reset).attempt(|a| a.token("fine"))
    };
    let slow_failure: Attempts =
        |script| script.attempt(|a| a.wait(20 * MS).fail(Failure::status(401)));
    let none = Keep::rate(0.0);
    let every = none.failures().retried().violated().slower_than(10 * MS);
    for (name, keep, attempts, measured, expected) in [
        ("the default", Keep::default(), fine, true, Some(Rate)),
        (
            "the default, not measured",
            Keep::all(),
            fine,
            false,
            Some(Rate),
        ),
        ("none", none, fine, true, None),
        ("a failure", every, failed, true, Some(Failed)),
        (
            "a failure, not measured",
            every,
            failed,
            false,
            Some(Failed),
        ),
        ("a failure without `failures`", none, failed, true, None),
        ("slow", every, slow, true, Some(Slow)),
        ("slow, not measured", every, slow, false, None),
        ("slow and failed", every, slow_failure, true, Some(Failed)),
        ("violated", every, bad, true, Some(Violated)),
        ("violated, not measured", every, bad, false, Some(Violated)),
        ("retried", every, again, true, Some(Retried)),
        ("retried, not measured", every, again, false, Some(Retried)),
        ("none of all reasons", every, fine, true, None),
        ("no number", Keep::rate(f64::NAN), fine, true, None),
        ("more than all", Keep::rate(7.0), fine, true, Some(Rate)),
        ("less than none", Keep::rate(-1.0), fine, true, None),
    ] {
        let (l0, kept) = l0(Monitoring::new().enabled(measured).keep(keep));
        let warning = || Finds(Violation::new("rule", Severity::Warning, "bad"));
        let mut run = l0
            .stream(attempts(Script::new()).source())
            .guardrails(warning)
            .start();
        let _ = run.text().await;
        assert_eq!(*kept.lock().expect("no panic"), [expected], "{name}");
    }
    let (l0, kept) = l0(Monitoring::new().keep(every));
    let drift = || Finds(DriftReport::new(["tone"], 0.9));
    let mut run = l0.stream(bad(Script::new()).source()).drift(drift).start();
    run.text().await.expect("drift is only recorded");
    assert_eq!(*kept.lock().expect("no panic"), [Some(Violated)]);
}

#[test]
fn a_share_of_the_runs_is_kept_and_a_seed_repeats_the_choice() {
    const RUNS: usize = 20_000;
    let draws = |seed| {
        let (l0, kept) = l0(Monitoring::new().keep(Keep::rate(0.1)));
        let l0 = l0.to_builder().seed(seed).build();
        for _ in 0..RUNS {
            drop(l0.stream(Script::new().source()).start());
        }
        std::mem::take(&mut *kept.lock().expect("no panic"))
    };
    let first = draws(7);
    assert_eq!(first, draws(7));
    assert_ne!(first, draws(8));
    let share = first.iter().flatten().count() as f64 / RUNS as f64;
    assert!((0.09..=0.11).contains(&share), "{share}");
}
