//! Retries: which failures are retried, how often, and after which delay.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedAttempt, ScriptedError};
use l0_core::{
    Backoff, Chunk, Error, Event, Failure, FailureKind, FinishReason, L0, L0Builder, Monitoring,
    Network, NetworkErrorKind, Outcome, Retry, RetryKind, RetryReason, Telemetry, Timeouts, Usage,
    observe_fn,
};
use tokio::time::Instant;

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

fn reset() -> Failure {
    Failure::network(NetworkErrorKind::Econnreset)
}

fn measured(retry: Retry) -> (L0Builder, Captured) {
    let captured = Captured::new();
    let builder = L0::builder()
        .monitoring(Monitoring::new())
        .retry(retry)
        .interceptor(captured.clone());
    (builder, captured)
}

/// Returns a script that fails once for each of these errors, then answers.
fn failing(failures: impl IntoIterator<Item = Failure>) -> Script {
    failures
        .into_iter()
        .fold(Script::new(), |script, failure| {
            script.attempt(|a| a.fail(failure))
        })
        .attempt(|a| a.token("fine"))
}

type Ended = Result<String, Error<ScriptedError>>;

/// Runs a script to its end.
async fn run(l0: &L0, script: &Script) -> (Ended, Telemetry) {
    let calls = script.calls();
    let mut run = l0.stream(script.source()).start();
    let ended = run.text().await;
    let telemetry = run.telemetry().expect("measured");
    let metrics = &telemetry.metrics;
    assert_eq!(
        metrics.total_retries,
        metrics.network_retries + metrics.model_retries
    );
    assert_eq!(metrics.attempts as usize, script.calls() - calls);
    (ended, telemetry)
}

fn retries(captured: &Captured) -> Vec<(u32, RetryReason, Duration, bool)> {
    let events = captured.events().into_iter();
    events
        .filter_map(|event| match event {
            OwnedEvent::Retry {
                attempt,
                reason,
                delay,
                kind,
                ..
            } => Some((attempt, reason, delay, kind == RetryKind::Network)),
            _ => None,
        })
        .collect()
}

fn delays(captured: &Captured) -> Vec<Duration> {
    retries(captured)
        .into_iter()
        .map(|(_, _, delay, _)| delay)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_retried_and_counted_by_its_class_wherever_it_occurs() {
    use NetworkErrorKind as Kind;
    type Retried = Option<(bool, RetryReason)>;
    let network: Retried = Some((true, RetryReason::NetworkError));
    let server: Retried = Some((true, RetryReason::ServerError));
    let mut cases: Vec<(ScriptedError, Retried, Option<Kind>)> = vec![
        (
            Failure::status(429).into(),
            Some((true, RetryReason::RateLimited)),
            Some(Kind::RateLimited),
        ),
        (
            Failure::model().into(),
            Some((false, RetryReason::ModelError)),
            None,
        ),
        (Failure::fatal().into(), None, None),
        (
            io::ErrorKind::ConnectionReset.into(),
            network,
            Some(Kind::Econnreset),
        ),
        (
            io::ErrorKind::ConnectionRefused.into(),
            network,
            Some(Kind::Econnrefused),
        ),
        (
            io::ErrorKind::UnexpectedEof.into(),
            network,
            Some(Kind::PartialChunks),
        ),
        (
            io::ErrorKind::TimedOut.into(),
            Some((true, RetryReason::Timeout)),
            Some(Kind::Timeout),
        ),
        ("Broken pipe".into(), network, Some(Kind::ConnectionDropped)),
        (
            "invalid peer certificate".into(),
            None,
            Some(Kind::SslError),
        ),
        ("syntax error".into(), None, None),
        ("status 503".into(), server, Some(Kind::ServerError)),
    ];
    for status in [408, 409, 425, 500, 502, 503, 504, 599] {
        cases.push((
            Failure::status(status).into(),
            server,
            Some(Kind::ServerError),
        ));
    }
    for status in [400, 401, 403, 404, 413, 422, 499] {
        cases.push((Failure::status(status).into(), None, None));
    }
    for &kind in Kind::ALL {
        let retried = match kind {
            Kind::SslError => None,
            Kind::Timeout => Some((true, RetryReason::Timeout)),
            _ => network,
        };
        cases.push((Failure::network(kind).into(), retried, Some(kind)));
    }

    for (error, retried, counted) in cases {
        let failing = [
            Script::new().attempt(|a| a.connect_error(error.clone())),
            Script::new().attempt(|a| a.fail(error.clone())),
            Script::new().attempt(|a| a.wait(MS).token("par").fail(error.clone())),
        ];
        for (place, script) in failing.into_iter().enumerate() {
            let what = format!("{error}, at place {place}");
            let script = script.attempt(|a| a.token("fine"));
            let (builder, captured) = measured(Retry::new().backoff(Backoff::fixed(MS)));
            let (ended, telemetry) = run(&builder.build(), &script).await;

            let reported = retries(&captured);
            let expected: Vec<_> = retried
                .iter()
                .map(|(network, reason)| (2, *reason, MS, *network))
                .collect();
            assert_eq!(reported, expected, "{what}");
            match (ended, retried) {
                (Ok(text), Some(_)) => assert_eq!(text, "fine", "{what}"),
                (
                    Err(Error::Source {
                        source, attempts, ..
                    }),
                    None,
                ) => {
                    assert_eq!(attempts, 1, "{what}");
                    assert_eq!(source.to_string(), error.to_string(), "{what}");
                }
                (ended, _) => panic!("{what}: {ended:?}"),
            }
            let metrics = &telemetry.metrics;
            let network = u32::from(retried.is_some_and(|(network, _)| network));
            assert_eq!(metrics.network_retries, network, "{what}");
            assert_eq!(metrics.total_retries, reported.len() as u32, "{what}");
            let by_type: Vec<_> = telemetry.network.errors_by_type.into_iter().collect();
            let counted: Vec<_> = counted.into_iter().map(|kind| (kind, 1)).collect();
            assert_eq!(by_type, counted, "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn network_retries_count_toward_the_limit_of_all_retries_only() {
    let (n, m) = (reset(), Failure::model());
    let rate_limited = Failure::status(429);
    let default = Retry::new;
    // (name, retry, failures before an answer, calls, network retries, model retries, answered)
    let cases = [
        ("none fails", default(), vec![], 1, 0, 0, true),
        ("six network", default(), vec![n; 6], 7, 6, 0, true),
        ("seven network", default(), vec![n; 7], 7, 6, 0, false),
        ("two model", default(), vec![m; 2], 3, 0, 2, true),
        ("three model", default(), vec![m; 3], 3, 0, 2, false),
        (
            "network and model",
            default(),
            vec![n, m, rate_limited, n, m, n],
            7,
            4,
            2,
            true,
        ),
        (
            "model exhausted after network",
            default(),
            vec![n, m, n, m, n, m],
            6,
            3,
            2,
            false,
        ),
        (
            "all exhausted before model",
            default().max_retries(3),
            vec![n, n, n, m],
            4,
            3,
            0,
            false,
        ),
        (
            "model retries beyond all",
            default().model_retries(9).max_retries(3),
            vec![m; 4],
            4,
            0,
            3,
            false,
        ),
        (
            "no model retry",
            default().model_retries(0),
            vec![n, n, m],
            3,
            2,
            0,
            false,
        ),
        (
            "no retry",
            default().max_retries(0),
            vec![n],
            1,
            0,
            0,
            false,
        ),
        ("none", Retry::none(), vec![m], 1, 0, 0, false),
        (
            "unlimited",
            default().unlimited(),
            vec![n; 100],
            101,
            100,
            0,
            true,
        ),
        (
            "unlimited network, limited model",
            default().unlimited(),
            [vec![n; 50], vec![m; 3]].concat(),
            53,
            50,
            2,
            false,
        ),
        (
            "limited again",
            default().unlimited().max_retries(1),
            vec![n; 2],
            2,
            1,
            0,
            false,
        ),
    ];
    for (name, retry, failures, calls, network, model, answered) in cases {
        for backoff in [Backoff::none(), Backoff::default()] {
            let script = failing(failures.clone());
            let (builder, _) = measured(retry.clone().backoff(backoff));
            let (ended, telemetry) = run(&builder.build(), &script).await;
            assert_eq!(script.calls(), calls, "{name}");
            let metrics = &telemetry.metrics;
            assert_eq!(metrics.network_retries, network, "{name}");
            assert_eq!(metrics.model_retries, model, "{name}");
            match ended {
                Ok(_) => assert!(answered, "{name}"),
                Err(Error::Source { attempts, .. }) => {
                    assert!(!answered, "{name}");
                    assert_eq!(attempts as usize, calls, "{name}");
                }
                Err(other) => panic!("{name}: {other}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_respected_and_a_longer_one_than_the_limit_fails_the_run_at_once() {
    let limited = |delay| Failure::status(429).retry_after(delay);
    let backoff = Retry::new().backoff(Backoff::fixed(100 * MS));
    for (name, retry, failure, delay) in [
        (
            "longer than the back-off",
            backoff.clone(),
            limited(2 * SEC),
            Some(2 * SEC),
        ),
        (
            "shorter than the back-off",
            backoff.clone(),
            limited(30 * MS),
            Some(100 * MS),
        ),
        (
            "zero",
            backoff.clone(),
            limited(Duration::ZERO),
            Some(100 * MS),
        ),
        (
            "beyond the cap of the back-off",
            Retry::new(),
            limited(30 * SEC),
            Some(30 * SEC),
        ),
        (
            "without back-off",
            Retry::new().backoff(Backoff::none()),
            limited(3 * SEC),
            Some(3 * SEC),
        ),
        (
            "at the default limit",
            backoff.clone(),
            limited(60 * SEC),
            Some(60 * SEC),
        ),
        (
            "above the default limit",
            backoff.clone(),
            limited(60 * SEC + MS),
            None,
        ),
        (
            "at a custom limit",
            backoff.clone().max_retry_after(3_600 * SEC),
            limited(3_600 * SEC),
            Some(3_600 * SEC),
        ),
        (
            "above a custom limit",
            backoff.clone().max_retry_after(SEC),
            limited(2 * SEC),
            None,
        ),
        (
            "of a server that failed",
            backoff.clone(),
            Failure::status(503).retry_after(5 * SEC),
            Some(5 * SEC),
        ),
        (
            "of a fatal status",
            backoff.clone(),
            Failure::status(401).retry_after(SEC),
            None,
        ),
        ("unlimited", backoff.clone(), limited(Duration::MAX), None),
    ] {
        let (builder, captured) = measured(retry);
        let start = Instant::now();
        let (ended, telemetry) = run(&builder.build(), &failing([failure])).await;
        assert_eq!(ended.is_ok(), delay.is_some(), "{name}");
        let waited = delays(&captured).first().copied();
        assert_eq!(waited.is_some(), delay.is_some(), "{name}");
        for (waited, at_least) in waited.into_iter().zip(delay) {
            // Up to a tenth more, unless the wait is the back-off itself.
            let most = match failure.retry_after {
                Some(delay) if delay == at_least => delay + (delay / 10).max(50 * MS),
                _ => at_least,
            };
            assert!(at_least <= waited && waited <= most, "{name}: {waited:?}");
        }
        let elapsed = start.elapsed();
        let waited = waited.unwrap_or_default();
        assert!(waited <= elapsed && elapsed <= waited + MS, "{name}");
        for error in telemetry.network.errors.expect("details") {
            assert_eq!(error.delay().unwrap_or_default(), waited, "{name}");
            assert_eq!(error.was_retried(), delay.is_some(), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn runs_with_the_same_retry_after_are_spread_and_never_retry_before_it() {
    for (requested, spread, backoff) in [
        (3 * SEC, 300 * MS, Backoff::none()),
        (3 * SEC, 300 * MS, Backoff::fixed(2 * SEC)),
        (60 * SEC, 6 * SEC, Backoff::default()),
        (100 * MS, 50 * MS, Backoff::none()),
        (MS, 50 * MS, Backoff::none()),
    ] {
        let waits = async || {
            let (builder, captured) = measured(Retry::new().backoff(backoff));
            let l0 = builder.seed(7).build();
            for _ in 0..500 {
                let script = failing([Failure::status(429).retry_after(requested)]);
                let (ended, _) = run(&l0, &script).await;
                ended.expect("answered");
            }
            delays(&captured)
        };
        let delays = waits().await;
        assert_eq!(delays, waits().await, "the same seed repeats them");
        assert_eq!(delays.len(), 500);
        let mut tenths = [0; 10];
        for delay in delays {
            let on_top = delay.checked_sub(requested).expect("not before it");
            let tenth = (on_top.as_secs_f64() / spread.as_secs_f64() * 10.0) as usize;
            tenths[tenth] += 1;
        }
        assert!(tenths.iter().all(|&runs| runs >= 25), "{tenths:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn exact_back_offs_have_exact_delays() {
    let ms = |list: &[u64]| Vec::from_iter(list.iter().copied().map(Duration::from_millis));
    for (backoff, expected) in [
        (Backoff::none(), ms(&[0, 0, 0, 0, 0, 0])),
        (Backoff::fixed(70 * MS), ms(&[70, 70, 70, 70, 70, 70])),
        (
            Backoff::exponential(100 * MS, SEC),
            ms(&[100, 200, 400, 800, 1_000, 1_000]),
        ),
        (
            Backoff::exponential(5 * SEC, SEC),
            ms(&[1_000, 1_000, 1_000, 1_000, 1_000, 1_000]),
        ),
        (
            Backoff::exponential(Duration::ZERO, SEC),
            ms(&[0, 0, 0, 0, 0, 0]),
        ),
    ] {
        let (builder, captured) = measured(Retry::new().backoff(backoff));
        let start = Instant::now();
        run(&builder.build(), &failing([reset(); 6]))
            .await
            .0
            .expect("answered");
        assert_eq!(delays(&captured), expected);
        assert_eq!(start.elapsed(), expected.iter().sum());
    }
}

#[tokio::test(start_paused = true)]
async fn network_and_model_back_offs_grow_independently() {
    let (n, m) = (reset(), Failure::model());
    let (builder, captured) = measured(Retry::new().backoff(Backoff::exponential(MS, SEC)));
    run(&builder.build(), &failing([n, m, n, m, n]))
        .await
        .0
        .expect("answered");
    assert_eq!(delays(&captured), [MS, MS, 2 * MS, 2 * MS, 4 * MS]);
}

#[tokio::test(start_paused = true)]
async fn jittered_delays_fill_their_bounds_and_are_actually_waited() {
    type Bounds = fn(u32) -> (Duration, Duration);
    let cases: [(&str, Backoff, Bounds); 5] = [
        ("default", Backoff::default(), |_| (SEC, 1_500 * MS)),
        ("fixed", Backoff::fixed_jitter(100 * MS, SEC), |_| {
            (100 * MS, 150 * MS)
        }),
        (
            "fixed, capped",
            Backoff::fixed_jitter(100 * MS, 120 * MS),
            |_| (100 * MS, 120 * MS),
        ),
        (
            "fixed, base above the cap",
            Backoff::fixed_jitter(SEC, 120 * MS),
            |_| (120 * MS, 120 * MS),
        ),
        ("full", Backoff::full_jitter(100 * MS, 300 * MS), |retry| {
            (Duration::ZERO, (100 * MS * 2_u32.pow(retry)).min(300 * MS))
        }),
    ];
    for (name, backoff, bounds) in cases {
        // The smallest and the largest share of the bounds that occurred.
        let (mut low, mut high) = (1.0_f64, 0.0_f64);
        for seed in 0..200 {
            let (builder, captured) = measured(Retry::new().backoff(backoff));
            let start = Instant::now();
            run(&builder.seed(seed).build(), &failing([reset(); 6]))
                .await
                .0
                .expect("answered");
            let delays = delays(&captured);
            for (retry, delay) in (0..).zip(&delays) {
                let (least, most) = bounds(retry);
                assert!(
                    (least..=most).contains(delay),
                    "{name}: retry {retry} after {delay:?}"
                );
                if most > least {
                    let share = (*delay - least).as_secs_f64() / (most - least).as_secs_f64();
                    (low, high) = (low.min(share), high.max(share));
                }
            }
            // Tokio's timer rounds each of the six up to a millisecond.
            let waited = start.elapsed() - delays.iter().sum::<Duration>();
            assert!(waited < 6 * MS, "{name}: {waited:?} too long");
        }
        if bounds(0).0 < bounds(0).1 {
            assert!(low < 0.05 && high > 0.95, "{name}: {low} to {high}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn huge_delays_saturate_without_a_panic() {
    const MAX: Duration = Duration::MAX;
    for backoff in [
        Backoff::fixed(MAX),
        Backoff::exponential(MAX, MAX),
        Backoff::exponential(SEC, MAX),
        Backoff::full_jitter(MAX, MAX),
        Backoff::fixed_jitter(MAX, MAX),
        Backoff::fixed_jitter(MAX / 2, MAX),
        Backoff::exponential(Duration::from_nanos(1), 10 * MS),
    ] {
        for seed in 0..3 {
            let (builder, captured) = measured(Retry::new().unlimited().backoff(backoff));
            let (ended, telemetry) =
                run(&builder.seed(seed).build(), &failing([reset(); 40])).await;
            ended.expect("answered");
            assert_eq!(telemetry.metrics.network_retries, 40);
            let reported: Duration = delays(&captured).iter().sum();
            let waited = telemetry.metrics.wait.expect("measured");
            // The timer waits in whole milliseconds.
            assert!(
                waited.abs_diff(reported) <= 40 * MS,
                "{reported:?}: reported delays are waited for"
            );
            if backoff == Backoff::exponential(Duration::from_nanos(1), 10 * MS) {
                assert_eq!(delays(&captured).last(), Some(&(10 * MS)), "at the cap");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn decide_vetoes_a_retry_or_changes_its_delay() {
    for (name, decision, answered) in [
        ("veto", None, false),
        ("at once", Some(Duration::ZERO), true),
        ("later", Some(7 * SEC), true),
        (
            "much later than Retry-After allows",
            Some(3_600 * SEC),
            true,
        ),
    ] {
        let retry = Retry::new()
            .backoff(Backoff::fixed(MS))
            .decide(move |_| decision);
        let (builder, captured) = measured(retry);
        let start = Instant::now();
        let (ended, telemetry) = run(&builder.build(), &failing([reset()])).await;
        assert_eq!(ended.is_ok(), answered, "{name}");
        assert_eq!(delays(&captured), Vec::from_iter(decision), "{name}");
        assert_eq!(start.elapsed(), decision.unwrap_or_default(), "{name}");
        let errors = telemetry.network.errors.expect("details");
        assert_eq!(errors[0].was_retried(), answered, "{name}");
        assert_eq!(errors[0].delay(), decision, "{name}");
        assert_eq!(telemetry.metrics.total_retries, u32::from(answered));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_empty_for_a_reason_completes_with_that_reason_after_one_call() {
    let reasons = [
        FinishReason::Length,
        FinishReason::ContentFilter,
        FinishReason::Refusal,
    ];
    for finish in reasons {
        let scripts = [
            Script::new().attempt(|a| a.finish(finish)),
            Script::new().attempt(|a| a.reasoning("Hm").token(" ").finish(finish)),
            Script::new().attempt(|a| a.finish(finish).usage(Usage::new().output(3))),
            Script::new().attempt(|a| a.finish(finish).fail(reset())),
        ];
        for script in scripts {
            let (builder, captured) = measured(Retry::new());
            let (ended, telemetry) = run(&builder.build(), &script).await;
            assert!(ended.is_ok(), "{finish}: {ended:?}");
            assert_eq!(script.calls(), 1, "{finish}");
            assert_eq!(telemetry.outcome, Some(Outcome::Completed), "{finish}");
            assert_eq!(telemetry.finish_reason, Some(finish));
            assert_eq!(telemetry.error, None, "{finish}");
            assert!(retries(&captured).is_empty(), "{finish}");
        }
        // A finish reason of another attempt applies only to that attempt.
        let script = Script::new()
            .attempt(|a| a.finish(FinishReason::Stop))
            .attempt(|a| a.finish(finish));
        let (builder, _) = measured(Retry::new());
        let (ended, _) = run(&builder.build(), &script).await;
        assert!(ended.is_ok(), "{finish}: {ended:?}");
        assert_eq!(script.calls(), 2, "{finish}");
    }
}

/// The arguments passed to `decide`.
type DecideCall = (u32, RetryReason, RetryKind, FailureKind, Duration, String);

#[tokio::test(start_paused = true)]
async fn decide_is_called_only_for_retries_that_would_happen() {
    let (n, m, ssl) = (
        reset(),
        Failure::model(),
        Failure::network(NetworkErrorKind::SslError),
    );
    let slow = |failure: Failure| failure.retry_after(100 * SEC);
    let cases = [
        ("fatal", failing([Failure::fatal()]), Timeouts::new(), 0),
        (
            "bad key",
            failing([Failure::status(401)]),
            Timeouts::new(),
            0,
        ),
        ("ssl", failing([ssl]), Timeouts::new(), 0),
        (
            "retry-after too long",
            failing([slow(n)]),
            Timeouts::new(),
            0,
        ),
        ("all exhausted", failing([n; 7]), Timeouts::new(), 6),
        ("model exhausted", failing([m; 3]), Timeouts::new(), 2),
        ("both kinds", failing([n, m]), Timeouts::new(), 2),
        (
            "inter-token timeout",
            Script::new()
                .attempt(|a| a.token("a").hang())
                .attempt(|a| a.token("fine")),
            Timeouts::new().inter_token(SEC),
            1,
        ),
        (
            "total timeout, which is not retried",
            Script::new().attempt(|a| a.token("a").hang()),
            Timeouts::new().total(SEC),
            0,
        ),
    ];
    for (name, script, timeouts, times) in cases {
        let calls = Arc::new(Mutex::new(Vec::<DecideCall>::new()));
        let keep = Arc::clone(&calls);
        let retry = Retry::new().backoff(Backoff::fixed(MS)).decide(move |c| {
            keep.lock().unwrap().push((
                c.attempt,
                c.reason,
                c.kind,
                c.failure.kind,
                c.delay,
                c.error.to_string(),
            ));
            Some(c.delay)
        });
        let (builder, captured) = measured(retry);
        let l0 = builder.timeouts(timeouts).build();
        drop(run(&l0, &script).await);
        let calls = calls.lock().unwrap();
        assert_eq!(calls.len(), times, "{name}");
        let reported = retries(&captured);
        for (calls, reported) in calls.iter().zip(reported) {
            let (attempt, reason, kind, failure, delay, error) = calls;
            assert_eq!(
                (*attempt + 1, *reason, *delay, *kind == RetryKind::Network),
                reported,
                "{name}"
            );
            assert_eq!(
                *kind == RetryKind::Model,
                *failure == FailureKind::Model,
                "{name}"
            );
            assert!(!error.is_empty(), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_yielded_once_after_items_were_and_carries_the_attempt() {
    enum Seen {
        Item(&'static str),
        Restart(u32),
    }
    use Seen::{Item, Restart};
    // Built again for each run, because a script continues where the last run ended.
    let cases = || {
        [
            (
                "no item yielded",
                Script::new()
                    .attempt(|a| a.fail(reset()))
                    .attempt(|a| a.connect_error(reset()))
                    .attempt(|a| a.token("a")),
                vec![Item("a")],
            ),
            (
                "items yielded once",
                Script::new()
                    .attempt(|a| a.tokens(["a", "b"]).fail(reset()))
                    .attempt(|a| a.token("c")),
                vec![Item("a"), Item("b"), Restart(2), Item("c")],
            ),
            (
                "items, then failures without items",
                Script::new()
                    .attempt(|a| a.token("a").fail(reset()))
                    .attempt(|a| a.fail(reset()))
                    .attempt(|a| a.connect_error(reset()))
                    .attempt(|a| a.token("b").fail(reset()))
                    .attempt(|a| a.token("c")),
                vec![Item("a"), Restart(2), Item("b"), Restart(5), Item("c")],
            ),
            (
                "only items without a token",
                Script::new()
                    .attempt(|a| a.usage(Usage::new()).fail(reset()))
                    .attempt(|a| a.token("a")),
                vec![Item(""), Restart(2), Item("a")],
            ),
            (
                "the model's fault",
                Script::new()
                    .attempt(|a| a.token(" "))
                    .attempt(|a| a.token("a")),
                vec![Item(" "), Restart(2), Item("a")],
            ),
        ]
    };
    for monitoring in [Monitoring::new(), Monitoring::off()] {
        let l0 = L0::builder()
            .monitoring(monitoring)
            .retry(Retry::new().backoff(Backoff::fixed(MS)))
            .build();
        for (name, script, expected) in cases() {
            let chunks: Vec<_> = l0.stream(script.source()).start().collect().await;
            assert_eq!(chunks.len(), expected.len(), "{name}");
            for (chunk, expected) in chunks.into_iter().zip(&expected) {
                match (chunk.expect("no error"), expected) {
                    (Chunk::Item(item), Item(text)) => assert_eq!(item.text, *text, "{name}"),
                    (Chunk::Restart { attempt, .. }, Restart(number)) => {
                        assert_eq!(attempt, *number, "{name}");
                    }
                    (chunk, _) => panic!("{name}: {chunk:?}"),
                }
            }
        }
        for (name, script, expected) in cases() {
            let mut run = l0.stream(script.source()).start();
            let text: String = expected
                .iter()
                .fold(String::new(), |text, seen| match seen {
                    Item(item) => text + item,
                    Restart(_) => String::new(),
                });
            assert_eq!(run.text().await.expect("no error"), text, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_usage_and_finish_reason_of_failed_attempts_do_not_count_as_those_of_the_answer() {
    let script = Script::new()
        .attempt(|a| {
            a.tokens(["a", "b", "c"])
                .usage(Usage::new().output(3))
                .finish(FinishReason::Length)
                .fail(Failure::status(503))
        })
        .attempt(|a| {
            a.reasoning("hm")
                .tool_call("f")
                .usage(Usage::new())
                .fail(reset())
        })
        .attempt(|a| a.tokens(["a", "b"]));
    let (builder, _) = measured(Retry::new());
    let (ended, telemetry) = run(&builder.build(), &script).await;
    assert_eq!(ended.expect("answered"), "ab");
    assert_eq!(telemetry.metrics.total_tokens, 7);
    assert_eq!(telemetry.metrics.wasted_tokens, 5);
    assert_eq!(telemetry.usage, None);
    assert_eq!(telemetry.wasted_usage, Some(Usage::new().output(3)));
    assert_eq!(telemetry.finish_reason, None);

    let fails = Script::new().attempt(|a| {
        a.token("a")
            .usage(Usage::new().output(1))
            .usage(Usage::new().input(9))
            .fail(Failure::fatal())
    });
    let (builder, _) = measured(Retry::new());
    let (_, telemetry) = run(&builder.build(), &fails).await;
    assert_eq!(telemetry.metrics.wasted_tokens, 0, "no retry discarded it");
    let last = Some(Usage::new().input(9));
    assert_eq!(
        telemetry.usage, last,
        "the last one wins, nothing is added up"
    );
    assert_eq!(telemetry.wasted_usage, None);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_broke_off_without_a_reason_has_the_finish_reason_error() {
    use FinishReason::{Length, Stop};
    let begun = || Script::new().attempt(|a| a.token("a").fail(reset()));
    let role = |a: ScriptedAttempt| a.usage(Usage::new().input(3));
    for (name, script, expected) in [
        ("broken", begun(), Some("error")),
        (
            "broken off in its reasoning",
            Script::new().attempt(|a| a.reasoning("Hm").fail(reset())),
            Some("error"),
        ),
        (
            "timed out",
            Script::new().attempt(|a| a.token("a").hang()),
            Some("error"),
        ),
        (
            "empty",
            Script::new().attempt(|a| a.token(" ")),
            Some("error"),
        ),
        (
            "failed, with a reason",
            Script::new().attempt(|a| a.token("a").finish(Length).fail(Failure::status(401))),
            Some("length"),
        ),
        (
            "failed after a role",
            Script::new().attempt(|a| role(a).fail(reset())),
            None,
        ),
        (
            "timed out after a role",
            Script::new().attempt(|a| role(a).hang()),
            None,
        ),
        (
            "not connected",
            Script::new().attempt(|a| a.connect_error(reset())),
            None,
        ),
        (
            "broken off, then not connected",
            begun().attempt(|a| a.connect_error(reset())),
            None,
        ),
        (
            "mended",
            begun().attempt(|a| a.token("a").finish(Stop)),
            Some("stop"),
        ),
        (
            "retried to completion, without a reason",
            begun().attempt(|a| a.token("a")),
            None,
        ),
    ] {
        let retry = Retry::new().max_retries(1).backoff(Backoff::fixed(MS));
        let (builder, _) = measured(retry);
        let timeouts = Timeouts::new().first_token(SEC).inter_token(SEC);
        let (_, telemetry) = run(&builder.timeouts(timeouts).build(), &script).await;
        assert_eq!(telemetry.finish_reason_or_error(), expected, "{name}");
        // The record contains no reason that a provider did not report.
        let reason_given = telemetry.finish_reason.map(FinishReason::as_str);
        assert_eq!(
            reason_given,
            expected.filter(|reason| *reason != "error"),
            "{name}"
        );
    }
    // The consumer dropped the run, which is not an error of the model.
    for abort in [false, true] {
        let script = Script::new().attempt(|a| a.token("a").hang());
        let (builder, captured) = measured(Retry::none());
        let mut run = builder.build().stream(script.source()).start();
        let live = run.next().await;
        live.expect("an item").expect("no error");
        let live = run.telemetry().expect("measured");
        assert_eq!(live.finish_reason_or_error(), None, "it can continue");
        if abort {
            run.handle().abort();
        }
        drop(run);
        let telemetry = captured.telemetry().expect("measured");
        let outcome = telemetry.outcome;
        assert_eq!(telemetry.finish_reason_or_error(), None, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_after_the_finish_reason_does_not_lose_the_answer() {
    let complete = |end: fn(ScriptedAttempt) -> ScriptedAttempt| {
        Script::new().attempt(move |a| end(a.token("fine").finish(FinishReason::Stop)))
    };
    for (name, script) in [
        ("reset", complete(|a| a.fail(reset()))),
        ("cut", complete(|a| a.fail(io::ErrorKind::UnexpectedEof))),
        ("held open", complete(ScriptedAttempt::hang)),
    ] {
        let (builder, _) = measured(Retry::new());
        let timeouts = Timeouts::new().inter_token(Duration::from_secs(1));
        let l0 = builder.timeouts(timeouts).build();
        let (ended, telemetry) = run(&l0, &script).await;
        assert_eq!(ended.expect("answered"), "fine", "{name}");
        assert_eq!(script.calls(), 1, "{name}");
        assert_eq!(
            telemetry.network.error_count, 1,
            "{name}: seen all the same"
        );
        assert_eq!(telemetry.metrics.total_retries, 0, "{name}");
    }
    let script = complete(|a| a.fail(Failure::fatal()));
    let (builder, _) = measured(Retry::new());
    let (ended, _) = run(&builder.build(), &script).await;
    ended.expect_err("an error other than the connection's is returned");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_always_fails_immediately_lets_other_tasks_run() {
    let script = Script::new().attempt(|a| a.connect_error(reset()));
    let endless = Retry::new().unlimited().backoff(Backoff::none());
    for timeouts in [
        Timeouts::new(),
        Timeouts::new().total(Duration::from_millis(50)),
    ] {
        let (builder, _) = measured(endless.clone());
        let l0 = builder.timeouts(timeouts).build();
        let mut run = l0.stream(script.source()).start();
        let other = async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            ended = run.text() => panic!("{ended:?}"),
            () = other => {}
        }
        assert!(script.calls() > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_used_as_a_source_is_classified_by_its_error() {
    use futures_util::TryStreamExt;

    for (name, aborts, inner, calls) in [
        (
            "aborted",
            true,
            Script::new().attempt(ScriptedAttempt::hang),
            1,
        ),
        (
            "truncated",
            false,
            Script::new().attempt(|a| a.token("a")),
            3,
        ),
    ] {
        let inner_l0 = L0::builder().retry(Retry::none()).build();
        let (builder, _) = measured(Retry::new().max_retries(2).backoff(Backoff::none()));
        let outer = builder.build();
        let mut run = outer
            .stream(|_| {
                let mut run = inner_l0.stream(inner.source()).expect_finish();
                if aborts {
                    run = run.until(async {});
                }
                let items = run
                    .start()
                    .try_filter_map(|chunk| std::future::ready(Ok(chunk.into_item())));
                std::future::ready(Ok(items.boxed()))
            })
            .start();
        run.text().await.expect_err("fails");
        let telemetry = run.telemetry().expect("measured");
        assert_eq!(telemetry.metrics.attempts, calls, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn classify_overrides_the_default_reading_and_none_keeps_it() {
    type Classify = fn(&ScriptedError) -> Option<Failure>;
    let reads: [(&str, Classify, ScriptedError, usize); 5] = [
        ("default", |_| None, reset().into(), 2),
        (
            "classified as fatal",
            |_| Some(Failure::fatal()),
            reset().into(),
            1,
        ),
        (
            "classified as network",
            |_| Some(reset()),
            "nonsense".into(),
            2,
        ),
        (
            "classified as the model's fault",
            |_| Some(Failure::model()),
            Failure::status(401).into(),
            2,
        ),
        (
            "by its text",
            |error| error.to_string().contains("again").then(Failure::model),
            "once again".into(),
            2,
        ),
    ];
    for (name, classify, error, calls) in reads {
        let script = Script::new()
            .attempt(|a| a.fail(error.clone()))
            .attempt(|a| a.token("fine"));
        let classified = Arc::new(Mutex::new(0));
        let count = Arc::clone(&classified);
        let mut run = L0::default()
            .stream(script.source())
            .classify(move |error| {
                *count.lock().unwrap() += 1;
                classify(error)
            })
            .start();
        assert_eq!(run.text().await.is_ok(), calls == 2, "{name}");
        assert_eq!(script.calls(), calls, "{name}");
        assert_eq!(*classified.lock().unwrap(), 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_visible_text_media_or_tool_call_is_a_model_failure() {
    let text = |text: &'static str| Script::new().attempt(move |a| a.token(text));
    for (name, script, zero) in [
        ("nothing", Script::new().attempt(|a| a), true),
        ("empty", text(""), true),
        ("white space", text(" \n\t\u{a0}\u{3000}"), true),
        (
            "zero-width characters",
            text("\u{200b}\u{feff}\u{ad}"),
            true,
        ),
        ("controls", text("\0\u{1b}\u{85}"), true),
        ("punctuation", text("...!?-—„“"), false),
        ("an empty list", text("[]"), false),
        ("emoji", text("🙂🎉"), false),
        ("underscores", text("___"), false),
        ("Japanese", text("日本語"), false),
        ("Arabic", text("نعم"), false),
        ("a digit", text("7"), false),
        ("a digit of another script", text("٣"), false),
        ("a letter", text("a"), false),
        ("one letter repeated", text("aaaa"), false),
        ("an accent", text("é"), false),
        (
            "a letter at the end",
            Script::new().attempt(|a| a.tokens(["\t", " ", "\n", "x"])),
            false,
        ),
        (
            "reasoning only",
            Script::new().attempt(|a| a.reasoning("I think")),
            true,
        ),
        (
            "a tool call",
            Script::new().attempt(|a| a.tool_call("{}")),
            false,
        ),
        (
            "media",
            Script::new().attempt(ScriptedAttempt::media),
            false,
        ),
        (
            "usage and a finish reason only",
            Script::new().attempt(|a| a.usage(Usage::new().output(3)).finish(FinishReason::Stop)),
            true,
        ),
        (
            "the finish reason of tool calls, without a tool call",
            Script::new().attempt(|a| a.finish(FinishReason::ToolCalls)),
            true,
        ),
    ] {
        let (builder, captured) = measured(Retry::new().backoff(Backoff::fixed(MS)));
        let (ended, telemetry) = run(&builder.build(), &script).await;
        let metrics = &telemetry.metrics;
        assert_eq!(matches!(ended, Err(Error::ZeroOutput)), zero, "{name}");
        assert_eq!(ended.is_err(), zero, "{name}");
        let outcome = if zero {
            Outcome::Failed
        } else {
            Outcome::Completed
        };
        assert_eq!(telemetry.outcome, Some(outcome), "{name}");
        assert_eq!(metrics.model_retries, if zero { 2 } else { 0 }, "{name}");
        assert_eq!(metrics.network_retries, 0, "{name}");
        assert_eq!(telemetry.network.error_count, 0, "{name}");
        for (_, reason, _, network) in retries(&captured) {
            assert_eq!(
                (reason, network),
                (RetryReason::ZeroOutput, false),
                "{name}"
            );
        }

        let (builder, _) = measured(Retry::new());
        let (ended, _) = run(&builder.detect_zero_output(false).build(), &script).await;
        ended.unwrap_or_else(|error| panic!("{name}, not detected: {error}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_its_finish_reason_is_retried_as_a_network_error() {
    let truncated = |script: Script| script.attempt(|a| a.tokens(["par", "tial"]));
    let answered = |script: Script| script.attempt(|a| a.token("fine").finish(FinishReason::Stop));
    for (name, script, calls, ended) in [
        ("finished", answered(Script::new()), 1, Ok("fine")),
        (
            "truncated once",
            answered(truncated(Script::new())),
            2,
            Ok("fine"),
        ),
        ("always", truncated(Script::new()), 7, Err(())),
        (
            "empty",
            answered(Script::new().attempt(|a| a)),
            2,
            Ok("fine"),
        ),
    ] {
        let (builder, captured) = measured(Retry::new());
        let mut run = builder
            .build()
            .stream(script.source())
            .expect_finish()
            .start();
        let text = run.text().await;
        assert_eq!(script.calls(), calls, "{name}");
        match (text, ended) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected, "{name}"),
            (Err(Error::Truncated), Err(())) => {
                assert_eq!(run.outcome(), Some(Outcome::Truncated), "{name}");
            }
            (text, _) => panic!("{name}: {text:?}"),
        }
        for (_, reason, _, network) in retries(&captured) {
            assert_eq!((reason, network), (RetryReason::Truncated, true), "{name}");
        }
        let network = run.telemetry().expect("measured").network;
        let failures = if ended.is_ok() { calls - 1 } else { calls } as u64;
        assert_eq!(network.error_count, failures, "{name}");
        let partial = network.errors_by_type.get(&NetworkErrorKind::PartialChunks);
        assert_eq!(partial.copied().unwrap_or_default(), failures, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_network_error_is_kept_with_its_time_attempt_and_delay() {
    let script = Script::new()
        .attempt(|a| a.wait(30 * MS).fail(io::ErrorKind::BrokenPipe))
        .attempt(|a| a.connect_error(Failure::status(503)))
        .attempt(|a| a.token(" "))
        .attempt(|a| a.wait(5 * MS).token("a").fail("invalid peer certificate"));
    let (builder, captured) = measured(Retry::new().backoff(Backoff::fixed(100 * MS)));
    let (_, telemetry) = run(&builder.build(), &script).await;
    let errors = telemetry.network.errors.expect("details");
    let start = telemetry.start_time.as_millis();
    let details = errors.iter().map(|error| {
        (
            error.kind,
            error.timestamp.as_millis() - start,
            error.was_retried(),
            error.delay(),
            error.attempt,
        )
    });
    use NetworkErrorKind as Kind;
    let expected = [
        (Kind::ConnectionDropped, 30, true, Some(100 * MS), Some(1)),
        (Kind::ServerError, 130, true, Some(100 * MS), Some(2)),
        (Kind::SslError, 335, false, None, Some(4)),
    ];
    assert_eq!(details.collect::<Vec<_>>(), expected);
    assert!(errors[0].message.contains("broken pipe"));
    assert_eq!(telemetry.network.error_count, 3);

    let reported = captured.events().into_iter();
    let reported = reported.filter_map(|event| match event {
        OwnedEvent::NetworkError {
            kind,
            message,
            delay,
            attempt,
            ..
        } => Some((kind, message, delay.is_some(), delay, attempt)),
        _ => None,
    });
    let kept = errors.into_iter().map(|e| {
        (
            e.kind,
            e.message.clone(),
            e.was_retried(),
            e.delay(),
            e.attempt,
        )
    });
    assert_eq!(reported.collect::<Vec<_>>(), kept.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn details_of_network_errors_are_limited_and_their_counts_are_exact() {
    const FAILURES: usize = 250;
    let failures = [reset(), Failure::status(503)].into_iter().cycle();
    let script = failing(failures.take(FAILURES));
    let retry = Retry::new().unlimited().backoff(Backoff::fixed(MS));
    let (builder, captured) = measured(retry.clone());
    let (_, telemetry) = run(&builder.build(), &script).await;
    let network = telemetry.network;
    assert_eq!(network.error_count, FAILURES as u64);
    assert_eq!(
        Vec::from_iter(network.errors_by_type),
        [
            (NetworkErrorKind::Econnreset, 125),
            (NetworkErrorKind::ServerError, 125)
        ]
    );
    let errors = network.errors.expect("details");
    assert_eq!(errors.len(), Network::MAX_ERRORS);
    let attempts = errors.iter().map(|error| error.attempt.expect("known"));
    assert!(attempts.eq(151..=250), "the latest, oldest first");
    let count = |name| {
        captured
            .kinds()
            .iter()
            .filter(|kind| **kind == name)
            .count()
    };
    assert_eq!(count("network_error"), FAILURES);

    let (builder, _) = measured(retry);
    let monitoring = Monitoring::new().include_network_details(false);
    let l0 = builder.monitoring(monitoring).build();
    let (_, telemetry) = run(&l0, &failing([reset(); 3])).await;
    assert_eq!(telemetry.network.error_count, 3);
    assert_eq!(telemetry.network.errors, None);
}

#[tokio::test(start_paused = true)]
async fn the_source_of_a_failed_attempt_is_dropped_before_the_back_off() {
    /// Lives as long as the factory's future.
    struct Held(Arc<()>);
    let script = Script::new()
        .attempt(|a| a.token("a").fail(reset()))
        .attempt(|a| a.token(" "))
        .attempt(|a| a.connect_error(reset()))
        .attempt(ScriptedAttempt::connect_hang)
        .attempt(|a| a.token("fine"));
    let held = Arc::new(());
    let open = Arc::new(Mutex::new(Vec::new()));
    let (seen, watched, counted) = (Arc::clone(&open), Arc::clone(&held), script.clone());
    let l0 = L0::builder()
        .timeouts(Timeouts::new().first_token(SEC))
        .interceptor(
            observe_fn(move |_, _| {
                let streams = counted.dropped();
                seen.lock()
                    .unwrap()
                    .push((streams, Arc::strong_count(&watched)));
            })
            .filter(|event| matches!(event, Event::Retry { .. })),
        )
        .build();
    let mut run = l0
        .stream(|_| {
            let (script, held) = (script.clone(), Held(Arc::clone(&held)));
            async move {
                let stream = script.connect().await;
                drop(held.0);
                stream
            }
        })
        .start();
    assert_eq!(run.text().await.expect("answered"), "fine");
    // Dropped streams, and references: one here, one in the observer.
    assert_eq!(*open.lock().unwrap(), [(1, 2), (2, 2), (2, 2), (2, 2)]);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_numbered_from_one_for_factory_and_events() {
    let script = failing([reset(), Failure::model(), reset()]);
    let (builder, captured) = measured(Retry::new());
    let numbers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&numbers);
    let mut source = script.source();
    let mut run = builder
        .build()
        .stream(move |attempt| {
            seen.lock().unwrap().push(attempt.number());
            source(attempt)
        })
        .start();
    run.text().await.expect("answered");
    assert_eq!(*numbers.lock().unwrap(), [1, 2, 3, 4]);
    let started = captured.events().into_iter();
    let started = started.filter_map(|event| match event {
        OwnedEvent::AttemptStarted { number, .. } => Some(number),
        _ => None,
    });
    assert_eq!(started.collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_drops_the_run_at_a_restart_leaves_no_record_of_an_attempt_that_was_not_made()
 {
    for abort in [false, true] {
        let script = Script::new()
            .attempt(|a| a.token("a").fail(reset()))
            .attempt(|a| a.token("fine"));
        let (builder, captured) = measured(Retry::new());
        let mut run = builder.build().stream(script.source()).start();
        assert!(matches!(run.next().await, Some(Ok(Chunk::Item(_)))));
        let restart = run.next().await;
        assert!(matches!(
            restart,
            Some(Ok(Chunk::Restart { attempt: 2, .. }))
        ));
        if abort {
            run.handle().abort();
            run.text().await.expect_err("aborted");
        }
        drop(run);
        assert_eq!(script.calls(), 1);
        let kinds = captured.kinds().into_iter();
        assert_eq!(kinds.filter(|kind| *kind == "attempt_started").count(), 1);
        let metrics = captured.telemetry().expect("measured").metrics;
        assert_eq!((metrics.attempts, metrics.total_retries), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn the_final_attempt_is_not_wasted() {
    let usage = Usage::new().input(9).output(3);
    let fails = || {
        Script::new().attempt(move |a| {
            a.tokens(["a", "b", "c"])
                .usage(usage)
                .finish(FinishReason::Length)
                .wait(500 * MS)
                .fail(Failure::status(503))
        })
    };
    let check = |what: &str, telemetry: &Telemetry, retries| {
        let metrics = &telemetry.metrics;
        assert_eq!(
            (metrics.total_tokens, metrics.network_retries),
            (3, retries),
            "{what}"
        );
        assert_eq!(metrics.wasted_tokens, 0, "{what}");
        assert_eq!(telemetry.usage, Some(usage), "{what}");
        assert_eq!(telemetry.wasted_usage, None, "{what}");
        assert_eq!(
            telemetry.finish_reason,
            Some(FinishReason::Length),
            "{what}"
        );
    };
    let retry = |delay| Retry::new().backoff(Backoff::fixed(delay));

    for (what, delay) in [
        ("no time left for a retry", Duration::ZERO),
        ("no time left for the back-off", SEC),
    ] {
        let (builder, _) = measured(retry(delay));
        let timeouts = Timeouts::new().total(500 * MS);
        let (ended, telemetry) = run(&builder.timeouts(timeouts).build(), &fails()).await;
        ended.expect_err("the run takes too long");
        check(what, &telemetry, 0);
    }

    let (builder, captured) = measured(retry(SEC));
    let script = fails();
    let mut run = builder.build().stream(|_| script.connect()).start();
    let _ = tokio::time::timeout(SEC, run.text()).await;
    drop(run);
    let telemetry = captured.telemetry().expect("measured");
    check("dropped in the back-off", &telemetry, 1);
}
