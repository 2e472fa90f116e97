//! The retry budget: the limit on the retries of all runs that share it.

use std::time::Duration;

use futures_util::future::join_all;
use l0_core::testing::Script;
use l0_core::{Backoff, Error, L0, Monitoring, NetworkErrorKind, Outcome, Retry, RetryBudget};
use l0_core::{Failure, Timeouts};
use tokio::time::{Instant, advance, sleep};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

/// A provider that is down.
fn dead() -> Script {
    Script::new().attempt(|a| a.connect_error(Failure::network(NetworkErrorKind::Econnrefused)))
}

fn l0(budget: impl Into<Option<RetryBudget>>) -> L0 {
    let retry = Retry::new().backoff(Backoff::fixed(100 * MS));
    let retry = match budget.into() {
        Some(budget) => retry.budget(budget),
        None => retry,
    };
    L0::builder().retry(retry).build()
}

/// Runs it once; it fails. Returns the number of calls of the source.
async fn calls(l0: &L0) -> usize {
    let script = dead();
    let mut run = l0.stream(script.source()).start();
    let failed = run.text().await;
    assert!(matches!(failed, Err(Error::Source { .. })), "{failed:?}");
    assert_eq!(run.outcome(), Some(Outcome::Failed));
    script.calls()
}

#[tokio::test(start_paused = true)]
async fn without_a_budget_a_thousand_runs_call_a_dead_source_seven_thousand_times() {
    let l0 = l0(None);
    let calls: usize = join_all((0..1_000).map(|_| calls(&l0))).await.iter().sum();
    assert_eq!(calls, 7_000);
}

#[tokio::test(start_paused = true)]
async fn with_a_budget_a_thousand_runs_against_a_dead_source_share_retries_for_a_fifth_of_them() {
    // All at once, then spread over 100 s.
    for (pause, expected) in [(Duration::ZERO, 1_210..=1_220), (100 * MS, 1_290..=1_310)] {
        let budget = RetryBudget::share(0.2);
        let l0 = l0(budget.clone());
        let runs = (0..1_000).map(async |number| {
            sleep(pause * number).await;
            calls(&l0).await
        });
        let calls = join_all(runs).await;
        let sum: usize = calls.iter().sum();
        // Retries for a fifth of the runs, the ten available at the start, and one per second.
        assert!(expected.contains(&sum), "{sum}, pause {pause:?}");
        // Every run ends because the budget refuses it or by its own limit of six.
        let by_themselves = calls.iter().filter(|calls| **calls == 7).count();
        assert_eq!(budget.refused() as usize, 1_000 - by_themselves);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_refused_a_retry_ends_with_the_failure_it_would_have_retried() {
    let l0 = l0(RetryBudget::share(0.0).min_per_second(0))
        .to_builder()
        .monitoring(Monitoring::new())
        .timeouts(Timeouts::new().total(60 * SEC))
        .build();
    let start = Instant::now();
    let script = dead();
    let mut run = l0.stream(script.source()).start();
    let failed = run.text().await;
    let Err(Error::Source {
        failure, attempts, ..
    }) = failed
    else {
        panic!("{failed:?}");
    };
    assert_eq!(attempts, 1);
    let kind = NetworkErrorKind::Econnrefused;
    assert_eq!(failure.network_error_kind(), Some(kind));
    assert_eq!(start.elapsed(), Duration::ZERO, "no back-off");
    let telemetry = run.telemetry().expect("measured");
    assert_eq!(telemetry.metrics.total_retries, 0);
    let errors = telemetry.network.errors.expect("details");
    assert_eq!((errors[0].was_retried(), errors[0].delay()), (false, None));

    // An answer that only broke rules completes anyway.
    let found =
        || l0_core::Violation::new("rule", l0_core::Severity::Error, "broken").recoverable(true);
    let l0 = l0.to_builder().guardrails(move || Rule(found())).build();
    let script = Script::new().attempt(|a| a.token("Hello"));
    let mut run = l0.stream(script.source()).start();
    assert_eq!(run.text().await.ok().as_deref(), Some("Hello"));
    assert_eq!(script.calls(), 1);
}

/// Finds the same violation in every answer.
struct Rule(l0_core::Violation);

impl l0_core::Check for Rule {
    fn name(&self) -> &'static str {
        "rule"
    }

    fn text(&mut self, _: &str, _: &mut l0_core::Findings) {}

    fn end(&mut self, _: &l0_core::Ended, findings: &mut l0_core::Findings) {
        findings.report(self.0.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn the_minimum_is_available_at_the_start_and_refills_for_at_most_ten_seconds() {
    let budget = RetryBudget::share(0.0).min_per_second(2);
    let l0 = l0(budget);
    // Twenty are available: three runs with six retries each, and two retries of the fourth.
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(calls(&l0).await);
    }
    // Retries take 100 ms each, while the budget refills.
    let retries = all.iter().sum::<usize>() - all.len();
    assert!((20..=24).contains(&retries), "{all:?}");
    // An hour refills no more than ten seconds do.
    advance(3_600 * SEC).await;
    let mut later = 0;
    for _ in 0..5 {
        later += calls(&l0).await - 1;
    }
    assert!((20..=24).contains(&later), "{later}");
}

#[tokio::test(start_paused = true)]
async fn successful_runs_save_retries_only_for_the_next_seconds() {
    for (pause, expected) in [(Duration::ZERO, 6), (60 * SEC, 0)] {
        let l0 = l0(RetryBudget::share(0.1).min_per_second(0));
        for _ in 0..65 {
            let script = Script::new().attempt(|a| a.token("Hello"));
            let text = l0.stream(script.source()).start().text().await;
            assert!(text.is_ok());
        }
        advance(pause).await;
        // 6.5 were saved. A little is lost while the retries wait.
        let retries = calls(&l0).await - 1;
        assert!(retries.abs_diff(expected) <= 1, "{retries}, {pause:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_budget_share_it_and_other_budgets_are_independent() {
    let budget = RetryBudget::share(0.0).min_per_second(1);
    let first = l0(budget.clone());
    let variant = first
        .to_builder()
        .timeouts(Timeouts::new().total(60 * SEC))
        .build();
    let second = l0(budget.clone());
    let replaced = first
        .to_builder()
        .retry(Retry::new().backoff(Backoff::none()))
        .build();
    let made_anew = l0(budget.clone().min_per_second(1));
    let all = [&first, &variant, &second, &first.clone()];
    let mut shared = 0;
    for l0 in all {
        shared += calls(l0).await - 1;
    }
    assert!((10..=12).contains(&shared), "{shared}");
    assert!(budget.refused() >= 2);
    assert_eq!(calls(&replaced).await, 7);
    assert_eq!(calls(&made_anew).await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_does_not_happen_for_another_reason_costs_nothing() {
    // Its delay does not fit into the remaining time of the run.
    let budget = RetryBudget::share(0.0);
    let l0 = l0(budget.clone());
    let hasty = l0
        .to_builder()
        .timeouts(Timeouts::new().total(50 * MS))
        .build();
    for _ in 0..20 {
        assert_eq!(calls(&hasty).await, 1);
    }
    // A failure that is not retried costs nothing either.
    let fatal = Script::new().attempt(|a| a.fail(Failure::fatal()));
    for _ in 0..20 {
        assert!(l0.stream(fatal.source()).start().text().await.is_err());
    }
    assert_eq!(budget.refused(), 0);
    assert_eq!(calls(&l0).await, 7);
}

#[test]
fn invalid_shares_are_read_as_the_nearest_valid_share() {
    for share in [f64::NAN, -1.0, f64::NEG_INFINITY] {
        let shown = format!("{:?}", RetryBudget::share(share));
        assert!(shown.contains("share: 0.0"), "{shown}");
    }
    let endless = l0(RetryBudget::share(f64::INFINITY));
    let calls = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(async {
            calls(&endless).await;
            advance(100_000 * SEC).await;
            calls(&endless).await
        });
    assert_eq!(calls, 7);
}
